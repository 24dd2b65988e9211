"""From action units to geometry: brows, eyes, nose, mouth, the folds of the skin, and the beard.

Wherever a number stands beside `au[n]`, it says how far unit n moves that point at full strength.
Sides are -1 and 1, left and right in the picture; `au[n, 0]` and `au[n, 1]` belong to them.
"""

from __future__ import annotations

import numpy as np

from emotion_jax.data.drawing.pen import Pen, ellipse, smooth, stroke
from emotion_jax.data.drawing.people import Person, Shot

_T = np.linspace(-1, 1, 13)  # along an eye or the lips
_ARCH = 1 - _T**2
_TEETH = (238, 232, 222)
_MOUTH = (70, 22, 26)
_TONGUE = (178, 84, 88)


def jaw_drop(actions: np.ndarray) -> float:
    """How far the chin moves down, in face units: units 26 and 27 drop the jaw."""
    return 0.08 * (actions[26, 0] + actions[26, 1]) + 0.07 * (actions[27, 0] + actions[27, 1])


def shade_features(pen: Pen, person: Person, shot: Shot, outline: np.ndarray) -> None:
    """Shade hollows and bulges: sockets, nose, cheeks (6, 12 swell them), chin (17), stubble."""
    au, base = shot.actions, person.nose_length
    away = -1 if shot.light_from > 0 else 1
    for index, side in enumerate((-1, 1)):
        pen.darken(ellipse(side * person.eye_gap, -0.03, 0.27, 0.17), 0.78)
        raised = max(au[6, index], 0.7 * au[12, index])
        apple = ellipse(side * 0.53, 0.42 - 0.10 * raised, 0.22, 0.15)
        pen.darken(apple, 1 + 0.16 * raised)
        under = smooth([(side * 0.30, 0.58), (side * 0.52, 0.62), (side * 0.75, 0.45)])
        pen.darken(stroke(under, 0.12), 1 - 0.22 * raised - 0.10 * person.age)
    pen.darken(ellipse(0, base + 0.10, 0.20, 0.07), 0.75, 0.1)
    # The side of the nose away from the light, and the light along its ridge.
    ridge = np.array([(0.05, -0.15), (0.17, base - 0.02), (0.04, base)])
    pen.darken(ridge * (away, 1), 0.74, 0.1)
    pen.darken(stroke(smooth([(0, -0.1), (0, 0.2), (0, 0.45)]), 0.1), 1.10, 0.2)
    below_lip = _mouth_height(person) + 0.20 + jaw_drop(au)
    pen.darken(ellipse(0, below_lip, 0.20, 0.06), 0.82 - 0.12 * au[17, 0])
    if person.beard == "stubble":
        pen.darken_pixels(_lower_face(pen, outline), 0.72)
    pen.apply_shade(0.045)


def draw_features(pen: Pen, person: Person, shot: Shot, outline: np.ndarray) -> None:
    """Draw all between the hairline and the chin."""
    au = shot.actions
    both = 0.5 * (au[:, 0] + au[:, 1])
    dark = person.skin * (0.62, 0.50, 0.48)
    _draw_beard(pen, person, au, outline)
    _draw_nose(pen, person, au, dark)
    for index, side in enumerate((-1, 1)):
        _draw_eye(pen, person, shot, au[:, index], side, dark)
    for index, side in enumerate((-1, 1)):
        _draw_brow(pen, person, au[:, index], side)
    _draw_mouth(pen, person, au, both)
    _draw_folds(pen, person, au, both)
    pen.flush()


def _draw_brow(pen: Pen, person: Person, au: np.ndarray, side: int) -> None:
    """1 lifts the inner end, 2 the outer, 4 pulls down and together, 9 presses down."""
    low = 0.13 * au[4] + 0.09 * au[9]
    y = -person.brow_height
    inner_x = 0.17 - 0.07 * au[4] - 0.02 * au[9]
    points = np.array(
        [
            (inner_x, y + 0.03 - 0.20 * au[1] + 1.25 * low),
            (0.36, y - 0.03 * person.brow_arch - 0.13 * au[1] - 0.10 * au[2] + 0.8 * low),
            (0.56, y - 0.05 * person.brow_arch + 0.02 * au[1] - 0.20 * au[2] + 0.35 * low),
            (0.74, y + 0.05 + 0.06 * au[1] * (1 - au[2]) - 0.17 * au[2] + 0.05 * low),
        ]
    )
    curve = smooth(points * (side, 1))
    pen.line(curve, 0.095 * person.brow_weight, person.brow, 0.04, taper=0.6)


def _draw_eye(pen: Pen, person: Person, shot: Shot, au: np.ndarray, side: int, dark) -> None:
    """5 opens the upper lid, 7 tightens both, 6 and 12 push the lower up, 1 slants the upper."""
    x = side * (person.eye_gap + person.eye_width * _T)  # _T = -1 at the nose
    tilt = -person.eye_tilt * person.eye_width * _T
    opening = 0.105 * person.eye_open
    up = opening * (1 + 0.65 * au[5] - 0.35 * au[7] - 0.25 * au[6] - 0.40 * au[9] - 0.12 * au[4])
    down = 0.060 * person.eye_open * (1 + 0.25 * au[5] - 0.7 * au[7] - 1.3 * au[6] - 0.8 * au[9])
    slant = 0.055 * au[1] * (1 - au[2]) * (1 - au[5]) * (_T + 0.4)
    # 4 with 5 or 7, anger's stare: the brow bears down on the inner half of the lid.
    slant = slant - 0.045 * au[4] * max(au[7] - au[1], 0) * (_T - 0.4)
    upper = tilt - np.maximum(up, 0.035) * _ARCH**0.7 + slant * _ARCH**0.5
    lower = np.maximum(tilt + down * _ARCH, upper + 0.012)

    def at(y: np.ndarray) -> np.ndarray:
        points = np.empty((len(x), 2))
        points[:, 0], points[:, 1] = x, y
        return points

    lid = np.concatenate([at(upper - 0.075 * _ARCH**0.5), at(upper)[::-1]])
    pen.paint(lid, person.skin * (0.84, 0.76, 0.74))
    pen.paint(np.concatenate([at(upper), at(lower)[::-1]]), (236, 233, 230))
    look = side * person.eye_gap + 0.07 * shot.gaze[0]
    for radius, colour in ((0.100, person.iris), (0.048, (14, 12, 14))):
        disc = ellipse(look, -0.025 + 0.02 * shot.gaze[1], radius, radius, count=14)
        # What of the disc lies between the lids.
        along = side * disc[:, 0] - person.eye_gap
        along /= person.eye_width
        lids = np.interp(along, _T, upper), np.interp(along, _T, lower)
        disc[:, 1] = disc[:, 1].clip(*lids)
        pen.paint(disc, colour)
    glint = ellipse(look + 0.03 * np.sign(shot.light_from), -0.06, 0.022, 0.022, count=8)
    if up > 0.07:
        pen.paint(glint, (250, 250, 250))
    lash = 0.052 if person.feminine else 0.038
    pen.line(at(upper - 0.012), lash, (34, 24, 24), taper=0.5)
    pen.line(at(lower + 0.008), 0.020, dark)
    crease = at(upper - (0.075 - 0.03 * au[5]) * _ARCH**0.5)
    pen.line(crease, 0.018, dark)


def _draw_nose(pen: Pen, person: Person, au: np.ndarray, dark) -> None:
    """9 lifts the wings and wrinkles the bridge, 10 widens them a little."""
    base, wide = person.nose_length, 0.185 * person.nose_width
    for index, side in enumerate((-1, 1)):
        raised = 0.07 * au[9, index] + 0.02 * au[10, index]
        w = wide * (1 + 0.15 * au[9, index] + 0.08 * au[10, index] + 0.06 * au[12, index])
        wing = [(0.75 * w, base - 0.16), (w, base - 0.07), (0.95 * w, base), (0.6 * w, base + 0.02)]
        curve = smooth((np.array(wing) - (0, raised)) * (side, 1))
        pen.line(curve, 0.032, dark, 0.08)
        nostril = ellipse(side * 0.48 * w, base + 0.01 - raised, 0.062, 0.026, count=10)
        pen.paint(nostril, dark * 0.55, 0.12)
    tip = smooth([(-0.35 * wide, base + 0.035), (0, base + 0.055), (0.35 * wide, base + 0.035)])
    pen.line(tip, 0.026, dark, 0.14)


def _mouth_height(person: Person) -> float:
    return 0.60 * person.nose_length + 0.40 * person.chin + 0.02


def _draw_mouth(pen: Pen, person: Person, au: np.ndarray, mean: np.ndarray) -> None:
    """Draw the lips by their four curves: outer and inner, upper and lower, from left to right."""
    side = (_T > 0).astype(int)
    wide = person.mouth_width * (
        1 + 0.30 * au[12] + 0.32 * au[20] + 0.10 * au[14]
        - 0.14 * au[23] - 0.06 * au[24] - 0.16 * au[27] - 0.08 * au[26] + 0.05 * au[15]
    )  # fmt: skip
    x = _T * wide[side]
    # The corners: 12 up, 14 a little, 15 and 20 down.
    corner = -0.19 * au[12] - 0.06 * au[14] + 0.16 * au[15] + 0.05 * au[20] + 0.03 * au[10]
    line = _mouth_height(person) + corner[side] * np.abs(_T) ** 1.5
    line = line + (0.05 * mean[12] - 0.05 * mean[15] - 0.07 * mean[17] - 0.05 * mean[10]) * _ARCH
    # The opening: 25 parts the lips, 26 and 27 drop the jaw; 20 and 12 make it a wide band.
    apart = max(mean[25] - 0.5 * mean[17], 0)
    round_ = _ARCH ** (0.35 if mean[20] > 0.3 else 0.5 if mean[26] + mean[27] > 0.3 else 0.8)
    upper_in = line - (0.03 * apart + 0.03 * mean[26] + 0.11 * apart * mean[10]) * round_
    drop = 0.10 * apart + 0.19 * mean[26] + 0.17 * mean[27]
    lower_in = line + drop * round_
    pressed = 1 - 0.45 * mean[23] - 0.40 * mean[24]
    full = person.lip_fullness * pressed * (1 - 0.25 * mean[12] - 0.2 * mean[20])
    bow = _ARCH**0.6 * (1 - 0.22 * np.exp(-((_T / 0.16) ** 2)))
    upper_out = upper_in - (0.075 * full + 0.06 * mean[10]) * bow
    lower_out = lower_in + 0.10 * full * _ARCH**0.6 * (1 + 0.35 * mean[17])

    def between(above: np.ndarray, below: np.ndarray) -> np.ndarray:
        y = np.concatenate([above, below[::-1]])
        return np.stack([np.concatenate([x, x[::-1]]), y], axis=1)

    pen.paint(between(upper_out, line), person.lips * 0.90, 0.03)
    pen.paint(between(line, lower_out), person.lips, 0.03)
    if drop + apart > 0.05:
        pen.paint(between(upper_in, lower_in), _MOUTH, 0.03)
        if drop > 0.2:
            floor = np.maximum(lower_in - 0.10 * _ARCH, upper_in)
            pen.paint(between(floor, lower_in), _TONGUE, 0.03)
        teeth = 0.10 * apart + 0.06 * mean[12]
        pen.paint(
            between(upper_in, np.minimum(upper_in + teeth * _ARCH**0.3, lower_in)), _TEETH, 0.03
        )
        if mean[20] > 0.3:  # stretched lips bare the lower teeth too
            pen.paint(between(np.maximum(lower_in - 0.06, upper_in), lower_in), _TEETH, 0.03)
    seam = person.lips * (0.42, 0.36, 0.36)
    for y in (upper_in, lower_in) if drop > 0.03 else (line,):
        thick = 0.030 + 0.012 * mean[24]
        pen.line(np.stack([x, y], axis=1), thick, seam, 0.03, taper=0.4)


def _draw_folds(pen: Pen, person: Person, au: np.ndarray, mean: np.ndarray) -> None:
    """Draw furrows where skin is pushed together: by the units, and by age."""
    crease = person.skin * (0.70, 0.60, 0.58)

    bearded = person.brow * 0.7 if person.beard == "full" else crease

    def fold(points, width: float, colour=crease) -> None:
        if width > 0.010:  # less does not fold the skin
            pen.line(smooth(points), width, colour, 0.02)

    age = max(person.age - 0.5, 0) * 0.04
    mouth = _mouth_height(person)
    raised = 0.020 * max(min(mean[1], mean[2] + 0.4), 0)
    for row in range(2):  # across the forehead
        y = -0.56 - 0.13 * row
        fold([(-0.42, y + 0.03), (-0.15, y), (0.15, y), (0.42, y + 0.03)], age * 0.6 + raised)
    for index, side in enumerate((-1, 1)):
        unit = au[:, index]
        frown = 0.032 * unit[4] * (unit[4] > 0.2)
        fold([(side * 0.055, -0.36), (side * 0.045, -0.25), (side * 0.06, -0.15)], frown)
        for row in range(2):  # 9: across the bridge of the nose
            y = -0.02 + 0.09 * row
            fold(
                [(side * 0.02, y), (side * 0.08, y - 0.03), (side * 0.14, y + 0.02)],
                0.030 * unit[9],
            )
        for angle in (-0.10, 0.02, 0.12):  # crow's feet
            width = 0.020 * unit[6] * (unit[12] > 0.3) + age * 0.6
            fold(
                [(side * 0.70, 0.5 * angle), (side * 0.76, angle), (side * 0.84, 1.4 * angle)],
                width,
            )
        # The dimple of 14 takes the place of the fold that 12 would make.
        pulled = max(unit[12] * (1 - 0.8 * unit[14]), unit[9], unit[10])
        end = person.mouth_width * (1.22 + 0.3 * unit[12] + 0.25 * unit[20])
        nasolabial = [
            (side * 0.24, person.nose_length - 0.06 - 0.06 * pulled),
            (side * (0.34 + 0.05 * pulled), person.nose_length + 0.12),
            (side * end, mouth - 0.03 - 0.06 * unit[12]),
        ]
        fold(nasolabial, age + 0.032 * pulled * (pulled > 0.25))
        dimple = person.mouth_width * (1.26 + 0.30 * unit[12])
        height = mouth - 0.17 * unit[12]
        fold(
            [
                (side * (dimple - 0.03), height - 0.12),
                (side * (dimple + 0.02), height),
                (side * (dimple - 0.03), height + 0.12),
            ],
            0.045 * unit[14],
            bearded,
        )
        droop = mouth + 0.14 * unit[15]
        fold(
            [(side * end * 0.92, droop), (side * end * 0.95, droop + 0.14)],
            0.034 * unit[15] * (unit[15] > 0.25),
            bearded,
        )


def _lower_face(pen: Pen, outline: np.ndarray) -> np.ndarray:
    """Pixels of the part of the face on which a beard grows."""
    jaw = outline[outline[:, 1] > 0.15]  # from the right over the chin to the left
    cheek = [(-0.80, 0.35), (-0.62, 0.62), (-0.36, 0.66), (0, 0.62)]
    cheek += [(-x, y) for x, y in cheek[2::-1]]
    return np.concatenate([pen.outline(jaw), pen.face(smooth(cheek))])


def _draw_beard(pen: Pen, person: Person, au: np.ndarray, outline: np.ndarray) -> None:
    """Draw all but stubble, which is a shade; the lips are drawn over them."""
    colour = person.brow * 1.1
    if person.beard == "full":
        pen.fill(_lower_face(pen, outline), colour)
    if person.beard == "goatee":
        chin = ellipse(0, person.chin - 0.14 + 0.8 * jaw_drop(au), 0.30, 0.20, exponent=2.6)
        pen.paint(chin, colour, 0.02)
    if person.beard in ("moustache", "goatee", "full"):
        y = _mouth_height(person) - 0.115 - 0.02 * (au[10].sum() + au[12].sum())
        points = [(-0.40, y + 0.10), (-0.2, y), (0, y - 0.03), (0.2, y), (0.40, y + 0.10)]
        pen.line(smooth(points), 0.15, colour, 0.04, taper=0.7)
