"""What a folder held when it was written: SHA-256 of each file, so that damage is seen."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from emotion_jax.host.atomic import replace_text
from emotion_jax.host.json_files import parse_json

MANIFEST = "sha256.json"


def write_manifest(folder: Path) -> None:
    """Writes `folder/sha256.json`, in one move: a kill leaves it whole or leaves none.

    Args:
      folder: whose files are all written; those of its folders count, too.

    Raises:
      OSError: a file cannot be read, or the manifest cannot be written.
    """
    digests = {name: file_sha256(path) for name, path in _files(folder).items()}
    replace_text(folder / MANIFEST, json.dumps(digests, indent=1) + "\n")


def find_damage(folder: Path) -> str | None:
    """Says what differs from the manifest in a few words; None where all is as it was written."""
    try:
        stored = parse_json((folder / MANIFEST).read_bytes())
        files = _files(folder)
        if not isinstance(stored, dict) or not stored:
            return f"{MANIFEST} is no manifest"
        for name, digest in stored.items():
            if name not in files:
                return f"{name} is missing"
            if file_sha256(files[name]) != digest:
                return f"{name} is not as it was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except ValueError:
        return f"{MANIFEST} is no manifest"
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    return None


def file_sha256(path: Path) -> str:
    """A hash of a file's content, as 64 hexadecimal digits.

    Raises:
      OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> dict[str, Path]:
    """Every file by its name within the folder: what a manifest names outside is never opened."""
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*")}
    # Its own are the manifest and what a kill left of one: see `atomic.replace_bytes`.
    own = re.compile(rf"{re.escape(MANIFEST)}(\.\d+\.new)?")
    return {
        name: paths[name]
        for name in sorted(paths)
        if paths[name].is_file() and not own.fullmatch(name)
    }
