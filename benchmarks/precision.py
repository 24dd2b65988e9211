"""Whether bfloat16 learns as float32 does: the same runs in both, over several seeds.

    python benchmarks/precision.py --overrides data.source=arrays data.dir=ferplus.npz
        [--config=configs/ferplus.py] [--seeds=0,1,2] [--seconds=540] [--every=5]
        [--output=runs/precision]

Trains as `launch.py` does: a seed's two runs begin from the same numbers and see the same faces in
the same order, altered alike. On a GPU that has it, float32 multiplies as TF32. When `--seconds`
are over it saves and prints what is there; the same command again goes on, and repeats nothing.

The table has the mean and deviation over seeds on the validation faces, every fifth epoch and the
last. "Within" is a difference of means no larger than the deviation of one run, pooled over both
precisions. That is a description, no test: were nothing different, three seeds would put it outside
at about three epochs of ten, and epochs of a run are alike. Below it, what the best checkpoints
score. OUTPUT/precision.json holds every curve and the machine, OUTPUT/precision.png draws them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from campaign import in_a_line, machines, train_all
from measuring import save_table
from running import ROOT, Run, Runner, parse_overrides
from tables import table

from emotion_jax.errors import EmotionError, run
from emotion_jax.figures import INK, MUTED, VAL, make_figure, save_figure, style

COLORS = {"float32": VAL, "bfloat16": "#d08a2e"}
SHOWN = {"val/accuracy": "validation accuracy, %", "val/loss": "validation loss"}
KEPT = ("epoch", *SHOWN, "train/accuracy", "train/loss")
# By precision, by seed, by key: a value an epoch, None where it was not finite.
Curves = dict[str, dict[str, dict[str, list[Any]]]]


def main() -> None:
    """Trains what is missing, and shows what is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default=str(ROOT / "configs" / "ferplus.py"))
    parser.add_argument("--seeds", default="0,1,2", help="parted by commas")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--every", type=int, default=5, help="epochs from row to row")
    parser.add_argument("--output", type=Path, default=Path("runs/precision"))
    parser.add_argument("--overrides", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    flags = parser.parse_args()
    if not all(seed.isdecimal() for seed in flags.seeds.split(",")):
        raise EmotionError(f"--seeds: '{flags.seeds}'; use whole numbers, such as 0,1,2")
    if flags.every < 1:
        raise EmotionError(f"--every: {flags.every}; use 1 or more")
    overrides = parse_overrides(flags.overrides, flags.config)
    if "model.dtype" in overrides:
        raise EmotionError("--overrides: model.dtype is what is compared; leave it out")
    runner = Runner(flags.output, flags.seconds)
    runs = [
        Run(precision, flags.config, seed, {**overrides, "model.dtype": precision})
        for seed in map(int, flags.seeds.split(","))
        for precision in COLORS
    ]
    failed = train_all(runner, runs)
    if curves := read_curves(runner, runs):
        show(runner, runs, curves, flags.every)
    if failed:
        raise EmotionError(f"{failed} runs failed, as said above")


def read_curves(runner: Runner, runs: Sequence[Run]) -> Curves:
    """The metrics of those runs that are finished, with these settings."""
    curves: Curves = {}
    finished = {row["label"] for row in runner.finished(runs)}
    for each in runs:
        if each.label not in finished:
            continue
        path = runner.folder / each.label / "metrics.jsonl"
        if not path.exists():
            raise EmotionError(f"'{path}' is gone, though its run finished; use another --output")
        log = [json.loads(line) for line in path.read_text().splitlines()]
        seeds = curves.setdefault(each.name, {})
        seeds[str(each.seed)] = {key: [row.get(key) for row in log] for key in KEPT}
    return curves


def show(runner: Runner, runs: Sequence[Run], curves: Curves, every: int) -> None:
    """Prints the tables; writes the curves and their picture."""
    trained_on = machines(runner)
    scores = runner.finished(runs)
    compared = compare(curves)
    about = {"settings": runs[0].settings(), "machines": trained_on}
    save_table({**about, "curves": curves, "compared": compared}, runner.folder / "precision.json")
    draw(curves, runner.folder / "precision.png")
    for machine in trained_on:
        print(in_a_line(machine))
    if compared:
        print("\n".join(lines(compared, curves, every)), end="\n\n")
    print(table(scores, {name: f"model.dtype={name}" for name in COLORS}))


def compare(curves: Curves) -> list[dict[str, Any]]:
    """Both precisions at each epoch that all runs have; nothing while one has no run yet.

    Returns:
      For each epoch, `epoch` and for each key of `SHOWN`: by precision `mean` and `deviation`;
      `difference`, bfloat16 less float32; `deviation`, of a run, pooled; `within`. Whatever too few
      runs, or a number that is not finite, leave open is None.
    """
    if len(curves) < len(COLORS):
        return []
    epochs = min(len(run["epoch"]) for seeds in curves.values() for run in seeds.values())
    rows: list[dict[str, Any]] = []
    for i in range(epochs):
        rows.append({"epoch": i + 1})
        for key in SHOWN:
            values = {name: [run[key][i] for run in curves[name].values()] for name in COLORS}
            rows[-1][key] = compare_values(values["float32"], values["bfloat16"])
    return rows


def compare_values(float32: list[Any], bfloat16: list[Any]) -> dict[str, Any]:
    """One metric at one epoch, see `compare`; a value a seed."""
    both = {"float32": float32, "bfloat16": bfloat16}
    found: dict[str, Any] = {
        name: {"mean": mean(values), "deviation": deviation([values])}
        for name, values in both.items()
    }
    found["deviation"] = spread = deviation([float32, bfloat16])
    ends = [found[name]["mean"] for name in both]
    found["difference"] = difference = None if None in ends else ends[1] - ends[0]
    found["within"] = None
    if difference is not None and spread is not None:
        found["within"] = abs(difference) <= spread
    return found


def mean(values: list[Any]) -> float | None:
    return None if None in values else statistics.mean(values)


def deviation(groups: list[list[Any]]) -> float | None:
    """Of a value from its group's mean, by as many as are free: one fewer a group."""
    free = sum(len(values) - 1 for values in groups)
    if free < 1 or any(None in values for values in groups):
        return None
    squares = sum((x - statistics.mean(values)) ** 2 for values in groups for x in values)
    return (squares / free) ** 0.5


def lines(compared: list[dict[str, Any]], curves: Curves, every: int) -> list[str]:
    """The comparison as a table in Markdown, and how often it is within."""
    heads = ["epoch"]
    for words in SHOWN.values():
        names = [f"{name} (n={len(curves[name])})" for name in COLORS]
        heads += [f"{words}: {names[0]}", names[1], "difference", "within"]
    found = ["| " + " | ".join(heads) + " |", "|" + " ---: |" * len(heads)]
    last = compared[-1]["epoch"]
    for row in compared:
        if row["epoch"] % every and row["epoch"] != last:
            continue
        cells = [str(row["epoch"])]
        for key in SHOWN:
            scale, digits = (100, 2) if key == "val/accuracy" else (1, 4)
            here = row[key]
            for name in COLORS:
                words = number(here[name]["mean"], scale, f".{digits}f")
                spread = number(here[name]["deviation"], scale, f".{digits}f")
                cells.append(words if spread == "-" else f"{words} ± {spread}")
            cells.append(number(here["difference"], scale, f"+.{digits}f"))
            cells.append({True: "yes", False: "no", None: "-"}[here["within"]])
        found.append("| " + " | ".join(cells) + " |")
    for key, words in SHOWN.items():
        known = [row[key]["within"] for row in compared if row[key]["within"] is not None]
        found.append(f"{words.partition(',')[0]}: within at {sum(known)} of {len(known)} epochs")
    return found


def number(value: float | None, scale: float, form: str) -> str:
    return "-" if value is None else format(scale * value, form)


def draw(curves: Curves, path: Path) -> None:
    """Draws each precision's mean over seeds, and a band of a deviation to either side."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = make_figure(11, 4.2)
    for ax, key in zip(figure.subplots(1, len(SHOWN)), SHOWN, strict=True):
        style(ax, SHOWN[key].partition(",")[0])
        for name, seeds in curves.items():
            epochs = min((run["epoch"] for run in seeds.values()), key=len)
            # What was not finite, None, is NaN here, and a gap.
            y = np.array([run[key][: len(epochs)] for run in seeds.values()], np.float64)
            label = f"{name}, {len(y)} seed{'s' * (len(y) > 1)}"
            ax.plot(epochs, y.mean(0), color=COLORS[name], lw=1.8, label=label)
            if len(y) > 1:
                low, high = (y.mean(0) + side * y.std(0, ddof=1) for side in (-1, 1))
                ax.fill_between(epochs, low, high, color=COLORS[name], alpha=0.2, lw=0)
        ax.set_xlabel("epoch", color=MUTED, fontsize=9)
        ax.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True, min_n_ticks=1))
        if key == "val/accuracy":
            ax.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        ax.legend(facecolor="white", edgecolor="none", fontsize=9, labelcolor=INK)
    save_figure(figure, path)


if __name__ == "__main__":
    sys.exit(run(main, debug="--debug" in sys.argv))
