"""How well a network reads drawn faces of people it has not seen, condition by condition.

    python benchmarks/drawn_faces.py --model=runs/quickstart

Draws the validation people of `DrawnFaces` as chance has it, and then the same people, expressions
and shots with glasses, half the light and turned heads forced: none of them, one by one, and all
together. Prints accuracy, its standard error and the emotion that is read worst. For scale: a guess
is right in 12.5 % of the pictures.
"""

from __future__ import annotations

import argparse
import platform
import sys

import numpy as np

import emotion_jax as ej
from emotion_jax.data.drawing.people import Conditions
from emotion_jax.data.drawn_faces import DrawnFaces
from emotion_jax.errors import run

CONDITIONS = {
    "as drawn by chance": Conditions(),
    "none: no glasses, full light, frontal": Conditions(glasses=False, light=1.0, yaw=0.0),
    "glasses": Conditions(glasses=True),
    "half the light": Conditions(light=0.5),
    "head turned by 25 degrees": Conditions(yaw=25.0),
    "all three": Conditions(glasses=True, light=0.5, yaw=25.0),
}


def main() -> None:
    """Draw, predict, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="runs/quickstart", help="a workdir or a checkpoint")
    parser.add_argument("--faces", type=int, default=1600, help="per condition, a multiple of 8")
    parser.add_argument("--seed", type=int, default=0, help="data.seed of the training")
    flags = parser.parse_args()
    predictor = ej.load_predictor(flags.model)
    size = predictor.spec.size
    print(f"{flags.model}: {flags.faces} drawn faces of {size} pixels a row, {platform.machine()}")
    print(f"{'condition':<40}{'accuracy':>16}   worst emotion")
    for name, conditions in CONDITIONS.items():
        source = DrawnFaces(
            size=size, validation_faces=flags.faces, seed=flags.seed, conditions=conditions
        )
        images, labels = draw(source)
        right = predictor(images).argmax(axis=1) == labels
        accuracy = right.mean()
        error = np.sqrt(accuracy * (1 - accuracy) / len(right))
        recalls = [right[labels == code].mean() for code in range(len(ej.EMOTIONS))]
        worst = int(np.argmin(recalls))
        worst_name = f"{ej.EMOTIONS[worst]} {recalls[worst]:.1%}"
        print(f"{name:<40}{accuracy:>9.1%} +- {error:.1%}   {worst_name}", flush=True)


def draw(source: DrawnFaces) -> tuple[np.ndarray, np.ndarray]:
    """Draw the people who were not trained on: uint8 `[N, H, W, 3]`, int `[N]`."""
    examples = list(source.examples("validation"))
    images = np.stack([example["image"] for example in examples])
    return images, np.array([example["label"] for example in examples])


if __name__ == "__main__":
    sys.exit(run(main))
