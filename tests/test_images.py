"""Pictures on the host: every kind of file becomes the same upright RGB, or one clear sentence."""

import io
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from emotion_jax import images
from emotion_jax.errors import EmotionError


def make_image(height=23, width=37, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def encode(picture, kind="PNG", **options):
    data = io.BytesIO()
    picture.save(data, kind, **options)
    return data.getvalue()


def make_png(width, height, depth, color_type, scanlines):
    """A PNG by hand: `scanlines` is the uncompressed pixel data, a filter byte before each line."""

    def chunk(name, body):
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(scanlines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_give_the_pixels_back(kind, tmp_path):
    image = make_image()
    path = tmp_path / "picture"
    path.write_bytes(encode(Image.fromarray(image), kind))
    read = images.read_image(path)
    assert read.dtype == np.uint8 and read.flags.c_contiguous and read.flags.writeable
    np.testing.assert_array_equal(read, image)


# The stored picture that a camera held in each way would write, from the upright one.
STORED = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.rot90(np.fliplr(a), 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(np.flipud(a), 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_orientation_is_undone(orientation, kind):
    upright = make_image()
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    np.testing.assert_array_equal(images.decode_image(encode(stored, kind, exif=exif)), upright)


@pytest.mark.parametrize("most, part", [(1.9, 1), (2, 2), (3.9, 2), (5, 4), (1e308, 8)])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK", "progressive"])
def test_a_jpeg_to_be_shrunk_is_decoded_in_part(most, part, mode, tmp_path):
    ramps = np.stack([np.add.outer(range(181), range(243)) // k for k in (2, 3, 4)], 2)
    stored = Image.fromarray(ramps.astype(np.uint8))
    stored = stored if mode == "progressive" else stored.convert(mode)
    stored.save(tmp_path / "a.jpg", quality=95, progressive=mode == "progressive")
    reduced, whole = (
        images.read_reduced(tmp_path / "a.jpg", most),
        images.read_image(tmp_path / "a.jpg"),
    )
    assert reduced.part == part and reduced.size == whole.shape[:2] == (181, 243)
    assert reduced.image.shape == (-(-181 // part), -(-243 // part), 3)
    height, width = 181 // part, 243 // part  # without the edges, where pieces of pixels lie
    expected = images.resize(whole[: height * part, : width * part], height, width).astype(int)
    assert np.abs(reduced.image[:height, :width] - expected).max() <= 3


def test_what_cannot_be_decoded_in_part_is_read_whole(tmp_path):
    stored, exif = Image.fromarray(make_image(50, 70)), Image.Exif()
    exif[0x0112] = 6  # turned right: pieces of pixels would lie at the other edge
    stored.save(tmp_path / "turned.jpg", exif=exif)
    stored.save(tmp_path / "plain.png")
    stored.resize((300, 3)).save(tmp_path / "flat.jpg")
    for name, size in (("turned.jpg", (70, 50)), ("plain.png", (50, 70))):
        image, *rest = images.read_reduced(tmp_path / name, 8)
        assert rest == [size, 1]
        np.testing.assert_array_equal(image, images.read_image(tmp_path / name))
    assert images.read_reduced(tmp_path / "flat.jpg", 8).image.shape == (2, 150, 3)


def test_a_jpeg_that_is_cut_short_is_refused_in_part_too(tmp_path):
    data = encode(Image.fromarray(make_image(200, 200)), "JPEG")
    (tmp_path / "a.jpg").write_bytes(data[: len(data) // 2])
    with pytest.raises(EmotionError, match=r"a\.jpg' is damaged or incomplete"):
        images.read_reduced(tmp_path / "a.jpg", 4)


def test_exif_orientation_of_a_jpeg():
    upright = np.zeros((32, 64, 3), np.uint8)
    upright[:16, :32] = 255  # top left
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(upright)))
    read = images.decode_image(encode(stored, "JPEG", exif=exif, quality=95))
    assert np.abs(read.astype(int) - upright).mean() < 2


def test_sixteen_bits_of_grey_are_scaled():
    deep = np.array([[0, 128, 129, 255, 257, 32768, 65406, 65535]], np.uint16)
    read = images.decode_image(encode(Image.fromarray(deep)))
    expected = np.round(deep / 65535 * 255).astype(np.uint8)
    np.testing.assert_array_equal(read, np.stack([expected] * 3, axis=2))


def test_sixteen_bits_of_colour_are_scaled():
    deep = np.random.default_rng(1).integers(0, 65536, (5, 9, 3), dtype=np.uint16)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in deep)
    read = images.decode_image(make_png(9, 5, 16, 2, lines))
    # Old versions of Pillow round down; cutting at 255 would be off by far more.
    assert np.abs(read - deep / 65535 * 255).max() < 1


def test_grey_palette_and_bitmap():
    grey = make_image(channels=1)[:, :, 0]
    three = np.stack([grey] * 3, axis=2)
    np.testing.assert_array_equal(images.decode_image(encode(Image.fromarray(grey))), three)
    few = make_image() // 128 * 255  # 8 colours
    palette = Image.fromarray(few).quantize(8)
    np.testing.assert_array_equal(images.decode_image(encode(palette)), few)
    np.testing.assert_array_equal(images.decode_image(encode(palette, "GIF")), few)
    bits = grey > 127
    expected = np.stack([bits * np.uint8(255)] * 3, axis=2)
    np.testing.assert_array_equal(images.decode_image(encode(Image.fromarray(bits))), expected)


def test_cmyk():
    inks = make_image(channels=4)
    read = images.decode_image(encode(Image.fromarray(inks, "CMYK"), "TIFF"))
    shares = inks.astype(float) / 255
    expected = 255 * (1 - shares[:, :, :3]) * (1 - shares[:, :, 3:])
    assert np.abs(read - expected).max() <= 1.01


@pytest.mark.parametrize("kind", ["RGBA", "LA"])
def test_alpha_is_laid_on_white(kind):
    layer = make_image(channels=4 if kind == "RGBA" else 2)
    layer[:5, :, -1], layer[5:10, :, -1] = 0, 255
    read = images.decode_image(encode(Image.fromarray(layer, kind)))
    alpha = layer[:, :, -1:].astype(float) / 255
    expected = layer[:, :, :-1] * alpha + 255 * (1 - alpha)
    assert read.shape == (23, 37, 3) and np.abs(read - expected).max() <= 1
    assert (read[:5] == 255).all()


def test_transparent_palette_colour_is_white():
    picture = Image.fromarray(np.tile(np.array([0, 1], np.uint8), (4, 3)), "P")
    picture.putpalette([10, 20, 30, 200, 100, 50])
    read = images.decode_image(encode(picture, transparency=0))
    assert (read[:, 0::2] == 255).all() and (read[:, 1::2] == (200, 100, 50)).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_file_is_refused(kind):
    data = encode(Image.fromarray(make_image(64, 64)), kind)
    with pytest.raises(EmotionError, match=r"'holiday\.x' .*(copy|give)"):
        images.decode_image(data[: len(data) // 2], "holiday.x")


@pytest.mark.parametrize("data", [b"", b"not a picture", b"\xff\xd8\xff\xe0", b"GIF89a"])
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(EmotionError, match="'notes.txt'"):
        images.decode_image(data, "notes.txt")


def test_eps_is_refused_before_a_program_would_run():
    data = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    with pytest.raises(EmotionError, match="is EPS; save it as"):
        images.decode_image(data, "drawing.eps")


@pytest.mark.parametrize("side", [12_000, 50_000])
def test_absurd_size_is_refused_by_the_header_alone(side):
    data = make_png(side, side, 8, 2, b"\0" * 1000)
    tracemalloc.start()
    try:
        with pytest.raises(EmotionError, match="'bomb.png' claims more than 128 million pixels"):
            images.decode_image(data, "bomb.png")
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_float_pictures_are_refused():
    data = encode(Image.fromarray(np.ones((3, 4), np.float32)), "TIFF")
    with pytest.raises(EmotionError, match="floating-point"):
        images.decode_image(data, "depth.tif")


def test_missing_file_and_folder_are_refused(tmp_path):
    for path in (tmp_path / "absent.png", tmp_path):
        with pytest.raises(EmotionError, match="is no file"):
            images.read_image(path)


def loop_area(image, height, width):
    """The mean of each block, for whole factors."""
    fy, fx = image.shape[0] // height, image.shape[1] // width
    result = np.empty((height, width, image.shape[2]))
    for y in range(height):
        for x in range(width):
            block = image[y * fy : (y + 1) * fy, x * fx : (x + 1) * fx].astype(float)
            result[y, x] = block.mean(axis=(0, 1))
    return result


def loop_bilinear(image, height, width):
    """Bilinear between centres of pixels, borders repeated."""
    rows, columns = image.shape[:2]
    result = np.empty((height, width, image.shape[2]))
    for y in range(height):
        for x in range(width):
            sy = min(max((y + 0.5) * rows / height - 0.5, 0), rows - 1)
            sx = min(max((x + 0.5) * columns / width - 0.5, 0), columns - 1)
            y0, x0 = int(sy), int(sx)
            y1, x1 = min(y0 + 1, rows - 1), min(x0 + 1, columns - 1)
            dy, dx = sy - y0, sx - x0
            upper = image[y0, x0] * (1 - dx) + image[y0, x1] * dx
            lower = image[y1, x0] * (1 - dx) + image[y1, x1] * dx
            result[y, x] = upper * (1 - dy) + lower * dy
    return result


@pytest.mark.parametrize("channels", [1, 3])
def test_shrinking_is_the_mean_of_the_area(channels):
    image = make_image(36, 60, channels)
    for height, width in ((12, 12), (18, 20), (36, 10), (1, 1)):
        small = images.resize(image, height, width)
        assert small.shape == (height, width, channels) and small.dtype == np.uint8
        assert np.abs(small - loop_area(image, height, width)).max() <= 0.51


@pytest.mark.parametrize("channels", [1, 3])
def test_enlarging_is_bilinear(channels):
    image = make_image(11, 17, channels)
    for height, width in ((22, 34), (29, 40), (11, 50)):
        large = images.resize(image, height, width)
        assert large.shape == (height, width, channels)
        assert np.abs(large - loop_bilinear(image, height, width)).max() <= 1


def test_an_axis_that_shrinks_is_averaged_while_the_other_grows():
    image = make_image(12, 60)
    mixed = images.resize(image, 30, 20)
    expected = loop_bilinear(np.rint(loop_area(image, 12, 20)), 30, 20)
    assert np.abs(mixed - expected).max() <= 2


def test_resize_to_the_same_size_copies():
    image = make_image()
    same = images.resize(image, *image.shape[:2])
    np.testing.assert_array_equal(same, image)
    assert not np.shares_memory(same, image)


def test_resize_takes_views():
    image = make_image(20, 30)
    flipped = image[::-1, ::-1]
    copied = images.resize(flipped.copy(), 7, 9)
    np.testing.assert_array_equal(images.resize(flipped, 7, 9), copied)


def test_written_pictures_are_read_back(tmp_path):
    image = make_image()
    images.write_image(tmp_path / "new" / "folder" / "a.PNG", image)
    np.testing.assert_array_equal(images.read_image(tmp_path / "new" / "folder" / "a.PNG"), image)
    smooth = images.resize(make_image(4, 5), 60, 90)
    images.write_image(tmp_path / "b.jpg", smooth)
    assert np.abs(images.read_image(tmp_path / "b.jpg").astype(int) - smooth).mean() < 4


def test_what_cannot_be_written_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EmotionError, match="cannot be written .*another folder"):
        images.write_image(tmp_path / "file" / "a.png", make_image())
    with pytest.raises(EmotionError, match="suffix"):
        images.write_image(tmp_path / "a.docx", make_image())


def test_real_alpha_photo(scenes):
    path = os.path.join(scenes, "photos", "Image_with_alpha.png")
    assert images.read_image(path).shape == (1036, 1524, 3)


def test_the_package_itself_imports_no_opencv():
    code = "import sys, emotion_jax; sys.exit('cv2' in sys.modules or 'dlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
