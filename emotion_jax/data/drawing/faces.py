"""The renderer: people with the eight expressions, drawn by geometry alone.

`draw_face` draws the crop a network sees, `draw_group` a photograph of several people. What a face
does is given in action units (`actions`), who it is and how it is seen in `people`; here
units become geometry. All lengths are in face coordinates (`pen`).
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from emotion_jax.data.drawing import hair
from emotion_jax.data.drawing.features import draw_features, jaw_drop, shade_features
from emotion_jax.data.drawing.pen import Pen, ellipse, smooth, stroke
from emotion_jax.data.drawing.people import Conditions, Person, Shot, sample_person, sample_shot
from emotion_jax.errors import EmotionError
from emotion_jax.labels import EMOTIONS

# The square crop of a face, in face coordinates: its side, and how far its centre lies below the
# eyes. Measured: dlib's HOG box around these faces, 1.12 times as wide and moved up by 8 %, is this
# in the median of 85 faces of 130 to 260 pixels.
CROP_SIDE = 2.28
CROP_CENTRE = 0.22


def draw_face(
    person_seed: int,
    emotion: int,
    shot_seed: int,
    *,
    size: int = 64,
    conditions: Conditions = Conditions(),  # noqa: B008 (frozen)
) -> np.ndarray:
    """Draw the face of one person showing one emotion, cropped as `ImageSpec` crops.

    Args:
      person_seed: decides who it is, and nothing else; 0 or above, as all seeds.
      emotion: code 0..7 in the order of `EMOTIONS`.
      shot_seed: decides strength, pose, light, noise and background, and nothing else.
      size: side of the picture, at least 16.
      conditions: what to force.

    Returns:
      uint8 `[size, size, 3]`, RGB.

    Raises:
      EmotionError: an argument is out of its range.
    """
    _check([person_seed], [emotion], shot_seed, size)
    person = sample_person(person_seed)
    shot = sample_shot(person, emotion, shot_seed, conditions)
    # Drawn twice as large and averaged down: smooth edges for four times the pixels.
    large = size * 2
    picture = np.empty((large, large, 3), np.uint8)
    _draw_background(picture, shot)
    scale = large / CROP_SIDE * shot.zoom
    centre = large * (0.5 + shot.offset) - (0, CROP_CENTRE * scale)
    _draw_person(picture, person, shot, conditions, tuple(centre), scale)
    return _develop(cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA), shot, size)


def draw_group(
    person_seeds: Sequence[int],
    emotions: Sequence[int],
    shot_seed: int = 0,
    *,
    face_size: int = 200,
    conditions: Conditions = Conditions(),  # noqa: B008 (frozen)
) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
    """Draw a photograph of several people side by side, shoulders and background with them.

    Args:
      person_seeds: who stands there, from left to right.
      emotions: the code 0..7 of each.
      shot_seed: decides light, poses and background.
      face_size: side of each face's crop in pixels, at least 16.
      conditions: what to force.

    Returns:
      The picture, uint8 `[H, W, 3]` RGB, and the crop of each face as (x, y, width, height) in its
      pixels.

    Raises:
      EmotionError: an argument is out of its range, or the lists differ in length.
    """
    if not len(person_seeds) or len(person_seeds) != len(emotions):
        raise EmotionError(
            f"draw_group got {len(person_seeds)} people and {len(emotions)} emotions; "
            "give one emotion for each of at least one person"
        )
    _check(person_seeds, emotions, shot_seed, face_size)
    people = [sample_person(seed) for seed in person_seeds]
    shots = [
        sample_shot(person, emotion, 1000 * shot_seed + i, conditions)
        for i, (person, emotion) in enumerate(zip(people, emotions, strict=True))
    ]
    large = 2 * face_size
    height, pitch = int(1.9 * large), int(1.45 * large)
    picture = np.empty((height, pitch * len(people), 3), np.uint8)
    _draw_background(picture, shots[0])
    boxes: list[tuple[int, int, int, int]] = []
    for i, (person, shot) in enumerate(zip(people, shots, strict=True)):
        scale = large / CROP_SIDE * shot.zoom
        x = pitch * (i + 0.5) + large * shot.offset[0]
        y = large * (1.0 + 2 * shot.offset[1])
        _draw_person(picture, person, shot, conditions, (x, y - CROP_CENTRE * scale), scale)
        side = round(face_size * shot.zoom)
        boxes.append((round(x / 2 - side / 2), round(y / 2 - side / 2), side, side))
    small = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return _develop(small, shots[0], face_size), boxes


def _check(person_seeds: Sequence[int], emotions: Sequence[int], shot_seed: int, size: int) -> None:
    for emotion in emotions:
        if not 0 <= emotion < len(EMOTIONS):
            raise EmotionError(f"emotion {emotion} does not exist; use a code in 0..7")
    for seed in (*person_seeds, shot_seed):
        if seed < 0:
            raise EmotionError(f"a seed is {seed}; use 0 or above")
    if size < 16:
        raise EmotionError(f"a face of {size} pixels cannot be drawn; use a size of at least 16")


def _draw_background(picture: np.ndarray, shot: Shot) -> None:
    """A wall that changes in brightness, and things out of focus before it."""
    height, width = picture.shape[:2]
    # Drawn small, blurred and enlarged: a wide blur at the cost of a narrow one.
    low, wide = 24, 24 * width // height
    small = np.empty((low, wide, 3), np.uint8)
    top, bottom = shot.background
    small[:] = (top + (bottom - top) * np.linspace(0, 1, low)[:, None])[:, None]
    for left, up, across, down, lightness in shot.shapes.tolist():
        x, y = int(left * wide), int((up - 0.2) * low)
        colour = np.minimum(top * (0.6 + 0.8 * lightness), 255)
        small[max(y, 0) : max(y + int(down * low), 0), x : x + 1 + int(across * wide / 3)] = colour
    small = cv2.GaussianBlur(small, (0, 0), 0.8)
    cv2.resize(small, (width, height), picture, interpolation=cv2.INTER_LINEAR)


def head_outline(person: Person, actions: np.ndarray) -> np.ndarray:
    """The closed outline of the skull and the jaw, float `[N, 2]`; the jaw drops with 26 and 27."""
    drop = jaw_drop(actions)
    cheek, jaw, chin = person.cheeks, person.jaw, person.chin
    right = np.array(
        [
            (0.50, -1.30), (0.85, -0.95), (0.98 * cheek, -0.40), (0.97 * cheek, 0.15),
            (0.86 * jaw, 0.62 + 0.4 * drop), (0.62 * jaw, chin - 0.29 + 0.8 * drop),
            (0.27 * jaw, chin - 0.04 + drop),
        ]
    )  # fmt: skip
    left = right[::-1] * (-1, 1)
    return smooth([(0, -1.40), *right, (0, chin + drop), *left], closed=True, steps=5)


def _draw_person(
    picture: np.ndarray,
    person: Person,
    shot: Shot,
    conditions: Conditions,
    centre: tuple[float, float],
    scale: float,
) -> None:
    pen = Pen(picture, centre=centre, scale=scale, yaw=shot.yaw, pitch=shot.pitch, roll=shot.roll)
    hair.draw_back(pen, person)
    _draw_body(pen, person)
    # Turned away, one ear is seen on the side of the head; the other hides behind the face.
    near_side = np.sign(shot.yaw) * -1 if abs(shot.yaw) > 8 else 0
    for side in (-1, 1):
        if side != near_side:
            _draw_ear(pen, person, side, near=False)
    outline = head_outline(person, shot.actions)
    silhouette = pen.outline(outline)
    pen.fill(silhouette, person.skin)
    pen.shade_within(silhouette)
    _shade_head(pen, person, shot, outline)
    shade_features(pen, person, shot, outline)
    draw_features(pen, person, shot, outline)
    hair.draw_front(pen, person)
    if near_side and person.hair_style not in hair.COVERS_EARS:
        _draw_ear(pen, person, near_side, near=True)
    if person.glasses if conditions.glasses is None else conditions.glasses:
        _draw_glasses(pen, person, shot)


def _draw_body(pen: Pen, person: Person) -> None:
    neck = 0.50 if person.feminine else 0.60
    throat = np.array([(-neck, 0.5), (neck, 0.5), (neck + 0.1, 2.2), (-neck - 0.1, 2.2)])
    pen.fill(pen.body(throat), person.skin * 0.86)
    # The shadow of the jaw tells the chin from the neck.
    low = person.chin + 0.1
    shadow = smooth([(neck, low), (0.3, low + 0.22), (-0.3, low + 0.22), (-neck, low)])
    pen.fill(pen.body(np.concatenate([throat[:2], shadow])), person.skin * (0.66, 0.60, 0.58))
    if pen.body(np.array([(0.0, 1.6)]))[0, 1] > len(pen.picture):
        return  # the frame ends above the shoulders
    wide = 1.75 if person.feminine else 2.0
    shoulder = [(-wide, 4.5), (-wide, 2.5), (-1.3, 2.05), (-neck - 0.05, 1.72), (-0.3, 1.95)]
    mirrored = [(-x, y) for x, y in shoulder[::-1]]
    pen.fill(pen.body(smooth([*shoulder, (0, 2.05), *mirrored])), person.shirt)
    collar = smooth(
        [(-neck - 0.05, 1.72), (-0.3, 1.95), (0, 2.05), (0.3, 1.95), (neck + 0.05, 1.72)]
    )
    pen.fill(pen.body(stroke(collar, 0.09, taper=0.2)), person.shirt * 0.8)


def _draw_ear(pen: Pen, person: Person, side: int, *, near: bool) -> None:
    ear = ellipse(
        side * (0.90 if near else 0.98), 0.10, 0.15 * person.ears, 0.27 * person.ears, count=14
    )
    ear[:, 0] += side * 0.12 * (0.1 - ear[:, 1])  # ears lean outwards at the top
    # Ears sit behind the face: the turning takes them along the other way.
    pixels = pen.face(ear, lift=-0.40 if near else -0.30)
    pen.fill(pixels, person.skin * 0.93)
    middle = pixels.mean(axis=0)
    pen.fill(middle + (pixels - middle) * 0.55, person.skin * (0.80, 0.72, 0.70))


def _shade_head(pen: Pen, person: Person, shot: Shot, outline: np.ndarray) -> None:
    """Round the head: a soft rim, and the side away from the light darker."""
    rim = np.concatenate([outline, outline[:1]])
    pen.darken_pixels(pen.outline(stroke(rim, 0.30, taper=0.0)), 0.80)
    away = -np.sign(shot.light_from) or 1.0
    strength = 0.45 * abs(shot.light_from) * shot.light_contrast
    shadow = [(0.16, -1.4), (0.22, -0.4), (0.10, 0.1), (0.26, 0.5), (0.12, 0.9), (0.1, 1.5)]
    far = [(1.5, 1.5), (1.5, -1.4)]
    pen.darken(np.array([*shadow, *far]) * (away, 1), 1 - strength)
    pen.apply_shade(0.18)


def _draw_glasses(pen: Pen, person: Person, shot: Shot) -> None:
    """Frames, temples, tinted lenses and what is mirrored in them."""
    exponent = {"round": 2.0, "square": 5.0, "cat": 3.5, "aviator": 3.0}[person.frame]
    height = {"round": 0.27, "square": 0.22, "cat": 0.22, "aviator": 0.28}[person.frame]
    lift, lenses = 0.10, []
    for side in (-1, 1):
        lens = ellipse(side * 0.45, 0.04, 0.33, height, exponent=exponent, count=28)
        inner = -side * (lens[:, 0] - side * 0.45) / 0.33  # 1 at the nose, -1 at the temple
        if person.frame == "cat":
            lens[:, 1] -= 0.07 * np.maximum(-inner, 0) * (lens[:, 1] < 0.04)
        if person.frame == "aviator":
            lens[:, 1] -= 0.08 * np.maximum(inner, 0) * (lens[:, 1] > 0.04)
        lenses.append(lens)
    pixels = [pen.face(lens, lift) for lens in lenses]
    pen.glaze(pixels, person.tint_colour, person.tint)
    if shot.reflection > 0.5:
        band = np.array([(-0.24, 0.15), (-0.10, 0.17), (0.18, -0.16), (0.02, -0.17)])
        bands = [pen.face(band + (side * 0.45, 0.04), lift) for side in (-1, 1)]
        pen.glaze(bands, (245, 248, 255), 0.7 * shot.reflection)
    for side, lens in zip((-1, 1), lenses, strict=True):
        ring = np.concatenate([lens, lens[:1]])
        pen.fill(pen.face(stroke(ring, person.frame_weight, taper=0), lift), person.frame_colour)
        if side * shot.yaw < 10:
            arm = np.array([(side * 0.77, -0.03), (side * 0.98, 0.0)])
            pen.fill(pen.face(stroke(arm, person.frame_weight, taper=0)), person.frame_colour)
    bridge = smooth([(-0.13, 0.0), (0, -0.05), (0.13, 0.0)])
    pen.fill(pen.face(stroke(bridge, person.frame_weight, taper=0), lift), person.frame_colour)


def _develop(picture: np.ndarray, shot: Shot, face_size: int) -> np.ndarray:
    """The camera: light and its colour, blur, noise."""
    sigma = shot.blur * face_size
    if sigma > 0.25:
        picture = cv2.GaussianBlur(picture, (0, 0), sigma)
    exposed = picture * (shot.light * shot.light_colour).astype(np.float32)
    rng = np.random.default_rng(shot.noise_seed)
    exposed += shot.noise * rng.standard_normal(picture.shape, np.float32)
    return np.clip(exposed, 0, 255).astype(np.uint8)
