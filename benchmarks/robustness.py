"""How well a network reads faces with glasses, in the dark, blurred, tilted, covered.

    python benchmarks/robustness.py --model=runs/quickstart
    python benchmarks/robustness.py --data=FOLDER --output=robustness [--only=glasses,darkness]

Lays each kind of `corruptions.py` in three severities over the same faces and prints accuracy with
its standard error, and what was lost to the faces as they are with that difference's own (the
faces are the same, so it is smaller). The faces are drawn people nobody trained on; or, with
`--data`, FER+'s PublicTest faces with a majority, of a folder with its two files, or the validation
faces of an array file (`python -m emotion_jax.data.arrays`).

With `--output` a folder receives `robustness.json` and `robustness.png`, one face in every state.

Glasses sit where eyes are in the mean of FER2013's frames: both measured with dlib's 68 points on
its PublicTest faces, enlarged five times.
"""

from __future__ import annotations

import argparse
import json
import sys
import zlib
from pathlib import Path

import numpy as np
from corruptions import CORRUPTIONS, SEVERITIES

import emotion_jax as ej
from emotion_jax.errors import EmotionError, run
from emotion_jax.labels import vote_targets
from emotion_jax.report import contact_sheet


def main() -> None:
    """Corrupt, predict, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="as predict.py's; the shipped weights by default")
    parser.add_argument("--data", type=Path, help="FER+'s folder, or an array file")
    parser.add_argument("--only", help="kinds, parted by commas; all by default")
    parser.add_argument("--faces", type=int, default=0, help="how many; 0 takes all")
    parser.add_argument("--sample", type=int, default=0, help="the number of the face to show")
    parser.add_argument("--seed", type=int, default=0, help="of what chance decides")
    parser.add_argument("--output", type=Path, help="a folder for the JSON and the picture")
    flags = parser.parse_args()
    if flags.seed < 0:
        raise EmotionError(f"--seed: {flags.seed}; use 0 or more")
    kinds = flags.only.split(",") if flags.only else list(CORRUPTIONS)
    if unknown := [kind for kind in kinds if kind not in CORRUPTIONS]:
        raise EmotionError(f"--only: no kind '{unknown[0]}'; use some of {', '.join(CORRUPTIONS)}")
    predictor = ej.load_predictor(flags.model)
    images, labels = load_faces(flags.data, predictor.spec.size, flags.faces)
    clean = predictor(images).argmax(1) == labels
    print(f"{len(images)} faces of {images.shape[1]} pixels, right as they are: {share(clean)}\n")
    print("| " + " | ".join(["kind", *(f"severity {s}: right, lost" for s in SEVERITIES)]) + " |")
    print("|---" * (1 + len(SEVERITIES)) + "|")
    results = {"faces": len(images), "seed": flags.seed, "clean": summary(clean, clean)}
    for name in kinds:
        found = []
        for severity in SEVERITIES:
            right = predictor(corrupt(images, name, severity, flags.seed)).argmax(1) == labels
            found.append(summary(right, clean))
        results[name] = found
        cells = (
            f"{100 * x['accuracy']:.1f} ± {100 * x['error']:.1f}, "
            f"{100 * x['lost']:.1f} ± {100 * x['lost_error']:.1f}"
            for x in found
        )
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)
    if flags.output is not None:
        flags.output.mkdir(parents=True, exist_ok=True)
        (flags.output / "robustness.json").write_text(json.dumps(results, indent=2) + "\n")
        face = images[flags.sample % len(images)][None]
        draw_sheet(face, flags.output / "robustness.png", flags.seed)
        print(f"\nwrote {flags.output}")


def corrupt(images: np.ndarray, name: str, severity: int, seed: int) -> np.ndarray:
    """Every face by one kind, each with chances of its own that depend on nothing else."""
    kind = zlib.crc32(name.encode())
    return np.stack(
        [
            CORRUPTIONS[name](image, severity, np.random.default_rng([seed, kind, i]))
            for i, image in enumerate(images)
        ]
    )


def load_faces(path: Path | None, size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Faces uint8 `[N, H, W, C]` and the codes of their emotions `[N]`."""
    if path is None:
        from emotion_jax.data.drawn_faces import DrawnFaces

        source = DrawnFaces(size=size, validation_faces=-(-(count or 1600) // 8) * 8)
        examples = list(source.examples("validation"))
        images = np.stack([example["image"] for example in examples])
        labels = np.array([example["label"] for example in examples])
    else:
        images, labels = _read_faces(path)
    if not len(images):
        raise EmotionError(f"--data: '{path}' has no validation faces; name another")
    return images[: count or None], labels[: count or None]


def _read_faces(path: Path) -> tuple[np.ndarray, np.ndarray]:
    if path.is_dir():
        from emotion_jax.data.ferplus import FerPlus

        examples = list(FerPlus(folder=str(path), size=48).examples("validation"))
        if not examples:
            return np.zeros((0, 48, 48, 1), np.uint8), np.zeros(0, int)
        images = np.stack([example["image"] for example in examples])
        targets, keep = vote_targets(
            np.array([example["votes"] for example in examples]), "majority"
        )
        return images[keep], targets[keep].argmax(1)
    from emotion_jax.data import HELD_OUT
    from emotion_jax.data.arrays import SPLITS, load_arrays
    from emotion_jax.data.selection import digests, hold_out

    arrays = load_arrays(path)
    images, split, labels = arrays.images, arrays.split, arrays.labels
    if arrays.votes is not None:
        targets, keep = vote_targets(arrays.votes, "majority")
        images, split, labels = images[keep], split[keep], targets[keep].argmax(1)
    if not arrays.split.any():  # all to train on: what a run of the default seed holds out
        chosen = hold_out(labels, digests(images), HELD_OUT, 0)
    else:
        chosen = split == SPLITS.index("validation")
    return images[chosen], labels[chosen]


def summary(right: np.ndarray, clean: np.ndarray) -> dict[str, float]:
    """Accuracy, what it lost to that of the same faces as they are, and both standard errors."""
    lost = clean.astype(float) - right
    root = np.sqrt(len(right))
    return {
        "accuracy": float(right.mean()),
        "error": float(right.std() / root),
        "lost": float(lost.mean()),
        "lost_error": float(lost.std() / root),
    }


def share(right: np.ndarray) -> str:
    return f"{right.mean():.1%} ± {right.std() / np.sqrt(len(right)):.1%}"


def draw_sheet(face: np.ndarray, path: Path, seed: int) -> None:
    """One face in every state, as it is and by severity: two kinds a row."""
    pictures, captions = [], []
    for name in CORRUPTIONS:
        pictures += [face, *(corrupt(face, name, severity, seed) for severity in SEVERITIES)]
        captions += ["as it is", *(f"{name} {severity}" for severity in SEVERITIES)]
    contact_sheet(np.concatenate(pictures), captions, path, columns=2 * (1 + len(SEVERITIES)))


if __name__ == "__main__":
    sys.exit(run(main))
