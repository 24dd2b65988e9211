"""Numbers in the sentences that people read."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """Say how many there are of something whose plural ends in s: "1 face", "2 faces"."""
    return f"{number} {noun}" + ("" if number == 1 else "s")
