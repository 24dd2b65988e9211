"""What damage once brought out, died of, or filled the memory with: each is now one sentence."""

import io
import json
import lzma
import os
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from false_affectnet import write_npy
from false_films import shades, write_film
from fuzzing import table
from PIL import Image

from emotion_jax.inference import _find_checkpoints
from emotion_jax.labels import FERPLUS_COLUMNS
from emotion_jax.logs import MetricsLog
from emotion_jax.weights import SHIPPED, read_meta

DEEP = "[" * 100_000  # deeper than Python's own calls may go
NAME = "simplenet-narrow-ferplus"


def refused(child, reader, path, words):
    what = child.ask(reader, path)
    assert what.startswith("refused: ") and words in what, what


def patch(path, old, new):
    data = path.read_bytes()
    assert old in data and len(old) == len(new)
    path.write_bytes(data.replace(old, new))
    return path


def test_flags_that_hold_a_line_break(child, tmp_path):
    config = Path(__file__).parents[1] / "configs" / "quickstart.py"
    flags = tmp_path / "flags.json"
    flags.write_text(json.dumps([f"--config={config}", "--config.\n=1"]))
    refused(child, "read_flags", flags, r"--config.\n: no such key")


def test_films_of_an_unknown_coding(child, tmp_path):
    film = write_film(tmp_path / "a.avi", shades(3), codec="mjpeg")
    refused(child, "read_film", patch(film, b"MJPG", b"QQQQ"), "unknown coding")


def test_films_with_titles_of_an_old_encoding(child, tmp_path):
    film = write_film(tmp_path / "a.mp4", shades(3))
    assert child("read_film", patch(film, b"Lavf", b"\xe9\xe8\xff\xfe"))


def test_films_that_claim_frames_of_gigabytes(child, tmp_path):
    film = write_film(tmp_path / "a.mp4", shades(3), codec="mpeg4")
    size = struct.pack(">HH", 64, 48), struct.pack(">HH", 65_000, 65_000)
    assert child.ask("read_film", patch(film, *size)).startswith(("refused: ", "read"))


@pytest.mark.parametrize("listed", ["film.ts", "pipe"])
def test_lists_of_films_open_no_other_file(child, tmp_path, listed):
    """A pipe would be waited at for ever."""
    write_film(tmp_path / "film.ts", shades(3))
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "a.mp4").write_text(f"ffconcat version 1.0\nfile {listed}\n")
    refused(child, "read_film", tmp_path / "a.mp4", "is no readable film")
    head, tail = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n", "\n#EXT-X-ENDLIST\n"
    (tmp_path / "b.m3u8").write_text(head + listed + tail)
    refused(child, "read_film", tmp_path / "b.m3u8", "is no readable film")


def test_pictures_of_a_few_kilobytes_take_no_gigabytes(child, tmp_path):
    side = 11_300

    def chunk(name, body):
        mark = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + mark

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    lines = zlib.compress(bytes(side * (1 + (side + 7) // 8)))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", lines)
    (tmp_path / "a.png").write_bytes(png + chunk(b"IEND", b""))
    refused(child, "read_picture", tmp_path / "a.png", "claims 11300 x 11300 pixels in 15598 bytes")


FACES = [["emotion", "pixels", "Usage"], ["0", " ".join(["7"] * 48 * 48), "Training"]]
VOTES = [["Usage", *FERPLUS_COLUMNS[:-1], "NF"], ["Training", *["1"] * 10]]


def write_ferplus(folder, faces=FACES, votes=VOTES):
    (folder / "fer2013.csv").write_bytes(table(faces))
    (folder / "fer2013new.csv").write_bytes(table(votes))
    return folder


def test_votes_of_five_thousand_digits(child, tmp_path):
    """Python refuses to read such numbers, with an error of its own."""
    votes = [VOTES[0], [*VOTES[1][:-1], "9" * 5000]]
    refused(child, "read_ferplus", write_ferplus(tmp_path, votes=votes), "votes are whole numbers")


@pytest.mark.parametrize("more", [bytes(1 << 24), b"\n" * (1 << 21)])
def test_packed_tables_without_an_end(child, tmp_path, more):
    write_ferplus(tmp_path)
    (tmp_path / "fer2013.csv.xz").write_bytes(lzma.compress(table(FACES) + more))
    (tmp_path / "fer2013.csv").unlink()
    refused(child, "read_ferplus", tmp_path, "and more" if more[0] == 0 else "lines")


def save_npz(path, **arrays):
    good = {"images": np.zeros((2, 4, 4, 3), np.uint8), "labels": np.arange(2)}
    np.savez(path, **{k: v for k, v in {**good, **arrays}.items() if v is not None})
    return path


def packed(*pictures, **arrays):
    offsets = np.cumsum([0, *map(len, pictures)])
    data = np.frombuffer(b"".join(pictures), np.uint8)
    return {"images": None, "pictures": data, "offsets": offsets, **arrays}


def png(side):
    data = io.BytesIO()
    Image.new("RGB", (side, side)).save(data, "PNG")
    return data.getvalue()


@pytest.mark.parametrize("channels", [3.0, True, 1 + 0j])
def test_channels_that_are_no_whole_number(child, tmp_path, channels):
    arrays = packed(png(4), png(4), channels=np.array(channels))
    refused(child, "read_arrays", save_npz(tmp_path / "a.npz", **arrays), "do not fit")


def test_members_that_are_no_arrays(child, tmp_path):
    save_npz(tmp_path / "a.npz", images=None)
    with zipfile.ZipFile(tmp_path / "a.npz", "a") as archive:
        archive.writestr("images", b"no array")
    refused(child, "read_arrays", tmp_path / "a.npz", "no array 'images'")


def test_array_files_that_swell(child, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("images.npy", "w") as member:
            for _ in range(300):
                member.write(bytes(1_000_000))
    refused(child, "read_arrays", tmp_path / "a.npz", "would take 0.3 GB")
    many = packed(png(2000), *[b"x"] * 2000, labels=np.zeros(2001, int))
    refused(child, "read_arrays", save_npz(tmp_path / "b.npz", **many), "would take 24.0 GB")


def test_links_and_names_that_cost_one_row(child, tmp_path):
    write_npy(tmp_path, 4, 2)
    images, marks = tmp_path / "train_set/images", tmp_path / "train_set/annotations"
    os.symlink("loop.jpg", images / "loop.jpg")
    shutil.copy(marks / "0_exp.npy", marks / "loop_exp.npy")
    os.symlink("circle_exp.npy", marks / "circle_exp.npy")
    (images / ("long" * 62 + ".jpg")).touch()  # with _exp.npy it is too long for a file
    assert child("read_affectnet", tmp_path)


@pytest.fixture()
def weights(tmp_path):
    shutil.copytree(SHIPPED / NAME, tmp_path / "weights")
    return tmp_path / "weights"


def change(folder, **changes):
    (folder / "config.json").write_text(json.dumps({**read_meta(folder), **changes}))


def test_json_that_nests_too_deeply(child, weights):
    (weights / "config.json").write_text(DEEP)
    (weights / "sha256.json").write_text(DEEP)
    (weights / "checkpoints").mkdir()
    for reader, path in (("load_weights", weights), ("read_config", weights)):
        refused(child, reader, path, "nests too deeply")
    refused(child, "load_weights", weights / "checkpoints", "no finished checkpoint")
    assert child("read_manifest", weights)


def test_metrics_that_are_no_rows(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": Infinity}\n{"step": 3}\n' + DEEP)
    with pytest.raises(ValueError, match="line 1: no row of metrics"):
        MetricsLog(tmp_path).rows()


@pytest.mark.parametrize("name", ["~nobody-of-this-name/a", "a" * 3000, "a\0b"])
def test_names_that_no_file_can_have(child, name):
    refused(child, "load_weights", name, "is no workdir")


def test_numbers_that_are_no_steps(tmp_path):
    (tmp_path / "checkpoints" / "²").mkdir(parents=True)
    with pytest.raises(ValueError, match="is no workdir"):
        _find_checkpoints(tmp_path / "checkpoints" / "²")


SPECS = [{"size": 10**9}, {"size": "48"}, {"mean": "x"}, {"std": [0]}, {"std": [float("nan")]}]
SPECS += [{"crop_scale": 1e9}, {"crop_shift": float("nan")}, {"channels": 2}, {"grey": "no"}]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_pixels_that_cannot_be_meant(child, weights, spec):
    change(weights, spec={**read_meta(weights)["spec"], **spec})
    refused(child, "load_weights", weights, f"spec.{next(iter(spec))}: ")


@pytest.mark.parametrize("width", [1e300, float("inf"), 10**400])
def test_widths_that_no_machine_holds(child, weights, width):
    change(weights, model={**read_meta(weights)["model"], "width": width})
    refused(child, "load_weights", weights, "model.width: ")


@pytest.mark.parametrize("temperature", [10**400, 1e-300, -1, "warm", float("nan")], ids=str)
def test_temperatures_that_cannot_be_meant(child, weights, temperature):
    change(weights, temperature=temperature)
    refused(child, "read_weights", weights, "temperature: ")


def test_weights_that_are_not_finite(child, weights):
    path = weights / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + struct.pack("<f", np.nan))
    change(weights, sha256=None)
    refused(child, "load_weights", weights, "no finite numbers")


@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, 99])
def test_archives_that_do_not_unpack(child, tmp_path, kind):
    path = tmp_path / "a.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model.weights.h5", b"\xff" * 500)
    head, directory = b"PK\x03\x04\x14\0\0\0", b"PK\x01\x02\x14\x03\x14\0\0\0"
    patch(path, head + b"\0\0", head + struct.pack("<H", kind))
    patch(path, directory + b"\0\0", directory + struct.pack("<H", kind))
    refused(child, "read_keras", path, "cannot be read as a Keras file")
