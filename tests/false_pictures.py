"""Pictures of drawn faces as files of every kind, each with what a viewer shows."""

import struct
import zlib

import numpy as np
from PIL import Image

from emotion_jax.data.drawing.faces import draw_face
from emotion_jax.labels import EMOTIONS

SIDE = 48  # of a face in its picture
HEIGHT, WIDTH = 90, 110  # of a picture
X, Y = 31, 23  # where the face lies in it


def make_face(number):
    return draw_face(number, number % len(EMOTIONS), number, size=SIDE)


def around(face, seed=0):
    """A picture of noise with the face in it."""
    picture = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    picture[Y : Y + SIDE, X : X + SIDE] = face
    return picture


def to_grey(picture):
    return np.asarray(Image.fromarray(picture).convert("L"))


def save(path, picture, kind):
    """Writes an RGB picture as a file of some kind; returns what a viewer shows, and if exactly."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image, shown, options = Image.fromarray(picture), picture, {}
    if kind in ("grey", "16 bit"):
        grey = to_grey(picture)
        shown = np.repeat(grey[..., None], 3, 2)
        image = Image.fromarray(grey if kind == "grey" else grey.astype(np.uint16) * 257)
    elif kind == "palette":
        shown = picture // 128 * 255
        image = Image.fromarray(shown).quantize(8)
    elif kind == "alpha":
        alpha = np.full((HEIGHT, WIDTH, 1), 255, np.uint8)
        alpha[:, ::2] = 0  # every other column is transparent, so white
        image, shown = Image.fromarray(np.concatenate([picture, alpha], 2)), picture.copy()
        shown[:, ::2] = 255
    elif kind == "cmyk":
        image = image.convert("CMYK")
    elif kind == "exif":
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6  # stored turned left, to be turned right
        image = Image.fromarray(np.ascontiguousarray(np.rot90(picture)))
    if path.suffix.lower() == ".jpg":
        options.update(quality=95, subsampling=0)  # nearly what it was
    image.save(path, Image.registered_extensions()[path.suffix.lower()], **options)
    return shown, path.suffix.lower() not in (".jpg", ".jpeg")


# Kinds of pictures that are all well: how the list and the disk spell them, and what they are.
KINDS = [
    ("a.png", "a.png", "plain"),
    ("b.jpg", "b.jpg", "plain"),
    ("c.JPG", "c.JPG", "plain"),
    ("d.jpg", "d.JPG", "plain"),
    ("e.PNG", "e.png", "plain"),
    ("f.bmp", "f.bmp", "plain"),
    ("g.tif", "g.TIF", "plain"),
    ("h.png", "h.png", "grey"),
    ("i.png", "i.png", "palette"),
    ("j.png", "j.png", "alpha"),
    ("k.tif", "k.tif", "cmyk"),
    ("l.jpg", "l.jpg", "cmyk"),
    ("m.png", "m.png", "16 bit"),
    ("n.png", "n.png", "exif"),
    ("o.jpg", "o.jpg", "exif"),
    ("p.jpg", "p.jpg", "grey"),
]


def bomb():
    """A PNG that claims 60,000 x 60,000 pixels."""

    def chunk(name, body):
        mark = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + mark

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b"")
