"""FER+ from small false files; and from the real ones, where they are."""

import csv
import itertools
import lzma
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from emotion_jax.data.ferplus import FerPlus
from emotion_jax.errors import EmotionError
from emotion_jax.labels import VOTES, vote_targets

HEADER = "neutral happiness surprise sadness anger disgust fear contempt unknown NF".split()
# Where each name of VOTES stands in the file.
PLACES = [HEADER.index("NF" if name == "no face" else name) for name in VOTES]
MIXED = "PublicTest Training PrivateTest Training PublicTest PrivateTest Training".split()
SPLIT = {"train": "Training", "validation": "PublicTest", "test": "PrivateTest"}


def write_faces(folder: Path, usages=MIXED, *, xz=False, seed=0):
    """Writes a false fer2013.csv; returns its pictures uint8 [N, 48, 48, 1]."""
    faces = np.random.default_rng(seed).integers(0, 256, (len(usages), 48, 48, 1), np.uint8)
    rows = [
        (i % 7, " ".join(map(str, f.ravel())), u)
        for i, (f, u) in enumerate(zip(faces, usages, strict=True))
    ]
    _write(folder / "fer2013.csv", ("emotion", "pixels", "Usage"), rows, xz)
    return faces


def write_votes(folder: Path, usages=MIXED, *, xz=False, seed=1, header=HEADER):
    """Writes a false fer2013new.csv, its image names adrift; returns votes in the file's order."""
    votes = np.random.default_rng(seed).integers(0, 11, (len(usages), 10), np.uint8)
    rows = [
        (u, f"fer{3 * i + 7:07}.png" if i % 3 else "", *v)
        for i, (u, v) in enumerate(zip(usages, votes, strict=True))
    ]
    _write(folder / "fer2013new.csv", ("Usage", "Image name", *header), rows, xz)
    return votes


def _write(path, header, rows, xz):
    suffix, opener = (".xz", lzma.open) if xz else ("", open)
    with opener(f"{path}{suffix}", "wt", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def read(folder, split, size=48):
    examples = list(FerPlus(str(folder), size).examples(split))
    return np.array([e["image"] for e in examples]), np.array([e["votes"] for e in examples])


@pytest.mark.parametrize("xz", [False, True])
@pytest.mark.parametrize("split", SPLIT)
def test_rows_of_a_usage_are_joined_in_their_order(tmp_path, split, xz):
    # The two files interleave the usages each in its own way.
    in_votes = sorted(MIXED)
    faces, votes = write_faces(tmp_path, xz=xz), write_votes(tmp_path, in_votes, xz=xz)
    images, counts = read(tmp_path, split)
    assert images.dtype == counts.dtype == np.uint8
    np.testing.assert_array_equal(images, faces[[u == SPLIT[split] for u in MIXED]])
    mine = votes[[u == SPLIT[split] for u in in_votes]]
    np.testing.assert_array_equal(counts, mine[:, PLACES])
    assert FerPlus(str(tmp_path)).splits() == ("train", "validation", "test")


def test_votes_go_by_name_not_by_place(tmp_path):
    write_faces(tmp_path)
    votes = write_votes(tmp_path, header=HEADER[::-1])
    rows = [u == "Training" for u in MIXED]
    np.testing.assert_array_equal(read(tmp_path, "train")[1], votes[rows][:, ::-1][:, PLACES])


def test_forty_eight_is_exact_and_sixty_four_enlarges(tmp_path):
    faces = write_faces(tmp_path)[[u == "Training" for u in MIXED]]
    write_votes(tmp_path)
    images = read(tmp_path, "train", 64)[0]
    assert images.shape == (3, 64, 64, 1)
    expected = [cv2.resize(face, (64, 64), interpolation=cv2.INTER_LINEAR) for face in faces]
    np.testing.assert_array_equal(images[..., 0], expected)


@pytest.mark.parametrize(("faces_have", "votes_have"), itertools.product([True, False], repeat=2))
def test_there_is_a_test_split_where_both_files_have_it(tmp_path, faces_have, votes_have):
    public = [usage for usage in MIXED if usage != "PrivateTest"]
    write_faces(tmp_path, MIXED if faces_have else public)
    write_votes(tmp_path, MIXED if votes_have else public)
    source = FerPlus(str(tmp_path))
    assert source.splits() == tuple(SPLIT)[: 3 if faces_have and votes_have else 2]
    assert [len(list(source.examples(s))) for s in source.splits()] == [3, 2, 2][
        : len(source.splits())
    ]


def test_spaces_blank_lines_and_a_byte_order_mark_do_no_harm(tmp_path):
    faces = write_faces(tmp_path, ["Training"])
    votes = write_votes(tmp_path, ["Training"])
    for name in ("fer2013.csv", "fer2013new.csv"):
        text = (tmp_path / name).read_text().replace(",", ", ")
        (tmp_path / name).write_text(text + "\n\n", encoding="utf-8-sig")
    images, counts = read(tmp_path, "train")
    np.testing.assert_array_equal(images, faces)
    np.testing.assert_array_equal(counts, votes[:, PLACES])


def test_options_name_the_content_and_the_size(tmp_path):
    def options(seed=0, size=48, votes=1, folder="a"):
        here = tmp_path / folder
        here.mkdir(exist_ok=True)
        write_faces(here, seed=seed)
        write_votes(here, seed=votes)
        return FerPlus(str(here), size).options()

    assert options() == options() == options(folder="b")
    others = [options(seed=5), options(size=64), options(votes=5)]
    assert all(other != options() for other in others)


PIXELS = " ".join(["7"] * 2304)
VOTE_ROW = "Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0"
VOTE_HEADER = "Usage,Image name," + ",".join(HEADER)


def faces_of(pixels, usage="Training"):
    return f"emotion,pixels,Usage\n0,{PIXELS},Training\n0,{pixels},{usage}\n".encode()


def votes_of(row):
    return f"{VOTE_HEADER}\n{VOTE_ROW}\n{row}\n".encode()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("fer2013.csv", faces_of(PIXELS[:-1] + "x"), ["line 3", "'pixels'", "2304"]),
        ("fer2013.csv", faces_of(PIXELS[:-1] + "7.5"), ["line 3", "'pixels'"]),
        ("fer2013.csv", faces_of(PIXELS[:-1] + "-7"), ["line 3", "'pixels'", "0 to 255"]),
        ("fer2013.csv", faces_of(PIXELS[:-1] + "256"), ["line 3", "'pixels'", "0 to 255"]),
        ("fer2013.csv", faces_of(PIXELS[:-1] + "9" * 30), ["line 3", "'pixels'"]),
        ("fer2013.csv", faces_of(PIXELS[2:]), ["line 3", "2304 numbers"]),
        ("fer2013.csv", faces_of(PIXELS + " 7"), ["line 3", "2304 numbers"]),
        ("fer2013.csv", faces_of(""), ["line 3", "2304 numbers"]),
        ("fer2013.csv", faces_of(PIXELS)[:9000], ["line 3", "2 columns", "3", "cut short"]),
        ("fer2013.csv", b"emotion,Usage\n0,Training\n", ["no column 'pixels'", "pixels, Usage"]),
        ("fer2013.csv", b"emotion,pixels,Usage\n", ["0 Training rows", "fer2013new.csv has 2"]),
        (
            "fer2013.csv",
            faces_of(PIXELS, "PublicTest"),
            ["1 Training rows", "fer2013new.csv has 2"],
        ),
        (
            "fer2013.csv",
            faces_of(PIXELS) + f"0,{PIXELS},Training\n".encode(),
            ["3 Training rows", "fer2013new.csv has 2"],
        ),
        ("fer2013.csv", b"", ["no column 'pixels'"]),
        ("fer2013.csv", bytes(range(256)) * 8, ["cannot be read", "fetch it anew"]),
        ("fer2013.csv", b"\0" * 999, ["no column 'pixels'"]),
        ("fer2013.csv.xz", lzma.compress(faces_of(PIXELS))[:-20], ["cannot be read", "anew"]),
        ("fer2013.csv.xz", b"no xz at all", ["cannot be read", "anew"]),
        ("fer2013new.csv", votes_of(VOTE_ROW.replace("3", "-3")), ["line 3", "'anger' is '-3'"]),
        ("fer2013new.csv", votes_of(VOTE_ROW.replace("3", "x")), ["line 3", "'anger' is 'x'"]),
        ("fer2013new.csv", votes_of(VOTE_ROW.replace("3", "")), ["line 3", "'anger' is ''"]),
        ("fer2013new.csv", votes_of(VOTE_ROW.replace("3", "256")), ["line 3", "0 to 255"]),
        ("fer2013new.csv", votes_of(VOTE_ROW + ",0"), ["line 3", "13 columns", "12"]),
        ("fer2013new.csv", votes_of(VOTE_ROW).replace(b"NF", b"no"), ["no column 'NF'"]),
        ("fer2013new.csv", f"{VOTE_HEADER}\n".encode(), ["fer2013.csv has 2", "has 0"]),
        ("fer2013new.csv", b"", ["no column 'Usage'"]),
        ("fer2013new.csv", bytes(range(256)), ["cannot be read"]),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path, name, content, words):
    (tmp_path / "fer2013.csv").write_bytes(faces_of(PIXELS))
    (tmp_path / "fer2013new.csv").write_bytes(votes_of(VOTE_ROW))
    assert len(list(FerPlus(str(tmp_path)).examples("train"))) == 2  # what is right passes
    if name.endswith(".xz"):
        (tmp_path / name.removesuffix(".xz")).unlink()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(EmotionError) as error:
        list(FerPlus(str(tmp_path)).examples("train"))
    said = str(error.value)
    assert str(tmp_path / name) in said and "\n" not in said
    assert all(word in said for word in words), said


@pytest.mark.parametrize("there", [None, "fer2013.csv", "fer2013new.csv"])
def test_a_missing_file_is_named(tmp_path, there):
    folder = tmp_path / "here"
    if there:
        folder.mkdir()
        (write_faces if there == "fer2013.csv" else write_votes)(folder)
    source = FerPlus(str(folder))
    lacks = "fer2013new.csv" if there == "fer2013.csv" else "fer2013.csv"
    for act in (source.options, source.splits, lambda: list(source.examples("train"))):
        with pytest.raises(EmotionError, match="^data.dir: no fer2013") as error:
            act()
        said = str(error.value)
        assert f"'{folder}'" in said and (there is None or f"no {lacks} or {lacks}.xz" in said)


def test_the_real_files():
    shared = os.environ.get("EMOTION_JAX_SHARED")
    if not shared:
        pytest.skip("EMOTION_JAX_SHARED is not set: no real faces")
    folder = Path(shared) / "data" / "fer2013"
    source = FerPlus(str(folder))
    assert source.splits() == ("train", "validation")
    # The first rows, without csv; some later ones are checked by their place in the file.
    with lzma.open(folder / "fer2013.csv.xz", "rt") as file:
        lines = [line.rstrip("\n").split(",") for line in itertools.islice(file, 1, 501)]
    names = (folder / "fer2013new.csv").read_text().splitlines()[1:]
    # One pass, which takes seconds: of the pictures no more is kept than is looked at.
    for split, rows, majority in (("train", 28_709, 25_060), ("validation", 3_589, 3_199)):
        votes = []
        for i, example in enumerate(source.examples(split)):
            votes.append(example["votes"])
            if split == "train" and i in (0, 1, 77, 499):
                _, pixels, usage = lines[i]
                face = [int(number) for number in pixels.split()]
                assert usage == "Training" and example["image"].ravel().tolist() == face
                counts = [int(number) for number in names[i].split(",")[2:]]
                assert example["votes"].tolist() == [counts[place] for place in PLACES]
        assert len(votes) == rows
        assert vote_targets(np.array(votes), "majority")[1].sum() == majority
