"""The eight emotions in AffectNet's order, and the maps from other label sets into it, by name."""

from __future__ import annotations

from typing import Literal

import numpy as np

from emotion_jax.errors import EmotionError

# The position in this tuple is AffectNet's code of the expression (0..7).
EMOTIONS = (
    "neutral",
    "happiness",
    "sadness",
    "surprise",
    "fear",
    "disgust",
    "anger",
    "contempt",
)

# Columns of a file of votes: the emotions, then the two ways to say "none of them".
VOTES = (*EMOTIONS, "unknown", "no face")

# The columns of fer2013new.csv, in the file's own order.
FERPLUS_COLUMNS = (
    "neutral",
    "happiness",
    "surprise",
    "sadness",
    "anger",
    "disgust",
    "fear",
    "contempt",
    "unknown",
    "no face",
)

_SPELLINGS = {
    "neutral": ("neutral", "calm"),
    "happiness": ("happiness", "happy", "joy"),
    "sadness": ("sadness", "sad"),
    "surprise": ("surprise", "surprised"),
    "fear": ("fear", "fearful", "afraid"),
    "disgust": ("disgust", "disgusted"),
    "anger": ("anger", "angry"),
    "contempt": ("contempt", "contemptuous"),
}
_CODES = {
    spelling: EMOTIONS.index(emotion)
    for emotion, spellings in _SPELLINGS.items()
    for spelling in spellings
}

VoteRule = Literal["majority", "distribution"]


def emotion_code(name: str) -> int:
    """The code 0..7 of an emotion in any common spelling ("Happy", "happiness", "joy").

    Raises:
      EmotionError: the name is no known spelling of one of the eight.
    """
    code = _CODES.get(name.strip().lower())
    if code is None:
        raise EmotionError(f"'{name}' is not an emotion; use one of {', '.join(EMOTIONS)}")
    return code


def one_hot(codes: np.ndarray, num_classes: int = len(EMOTIONS)) -> np.ndarray:
    """Integer codes `[N]` in 0..num_classes-1 as distributions, float32 `[N, num_classes]`."""
    return np.eye(num_classes, dtype=np.float32)[np.asarray(codes, np.int64)]


def vote_targets(votes: np.ndarray, rule: VoteRule) -> tuple[np.ndarray, np.ndarray]:
    """Turns counted votes into training targets.

    "majority" is the official rule of FER+ (Barsoum et al., "Training Deep Networks for Facial
    Expression Recognition with Crowd-Sourced Label Distribution", ICMI 2016): a class with one
    vote is an outlier and loses it; a face is kept where one emotion holds more than half of the
    votes that remain, "unknown" and "no face" counted in. "distribution" keeps every face on
    which, outliers removed, some emotion has a vote and "no face" does not lead: many more faces
    to learn from than the rule admits to the score.

    Votes over the eight emotions alone (`[N, 8]`) are taken as they are, fractions too: the
    outlier rule is for counts of ten people.

    Either way a kept face's target is the distribution of its remaining votes over the eight
    emotions; under "majority" its largest entry is the official label.

    Args:
      votes: counts `[N, 10]` in the order of `VOTES`, or `[N, 8]` in the order of `EMOTIONS`.
      rule: "majority" or "distribution".

    Returns:
      targets, float32 `[N, 8]`, whose rows sum to 1 (uniform where nothing remains), and keep,
      bool `[N]`.
    """
    counts = np.asarray(votes, np.float32)
    if counts.ndim != 2 or counts.shape[1] not in (len(EMOTIONS), len(VOTES)):
        raise EmotionError(f"votes have the shape {counts.shape}; need [N, 8] or [N, 10]")
    if counts.shape[1] == len(VOTES):
        counts = np.where(counts <= 1, 0, counts)
    emotions = counts[:, : len(EMOTIONS)]
    total = emotions.sum(axis=1, keepdims=True)
    targets = np.where(total > 0, emotions / np.where(total > 0, total, 1), 1 / len(EMOTIONS))
    if rule == "majority":
        keep = emotions.max(axis=1) > counts.sum(axis=1) / 2
    elif rule == "distribution":
        keep = total[:, 0] > 0
        if counts.shape[1] == len(VOTES):
            keep &= counts.argmax(axis=1) != VOTES.index("no face")
    else:
        raise EmotionError(f"no vote rule '{rule}'; use 'majority' or 'distribution'")
    return targets.astype(np.float32), keep
