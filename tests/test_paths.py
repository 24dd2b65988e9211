"""What paths mean, and where each picture's annotated copy goes."""

import os

import pytest

from emotion_jax.errors import EmotionError
from emotion_jax.prediction import paths


def test_find_images(tmp_path):
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.png", "c[1].webp", "sub/d.jpeg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def find(pattern):
        return [os.path.relpath(path, tmp_path) for path in paths.find_images(str(pattern))]

    assert find(tmp_path) == ["a.png", "b.JPG", "c[1].webp"]
    assert find(tmp_path / "c[1].webp") == ["c[1].webp"]
    assert find(tmp_path / "*.png") == ["a.png"]
    assert find(tmp_path / "*") == ["a.png", "b.JPG", "c[1].webp"]
    assert find(tmp_path / "**" / "*.j*") == ["sub/d.jpeg"]
    assert find(tmp_path / "notes.txt") == ["notes.txt"]  # named: reading it will tell


def test_a_folder_read_again_has_as_many_pictures(tmp_path):
    """What was annotated beside its source is no source; a photo that is called so still is."""
    names = ["A.png", "a.png", "b.gif", "c-emotions.jpg"]
    for name in names:
        (tmp_path / name).touch()
    first = paths.find_images(str(tmp_path))
    assert [os.path.basename(path) for path in first] == names
    targets = paths.choose_targets(first, tmp_path)
    for target in targets.values():
        assert not os.path.exists(target)
        open(target, "x").close()
    assert paths.find_images(str(tmp_path)) == first
    assert paths.find_images(str(tmp_path / "*.*")) == first
    assert paths.choose_targets(first, tmp_path) == targets
    assert paths.find_images(targets[first[0]]) == [targets[first[0]]]  # named itself


def test_find_images_says_what_is_not_there(tmp_path):
    (tmp_path / "notes.txt").touch()
    (tmp_path / "a.MP4").touch()
    with pytest.raises(EmotionError, match=r"a.MP4' is a film; use --video=.*a.MP4"):
        paths.find_images(str(tmp_path / "a.MP4"))
    for pattern, message in (("", "no picture"), ("*.txt", "no picture"), ("x*", "not there")):
        with pytest.raises(EmotionError, match=message):
            paths.find_images(str(tmp_path / pattern))


def test_targets_differ_by_more_than_case(tmp_path):
    # Where the file system ignores case, out/A.png and out/a.png are one file.
    targets = paths.choose_targets(["x/a.png", "x/A.png", "x/A.PNG"], tmp_path)
    assert len({target.casefold() for target in targets.values()}) == 3


def test_no_photo_beside_a_source_is_replaced(tmp_path):
    for name in ("party.jpg", "party-2.jpg"):
        (tmp_path / name).touch()
    source = str(tmp_path / "party.jpg")
    (target,) = paths.choose_targets([source], tmp_path).values()
    assert target == str(tmp_path / "party-emotions.jpg")
    both = [source, target]  # what an earlier run left, read as a source
    assert not {*paths.choose_targets(both, tmp_path).values()} & {*both}


def test_pictures_of_one_name_keep_their_folders(tmp_path):
    sources = [f"{tmp_path}/{name}" for name in ("b/one/a.png", "b/two/a.png", "b/c.gif")]
    targets = paths.choose_targets(sources, "out")
    assert list(targets.values()) == ["out/one/a.png", "out/two/a.png", "out/c.gif.png"]
    assert list(paths.choose_targets(sources[1:], "out").values()) == [
        "out/a.png",
        "out/c.gif.png",
    ]


def test_a_format_that_holds_no_photo_becomes_png(tmp_path):
    targets = paths.choose_targets(["x/a.gif", "x/a.png", "x/b"], tmp_path)
    names = [os.path.basename(target) for target in targets.values()]
    assert names == ["a.gif.png", "a.png", "b.png"]
