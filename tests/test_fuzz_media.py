"""Damaged pictures and films: read, or refused in one sentence; nothing dies, hangs or swells."""

import functools
import io

import hypothesis.strategies as st
import numpy as np
import pytest
from false_films import shades, write_film
from fuzzing import damaged, reseal
from hypothesis import given
from PIL import Image

from emotion_jax.data.drawing.faces import draw_face


def encode(picture, kind, **options):
    data = io.BytesIO()
    picture.save(data, kind, **options)
    return data.getvalue()


FACE = Image.fromarray(draw_face(1, 1, 0, size=40))
EXIF = Image.Exif()
EXIF[0x0112] = 6
DEEP = Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40) * 40)
PICTURES = {
    "jpeg": encode(FACE, "JPEG", exif=EXIF),
    "progressive jpeg": encode(FACE.convert("CMYK"), "JPEG", progressive=True),
    "png": encode(FACE, "PNG"),
    "palette png": encode(FACE.quantize(8), "PNG", transparency=1),
    "16 bit png": encode(DEEP, "PNG"),
    "webp": encode(FACE, "WEBP"),
    "webp without loss": encode(FACE.convert("RGBA"), "WEBP", lossless=True),
    "moving webp": encode(FACE, "WEBP", save_all=True, append_images=[FACE.rotate(9)]),
    "gif": encode(FACE, "GIF", save_all=True, append_images=[FACE.rotate(9)]),
    "bmp": encode(FACE.quantize(8), "BMP"),
    "tiff": encode(FACE, "TIFF"),
    "packed tiff": encode(FACE, "TIFF", compression="tiff_lzw"),
    "jpeg tiff": encode(FACE, "TIFF", compression="jpeg"),
    "fax tiff": encode(FACE.convert("1"), "TIFF", compression="group4"),
    "avif": encode(FACE, "AVIF"),
    "jpeg 2000": encode(FACE, "JPEG2000"),
    "ppm": encode(FACE, "PPM"),
}


@pytest.mark.parametrize("kind", PICTURES)
@given(data=st.data())
def test_pictures(child, tmp_path_factory, kind, data):
    content = data.draw(damaged(PICTURES[kind]))
    if kind.endswith("png") and data.draw(st.booleans()):
        content = reseal(content)
    path = tmp_path_factory.getbasetemp() / "picture"
    path.write_bytes(content)
    child("read_picture", path)


FILMS = {
    "a.mp4": {},
    "b.mkv": {},
    "c.avi": {"codec": "mjpeg"},
    "d.mp4": {"turn": (90, False), "aspect": "4/3", "sound": "aac", "movflags": "faststart"},
    "e.mkv": {"codec": "mpeg4", "aspect": "4/3"},
    "f.webm": {"codec": "libvpx"},
    "g.ts": {},
}
# Sound that is copied as it is, and sound that must be encoded anew.
SOUNDS = {
    "sound.mp4": {"sound": "aac"},
    "sound.mkv": {"sound": "libopus"},
    "sound.webm": {"codec": "libvpx", "sound": "libopus"},
    "sound.ts": {"sound": "aac"},
    "plain.mkv": {"codec": "mpeg4", "sound": "pcm_s16le"},
    "sound.avi": {"codec": "mjpeg", "sound": "mp3"},
}


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    return functools.cache(
        lambda name: write_film(folder / name, shades(12), **(FILMS | SOUNDS)[name]).read_bytes()
    )


@pytest.mark.parametrize(
    "act, name", [("read_film", name) for name in FILMS] + [("label_film", name) for name in SOUNDS]
)
@given(data=st.data())
def test_films(child, tmp_path_factory, films, act, name, data):
    path = tmp_path_factory.getbasetemp() / "film"
    path.write_bytes(data.draw(damaged(films(name), head=1500)))
    child(act, path)
