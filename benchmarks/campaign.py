"""A set of training runs: all that time is left for, and the machines that took part."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from measuring import commit
from running import Run, Runner, TimeIsUp

from emotion_jax.errors import EmotionError

# In a process of its own: it would hold the device's memory.
DEVICE = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from measuring import device_name
print("\\n" + device_name())
"""


def train_all(runner: Runner, runs: Sequence[Run]) -> int:
    """Trains all runs that time is left for; returns how many failed."""
    failed = 0
    try:
        if not all(runner.find(each.label) for each in runs):
            _note_machine(runner)
        for each in runs:
            try:
                runner.train(each)
            except EmotionError as error:  # the others may do better
                failed += 1
                print(error, file=sys.stderr)
    except TimeIsUp:
        print("the time is up: the same command goes on")
    return failed


def machines(runner: Runner) -> list[dict[str, Any]]:
    """What trained: `device`, `commit` and `versions`, of each set of them that took part."""
    rows = [row for row in runner.rows() if row["name"] == "machine"]
    return [{key: row[key] for key in ("device", "commit", "versions")} for row in rows]


def in_a_line(machine: dict[str, Any]) -> str:
    """One of `machines` in words."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return f"{machine['device']}; {versions}; commit {machine['commit'] or 'unknown'}"


def _note_machine(runner: Runner) -> None:
    machine = {
        "device": runner.call("device", ["-c", DEVICE]).splitlines()[-1],
        "commit": commit(),
        "versions": {name: version(name) for name in ("jax", "flax", "optax")},
    }
    label = f"on {json.dumps(machine)}"
    if not runner.find(label):
        runner.keep({"label": label, "name": "machine", **machine})
