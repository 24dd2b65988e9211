"""Drawn faces: the data set that comes with the code, for the quick start and the tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar, Literal

import numpy as np

from emotion_jax.data.drawing.people import Conditions
from emotion_jax.data.sources import Example
from emotion_jax.errors import EmotionError
from emotion_jax.labels import EMOTIONS

# Goes up with every change that draws the same seeds differently, so that no cache serves the old.
DRAWING_VERSION = 1


@dataclasses.dataclass(frozen=True)
class DrawnFaces:
    """A source of drawn faces: many people, each with all eight expressions.

    Attributes:
      size: height and width of the pictures, in pixels.
      train_faces: how many faces to train on.
      validation_faces: how many to validate on, of people not seen in training.
      faces_per_person: a multiple of 8, for each person shows each expression equally often.
      seed: another one draws other people.
      conditions: what to force in every picture.

    Raises:
      EmotionError: a number is out of its range.
    """

    size: int = 32
    train_faces: int = 6400
    validation_faces: int = 1600
    faces_per_person: int = 8
    seed: int = 0
    conditions: Conditions = Conditions()

    name: ClassVar[str] = "drawn_faces"
    targets: ClassVar[Literal["label"]] = "label"
    channels: ClassVar[int] = 3

    def __post_init__(self):
        if self.faces_per_person < 1 or self.faces_per_person % len(EMOTIONS):
            raise EmotionError(
                f"faces_per_person is {self.faces_per_person}; use a multiple of {len(EMOTIONS)}, "
                "so that each person shows each expression equally often"
            )
        for key, option in (("train_faces", "train_faces"), ("validation_faces", "val_faces")):
            value = getattr(self, key)
            if value < 1 or value % self.faces_per_person:
                raise EmotionError(
                    f"{key} (data.{option}): {value}; use a multiple of faces_per_person, "
                    f"{self.faces_per_person}, so that every person is drawn in full"
                )
        if self.size < 16:
            raise EmotionError(
                f"size (image_size): {self.size}; use at least 16 pixels for a drawn face"
            )
        if self.seed < 0:
            raise EmotionError(f"seed (data.seed): {self.seed}; use 0 or above")

    def options(self) -> dict[str, Any]:
        """Everything that decides what is drawn, ready for JSON."""
        return {**dataclasses.asdict(self), "drawing_version": DRAWING_VERSION}

    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return ("train", "validation")

    def people(self, split: str) -> range:
        """The person seeds of a split; no person is in both.

        Raises:
          EmotionError: there is no such split.
        """
        if split not in self.splits():
            raise EmotionError(f"drawn faces have no split '{split}'; use 'train' or 'validation'")
        faces = self.train_faces if split == "train" else self.validation_faces
        # Even seeds train and odd ones validate, so that the splits stay apart at any size.
        first = 2 * (self.seed * _PEOPLE_PER_SEED) + (split == "validation")
        return range(first, first + 2 * (faces // self.faces_per_person), 2)

    def rows(self, split: str) -> int:
        """How many faces a split has."""
        return len(self.people(split)) * self.faces_per_person

    def examples(self, split: str) -> Iterator[Example]:
        """Draw a split, each time the same: people and emotions in a mixed order.

        Args:
          split: "train" or "validation".

        Yields:
          {"image": uint8 `[size, size, 3]` RGB, "label": int 0..7}.

        Raises:
          EmotionError: there is no such split.
        """
        people = self.people(split)
        # Drawing needs OpenCV; describing a source does not.
        from emotion_jax.data.drawing.faces import draw_face

        count = len(people) * self.faces_per_person
        for index in np.random.default_rng([4, people.start]).permutation(count).tolist():
            person = people[index // self.faces_per_person]
            emotion = index % len(EMOTIONS)
            shot = person * self.faces_per_person + index % self.faces_per_person
            image = draw_face(person, emotion, shot, size=self.size, conditions=self.conditions)
            yield {"image": image, "label": emotion}


# Room between the people of two seeds: more than anyone draws.
_PEOPLE_PER_SEED = 1 << 24
