"""What was found, drawn on a picture: boxes, plates, bars."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from emotion_jax.faces import Face
from emotion_jax.images import resize
from emotion_jax.labels import EMOTIONS

Color = tuple[int, int, int]
Rect = tuple[int, int, int, int]  # left, top, width, height

# RGB, in the order of EMOTIONS: all light enough for dark letters on them.
COLORS: tuple[Color, ...] = (
    (190, 200, 206),
    (255, 206, 64),
    (104, 176, 250),
    (255, 146, 196),
    (190, 146, 240),
    (150, 205, 90),
    (255, 116, 100),
    (92, 208, 196),
)
_DARK: Color = (24, 26, 30)
_LIGHT: Color = (240, 240, 240)
_TRACK: Color = (84, 88, 94)
_RED: Color = (255, 48, 40)

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_EM = cv2.getTextSize("Hg", _FONT, 1.0, 1)[0][1]  # height of a line at scale 1; versions differ

_SMALLEST = 9  # height in pixels of letters that can still be read
_PITCH = 1.5  # distance of the panel's lines, in heights of a letter
_BAR = 5.0  # length of a full bar, likewise
_PATCHES = 6  # along each side of a hidden face: its eyes share one row of them
_GAP = 0.6  # between columns and around them, likewise


def annotate(
    image: np.ndarray,
    faces: Sequence[Face],
    probabilities: np.ndarray,
    *,
    numbers: Sequence[int] | None = None,
    landmarks: bool = True,
) -> np.ndarray:
    """Draw the faces of a picture and their emotions.

    Each face gets a box and a plate with its emotion and confidence, and its landmarks, if it has
    some, as dots. A face that is large enough also gets a panel with all eight, where that hides
    no face, plate or other panel.

    Args:
      image: uint8 `[H, W, 3]`, RGB; left as it is.
      faces: N faces; their boxes may leave the picture.
      probabilities: float `[N, 8]` in 0..1, in the order of `EMOTIONS`.
      numbers: shown before the emotion, to tell the faces apart: indices or track numbers.
      landmarks: draw them; not on hidden faces, whose features they would give away.

    Returns:
      uint8 `[H, W, 3]`, RGB.
    """
    canvas = np.ascontiguousarray(image).copy()
    boxes = [_clip_box(face, canvas) for face in faces]
    best = [int(row.argmax()) for row in probabilities]
    taken = list(boxes)
    for box, code in zip(boxes, best, strict=True):
        _draw_box(canvas, box, COLORS[code])
    if landmarks:
        for face, code in zip(faces, best, strict=True):
            _draw_points(canvas, face, COLORS[code])
    by_size = sorted(range(len(faces)), key=lambda i: -boxes[i][2])  # the large ones choose first
    for i in by_size:
        prefix = "" if numbers is None else f"{numbers[i]}  "
        text = f"{prefix}{EMOTIONS[best[i]]} {100 * probabilities[i][best[i]]:.0f} %"
        taken.append(_draw_plate(canvas, boxes[i], text, COLORS[best[i]], taken))
    for i in by_size:
        taken += _draw_panel(canvas, boxes[i], probabilities[i], taken)
    return canvas


def hide(image: np.ndarray, faces: Sequence[Face]) -> np.ndarray:
    """Make faces unrecognizable: each becomes, from the hair to the chin, a few even patches.

    Args:
      image: uint8 `[H, W, 3]`, RGB; left as it is.
      faces: their boxes may leave the picture.

    Returns:
      uint8 `[H, W, 3]`, RGB.
    """
    canvas = np.ascontiguousarray(image).copy()
    for face in faces:
        # The detector's box ends at the brows, the chin and the cheeks.
        wide, tall = 1.4 * face.width, 1.7 * face.height
        left, top = face.x - 0.2 * face.width, face.y - 0.45 * face.height
        x, y, width, height = _clip_box(Face(left, top, wide, tall, 0.0), canvas)
        if width and height:
            patches = resize(image[y : y + height, x : x + width], _PATCHES, _PATCHES)
            rows, columns = (np.arange(side) * _PATCHES // side for side in (height, width))
            canvas[y : y + height, x : x + width] = patches[rows[:, None], columns]
    return canvas


def annotate_status(image: np.ndarray, text: str, *, recording: bool = False) -> np.ndarray:
    """Draw a line about the program, small and see-through, into the upper right corner.

    Args:
      image: uint8 `[H, W, 3]`, RGB; left as it is.
      text: the frame rate, say; it may be empty.
      recording: with a red dot.

    Returns:
      uint8 `[H, W, 3]`, RGB.
    """
    canvas = np.ascontiguousarray(image).copy()
    if not text and not recording:
        return canvas
    height = max(_SMALLEST, min(canvas.shape[:2]) / 32)
    dot = 1.3 * height if recording else 0.0
    size = round(_text_width(text, height) + dot + 2 * _GAP * height), round(1.8 * height)
    corner = canvas.shape[1] - size[0] - round(height / 2), round(height / 2)
    x, y, width, deep = _move_inside(corner, size, canvas)
    part = canvas[y : y + deep, x : x + width]
    part[:] = (0.5 * part + 0.5 * np.array(_DARK)).astype(np.uint8)
    if recording:
        center = round(x + (_GAP + 0.45) * height), round(y + deep / 2)
        cv2.circle(canvas, center, round(0.45 * height), _RED, -1, cv2.LINE_AA)
    _write(canvas, text, x + _GAP * height + dot, y + deep / 2, height, _LIGHT)
    return canvas


def _clip_box(face: Face, canvas: np.ndarray) -> Rect:
    height, width = canvas.shape[:2]
    left, right = np.clip((round(face.x), round(face.x + face.width)), 0, width).tolist()
    top, bottom = np.clip((round(face.y), round(face.y + face.height)), 0, height).tolist()
    return left, top, right - left, bottom - top


def _draw_box(canvas: np.ndarray, box: Rect, color: Color) -> None:
    """A coloured frame with a dark rim, to be seen on any background."""
    left, top, width, height = box
    line = max(1, round(width / 60))
    corners = (left, top), (left + width - 1, top + height - 1)
    cv2.rectangle(canvas, *corners, _DARK, line + 2, cv2.LINE_AA)
    cv2.rectangle(canvas, *corners, color, line, cv2.LINE_AA)


def _draw_points(canvas: np.ndarray, face: Face, color: Color) -> None:
    """The landmarks as small dots, with a dark rim where there is room for one."""
    if face.points is None:
        return
    radius = face.width / 110
    rims = (radius + 1, _DARK), (radius, color)
    for size, shade in rims if radius > 0.7 else rims[1:]:
        for x, y in face.points:
            # In sixteenths of a pixel, so that dots of small faces are round and in their place.
            centre = round(16 * float(x)), round(16 * float(y))
            cv2.circle(canvas, centre, round(16 * size), shade, cv2.FILLED, cv2.LINE_AA, shift=4)


def _letter_height(canvas: np.ndarray, box: Rect, share: float) -> float:
    """Height of letters in pixels: a share of the box, in reason for the size of the picture."""
    side = min(canvas.shape[:2])
    return float(np.clip(box[2] * share, max(_SMALLEST, side / 70), max(_SMALLEST, side / 28)))


def _text_width(text: str, height: float) -> int:
    return cv2.getTextSize(text, _FONT, height / _EM, _weight(height))[0][0]


def _weight(height: float) -> int:
    return 1 if height < 20 else 2  # thicker strokes run together in small letters


def _write(
    canvas: np.ndarray, text: str, x: float, middle: float, height: float, color: Color
) -> None:
    origin = round(x), round(middle + 0.36 * height)  # capitals are 0.72 of a line high
    cv2.putText(canvas, text, origin, _FONT, height / _EM, color, _weight(height), cv2.LINE_AA)


def _draw_plate(
    canvas: np.ndarray, box: Rect, text: str, color: Color, taken: Sequence[Rect]
) -> Rect:
    """The emotion on a plate of its colour, where it hides least; returns the plate."""
    height = _letter_height(canvas, box, 0.14)
    room = canvas.shape[1] / (_text_width(text, height) + 2 * _GAP * height)
    height *= min(1.0, room)  # a picture narrower than the text
    size = round(_text_width(text, height) + 2 * _GAP * height), round(1.7 * height)
    left, top, wide, tall = box
    across = left, left + wide - size[0], left + (wide - size[0]) // 2
    spots = [(x, y) for y in (top - size[1], top + tall, top) for x in across]
    plates = (_move_inside(spot, size, canvas) for spot in spots)
    plate = min(plates, key=lambda plate: _overlap(plate, taken))
    x, y, width, deep = plate
    canvas[y : y + deep, x : x + width] = color
    _write(canvas, text, x + _GAP * height, y + deep / 2, height, _DARK)
    return plate


def _draw_panel(
    canvas: np.ndarray, box: Rect, probabilities: np.ndarray, taken: Sequence[Rect]
) -> list[Rect]:
    """Eight bars beside the box, if there is room; returns the panel, or nothing."""
    height = _letter_height(canvas, box, 0.075)
    names = max(_text_width(name, height) for name in EMOTIONS)
    percent = _text_width("100", height)
    size = (
        round(names + percent + (_BAR + 4 * _GAP) * height),
        round((len(EMOTIONS) * _PITCH + 2 * _GAP) * height),
    )
    left, top, wide, tall = box
    if size[1] > 1.5 * tall:  # larger than what it explains: whose it is would be hard to tell
        return []
    gap = round(height)
    beside = [(left + wide + gap, top), (left - gap - size[0], top)]
    below = (left + (wide - size[0]) // 2, top + tall + 3 * gap)
    spots = [*beside, *((x, top + tall - size[1]) for x, _ in beside), below]
    panels = (_move_inside(spot, size, canvas) for spot in spots)
    free = [panel for panel in panels if panel[2:] == size and not _overlap(panel, taken)]
    if not free:
        return []
    x, y, width, deep = free[0]
    part = canvas[y : y + deep, x : x + width]
    part[:] = (0.25 * part + 0.75 * np.array(_DARK)).astype(np.uint8)  # see-through
    for i, (name, color) in enumerate(zip(EMOTIONS, COLORS, strict=True)):
        middle = y + (_GAP + (i + 0.5) * _PITCH) * height
        bar = x + names + 2 * _GAP * height
        _write(canvas, name, x + _GAP * height, middle, height, _LIGHT)
        _draw_bar(canvas, bar, middle, _BAR * height, 0.35 * height, _TRACK)
        _draw_bar(canvas, bar, middle, _BAR * height * probabilities[i], 0.35 * height, color)
        number = f"{100 * probabilities[i]:.0f}"
        end = x + width - _GAP * height - _text_width(number, height)
        _write(canvas, number, end, middle, height, _LIGHT)
    return free[:1]


def _draw_bar(
    canvas: np.ndarray, x: float, middle: float, length: float, half: float, color: Color
) -> None:
    rows = slice(round(middle - half), max(round(middle + half), round(middle - half) + 1))
    canvas[rows, round(x) : round(x + length)] = color


def _move_inside(spot: tuple[int, int], size: tuple[int, int], canvas: np.ndarray) -> Rect:
    """The rectangle of `size` at `spot`, moved and at need cut so that it lies in the picture."""
    height, width = canvas.shape[:2]
    wide, tall = min(size[0], width), min(size[1], height)
    x, y = min(max(spot[0], 0), width - wide), min(max(spot[1], 0), height - tall)
    return x, y, wide, tall


def _overlap(rect: Rect, others: Sequence[Rect]) -> int:
    """The area in pixels that `rect` hides of others."""
    area = 0
    for other in others:
        wide = min(rect[0] + rect[2], other[0] + other[2]) - max(rect[0], other[0])
        tall = min(rect[1] + rect[3], other[1] + other[3]) - max(rect[1], other[1])
        area += max(wide, 0) * max(tall, 0)
    return area
