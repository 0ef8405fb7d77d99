"""How a command fails: one sentence that names the object, a next step, and the exit code.

0 is success, 1 failed or unhealthy, 2 a wrong command line or wrong input, 130 interrupted.
"""

from __future__ import annotations

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class Failure(Exception):
    """The command cannot go on. `hint` is what to try next; `code` the exit code."""

    def __init__(self, message: str, *, hint: str = "", code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


class BadInput(Failure):
    """The command line or a file given on it is wrong: exit code 2."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint, code=EXIT_USAGE)
