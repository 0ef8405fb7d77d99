"""What can be wrong with a request for flows."""


class FilterError(ValueError):
    """A filter that cannot be understood; the message names the field and the value."""
