"""How fast the networks train, step by step, beside PyTorch and Keras on the same device.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --network=simplenet --precision=bfloat16 --batch=512,1024 \\
        --implementation=ours,ours:pad8,ours:pad8+bits8,torch,torch:max-autotune

Each row is a process of its own, one after the other: the same network, noise, loss and AdamW,
warmed up, the device waited for, medians. Float32 is TF32 where the device has it. `mfu` is the
step's FLOPs, counted by `flops.py`, by the time they would take at the rate of the matrix product
measured here in the same precision; `ratio_to_torch` is by PyTorch's best row of that network and
precision. Peak memory is the device's, on a CPU the process's. `ours:` takes the levers that
`levers.py` explains; `torch:` a mode of `torch.compile`, or eager. What is not installed is
left out.

The rows are kept in `--output`, by default `benchmarks/results/train_step-<device>.json`, as they
come; the same command again measures only those that miss.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from flops import SIZES, training_flops

HERE = Path(__file__).parent
COLUMNS = "network precision batch implementation faces_per_s mfu ratio_to_torch".split()
KEY = COLUMNS[:4]


def main() -> int:
    """Measure what is asked for, and print the table."""
    flags = parse()
    device = ask("ours", task="device")
    if device is None:
        return 1
    name = re.sub("[^a-z0-9]+", "-", device["device"].lower()).strip("-")
    output = flags.output or HERE / "results" / f"train_step-{name}.json"
    table = json.loads(output.read_text()) if output.exists() else {"rows": [], "matmul_tflops": {}}
    table |= {"device": device["device"], "commit": commit()}
    deadline = time.monotonic() + flags.limit
    known = {tuple(row[name] for name in KEY) for row in table["rows"]}
    choices = itertools.product(flags.network, flags.precision, flags.batch, flags.implementation)
    missing = [key for key in choices if key not in known]
    for precision in {precision for _, precision, *_ in missing} - table["matmul_tflops"].keys():
        found = ask("ours", task="matmul", precision=precision, seconds=flags.seconds)
        if found:
            table["matmul_tflops"][precision] = found["tflops"]
    for network, precision, batch, implementation in missing:
        left = deadline - time.monotonic()
        if left < 0:
            print("time is up; the same command goes on from here", file=sys.stderr)
            break
        name, _, levers = implementation.partition(":")
        words = {"network": network, "precision": precision, "batch": batch}
        listed = levers.split("+") if levers else []
        found = ask(name, limit=left, **words, task="step", levers=listed, seconds=flags.seconds)
        if found:
            table["rows"].append(make_row(implementation, found, **words))
            table.setdefault("versions", {}).update(found["versions"])
            compare(table)
            save(table, output)
            print(describe(table["rows"][-1]), file=sys.stderr, flush=True)
    show(table)
    return 0 if table["rows"] else 1


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    there = [name for name in ("torch", "keras") if importlib.util.find_spec(name)]

    def words(text: str) -> list[str]:
        return text.split(",")

    def numbers(text: str) -> list[int]:
        return [int(word) for word in text.split(",")]

    parser.add_argument("--network", type=words, default=list(SIZES))
    parser.add_argument("--precision", type=words, default=["float32", "bfloat16"])
    parser.add_argument("--batch", type=numbers, default=[128, 256, 512])
    parser.add_argument("--implementation", type=words, default=["ours", *there])
    parser.add_argument("--seconds", type=float, default=5.0, help="to measure a row for")
    parser.add_argument(
        "--limit", type=float, default=86_400.0, help="seconds; no row begins after"
    )
    parser.add_argument("--output", type=Path, help="where the rows are kept")
    flags = parser.parse_args()
    for network in set(flags.network) - set(SIZES):
        parser.error(f"--network: '{network}'; use {' or '.join(SIZES)}")
    for name in {word.partition(":")[0] for word in flags.implementation}:
        if not (HERE / f"step_{name}.py").exists():
            parser.error(f"--implementation: '{name}'; use ours, torch or keras")
    return flags


def ask(name: str, *, limit: float | None = None, **words: Any) -> dict[str, Any] | None:
    """What a worker measured; None, and its last words on standard error, where it failed."""
    command = [sys.executable, str(HERE / f"step_{name}.py"), json.dumps(words)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, cwd=HERE.parent
        )
    except subprocess.TimeoutExpired:
        print(f"{name} {words}: stopped after {limit:.0f} s", file=sys.stderr)
        return None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
        print(f"{name} {words}: failed ({done.returncode}): {said[:300]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def make_row(implementation: str, found: dict[str, Any], **words: Any) -> dict[str, Any]:
    kept = ("spread", "compile_s", "peak_memory", "loss", "xla_flops")
    rate = words["batch"] / found["step_s"]
    row = {**words, "implementation": implementation, "faces_per_s": rate}
    return row | {name: found[name] for name in kept if name in found}


def compare(table: dict[str, Any]) -> None:
    """Fills in what depends on other rows."""
    for row in table["rows"]:
        peak = table["matmul_tflops"].get(row["precision"])
        work = row["faces_per_s"] * training_flops(row["network"]) / 1e12
        row["mfu"] = work / peak if peak else None
        same = [
            other["faces_per_s"]
            for other in table["rows"]
            if other["implementation"].startswith("torch")
            and all(other[name] == row[name] for name in ("network", "precision"))
        ]
        row["ratio_to_torch"] = row["faces_per_s"] / max(same) if same else None


def show(table: dict[str, Any]) -> None:
    for name, rate in sorted(table["matmul_tflops"].items()):
        print(f"matrix product in {name}: {rate:.3g} TFLOP/s")
    print(", ".join([table["device"], *(f"{k} {v}" for k, v in table["versions"].items())]))
    print(
        f"{'network':<10}{'precision':<10}{'batch':>6}  {'implementation':<28}{'faces/s':>9}"
        f"{'spread':>8}{'mfu':>7}{'/torch':>8}{'memory GB':>11}{'compile s':>11}"
    )
    for row in sorted(table["rows"], key=lambda row: tuple(map(str, (row[k] for k in KEY)))):
        print(describe(row))


def describe(row: dict[str, Any]) -> str:
    mfu, ratio = ("-" if x is None else f"{x:.2f}" for x in (row["mfu"], row["ratio_to_torch"]))
    return (
        f"{row['network']:<10}{row['precision']:<10}{row['batch']:>6}  {row['implementation']:<28}"
        f"{row['faces_per_s']:>9.1f}{row['spread']:>8.1%}{mfu:>7}{ratio:>8}"
        f"{row['peak_memory'] / 1e9:>11.2f}{row['compile_s']:>11.1f}"
    )


def save(table: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(table, indent=1) + "\n")


def commit() -> str:
    """Of the code that is measured; empty outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=HERE, check=False)
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
