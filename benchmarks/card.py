"""The scores that a model card states, for weights that read FER+.

    python benchmarks/card.py FOLDER --model=weights/mine

FOLDER holds `fer2013.csv` and `fer2013new.csv`. Scores PublicTest under FER+'s majority rule, one
crop of each face: all of them, and those that do not stand in Training, too, pixel for pixel; with
the temperature that the weights state and without, and with the mirrored face's answer added
(`predict.py --mirrored`); and with temperatures fitted on one random half and measured on the
other, which is what a temperature fitted on all of them hides.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np

import emotion_jax as ej
from emotion_jax import metrics
from emotion_jax.calibration import fit_temperature
from emotion_jax.data.ferplus import FerPlus
from emotion_jax.data.selection import digests
from emotion_jax.errors import EmotionError, run
from emotion_jax.labels import vote_targets


def main() -> None:
    """Read, predict, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", help="as predict.py's; the shipped weights by default")
    flags = parser.parse_args()
    predictor = ej.load_predictor(flags.model)
    seen = digests(read(flags.data, "train")[0])
    images, targets = read(flags.data, "validation")
    images, labels = images[targets.any(1)], targets[targets.any(1)].argmax(1)
    new = ~np.isin(digests(images), seen)
    temperature = predictor.meta.get("temperature", 1.0)
    # Softmax forgets a constant alone, so that logarithms serve as logits.
    logits, mirrored = (
        temperature * np.log(np.maximum(each(images), 1e-30))
        for each in (predictor, ej.Mirrored(predictor))
    )
    for name, chosen in (("all", new | True), ("not in Training", new)):
        plain, stated = (score(logits[chosen] / t, labels[chosen]) for t in (1.0, temperature))
        twice = score(mirrored[chosen] / temperature, labels[chosen])
        print(
            f"{name}, {chosen.sum()} faces: accuracy {plain['accuracy']:.1%}, "
            f"macro-F1 {plain['macro_f1']:.1%}, calibration error {plain['ece']:.3f}, "
            f"at temperature {temperature:.3f} {stated['ece']:.3f}; mirrored added "
            f"{twice['accuracy']:.1%}, macro-F1 {twice['macro_f1']:.1%}, {twice['ece']:.3f}"
        )
    first = np.random.default_rng(0).permutation(len(labels)) < len(labels) // 2
    for half in (first, ~first):
        fitted = fit_temperature(logits[half], labels[half])
        before, after = (score(logits[~half] / t, labels[~half])["ece"] for t in (1.0, fitted))
        print(f"fitted on one half {fitted:.3f}; error on the other {before:.3f}, then {after:.3f}")
    answers = logits.argmax(1)
    for i, emotion in enumerate(ej.EMOTIONS):
        given, right = answers == i, (answers == i) & (labels == i)
        precision = f"{right.sum() / given.sum():.1%}" if given.any() else "none given"
        print(
            f"| {emotion} | {(labels == i).sum():,} | {precision} | "
            f"{right.sum() / (labels == i).sum():.1%} |"
        )


def read(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Faces, uint8 `[N, 48, 48, 1]`, and their majorities `[N, 8]`: all 0 where there is none."""
    examples = list(FerPlus(folder=str(folder), size=48).examples(split))
    if not examples:
        raise EmotionError(f"'{folder}' has no {split} faces; name another folder")
    votes = np.array([example["votes"] for example in examples])
    targets, keep = vote_targets(votes, "majority")
    return np.stack([example["image"] for example in examples]), targets * keep[:, None]


def score(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Accuracy, macro-F1 and calibration error, as training reports them."""
    targets = np.eye(len(ej.EMOTIONS), dtype=np.float32)[labels]
    ones = jnp.ones(len(labels))
    return metrics.summarize(metrics.measure(jnp.asarray(logits), targets, ones, ones))


if __name__ == "__main__":
    sys.exit(run(main))
