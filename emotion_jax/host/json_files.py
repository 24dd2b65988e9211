"""JSON that others wrote: parsed, or refused by one kind of error."""

from __future__ import annotations

import json
from typing import Any


def parse_json(data: bytes) -> Any:
    """Parses the content of a JSON file.

    Raises:
      ValueError: it is no JSON, or nests so deeply that no program of ours wrote it.
    """
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error
