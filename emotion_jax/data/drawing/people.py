"""Who is drawn and how the picture is taken: people and shots, drawn by chance from seeds."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from emotion_jax.data.drawing.actions import NUM_UNITS, sample_actions
from emotion_jax.errors import EmotionError

Colour = tuple[float, float, float]  # RGB, each 0..255

# Skin from very light to very dark, the steps of a common six-type scale.
SKIN_TONES = np.array(
    [
        (248, 210, 182), (238, 192, 158), (220, 168, 130),
        (190, 136, 98), (142, 94, 66), (94, 60, 43),
    ],
    float,
)  # fmt: skip
HAIR_COLOURS: tuple[Colour, ...] = (
    (28, 24, 26), (48, 34, 28), (84, 56, 38), (124, 82, 48), (196, 154, 92), (150, 68, 36),
)  # fmt: skip
IRIS_COLOURS: tuple[Colour, ...] = (
    (58, 36, 24), (84, 54, 30), (104, 86, 46), (82, 112, 78), (74, 112, 148), (104, 120, 130),
)  # fmt: skip
HAIR_STYLES = (
    "bald", "receding", "short", "parted", "fringe", "curly", "long", "long fringe", "bun", "scarf",
)  # fmt: skip
BEARDS = ("none", "stubble", "moustache", "goatee", "full")
FRAMES = ("round", "square", "cat", "aviator")


@dataclasses.dataclass(frozen=True)
class Conditions:
    """What to force in every picture; None leaves it to chance.

    Attributes:
      glasses: whether the person wears glasses; by chance 3 of 10 people do.
      light: factor on the brightness, above 0 up to 2; by chance 0.45 to 1.15.
      yaw: how far the head is turned to the right of the picture, in degrees, -45 to 45; by chance
        up to 30 either way.

    Raises:
      EmotionError: a number is out of its range.
    """

    glasses: bool | None = None
    light: float | None = None
    yaw: float | None = None

    def __post_init__(self):
        if self.light is not None and not 0 < self.light <= 2:
            raise EmotionError(f"light is {self.light}; use a factor above 0 and up to 2")
        if self.yaw is not None and not -45 <= self.yaw <= 45:
            raise EmotionError(f"yaw is {self.yaw}; use degrees from -45 to 45")


@dataclasses.dataclass(frozen=True)
class Person:
    """An identity: everything that stays from picture to picture.

    Lengths are in units of half the width of the head, as in `faces`; numbers around 1 are
    factors on the average face.
    """

    skin: np.ndarray
    hair: np.ndarray
    brow: np.ndarray
    iris: np.ndarray
    lips: np.ndarray
    shirt: np.ndarray
    hair_style: str
    hair_volume: float
    parting: float
    beard: str
    age: float  # 0 young .. 1 old
    feminine: bool
    cheeks: float
    jaw: float
    chin: float
    forehead: float
    eye_gap: float
    eye_width: float
    eye_open: float
    eye_tilt: float
    brow_height: float
    brow_weight: float
    brow_arch: float
    nose_width: float
    nose_length: float
    mouth_width: float
    lip_fullness: float
    ears: float
    glasses: bool
    frame: str
    frame_colour: np.ndarray
    frame_weight: float
    tint: float  # 0 clear .. 0.5 dark
    tint_colour: np.ndarray
    resting: np.ndarray  # action units of the face at rest, [28, 2]


@dataclasses.dataclass(frozen=True)
class Shot:
    """One picture of a person: what the face does, where it looks, and how the camera sees it."""

    actions: np.ndarray  # [28, 2]
    yaw: float  # degrees, positive to the right of the picture
    pitch: float  # degrees, positive down
    roll: float  # degrees, positive clockwise
    gaze: np.ndarray  # [2], -1..1 right and down
    light: float
    light_colour: np.ndarray  # [3], factors
    light_from: float  # -1 from the left .. 1 from the right
    light_contrast: float  # 0 flat .. 1 hard
    reflection: float  # of the glasses, 0..1
    background: np.ndarray  # [2, 3]: colours of the top and the bottom
    shapes: np.ndarray  # [3, 5]: left, top, width, height in 0..1 and lightness of things behind
    offset: np.ndarray  # [2], of the frame, in sides of the crop
    zoom: float
    blur: float  # sigma in sides of the crop
    noise: float  # sigma in 0..255
    noise_seed: int


@functools.lru_cache(maxsize=4096)
def sample_person(person_seed: int) -> Person:
    """Draw an identity; the same seed is the same person."""
    rng = np.random.default_rng([1, person_seed])

    def around(centre: float, spread: float) -> float:
        return float(np.clip(rng.normal(centre, spread), centre - 2 * spread, centre + 2 * spread))

    def any_of(names: tuple, weights: tuple[float, ...] | None = None):
        share = None if weights is None else np.array(weights) / sum(weights)
        return names[int(rng.choice(len(names), p=share))]

    tone = rng.uniform(0, len(SKIN_TONES) - 1)
    skin = np.array([np.interp(tone, range(len(SKIN_TONES)), c) for c in SKIN_TONES.T])
    skin = np.clip(skin + rng.normal(0, 2.5, 3), 20, 255)
    age, feminine = rng.random(), bool(rng.random() < 0.5)
    # Dark skin goes with dark hair and eyes more often than not; age turns hair grey.
    fair = max(0.06, 1 - tone / 3)
    hair = np.array(any_of(HAIR_COLOURS, (2, 2, 1.5, fair, fair, 0.6 * fair)))
    grey = np.clip((age - 0.6) * 3, 0, 1) * rng.random()
    hair = hair + (np.array((190.0, 188, 186)) - hair) * grey
    hair = np.clip(hair + rng.normal(0, 5), 10, 255)
    # Brows are darker than hair and much darker than the skin, or no expression could be read.
    brow = hair * min(0.9, 85 / hair.mean(), 0.5 * skin.mean() / hair.mean())
    if feminine:
        style = any_of(HAIR_STYLES, (0.1, 0, 0.8, 1, 1, 1, 3, 2, 1.5, 1))
        beard, lipstick = "none", rng.random() < 0.5
    else:
        style = any_of(HAIR_STYLES, (1, 1, 3, 2.5, 1.5, 1.2, 0.4, 0.2, 0.1, 0))
        beard, lipstick = any_of(BEARDS, (3, 1.5, 0.8, 0.8, 1.2)), False
    lips = skin * (0.80, 0.60, 0.60)
    if lipstick:
        lips = 0.4 * lips + 0.6 * np.array((176.0, 44, 62)) * rng.uniform(0.7, 1.1)
    return Person(
        skin=skin,
        hair=hair,
        brow=brow,
        iris=np.array(any_of(IRIS_COLOURS, (3, 2, 1, fair, 1.5 * fair, fair))),
        lips=lips,
        shirt=rng.uniform(40, 225, 3),
        hair_style=style,
        hair_volume=rng.uniform(0.0, 0.14),
        parting=rng.uniform(-0.5, 0.5),
        beard=beard,
        age=age,
        feminine=feminine,
        cheeks=around(1.0, 0.03),
        jaw=around(0.95 if feminine else 1.03, 0.05),
        chin=around(1.22 if feminine else 1.28, 0.05),
        forehead=around(0.84, 0.07),
        eye_gap=around(0.43, 0.018),
        eye_width=around(0.205, 0.012),
        eye_open=around(1.05 if feminine else 0.95, 0.1),
        eye_tilt=around(0.08, 0.09),
        brow_height=around(0.27, 0.02),
        brow_weight=around(0.8 if feminine else 1.15, 0.16),
        brow_arch=around(1.1 if feminine else 0.8, 0.3),
        nose_width=around(1.0, 0.12),
        nose_length=around(0.50, 0.03),
        mouth_width=around(0.37, 0.025),
        lip_fullness=around(1.15 if feminine else 0.9, 0.18),
        ears=around(1.0, 0.12),
        glasses=bool(rng.random() < 0.3),
        frame=any_of(FRAMES),
        frame_colour=np.array(any_of(((26, 24, 28), (66, 40, 26), (150, 120, 70), (110, 30, 40)))),
        frame_weight=rng.uniform(0.022, 0.055),
        tint=rng.uniform(0.15, 0.5) if rng.random() < 0.25 else 0.06,
        tint_colour=np.array(any_of(((40, 36, 40), (90, 58, 34), (60, 80, 96)))),
        # Few faces are blank at rest: some frown a little, some droop, some smile.
        resting=np.repeat(rng.uniform(0, 0.12, (NUM_UNITS, 1)), 2, 1)
        * np.isin(np.arange(NUM_UNITS), (1, 2, 4, 6, 7, 12, 15))[:, None],
    )


def sample_shot(person: Person, emotion: int, shot_seed: int, conditions: Conditions) -> Shot:
    """Draw one picture of a person; forcing a condition leaves all other chances as they fall."""

    def around(centre: float, spread: float, limit: float) -> float:
        return min(max(rng.normal(centre, spread), centre - limit), centre + limit)

    # Actions have their own stream: but for them the same shot of another emotion is the same.
    actions = sample_actions(np.random.default_rng([3, shot_seed]), emotion, person.resting)
    rng = np.random.default_rng([2, shot_seed])
    yaw = around(0, 13, 30)
    # One picture in four is taken in poor light, and there the sensor is noisier.
    light = rng.uniform(0.45, 0.7) if rng.random() < 0.25 else rng.uniform(0.8, 1.15)
    light = float(light if conditions.light is None else conditions.light)
    warmth = rng.normal(0.01, 0.04)
    wall = rng.uniform(50, 235, 3) * 0.5 + rng.uniform(30, 120)
    return Shot(
        actions=actions,
        yaw=yaw if conditions.yaw is None else float(conditions.yaw),
        pitch=around(0, 4, 9),
        roll=around(0, 4, 10),
        gaze=rng.normal(0, 0.4, 2).clip(-1, 1),
        light=light,
        light_colour=np.array((1 + warmth, 1.0, 1 - warmth)),
        light_from=rng.uniform(-1, 1),
        light_contrast=rng.random(),
        reflection=rng.random(),
        background=np.stack([wall, wall * rng.uniform(0.6, 1.2)]).clip(0, 255),
        shapes=rng.uniform(0, 1, (3, 5)),
        offset=rng.normal(0, 0.02, 2).clip(-0.04, 0.04),
        zoom=around(1, 0.035, 0.07),
        blur=rng.uniform(0, 0.016),
        noise=rng.uniform(1, 5) / max(light, 0.4) ** 0.5,
        noise_seed=int(rng.integers(1 << 32)),
    )
