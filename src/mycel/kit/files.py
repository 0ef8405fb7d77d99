"""Files that another process may read at any moment: there whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def replace_private(path: Path, content: Iterable[bytes]) -> None:
    """Make `path` a file of mode 0600 with this content, in place of what it was (rename(2)). Raises OSError."""
    temporary = path.with_name(f"{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.writelines(content)
    temporary.rename(path)
