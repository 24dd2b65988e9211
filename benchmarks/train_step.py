"""How fast the networks train, step by step, beside PyTorch and Keras on the same device.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --network=simplenet --precision=bfloat16 --batch=512,1024 \\
        --implementation=ours,ours:pad8,ours:pad8+bits8,torch,torch:max-autotune \\
        then --network=vgg16 --batch=256 --implementation=ours,torch

Each row is a process of its own, one after the other: the same network, noise, loss and AdamW,
warmed up, the device waited for, medians. Float32 is TF32 where the device has it. `mfu` is the
step's FLOPs, counted by `flops.py`, by the time they would take at the rate of the matrix product
measured in the same call and precision; `ratio_to_torch` and `ratio_to_keras` are by that one's
best row of the network and precision. Peak memory is the device's, on a CPU the process's. `ours:`
takes the levers that `levers.py` explains; `torch:` a mode of `torch.compile`, or eager. What is
not installed is left out. After `then` come more rows; what is not said again stays.

The rows are kept in `--output`, by default `benchmarks/results/train_step-<device>.json`, as they
come, each with its commit, versions, matrix product and XLA_FLAGS; the same command again measures
only those that miss. What failed is kept under `failed`, with the reason; `--again` tries it anew.
Outside a checkout the environment's COMMIT names the code.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import re
import sys
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

from flops import SIZES, training_flops
from levers import complaint
from measuring import Failed, Late, ask, commit, processor, results_path, save_table

from emotion_jax.host.atomic import replace_text

HERE = Path(__file__).parent
# What tells a row from another, and what rows have that do not say it.
KEY = ("network", "precision", "batch", "implementation", "width", "xla_flags")
PLAIN = {"width": 1.0, "xla_flags": ""}
PEERS = ("torch", "keras")

Row = dict[str, Any]
# What is wanted, in order: rows by their values of KEY, and the group that asked for them.
Asked = dict[tuple[Any, ...], argparse.Namespace]


def main(arguments: list[str] | None = None) -> int:
    """Measure what is asked for, and print the table."""
    groups = parse(sys.argv[1:] if arguments is None else arguments)
    flags = groups[-1]
    asked: Asked = {}
    for group in groups:
        for key in list_keys(group):
            asked.setdefault(key, group)
    path: Path = flags.output
    if path.suffix != ".json" or missing(read(path), asked, flags.again):
        if (found := fill(asked, flags)) is None:
            return 1
        path = found
    table = read(path)
    if not table["rows"]:
        why = "; ".join(map(describe_failed, table["failed"])) or "no time was left"
        print(f"no row was measured: {why}", file=sys.stderr)
        return 1
    show(table)
    return 0


def fill(asked: Asked, flags: argparse.Namespace) -> Path | None:
    """Measures the rows that miss; where they are kept, or None if nothing can be measured."""
    deadline = time.monotonic() + flags.limit
    session = begin(asked, flags)
    if session is None:
        return None
    path = results_path(flags.output, "train_step", session["device"])
    table = read(path)
    if table.setdefault("device", session["device"]) != session["device"]:
        print(f"{path}: has rows of {table['device']}; name another --output", file=sys.stderr)
        return None
    table["matmul_tflops"] |= session["matmul_tflops"]
    for key in missing(table, asked, flags.again):
        if not measure(table, key, asked[key], session["commit"], deadline, path.parent):
            print("time is up; the same command goes on from here", file=sys.stderr)
            break
        save_table(table, path)
    return path


def parse(arguments: list[str] | None) -> list[argparse.Namespace]:
    """What each group of rows asks for; the limits that hold for all are the last one's."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )

    words = partial(str.split, sep=",")

    def numbers(text: str) -> list[int]:
        return [int(word) for word in text.split(",")]

    add = parser.add_argument
    add("--network", type=words, default=list(SIZES))
    add("--precision", type=words, default=["float32", "bfloat16"])
    add("--batch", type=numbers, default=[128, 256, 512])
    add("--implementation", type=words, default=["ours", *filter(importlib.util.find_spec, PEERS)])
    add("--seconds", type=float, default=5.0, help="to measure a row for")
    add("--row_limit", type=float, default=600.0, help="seconds; a row that takes longer failed")
    add("--width", type=float, default=1.0, help="of the layers; below 1 only to rehearse")
    add("--limit", type=float, default=86_400.0, help="seconds; no row is measured after")
    add("--again", action="store_true", help="try what failed, too")
    add("--output", type=Path, default=HERE / "results", help="a .json file, or a folder for it")
    groups: list[argparse.Namespace] = [argparse.Namespace()]
    while arguments is not None:
        end = arguments.index("then") if "then" in arguments else len(arguments)
        before = argparse.Namespace(**vars(groups[-1]))
        groups.append(parser.parse_args(arguments[:end], before))
        arguments = arguments[end + 1 :] if end < len(arguments) else None
    for flags in groups[1:]:
        if wrong := find_wrong(flags):
            parser.exit(2, f"{parser.prog}: {wrong}\n")
    return groups[1:]


def find_wrong(flags: argparse.Namespace) -> str:
    """What cannot be measured of what a group asks for, or nothing."""
    for name, known in (("network", list(SIZES)), ("precision", ["float32", "bfloat16"])):
        for word in getattr(flags, name):
            if word not in known:
                return f"--{name}: '{word}': use {' or '.join(known)}"
    wrong = filter(None, map(complaint, flags.implementation))
    return next((f"--implementation: {sentence}" for sentence in wrong), "")


def list_keys(flags: argparse.Namespace) -> list[tuple[Any, ...]]:
    """The rows that a group asks for, each as its values of KEY."""
    given = " ".join(os.environ.get("XLA_FLAGS", "").split())
    keys = itertools.product(flags.network, flags.precision, flags.batch, flags.implementation)
    # PyTorch does not read XLA's flags.
    return [(*key, flags.width, "" if key[3].startswith("torch") else given) for key in keys]


def missing(table: Row, asked: Iterable[tuple[Any, ...]], again: bool) -> list[tuple[Any, ...]]:
    """What is asked for and neither measured nor, unless it is tried again, failed."""
    rows = table["rows"] if again else [*table["rows"], *table["failed"]]
    known = {tuple(row[k] for k in KEY) for row in rows}
    return [key for key in asked if key not in known]


def begin(asked: Asked, flags: argparse.Namespace) -> Row | None:
    """The device, its matrix products in the precisions asked for, and the commit."""
    precisions = list(dict.fromkeys(key[1] for key in asked))
    words = {"task": "matmul", "precisions": precisions, "seconds": flags.seconds}
    try:
        found = ask("ours", limit=min(flags.limit, flags.row_limit), **words)
    except Failed as error:
        print(f"no matrix product was measured, nor anything else: {error}", file=sys.stderr)
        print(error.said, file=sys.stderr)
        return None
    if not (code := commit()):
        print("which commit this is, git does not say: set COMMIT", file=sys.stderr)
    return {"device": found["device"], "matmul_tflops": found["tflops"], "commit": code}


def measure(
    table: Row,
    key: tuple[Any, ...],
    flags: argparse.Namespace,
    commit: str,
    deadline: float,
    folder: Path,
) -> bool:
    """Adds a row to the table, or why there is none; false where the time was not enough.

    All that a failed one said is left in `folder`.
    """
    row: Row = dict(zip(KEY, key, strict=True))
    name, _, rest = row["implementation"].partition(":")
    words = {k: row[k] for k in ("network", "precision", "batch", "width")}
    words |= {"levers": rest.split("+") if rest else [], "seconds": flags.seconds}
    left = deadline - time.monotonic()
    if left <= 0:
        return False
    table["failed"] = [other for other in table["failed"] if any(other[k] != row[k] for k in KEY)]
    row["commit"] = commit
    try:
        found = ask(name, limit=min(left, flags.row_limit), task="step", **words)
        if found["device"] == processor() != table["device"]:
            raise Failed(f"it ran on the CPU, not on {table['device']}")
    except Failed as error:
        if isinstance(error, Late) and left < flags.row_limit:
            return False
        if error.said:
            stem = "-".join(re.sub(r"\W+", "-", str(row[k])) for k in KEY[:4])
            replace_text(folder / f"failed-{stem}.log", error.said)
        table["failed"].append({**row, "reason": str(error)})
        print(describe_failed(table["failed"][-1]), file=sys.stderr, flush=True)
        return True
    kept = ("spread", "compile_s", "peak_memory", "loss", "xla_flops", "device", "versions")
    row["faces_per_s"] = row["batch"] / found["step_s"]
    row["matmul_tflops"] = table["matmul_tflops"].get(row["precision"])
    table["rows"].append(row | {k: found[k] for k in kept if k in found})
    compare(table)
    print(describe(table["rows"][-1]), file=sys.stderr, flush=True)
    return True


def compare(table: Row) -> None:
    """Fills in what depends on other rows, and what the table says once for all of them."""
    for row in table["rows"]:
        # The FLOPs are counted for whole layers alone.
        peak = row["matmul_tflops"] if row["width"] == 1 else None
        work = row["faces_per_s"] * training_flops(row["network"]) / 1e12
        row["mfu"] = work / peak if peak else None
        for peer in PEERS:
            same = [
                other["faces_per_s"]
                for other in table["rows"]
                if other["implementation"].partition(":")[0] == peer
                and all(other[k] == row[k] for k in ("network", "precision", "width"))
            ]
            row[f"ratio_to_{peer}"] = row["faces_per_s"] / max(same) if same else None
    table["commit"] = " ".join(dict.fromkeys(row["commit"] for row in table["rows"]))
    pairs = dict.fromkeys(pair for row in table["rows"] for pair in row["versions"].items())
    table["versions"] = {
        name: " or ".join(version for other, version in pairs if other == name) for name, _ in pairs
    }


def read(path: Path) -> Row:
    """A table; where rows say less of themselves, what it says for all of them is theirs."""
    table: Row = {"rows": [], "failed": [], "matmul_tflops": {}}
    if path.is_file():
        table |= json.loads(path.read_text())
    for row in table["rows"]:
        for name, value in PLAIN.items():
            row.setdefault(name, value)
        row.setdefault("commit", table.get("commit", ""))
        row.setdefault("versions", table.get("versions", {}))
        row.setdefault("matmul_tflops", table["matmul_tflops"].get(row["precision"]))
    compare(table)
    return table


def show(table: Row) -> None:
    """Prints a table."""
    for precision in sorted({row["precision"] for row in table["rows"]}):
        rows = [row for row in table["rows"] if row["precision"] == precision]
        rates = [row["matmul_tflops"] for row in rows if row["matmul_tflops"]]
        said = " to ".join(dict.fromkeys(f"{f(rates):.3g}" for f in (min, max) if rates))
        print(f"matrix product in {precision}: {said or '-'} TFLOP/s")
    print(", ".join([table["device"], *(f"{k} {v}" for k, v in table["versions"].items())]))
    print(
        f"{'network':<10}{'precision':<10}{'batch':>6}  {'implementation':<28}{'faces/s':>9}"
        f"{'spread':>8}{'mfu':>7}{'/torch':>8}{'/keras':>8}{'memory GB':>11}{'compile s':>11}"
    )
    for row in sorted(table["rows"], key=lambda row: [row[k] for k in KEY]):
        print(describe(row))
    for row in table["failed"]:
        print(describe_failed(row))


def describe(row: Row) -> str:
    """A row as a line."""
    mfu, *ratios = (
        "-" if row[k] is None else f"{row[k]:.2f}"
        for k in ("mfu", *(f"ratio_to_{p}" for p in PEERS))
    )
    memory = "-" if row["peak_memory"] is None else f"{row['peak_memory'] / 1e9:.2f}"
    return (
        f"{row['network']:<10}{row['precision']:<10}{row['batch']:>6}  {row['implementation']:<28}"
        f"{row['faces_per_s']:>9.1f}{row['spread']:>8.1%}{mfu:>7}{ratios[0]:>8}{ratios[1]:>8}"
        f"{memory:>11}{row['compile_s']:>11.1f}{_special(row)}"
    )


def describe_failed(row: Row) -> str:
    """What was not measured, and why, as a line."""
    name = " ".join(str(row[k]) for k in KEY[:4])
    return f"failed: {name}{_special(row)}: {row['reason']}"


def _special(row: Row) -> str:
    width = "" if row["width"] == 1 else f"  width {row['width']:g}"
    return f"{width}  {row['xla_flags']}".rstrip()


if __name__ == "__main__":
    sys.exit(main())
