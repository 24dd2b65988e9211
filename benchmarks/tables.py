"""The scores of training runs as a table: means over seeds, deviations, gains on a base."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

# By heading: of which faces, which score, how many of its unit make 1, and its decimals.
COLUMNS = {
    "validation": ("validation", "accuracy", 100, 2),
    "test": ("test", "accuracy", 100, 2),
    "test, mirrored": ("test_mirrored", "accuracy", 100, 2),
    "test loss": ("test", "loss", 1, 3),
}
# What is also shown as a gain on the run of the base that has the same seed: most of what chance
# gives the one it gives the other, so gains spread less than scores.
COMPARED = ("test", "test loss")


def table(rows: Sequence[Mapping[str, Any]], about: Mapping[str, str], base: str = "") -> str:
    """The finished runs as Markdown: a line a variant, scores as mean, deviation and number.

    Args:
      rows: as `Runner.rows` gives them.
      about: what each variant changes, by its name.
      base: the variant on which the others' gains are shown, in columns of their own.
    """
    variants = {row["name"]: [r for r in rows if r["name"] == row["name"]] for row in rows}
    first = {row["seed"]: row for row in variants.get(base, ())}
    compared = COMPARED if first else ()
    head = ["variant", "what differs", "n", *COLUMNS, *(f"{name} - {base}'s" for name in compared)]
    lines = [head, ["---"] * 2 + ["---:"] * (len(head) - 2)]
    for name, mine in variants.items():
        cells = [spread([score(row, column) for row in mine], column) for column in COLUMNS]
        pairs = [(row, first[row["seed"]]) for row in mine if row.get("seed") in first]
        for column in compared:
            gains = [gain(*pair, column) for pair in pairs if name != base]
            cells.append(spread(gains, column, sign="+"))
        lines.append([name, about.get(name, ""), str(len(mine)), *cells])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def score(row: Mapping[str, Any], column: str) -> float | None:
    """What a run has in a column; None where it has nothing, or no finite number."""
    faces, key, scale, _ = COLUMNS[column]
    value = row.get(faces, {}).get(key)
    return None if value is None else scale * value


def gain(row: Mapping[str, Any], base: Mapping[str, Any], column: str) -> float | None:
    """How much more one run has in a column than another."""
    one, other = score(row, column), score(base, column)
    return None if one is None or other is None else one - other


def spread(values: Sequence[float | None], column: str, sign: str = "") -> str:
    """Mean and sample deviation; a dash where there is nothing."""
    numbers, digits = [x for x in values if x is not None], COLUMNS[column][-1]
    if not numbers:
        return "-"
    mean = f"{statistics.mean(numbers):{sign}.{digits}f}"
    more = f" ± {statistics.stdev(numbers):.{digits}f}" if len(numbers) > 1 else ""
    return mean + more
