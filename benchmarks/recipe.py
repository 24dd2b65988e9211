"""From FER+'s faces to weights to ship: full networks, what they say together, a narrow one.

    python benchmarks/recipe.py --overrides data.source=arrays data.dir=ferplus.npz
        [--seeds=0,1,2] [--seconds=540] [--output=runs/recipe]

1. `configs/ferplus.py` once a seed, each exported to OUTPUT/weights/ferplus-SEED.
2. All of these as one: the mean of their probabilities, on validation and test.
3. `configs/ferplus_narrow_distilled.py`, taught by all of them, and the same without teachers; both
   exported, too. `--overrides` are for every run, `--full` and `--narrow` for one kind.

When `--seconds` are over it saves and prints the table; the same command again goes on, and repeats
nothing. Rows lie in OUTPUT/results.jsonl; accuracies are in percent.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from running import ROOT, Run, Runner, TimeIsUp, parse_overrides
from tables import table

from emotion_jax.errors import EmotionError, run

FULL = str(ROOT / "configs" / "ferplus.py")
NARROW = str(ROOT / "configs" / "ferplus_narrow_distilled.py")
ABOUT = {
    "ferplus": "configs/ferplus.py",
    "ensemble": "the mean of their probabilities",
    "distilled": "configs/ferplus_narrow_distilled.py",
    "narrow": "the same without teachers",
}


def main() -> None:
    """Does what is missing and prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default="0,1,2", help="parted by commas")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--output", type=Path, default=Path("runs/recipe"))
    for kind in ("overrides", "full", "narrow"):
        parser.add_argument(f"--{kind}", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    flags = parser.parse_args()
    if not all(seed.isdecimal() for seed in flags.seeds.split(",")):
        raise EmotionError(f"--seeds: '{flags.seeds}'; use whole numbers, such as 0,1,2")
    full = parse_overrides([*flags.overrides, *flags.full], FULL)
    narrow = parse_overrides([*flags.overrides, *flags.narrow], NARROW)
    runner = Runner(flags.output, flags.seconds)
    try:
        follow(runner, [int(seed) for seed in flags.seeds.split(",")], full, narrow)
    except TimeIsUp:
        print("the time is up: the same command goes on")
    finally:
        print(table(runner.rows(), ABOUT))


def follow(runner: Runner, seeds: list[int], full: dict[str, Any], narrow: dict[str, Any]) -> None:
    """The three parts, one after the other."""
    runs = [Run("ferplus", FULL, seed, full) for seed in seeds]
    weights = [train_and_export(runner, each) for each in runs]
    label = f"ensemble-{'-'.join(map(str, seeds))}"
    if not runner.find(label):
        request = {"workdir": str(runner.folder / runs[0].label), "weights": weights}
        said = runner.call(label, [__file__, json.dumps(request)])
        scores = json.loads(said.splitlines()[-1])
        runner.keep({"label": label, "name": "ensemble", **scores})
    for name, teachers in (("distilled", tuple(weights)), ("narrow", ())):
        changes = {**narrow, "distill.teachers": teachers}
        train_and_export(runner, Run(name, NARROW, seeds[0], changes))


def train_and_export(runner: Runner, each: Run) -> str:
    """Trains a run and exports it, calibrated; returns the folder of its weights."""
    runner.train(each)
    folder = runner.folder / "weights" / each.label
    if not (folder / "config.json").exists():
        flags = [f"--model={runner.folder / each.label}", f"--output={folder}", "--calibrate"]
        runner.call(f"export-{each.label}", ["-m", "emotion_jax.export", *flags])
    return str(folder)


def score_together(workdir: str, weights: list[str]) -> dict[str, Any]:
    """The scores of several networks as one, on the faces of a run; in a process of its own."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from emotion_jax import metrics
    from emotion_jax.data.pipeline import evaluation_order
    from emotion_jax.training.experiment import make_experiment
    from emotion_jax.training.teachers import answers, load_teachers
    from emotion_jax.training.workdir import read_config

    config = read_config(Path(workdir))
    config.num_devices = 1
    experiment = make_experiment(config)
    teachers = load_teachers(weights, experiment.emotions)
    variables = jax.device_put([teacher.variables for teacher in teachers])

    @jax.jit
    def measure(images: jax.Array, labels: jax.Array, weight: jax.Array, variables: Any) -> Any:
        sums = {}
        plain = answers(images, variables, teachers=teachers, temperature=1.0)
        other = answers(images[:, :, ::-1], variables, teachers=teachers, temperature=1.0)
        for name, probs in (("", plain), ("_mirrored", (plain + other) / 2)):
            # As logits of themselves; a probability that float32 holds for 0 is none.
            logits = jnp.log(jnp.maximum(probs, jnp.finfo(probs.dtype).tiny))
            sums[name] = metrics.measure(logits, labels, weight, jnp.zeros_like(weight))
        return sums

    scores = {}
    for name in ("validation", "test"):
        if (split := experiment.splits.get(name)) is None:
            continue
        sums: dict[str, Any] = {}
        for numbers in evaluation_order(len(split), config.eval_batch_size):
            at = np.maximum(numbers, 0)
            weight = np.where(numbers < 0, 0, split.weight[at])
            found = measure(split.read(at), split.labels[at], weight, variables)
            sums = {k: metrics.merge(sums[k], x) if sums else x for k, x in found.items()}
        for kind, total in sums.items():
            summary = metrics.summarize(total)
            scores[name + kind] = {key: summary[key] for key in ("accuracy", "macro_f1", "ece")}
    return scores


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        print("\n" + json.dumps(score_together(**json.loads(sys.argv[1]))))
    else:
        sys.exit(run(main, debug="--debug" in sys.argv))
