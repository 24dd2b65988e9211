"""Hair and headscarves: what lies behind the head, and what frames the face."""

from __future__ import annotations

import numpy as np

from emotion_jax.data.drawing.pen import Pen, ellipse, smooth, stroke
from emotion_jax.data.drawing.people import Person

LONG = ("long", "long fringe")
COVERS_EARS = (*LONG, "scarf", "curly")

Points = list[tuple[float, float]]


def draw_back(pen: Pen, person: Person) -> None:
    """Draw what lies behind the head: the hair's other side, a bun, the back of a scarf."""
    if person.hair_style == "bald":
        return
    if person.hair_style == "scarf":
        half = [(0.0, -1.52), (0.6, -1.44), (1.08, -0.8), (1.16, 0.2), (1.05, 1.1), (1.2, 2.3)]
        pen.fill(pen.hanging(_mirrored(half)), person.shirt * 0.7)
        return
    if person.hair_style not in LONG:
        # Between the far temple of a turned head and the hair's outer edge this is what is seen.
        pen.fill(pen.outline(_crown(person)), person.hair)
    else:
        wide = person.hair_volume
        half = [(0.0, -1.5 - wide), (0.6, -1.42 - wide), (1.05 + wide, -0.8), (1.18 + wide, 0.2)]
        half += [(1.2, 1.2), (1.1, 2.1)]
        pen.fill(pen.hanging(_mirrored(half)), person.hair * 0.72)
    if person.hair_style == "bun":
        pen.fill(pen.outline(ellipse(0, -1.55, 0.42, 0.36)), person.hair * 0.72)


def draw_front(pen: Pen, person: Person) -> None:
    """Draw what frames the face, down to the hairline."""
    if person.hair_style == "bald":
        return
    if person.hair_style == "scarf":
        _draw_scarf(pen, person)
        return
    hairline, crown = smooth(_hairline(person)), _crown(person)
    inner, outer = pen.face(hairline), pen.outline(crown)
    if person.hair_style in LONG:
        # Below the jaw hair hangs: it no longer follows the face's surface.
        inner = np.where(hairline[:, 1:] > 0.9, pen.hanging(hairline), inner)
        outer = pen.hanging(crown)
    pen.fill(np.concatenate([inner, outer[::-1]]), person.hair)
    # Where the light lies on the crown.
    shine = smooth([(-0.62, -0.98), (-0.3, -1.22), (0.1, -1.27), (0.4, -1.2)])
    lighter = np.minimum(person.hair * 1.25 + 8, 255)
    pen.fill(pen.outline(stroke(shine, 0.07 + 0.3 * person.hair_volume)), lighter)


def _hairline(person: Person) -> Points:
    """Where the face begins, from the left temple over the forehead to the right."""
    style, top, part = person.hair_style, -person.forehead, person.parting
    if style == "receding":
        line = [(-0.86, -0.45), (-0.72, -0.95), (-0.4, -1.22), (0.0, -1.02)]
        line += [(0.4, -1.22), (0.72, -0.95), (0.86, -0.45)]
    elif style in ("fringe", "long fringe"):
        # Locks of uneven length, told apart between people by the parting.
        locks = [(0.13 * i, -0.58 + 0.03 * np.sin(2.4 * i + 9 * part)) for i in range(-5, 6)]
        line = [(-0.87, -0.25), (-0.78, -0.50), *locks, (0.78, -0.50), (0.87, -0.25)]
    elif style in ("parted", "long", "bun"):
        line = [(-0.89, -0.25), (-0.82, -0.58), (part - 0.25, top - 0.06), (part, top - 0.22)]
        line += [(part + 0.25, top - 0.06), (0.82, -0.58), (0.89, -0.25)]
    else:
        line = [(-0.89, -0.30), (-0.85, -0.58), (-0.66, top + 0.06), (-0.3, top - 0.10)]
        line += [(0.25 * part, top - 0.06), (0.3, top - 0.10), (0.66, top + 0.06)]
        line += [(0.85, -0.58), (0.89, -0.30)]
    if style in LONG:
        down = [(0.91, 0.2), (0.93, 0.9), (1.0, 2.1)]
    else:
        down = [(0.93, 0.45 if style == "curly" else 0.10)]
    return [*((-x, y) for x, y in down[::-1]), *line, *down]


def _crown(person: Person) -> np.ndarray:
    """The outer edge of the hair, from the left over the top to the right, `[N, 2]`."""
    wide = 0.02 if person.hair_style == "receding" else person.hair_volume
    if person.hair_style == "curly":
        # Scallops around the skull, down to the cheeks.
        angle = np.linspace(np.pi + 0.55, -0.55, 80)
        radius = 1.14 + 1.5 * wide + 0.035 * np.abs(np.sin(angle * 9))
        return np.stack([radius * np.cos(angle), -0.25 - 1.15 * radius * np.sin(angle)], axis=1)
    half = [(0.0, -1.52 - wide), (0.60 + wide, -1.36 - wide), (0.96 + wide, -0.95), (1.05, -0.5)]
    if person.hair_style in LONG:
        return _mirrored([*half, (1.12 + wide, 0.0), (1.14, 0.9), (1.06, 2.1)])
    return _mirrored([*half, (1.03, 0.10)])


def _mirrored(half: Points) -> np.ndarray:
    """Smooth the right half of an outline, given from the middle above, and its mirror image."""
    left = [(-x, y) for x, y in half[:0:-1]]
    return smooth([*left, *half])


def _draw_scarf(pen: Pen, person: Person) -> None:
    """Draw the front of a headscarf: all around the face, over the chin's sides and the neck."""
    opening = [(0.5, -0.92), (0.84, -0.55), (0.90, 0.1), (0.74, 0.7), (0.42, person.chin)]
    inside = smooth([(0, -1.0), *opening, (0, person.chin + 0.14)])
    inside = np.concatenate([inside, inside[-2:0:-1] * (-1, 1)])
    inside = np.roll(inside, len(inside) // 2, axis=0)  # from the chin to the chin
    half = [(0.0, -1.52), (0.6, -1.44), (1.08, -0.8), (1.14, 0.2), (0.95, 1.1), (1.0, 2.2)]
    pixels = np.where(inside[:, 1:] > 0.9, pen.hanging(inside), pen.face(inside))
    ring = np.concatenate([pixels, pixels[:1]])
    # One polygon with a hole: over the top, up the middle of the neck, around the face and back.
    below = pen.hanging(np.array([(0.0, 2.3)]))
    pen.fill(np.concatenate([pen.hanging(_mirrored(half)), below, ring, below]), person.shirt)
    hem = stroke(ring, 0.05 * pen.scale, taper=0)
    pen.fill(hem, person.shirt * 0.8)
