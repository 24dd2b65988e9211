"""Files that are whole whatever happens: replaced in one move, and room for them tried first."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Writes a text as UTF-8, see `replace_bytes`."""
    replace_bytes(path, text.encode())


def replace_bytes(path: Path, content: bytes) -> None:
    """Writes a file in one move: a kill or a full disk leaves the old one or the new, no mixture.

    Of several processes that write the same file at once, one's is left, whole.

    Raises:
      OSError: it cannot be written; what was there is as it was.
    """
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def require_room(folder: Path, size: int) -> None:
    """Raises OSError if `size` bytes cannot be written in `folder`: the disk is full, or a quota.

    The file that tries it has no name, so that a kill leaves nothing behind.
    """
    if hasattr(os, "posix_fallocate"):  # macOS has none: there the writing itself must tell
        with tempfile.TemporaryFile(dir=folder) as file:
            os.posix_fallocate(file.fileno(), 0, size)
