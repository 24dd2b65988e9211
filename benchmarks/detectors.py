"""How many faces the detectors find, how often they see one where there is none, and how fast.

    python benchmarks/detectors.py SCENES [--frames=N]

SCENES holds `dlib_faces` (the examples of dlib: photos, boxes in `training.xml` and `testing.xml`,
`dogs.jpg`) and `clips/no_face.mp4`. A box is found where a detection of its own overlaps it by half
of their union or more; boxes marked "ignore" count neither way. False alarms are the detections
that are left: on the photos with boxes, on the dogs, on the frames of the film. The network needs
the `landmarks` extra, and is left out without it.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from emotion_jax.errors import EmotionError, run
from emotion_jax.faces import Face, Finder
from emotion_jax.images import read_image
from emotion_jax.video import FilmReader

FINDERS = {
    "hog, min_face 40": Finder(min_face=40),
    "hog, min_face 80": Finder(min_face=80),
    "cnn, min_face 40": Finder(min_face=40, detector="cnn"),
    "cnn, min_face 80": Finder(min_face=80, detector="cnn"),
}
ENOUGH = 0.5  # of the union

Box = tuple[float, float, float, float]  # left, top, width, height


class Clock:
    """Finds faces, and adds up the time and the pixels."""

    def __init__(self, finder: Finder) -> None:
        self.finder, self.seconds, self.pixels = finder, 0.0, 0

    def detect(self, image: np.ndarray) -> list[Face]:
        """Find the faces of uint8 `[H, W, 3]`."""
        start = time.perf_counter()
        found = self.finder.detect(image)
        self.seconds += time.perf_counter() - start
        self.pixels += image.shape[0] * image.shape[1]
        return found


def main() -> None:
    """Measure each detector and print its row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenes", type=Path, help="the folder")
    parser.add_argument("--frames", type=int, default=4, help="of the film, evenly spread")
    flags = parser.parse_args()
    truth = {
        name: read_truth(flags.scenes / "dlib_faces" / f"{name}.xml")
        for name in ("training", "testing")
    }
    dogs = read_image(flags.scenes / "dlib_faces" / "dogs.jpg")
    frames = read_frames(flags.scenes / "clips" / "no_face.mp4", flags.frames)
    counts = [sum(len(boxes) for _, boxes, _ in truth[name]) for name in truth]
    print(f"{platform.machine()}, {os.cpu_count()} cores; one picture at a time")
    heads = (f"of {counts[0]}", f"of {counts[1]}", "photos", "dogs", f"{len(frames)} frames")
    print(f"{'':18}{'found in':>10}{'found in':>10}{'false alarms on':>30}{'ms a':>12}")
    print(f"{'':18}{'training':>10}{'testing':>10}")
    print(f"{'detector':18}" + "".join(f"{head:>10}" for head in heads) + f"{'megapixel':>12}")
    for name, finder in FINDERS.items():
        clock = Clock(finder)
        try:
            finder.detect(dogs[:100, :100])  # loads the model
            found, photos = zip(*(measure(truth[part], clock) for part in truth), strict=True)
        except EmotionError as error:
            print(f"{name:18} {error}")
            continue
        elsewhere = len(clock.detect(dogs)), sum(len(clock.detect(frame)) for frame in frames)
        numbers = "".join(f"{number:>10}" for number in (*found, sum(photos), *elsewhere))
        print(f"{name:18}{numbers}{1e9 * clock.seconds / clock.pixels:>12.0f}", flush=True)


def read_truth(path: Path) -> list[tuple[np.ndarray, list[Box], list[Box]]]:
    """Read the pictures that a file of dlib's names, their boxes and those to ignore."""
    try:
        tree = ElementTree.parse(path)
    except (OSError, ElementTree.ParseError) as error:
        raise EmotionError(f"'{path}' cannot be read ({error}); give dlib's examples") from error
    pictures = []
    for image in tree.iter("image"):
        boxes: tuple[list[Box], list[Box]] = [], []
        for box in image.iter("box"):
            x, y, width, height = (float(box.attrib[k]) for k in ("left", "top", "width", "height"))
            boxes[box.get("ignore") == "1"].append((x, y, width, height))
        pictures.append((read_image(path.parent / image.attrib["file"]), *boxes))
    return pictures


def read_frames(path: Path, count: int) -> list[np.ndarray]:
    """Read `count` frames of a film, evenly spread, RGB."""
    frames = [frame.image for frame in FilmReader(path).frames()]
    chosen = np.linspace(0, len(frames) - 1, min(count, len(frames)))
    return [frames[round(i)] for i in chosen]


def measure(
    pictures: Sequence[tuple[np.ndarray, list[Box], list[Box]]], clock: Clock
) -> tuple[int, int]:
    """Count the boxes that are found, and the detections that are no face."""
    found = alarms = 0
    for image, boxes, ignored in pictures:
        left = list(boxes)
        for face in sorted(clock.detect(image), key=lambda face: -face.score):
            overlaps = [overlap(face, box) for box in left]
            if overlaps and max(overlaps) >= ENOUGH:
                left.pop(int(np.argmax(overlaps)))
            elif not any(overlap(face, box) >= ENOUGH for box in ignored):
                alarms += 1
        found += len(boxes) - len(left)
    return found, alarms


def overlap(face: Face, box: Box) -> float:
    """The intersection's share of the union."""
    wide = min(face.x + face.width, box[0] + box[2]) - max(face.x, box[0])
    tall = min(face.y + face.height, box[1] + box[3]) - max(face.y, box[1])
    shared = max(wide, 0.0) * max(tall, 0.0)
    return shared / (face.width * face.height + box[2] * box[3] - shared)


if __name__ == "__main__":
    sys.exit(run(main))
