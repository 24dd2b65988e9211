"""Pictures on the host: read safely, resized and written.

A picture in this project is uint8 `[height, width, 3]`, RGB, upright, opaque.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import NamedTuple

# OpenCV reads this only while it is imported: what slips past the check of the header stops here.
MAX_PIXELS = 128_000_000  # medium-format cameras give 102 million; 128 million take 384 MB
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from PIL import Image, UnidentifiedImageError  # noqa: E402

from emotion_jax.errors import EmotionError  # noqa: E402
from emotion_jax.host.threads import Shared  # noqa: E402

MAX_BYTES = 1 << 30  # the largest picture allowed, uncompressed at 8 bytes a pixel
# Photographs have 1 to 20 pixels a byte, blank pages a few hundred: a larger picture of which a
# byte claims more is a trap. WebP takes 34 bytes of memory a pixel, so that 5 kB took 4.3 GB.
_MUCH, _MAX_RATIO = 16_000_000, 1000
# Pixels that are converted at a time: more would take a multiple of the picture's own memory.
_STRIP = 1 << 20

SUFFIXES = tuple(".jpg .jpeg .jfif .png .bmp .gif .tif .tiff .webp .avif .jp2 .ppm .pgm".split())

# Pillow opens more, and to decode some (EPS) it would run another program.
_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "GIF", "TIFF", "WEBP", "AVIF", "JPEG2000", "PPM")

_EXIF_ORIENTATION = 0x0112

# Pillow warns of doubtful metadata, and of sizes, whose limit is ours.
_SILENCE = Shared(lambda: warnings.catch_warnings(action="ignore"))


class PictureTooLargeError(EmotionError):
    """A picture of more than `MAX_PIXELS` or `MAX_BYTES`: refused before it is decoded."""


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a picture from a file; see `decode_image` for what is done to it.

    Returns:
      uint8 `[H, W, 3]`, RGB.

    Raises:
      EmotionError: there is no such file, or it is no picture that can be read.
    """
    return read_reduced(path, 1).image


class Reduced(NamedTuple):
    """A picture that may have been decoded in part.

    Attributes:
      image: uint8 `[ceil(H / part), ceil(W / part), 3]`, RGB.
      size: H and W, of the whole.
      part: 1, 2, 4 or 8: how many of the whole's pixels, along a side, make one of the image's.
    """

    image: np.ndarray
    size: tuple[int, int]
    part: int


def read_reduced(path: str | os.PathLike[str], most: float) -> Reduced:
    """Read a picture that will be shrunk anyway: of a JPEG, only the frequencies that will be left.

    libjpeg makes a half, a quarter or an eighth of the sides in a fraction of the time. Shrunk
    further, it is nearly what the whole picture becomes. Pictures of other formats, and those that
    must be turned or mirrored, are read whole.

    Args:
      path: of the file.
      most: how many times smaller it may become.

    Raises:
      EmotionError: see `read_image`.
    """
    name = os.fspath(path)
    try:
        if not Path(name).is_file():  # a folder, a device, nothing: reading might never end
            raise EmotionError(f"'{name}' is no file; give the path of a picture")
        size = Path(name).stat().st_size
        if size > MAX_BYTES:
            raise PictureTooLargeError(f"'{name}' has {size / 1e9:.1f} GB; give a smaller picture")
        return _decode(Path(name).read_bytes(), name, most)
    except OSError as error:
        raise EmotionError(f"'{name}' cannot be read ({error.strerror or error})") from error


def decode_image(data: bytes, name: str = "the picture") -> np.ndarray:
    """Decode the bytes of a picture file.

    Pillow does it: it tells size and mode from the header alone, before any pixel is decoded,
    and raises, in silence, on a truncated file. The picture is turned upright by its EXIF
    orientation, 16 bits are scaled to 8, grey, palette and CMYK become RGB, and what is
    transparent is laid on white, as most viewers show it. Of an animation the first frame counts.

    Args:
      data: the file's bytes.
      name: how an error calls the picture.

    Returns:
      uint8 `[H, W, 3]`, RGB.

    Raises:
      EmotionError: no picture, a truncated or damaged one, or one of more than `MAX_PIXELS`.
    """
    return _decode(data, name, 1).image


def _decode(data: bytes, name: str, most: float) -> Reduced:
    try:
        with _SILENCE:
            with Image.open(io.BytesIO(data)) as picture:  # the header only
                if picture.format not in _FORMATS:
                    raise EmotionError(f"'{name}' is {picture.format}; save it as JPEG or PNG")
                _check_size(picture.size, len(data), name)
                width, height = picture.size
                part = _draft(picture, most)
                picture.load()
                orientation = picture.getexif().get(_EXIF_ORIENTATION, 1)
                image = _to_rgb(picture, name)
            del picture  # and with it the decoder's own pixels
            image = _upright(image, orientation)
            return Reduced(image, (height, width) if part > 1 else image.shape[:2], part)
    except EmotionError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureTooLargeError(_too_large(name)) from error
    except UnidentifiedImageError as error:
        what = "is empty" if not data else "is no picture in a known format"
        raise EmotionError(f"'{name}' {what}; give a JPEG, PNG, WebP, TIFF or BMP file") from error
    except Exception as error:  # damaged files raise whatever their decoder trips over
        raise EmotionError(
            f"'{name}' is damaged or incomplete ({error}); replace it with an intact copy"
        ) from error


def _draft(picture: Image.Image, most: float) -> int:
    """Asks libjpeg for fewer pixels, before any is decoded; returns the part, see `Reduced`."""
    # Where a side is no multiple of the part, its last pixel is a piece: turned, it would be first.
    if picture.format != "JPEG" or picture.getexif().get(_EXIF_ORIENTATION, 1) != 1:
        return 1
    width, height = picture.size
    part = max((part for part in (2, 4, 8) if part <= min(most, width, height)), default=1)
    if part > 1:
        picture.draft(None, (width // part, height // part))
    return part


def _too_large(name: str) -> str:
    limit = MAX_PIXELS // 1_000_000
    return f"'{name}' claims more than {limit} million pixels; give a smaller picture"


def _check_size(size: tuple[int, int], count: int, name: str) -> None:
    """Refuses a picture of a file of `count` bytes by what its header claims."""
    width, height = size
    if width * height > MAX_PIXELS:
        raise PictureTooLargeError(f"{_too_large(name)} than {width} x {height}")
    if width * height > max(_MUCH, _MAX_RATIO * count):
        raise PictureTooLargeError(
            f"'{name}' claims {width} x {height} pixels in {count} bytes; give a smaller picture"
        )


def _to_rgb(picture: Image.Image, name: str) -> np.ndarray:
    """The pixels of a loaded picture of any mode as uint8 `[H, W, 3]`."""
    width, height = picture.size
    image = np.empty((height, width, 3), np.uint8)
    rows = max(1, _STRIP // width)
    for top in range(0, height, rows):
        part = (0, top, width, min(top + rows, height))
        # A whole picture need not be cut, which would copy it.
        strip = picture if rows >= height else picture.crop(part)
        image[top : top + rows] = _strip_to_rgb(strip, name)
    return image


def _strip_to_rgb(picture: Image.Image, name: str) -> np.ndarray:
    if picture.mode == "F":
        raise EmotionError(f"'{name}' holds floating-point pixels; save it with 8 or 16 bits")
    if picture.mode.startswith("I"):  # 16 bits of grey; convert() would cut at 255, not scale
        deep = np.asarray(picture).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65535:
            raise EmotionError(f"'{name}' holds 32-bit pixels; save it with 8 or 16 bits")
        return np.repeat(((deep + 128) // 257).astype(np.uint8)[:, :, None], 3, axis=2)
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        picture = Image.alpha_composite(white, layer)
    return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation, 1 to 8 (anything else is left as it is)."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def check_image(image: object) -> np.ndarray:
    """Return what is a picture as it is.

    Raises:
      EmotionError: it is not uint8 `[H, W, 3]`.
    """
    if not isinstance(image, np.ndarray):
        raise EmotionError(
            f"a picture must be uint8 [H, W, 3], RGB, not {type(image).__name__}; "
            "read_image reads a file"
        )
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise EmotionError(
            f"a picture must be uint8 [H, W, 3], RGB, not {image.dtype} {list(image.shape)}"
        )
    return image


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize a picture: the mean of the area covered when shrinking, bilinear when enlarging.

    The one resize of the project. Bilinear shrinking would skip pixels and alias. An axis that
    shrinks while the other grows is treated by itself, first.

    Args:
      image: uint8 `[H, W, C]`, C of 1 to 4.
      height: of the result, at least 1.
      width: likewise.

    Returns:
      uint8 `[height, width, C]`; never a view of `image`.
    """
    rows, columns = image.shape[:2]
    small = (min(width, columns), min(height, rows))  # OpenCV's order
    result = (
        image.copy()
        if small == (columns, rows)
        else cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    )
    if small != (width, height):
        result = cv2.resize(result, (width, height), interpolation=cv2.INTER_LINEAR)
    return result.reshape(height, width, *image.shape[2:])  # OpenCV drops a single channel


def write_image(path: str | os.PathLike[str], image: np.ndarray) -> None:
    """Write a picture in the format of its suffix, making the folder where there is none.

    Args:
      path: ends in a suffix that Pillow writes: .jpg, .png, .webp, .tif, .bmp, ...
      image: uint8 `[H, W, 3]`, RGB.

    Raises:
      EmotionError: the suffix is not known, or the file cannot be written.
    """
    name = os.fspath(path)
    data = io.BytesIO()  # encoded first: a failure leaves no half of a file
    kind = Image.registered_extensions().get(Path(name).suffix.lower())
    if kind is None or kind not in Image.SAVE:
        raise EmotionError(f"'{name}' has no suffix of a picture; use .jpg or .png")
    options = {"quality": 92} if kind in ("JPEG", "WEBP", "AVIF") else {}  # no visible loss
    try:
        Image.fromarray(image).save(data, kind, **options)
    except (OSError, ValueError) as error:  # WebP, for one, ends at 16383 pixels
        raise EmotionError(f"'{name}' cannot be written as {kind} ({error}); use .png") from error
    try:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(data.getvalue())
    except OSError as error:
        raise EmotionError(
            f"'{name}' cannot be written ({error.strerror or error}); choose another folder"
        ) from error
