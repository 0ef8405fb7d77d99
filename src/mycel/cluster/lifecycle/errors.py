"""What making or removing a cluster can fail with."""

from __future__ import annotations


class LifecycleError(Exception):
    """A sentence for the person at the terminal: what failed and what to do next."""


class Refused(LifecycleError):
    """Refused before anything was made: the name is taken, or the machine lacks something."""


class ConfigInvalid(LifecycleError):
    """The cluster file asks for something wrong or unsupported; the message names the field's path."""
