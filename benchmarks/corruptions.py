"""What happens to faces before a camera's network sees them: pure functions of pictures.

Each takes a face, uint8 `[H, W, C]` (C 1 or 3), centred as FER2013's frames are, a severity from 1
to 3, and a random generator; and returns a face of the same shape and type. The same generator
state gives the same picture.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

Corruption = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]

# Where the eyes lie in a FER2013 frame, x and y as shares of its side.
LEFT_EYE, RIGHT_EYE = (0.32, 0.385), (0.68, 0.385)


def glasses(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Glasses: thin frames, thick frames, sunglasses of a tenth of the light."""
    return _wear(image, severity, rng, glare=0.0)


def reflections(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Dark frames whose lenses mirror a window: over a third, two thirds and all of the lens."""
    return _wear(image, 1, rng, glare=severity / 3)


def darkness(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Light divided by 2, 4 and 8, with the noise of a camera that counts fewer photons."""
    light = 2.0**-severity
    noise = rng.normal(0, 1.5, image.shape[:2])[..., None]
    return _whole(image * light + noise)


def backlight(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A bright window behind: the face loses light, its surroundings overflow, edges glow."""
    height, width = image.shape[:2]
    y, x = np.mgrid[:height, :width]
    # 0 in the face's ellipse, 1 well outside.
    away = np.hypot((x / width - 0.5) / 0.42, (y / height - 0.52) / 0.56)
    behind = np.clip((away - 0.85) / 0.25, 0, 1)[..., None]
    face = image * (1 - 0.22 * severity)
    veil = 18.0 * severity * cv2.GaussianBlur(behind, (0, 0), width / 6).reshape(behind.shape)
    return _whole(face * (1 - behind) + 250.0 * behind + veil * (1 - behind))


def blur(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Out of focus: a Gaussian of 1.5, 3 and 4.5 % of the side."""
    return _whole(cv2.GaussianBlur(image, (0, 0), 0.015 * severity * image.shape[1]))


def motion(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """The head moves while the shutter is open: by 6, 12 and 18 % of the side, any way."""
    length = 0.06 * severity * image.shape[1]
    size = int(np.ceil(length)) // 2 * 2 + 3
    kernel = np.zeros((size, size), np.float32)
    angle, middle = rng.uniform(0, np.pi), size // 2
    step = length / 2 * np.array([np.cos(angle), np.sin(angle)])
    start, end = (np.round(16 * (middle + sign * step)).astype(int).tolist() for sign in (-1, 1))
    cv2.line(kernel, start, end, 1.0, 1, cv2.LINE_AA, 4)
    return _whole(cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REPLICATE))


def jpeg(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """JPEG of quality 50, 25 and 10."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, (50, 25, 10)[severity - 1]]
    # Reversed and back: OpenCV takes the first channel for blue, and JPEG is coarse with blue.
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), quality)
    kind = cv2.IMREAD_GRAYSCALE if image.shape[2] == 1 else cv2.IMREAD_COLOR
    return cv2.imdecode(data, kind).reshape(image.shape)[..., ::-1]


def small(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """Far away: 24, 16 and 12 pixels, enlarged again."""
    side = (24, 16, 12)[severity - 1]
    tiny = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
    return _whole(cv2.resize(tiny, image.shape[1::-1], interpolation=cv2.INTER_LINEAR))


def tilt(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """The head tilts by 10, 20 and 30 degrees, to either side."""
    height, width = image.shape[:2]
    angle = 10.0 * severity * rng.choice([-1, 1])
    turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, 1.0)
    turned = cv2.warpAffine(image, turn, (width, height), borderMode=cv2.BORDER_REPLICATE)
    return _whole(turned)


def cover(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A hand, a scarf, hair: a plain patch over a quarter, a third and 45 % of the side squared,
    somewhere on the face.
    """
    height, width = image.shape[:2]
    share = (0.25, 0.33, 0.45)[severity - 1]
    high, wide = round(share * height), round(share * width)
    top, left = (int(rng.uniform(0.2, 0.9 - share) * side) for side in (height, width))
    covered = image.copy()
    covered[top : top + high, left : left + wide] = np.median(image, axis=(0, 1)) * 0.7
    return covered


def mask(image: np.ndarray, severity: int, rng: np.random.Generator) -> np.ndarray:
    """A light cloth from below: over the chin, to under the nose, over the nose."""
    height, width = image.shape[:2]
    top = (0.85, 0.7, 0.58)[severity - 1] * height
    corners = [(0.1, top + 0.02 * height), (0.5, top), (0.9, top + 0.02 * height), (0.8, height)]
    points = [(x * width, y) for x, y in [*corners, (0.5, 1.1 * height), (0.2, height)]]
    return _paint(image, [points], 190.0, 0.95)


CORRUPTIONS: dict[str, Corruption] = {
    "glasses": glasses,
    "reflections": reflections,
    "darkness": darkness,
    "backlight": backlight,
    "blur": blur,
    "motion": motion,
    "jpeg": jpeg,
    "small": small,
    "tilt": tilt,
    "cover": cover,
    "mask": mask,
}
SEVERITIES = (1, 2, 3)


def _wear(image: np.ndarray, kind: int, rng: np.random.Generator, glare: float) -> np.ndarray:
    """Puts on glasses of a kind (1 thin, 2 thick, 3 sun); `glare` of each lens shines."""
    side = image.shape[1]
    # Nobody's eyes are the mean's, nor are glasses worn level.
    eyes = np.array([LEFT_EYE, RIGHT_EYE]) * side + rng.normal(0, 0.01 * side, (2, 2))
    between = float(np.linalg.norm(eyes[1] - eyes[0]))
    level = (eyes[1] - eyes[0]) / between
    down = np.array([-level[1], level[0]])
    angles = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    # A rounded rectangle, wider than high.
    ring = np.sign([np.cos(angles), np.sin(angles)]) * (
        np.abs([np.cos(angles), np.sin(angles)]) ** 0.6
    )
    across, high = 0.40 * between * ring[0], 0.31 * between * ring[1]
    lenses = [eye + np.outer(across, level) + np.outer(high, down) for eye in eyes]
    result = image
    if kind == 3:
        result = _paint(result, lenses, 20.0, 0.9)
    if glare:
        # The mirrored window slants over the lens, from above.
        for lens, eye in zip(lenses, eyes, strict=True):
            x, y = (lens - eye) @ level, (lens - eye) @ down
            bright = np.clip(y, None, (2 * glare - 1) * 0.31 * between - 0.3 * x * (glare < 1))
            window = eye + np.outer(x, level) + np.outer(bright, down)
            result = _paint(result, [window], 245.0, 0.85)
    width = 0.10 * between if kind == 2 else 0.05 * between
    ends = [eyes[0] + 0.40 * between * level, eyes[1] - 0.40 * between * level]
    arms = [
        [eyes[0] - 0.40 * between * level, eyes[0] - (0.40 * between + 0.14 * side) * level],
        [eyes[1] + 0.40 * between * level, eyes[1] + (0.40 * between + 0.14 * side) * level],
    ]
    lines = [
        *(np.vstack([lens, lens[:1]]) for lens in lenses),
        np.array(ends),
        *map(np.array, arms),
    ]
    return _stroke(result, lines, 25.0, width)


# Drawn this much larger and averaged: a frame is thinner than a pixel of 48.
_FINE = 8


def _paint(image: np.ndarray, shapes: list, value: float, strength: float) -> np.ndarray:
    """Blends a brightness over polygons."""
    canvas = np.zeros([_FINE * n for n in image.shape[:2]], np.uint8)
    for shape in shapes:
        cv2.fillPoly(canvas, [np.round(_FINE * np.asarray(shape)).astype(np.int32)], 255)
    return _blend(image, canvas, value, strength)


def _stroke(image: np.ndarray, lines: list, value: float, width: float) -> np.ndarray:
    """Draws lines of a brightness, `width` in pixels of the picture."""
    canvas = np.zeros([_FINE * n for n in image.shape[:2]], np.uint8)
    for line in lines:
        points = np.round(_FINE * np.asarray(line)).astype(np.int32)
        cv2.polylines(canvas, [points], False, 255, max(1, round(_FINE * width)))
    return _blend(image, canvas, value, 1.0)


def _blend(image: np.ndarray, canvas: np.ndarray, value: float, strength: float) -> np.ndarray:
    size = image.shape[1::-1]
    share = cv2.resize(canvas, size, interpolation=cv2.INTER_AREA)[..., None] / 255 * strength
    return _whole(image * (1 - share) + value * share)


def _whole(image: np.ndarray) -> np.ndarray:
    """As uint8, with the channel that OpenCV drops of a grey picture."""
    image = image[..., None] if image.ndim == 2 else image
    return np.clip(np.round(image), 0, 255).astype(np.uint8)
