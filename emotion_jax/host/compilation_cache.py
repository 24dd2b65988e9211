"""What XLA compiled, kept from one start of a program to the next; for the entry points alone."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import stat
import sys
from pathlib import Path

# Seconds of compiling below which nothing is kept: the network takes a second, the rest less.
_WORTH_S = 0.1


def enable_compilation_cache() -> Path | None:
    """Let JAX keep what it compiles in a folder of the user's; to be called before JAX is imported.

    The folder is `xla-<JAX's version>-<processor>` in `$XDG_CACHE_HOME/emotion_jax`, by default
    `~/.cache/emotion_jax`. What lies there is run as it is: it is made for its owner alone, and one
    that others can write is not used, which is said on standard error. Where no folder can be made
    everything is compiled anew. Who has set `JAX_COMPILATION_CACHE_DIR` has their own.

    Returns:
      the folder, where it is used: what lies there is this user's own.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return None
    # Machine code: another processor, on a home that machines share, might not run it.
    version = importlib.metadata.version("jax")
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
        folder = Path(home) / "emotion_jax" / f"xla-{version}-{_processor()}"
        folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
        suspect = next((path for path in (folder.parent, folder) if not _is_private(path)), None)
    except (OSError, RuntimeError):  # no home, or none to write to: slower, and no more than that
        return None
    if suspect is not None:
        what = f"others can write '{suspect}', so what was compiled is not kept there"
        print(f"note: {what}; chmod 700 it, or remove it", file=sys.stderr)
        return None
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", str(_WORTH_S))
    # On some processors XLA distrusts what it wrote itself, says so at length and compiles anew.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return folder


def _is_private(folder: Path) -> bool:
    """Whether it is a folder, no link, of this user, and nobody else can write there."""
    status = folder.lstat()
    shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not shared


def _processor() -> str:
    """Eight digits that differ where machine code could."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # macOS has no such file, and each machine its own home
        lines = []
    kinds = ("vendor_id", "model", "flags", "Features", "CPU ")
    said = sorted({line for line in lines if line.startswith(kinds)})
    return hashlib.sha256("\n".join([platform.machine(), *said]).encode()).hexdigest()[:8]
