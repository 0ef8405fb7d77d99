"""Regular expressions of users, in the dialect of RE2, which is Envoy's: linear in time, bounded in size."""

from __future__ import annotations

MOST_CHARACTERS = 4096
MOST_STEPS = 1000  # of a program of RE2; what Envoy is told to take (templates/envoy-config.yaml of the chart)


def expression_problem(pattern: str, *, most_steps: int = MOST_STEPS) -> str:
    """What is wrong with a regular expression, as a sentence goes on that begins with its field; empty: nothing."""
    import re2  # a library of its own, for objects that need it

    if len(pattern) > MOST_CHARACTERS:
        return f"has {len(pattern)} characters: a regular expression may have {MOST_CHARACTERS}"
    quiet = re2.Options()
    quiet.log_errors = False  # it is said where the object is, and nowhere else
    try:
        steps = re2.compile(pattern, quiet).programsize
    except re2.error as exc:
        said = exc.args[0].decode() if exc.args and isinstance(exc.args[0], bytes) else str(exc)
        return f"is not a regular expression: {said}"
    if steps > most_steps:
        return f"is a program of {steps} steps, Envoy takes {most_steps}: repeat less, or write several rules"
    return ""
