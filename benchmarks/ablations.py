"""What each choice of a recipe is worth: every one changed alone, over several seeds.

    python benchmarks/ablations.py --overrides data.source=arrays data.dir=ferplus.npz
        [--config=configs/ferplus.py] [--only=base,no-sam] [--seeds=0,1,2] [--seconds=540]
        [--output=runs/ablations]

Trains as `launch.py` does, all variants of the first seed, then of the next. When `--seconds` are
over it saves and prints the table; the same command again goes on, and repeats nothing. Rows lie in
OUTPUT/results.jsonl, each run's folder beside it; OUTPUT/ablations.json has their scores and the
machine. All are of the checkpoint that was best on the validation faces, accuracies in percent;
"test, mirrored" adds the answer to the mirrored face. The last columns are the means and deviations
of the differences from base's runs, seed by seed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from campaign import in_a_line, machines, train_all
from measuring import save_table
from running import ROOT, Run, Runner, base_config, parse_overrides
from tables import table

from emotion_jax.errors import EmotionError, run
from emotion_jax.models import make_model


def half(x: Any) -> Any:
    """Half of a number, a whole one for a whole one and at least 1, or of each of a tuple."""
    if isinstance(x, tuple):
        return tuple(half(value) for value in x)
    return max(x // 2, 1) if isinstance(x, int) else x / 2


def twice(x: int) -> int:
    return 2 * x


# What each changes: values, or functions of the value that the base has.
VARIANTS: dict[str, dict[str, Any | Callable[[Any], Any]]] = {
    "base": {},
    # As many faces as the score counts, in place of all that have votes.
    "majority": {"data.train_votes": "majority"},
    "smoothing": {"loss.label_smoothing": 0.1},
    "no-mixup": {"augment.mixup": 0.0},
    "mixup": {"augment.mixup": 0.2},
    "no-erasing": {"augment.erase": 0.0},
    "no-crop": {"augment.crop_area": 1.0},
    "no-light": {"augment.brightness": 0.0, "augment.contrast": 0.0},
    "no-tilt": {"augment.rotate": 0.0, "augment.translate": 0.0},
    # Glasses, poor light, blur, motion and JPEG.
    "no-cameras": {
        f"augment.{name}": 0.0
        for name in ("glasses", "darkness", "backlight", "blur", "motion", "jpeg")
    },
    "no-ema": {"ema_decay": 0.0},
    "no-sam": {"optimizer.sam_rho": 0.0},
    "sam": {"optimizer.sam_rho": 0.05},
    "sam-twice": {"optimizer.sam_rho": 0.1},
    "half-dropout": {"model.dropout": half},
    "no-dropout": {"model.dropout": (0.0, 0.0)},
    # SimpNet V2's own rates.
    "published-dropout": {"model.dropout": (0.2, 0.3)},
    "half-width": {"model.width": half},
    # No convolution takes the border away: the same weights, 1.24 times the work.
    "same-padding": {"model.padding": "SAME"},
    # What the full network's recipe has.
    "sgd": {
        "optimizer.name": "sgd",
        "optimizer.learning_rate": 0.1,
        "optimizer.weight_decay": 5e-4,
        "optimizer.momentum": 0.9,
    },
    # A common rate and decay of AdamW for as many faces a step.
    "adamw": {
        "optimizer.name": "adamw",
        "optimizer.learning_rate": 1e-3,
        "optimizer.weight_decay": 0.05,
    },
    # Rate and momentum at which a narrow network learnt faster than by AdamW; that one's decay.
    "muon": {
        "optimizer.name": "muon",
        "optimizer.learning_rate": 2e-3,
        "optimizer.weight_decay": 0.05,
        "optimizer.momentum": 0.95,
    },
    "half-epochs": {"num_epochs": half},
    "twice-epochs": {"num_epochs": twice},
    # As much work as with sharpness-aware steps.
    "no-sam-longer": {"optimizer.sam_rho": 0.0, "num_epochs": twice},
}

# Of what the faces of each split and of its mirror image were answered, what is kept for others.
PARTS = ("validation", "validation_mirrored", "test", "test_mirrored")
KEPT = ("accuracy", "macro_f1", "loss")


def main() -> None:
    """Trains what is missing and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default=str(ROOT / "configs" / "ferplus.py"))
    parser.add_argument("--only", default=",".join(VARIANTS), help="names, parted by commas")
    parser.add_argument("--seeds", default="0,1,2", help="likewise")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--output", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--overrides", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    flags = parser.parse_args()
    names = flags.only.split(",")
    if unknown := [name for name in names if name not in VARIANTS]:
        raise EmotionError(f"--only: no variant '{unknown[0]}'; use some of {', '.join(VARIANTS)}")
    if not all(seed.isdecimal() for seed in flags.seeds.split(",")):
        raise EmotionError(f"--seeds: '{flags.seeds}'; use whole numbers, such as 0,1,2")
    overrides = parse_overrides(flags.overrides, flags.config)
    base = with_network({**base_config(flags.config), **overrides})
    changes = differing(names, base)
    if not changes:
        raise EmotionError(f"--only: nothing of it changes anything in '{flags.config}'")
    if same := [name for name in names if name not in changes]:
        print(f"left out, for another one is the same or the network lacks it: {', '.join(same)}")
    runner = Runner(flags.output, flags.seconds)
    runs = [
        Run(name, flags.config, seed, {**overrides, **changes[name]})
        for seed in map(int, flags.seeds.split(","))
        for name in changes
    ]
    failed = train_all(runner, runs)
    if rows := runner.finished(runs):
        about = {"config": runs[0].config, "overrides": overrides, "variants": changes}
        show(runner, rows, about)
    if failed:
        raise EmotionError(f"{failed} runs failed, as said above")


def show(runner: Runner, rows: Sequence[dict[str, Any]], about: dict[str, Any]) -> None:
    """Prints the table of the finished runs; writes their scores."""
    trained_on = machines(runner)
    kept = {**about, "machines": trained_on, "rows": [scores(row) for row in rows]}
    save_table(kept, runner.folder / "ablations.json")
    for machine in trained_on:
        print(in_a_line(machine))
    words = {
        name: ", ".join(f"`{key}={x}`" for key, x in changes.items())
        for name, changes in about["variants"].items()
    }
    print(table(rows, words, base="base"))


def scores(row: dict[str, Any]) -> dict[str, Any]:
    """Of a finished run what others would compare; the rest stands in its own `scores.json`."""
    parts = {name: row[name] for name in PARTS if name in row}
    found = {key: row[key] for key in ("name", "seed", "epochs", "images_per_s")}
    return found | {name: {key: part[key] for key in KEPT} for name, part in parts.items()}


def resolve(changes: dict[str, Any], base: dict[str, Any]) -> dict[str, Any]:
    """The values of a variant, given those of the base."""
    return {key: x(base[key]) if callable(x) else x for key, x in changes.items()}


def with_network(base: dict[str, Any]) -> dict[str, Any]:
    """The values of a config, with the network's own where one is empty, and none that it lacks."""
    options = {key: x for key, x in base.items() if key.startswith("model.")}
    model = make_model(**{key.removeprefix("model."): x for key, x in options.items()})
    found = {key: x for key, x in base.items() if key not in options}
    for key, x in options.items():
        name = key.removeprefix("model.")
        if name == "name" or hasattr(model, name):
            found[key] = getattr(model, name) if x == () else x
    return found


def differing(names: Sequence[str], base: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """What each variant changes here; those that are the base or an earlier one, or change what
    the network lacks, are left out."""
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        if not VARIANTS[name].keys() <= base.keys():
            continue
        values = resolve(VARIANTS[name], base)
        changes = {key: value for key, value in values.items() if value != base[key]}
        if name == "base" or (changes and changes not in found.values()):
            found[name] = changes
    return found


if __name__ == "__main__":
    sys.exit(run(main, debug="--debug" in sys.argv))
