"""Log lines for people and for the tools that read Cilium's: `time=… level=info msg="…" subsys=…`, on stderr."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

_LEVELS = {"DEBUG": "debug", "INFO": "info", "WARNING": "warn", "ERROR": "error", "CRITICAL": "fatal"}


class LogfmtFormatter(logging.Formatter):
    """One line per record; a traceback goes into the message, escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter."""
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        level = _LEVELS.get(record.levelname, record.levelname.lower())
        subsystem = record.name.removeprefix("mycel.")
        return f"time={when.replace('+00:00', 'Z')} level={level} msg={quote(message)} subsys={subsystem}"


def quote(text: str) -> str:
    """Quoted where logfmt needs it."""
    if text and all(each.isalnum() or each in "-_./:,@" for each in text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{escaped}"'


def set_up(*, debug: bool) -> None:
    """Log to stderr; libraries only what is wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogfmtFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("mycel").setLevel(logging.DEBUG if debug else logging.INFO)
