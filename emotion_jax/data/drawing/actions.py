"""What the face does: emotions as action units of the Facial Action Coding System.

The units are those of Ekman and Friesen (Facial Action Coding System, 1978), the combinations per
emotion those of the field (EMFACS):

  neutral    none
  happiness  6 + 12, at times 25: cheeks up, lip corners pulled, teeth
  sadness    1 + 4 + 15, at times 17: inner brows up and together, lip corners down, chin up
  surprise   1 + 2 + 5 + 25 + 26, at times 27: brows and lids up, jaw dropped
  fear       1 + 2 + 4 + 5 + 7 + 20 + 25, at times 26: brows up and together, lips stretched
  disgust    9 + 10, at times 15, 17 or 25: nose wrinkled, upper lip up
  anger      4 + 5 + 7 + 23 + 24: brows down, lids tight, lips pressed
  contempt   12 + 14 on one side only: one lip corner tightened and pulled
"""

from __future__ import annotations

import numpy as np

from emotion_jax.labels import EMOTIONS

NUM_UNITS = 28  # rows of an action array: a unit's number is its row, 27 the largest in use

# Intensity of each unit at the emotion's full strength, 1 being the most this face can do.
ALWAYS: dict[str, dict[int, float]] = {
    "neutral": {},
    "happiness": {6: 0.9, 12: 1.0},
    "sadness": {1: 1.0, 4: 0.5, 15: 1.0},
    "surprise": {1: 1.0, 2: 1.0, 5: 1.0, 25: 1.0, 26: 1.0},
    "fear": {1: 0.9, 2: 0.4, 4: 0.55, 5: 0.9, 7: 0.3, 20: 1.0, 25: 0.8},
    "disgust": {9: 1.0, 10: 1.0},
    "anger": {4: 1.0, 5: 0.45, 7: 0.7, 23: 0.8, 24: 0.9},
    "contempt": {12: 0.8, 14: 1.0},
}
# Units that join in half of the pictures.
SOMETIMES: dict[str, dict[int, float]] = {
    "happiness": {25: 0.8},
    "sadness": {17: 0.8},
    "surprise": {27: 0.7},
    "fear": {26: 0.4},
    "disgust": {15: 0.4, 17: 0.4, 25: 0.5},
}
ONE_SIDED = ("contempt",)


def sample_actions(rng: np.random.Generator, emotion: int, resting: np.ndarray) -> np.ndarray:
    """Draw the action units of one picture of an emotion.

    The whole expression has a strength in 0.6..1 and each unit and side wavers by some percent:
    faces are neither equally moved nor symmetric.

    Args:
      rng: the source of chance.
      emotion: code 0..7.
      resting: what this person's face does at rest, float `[28, 2]`.

    Returns:
      Intensities in 0..1, float `[28, 2]`: row = number of the unit, column = left and right side
      of the picture.
    """
    name = EMOTIONS[emotion]
    actions = np.zeros((NUM_UNITS, 2))
    for unit, peak in ALWAYS[name].items():
        actions[unit] = peak
    for unit, peak in SOMETIMES.get(name, {}).items():
        if rng.random() < 0.5:
            actions[unit] = peak
    actions *= rng.uniform(0.6, 1.0) * rng.uniform(0.85, 1.15, (NUM_UNITS, 1))
    actions *= rng.uniform(0.93, 1.07, (NUM_UNITS, 2))
    side = rng.integers(2)
    if name in ONE_SIDED:
        actions[:, side] = 0.0
    # An expression covers the resting face rather than adding to it.
    return np.clip(np.maximum(actions, resting), 0.0, 1.0)
