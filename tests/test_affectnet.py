"""AffectNet in both layouts against false ones: every row's fate is known beforehand."""

import json
import shutil
from unittest import mock

import numpy as np
import pytest
from false_affectnet import COLUMNS, Csv, write_flawed_csv, write_npy, write_plain_csv
from false_pictures import SIDE, around, make_face
from PIL import Image
from tiny_runs import Tiny

from emotion_jax import images, models
from emotion_jax.config import default_config
from emotion_jax.config_check import check_config
from emotion_jax.data import make_source, open_data
from emotion_jax.data.affectnet import AffectNet, crop_box
from emotion_jax.data.arrays import collect
from emotion_jax.data.builds import build
from emotion_jax.data.drawing.faces import draw_face
from emotion_jax.data.tally import DroppedError, summary
from emotion_jax.errors import EmotionError
from emotion_jax.train import train_and_evaluate
from emotion_jax.training.experiment import make_experiment


def source_of(root, **options):
    """The faces as they were drawn: their own box, their own size."""
    return AffectNet(str(root), **{"size": SIDE, "crop_scale": 1.0, **options})


def read(source):
    return {split: list(source.examples(split)) for split in source.splits()}


def check(source, known):
    """Every face, label and number is the known one, and the report is."""
    faces = read(source)
    for split, examples in faces.items():
        answers = known.kept(split)
        assert [e["label"] for e in examples] == [a.label for a in answers]
        for example, answer in zip(examples, answers, strict=True):
            assert example["image"].dtype == np.uint8
            assert example["image"].shape == (source.size, source.size, 3)
            assert (example["valence"], example["arousal"]) == (answer.valence, answer.arousal)
            if answer.face is None:
                continue
            off = np.abs(example["image"].astype(int) - answer.face)
            assert off.max() == 0 if answer.exact else off.mean() < 9, answer.name
    assert source.report() == known.report()


LAYOUTS = {
    "nested": {"images": "Manually_Annotated/Manually_Annotated_Images"},
    "flat": {"images": "Manually_Annotated_Images"},
    "one folder": {"images": "."},
    "lists apart": {"lists": "Manually_Annotated_file_lists"},
    "no header": {"header": False},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_flaw_is_survived_and_counted(tmp_path, layout):
    known = write_flawed_csv(tmp_path / "a", **layout)
    source = source_of(tmp_path / "a")
    check(source, known)
    check(source, known)  # read again, it is counted anew


def test_every_flaw_of_the_npy_layout(tmp_path):
    known = write_npy(tmp_path / "a", flaws=True)
    check(source_of(tmp_path / "a"), known)
    assert not (tmp_path / "a" / "unpickled").exists()


def test_both_layouts_give_the_same_faces(tmp_path):
    write_plain_csv(tmp_path / "csv")
    write_npy(tmp_path / "npy")
    check(source_of(tmp_path / "npy"), write_npy(tmp_path / "jpg", suffix=".jpg"))
    check(source_of(tmp_path / "jpg"), write_npy(tmp_path / "jpg", suffix=".jpg"))
    for size in (SIDE, 32, 64):
        csv, npy = (read(source_of(tmp_path / name, size=size)) for name in ("csv", "npy"))
        assert csv.keys() == npy.keys()
        for split in csv:
            for a, b in zip(csv[split], npy[split], strict=True):
                np.testing.assert_array_equal(a.pop("image"), b.pop("image"))
                assert a == b


def test_columns_go_by_name_and_numbers_may_be_missing(tmp_path):
    files = Csv(tmp_path, header=False)
    files.face("train", "1/a.png", 3)
    files.face("validation", "1/b.png", 4)
    files.finish()
    header = "expression,face_height,face_width,face_y,face_x,more,SUBDIRECTORY_FILEPATH,valence"
    rows = ["3,48,48,23,31,,1/a.png,NULL", '"3","48","48","23","31","x,y","1/b.png","-1"']
    text = "\ufeff" + "\r\n".join([header, *rows])
    (tmp_path / "training.csv").write_text(text, encoding="utf-8", newline="")
    first, second = source_of(tmp_path).examples("train")
    np.testing.assert_array_equal(first["image"], make_face(3))
    assert np.isnan([first["valence"], first["arousal"], second["arousal"]]).all()
    assert second["valence"] == -1


def test_the_crop_widens_shifts_and_repeats_the_border():
    picture = around(make_face(0))
    whole = images.Reduced(picture, picture.shape[:2], 1)
    wide = crop_box(whole, [40, 30, 20, 10], 40, 2.0, 0.1)
    # 40 pixels about the centre (50, 35 + 2): x 30 to 70, y 17 to 57.
    np.testing.assert_array_equal(wide, picture[17:57, 30:70])
    edge = crop_box(whole, [-10, 0, 20, 20], 20, 1.0, 0.0)
    np.testing.assert_array_equal(edge[:, 10:], picture[:20, :10])
    np.testing.assert_array_equal(edge[:, :10], np.repeat(picture[:20, :1], 10, 1))
    with pytest.raises(DroppedError, match="box too large"):
        crop_box(whole, [0, 0, 1, 1e300], 20, 1.0, 0.0)


def test_a_large_jpeg_is_not_decoded_in_full_and_gives_the_same_face(tmp_path):
    """No finer than the face needs: `most` as it is asked for, and what comes of it."""
    files = Csv(tmp_path)
    ramp = np.add.outer(np.arange(660), np.arange(777)) // 6
    picture = np.stack([ramp] * 3, 2).astype(np.uint8)
    picture[152:552, 200:600] = draw_face(1, 1, 1, size=400)
    (files.images / "1").mkdir(parents=True)
    for suffix in ("png", "jpg"):
        # In the middle; by one pixel in the picture; by none. A quarter's pixels begin there.
        for name, left in (("a", 200), ("b", 776), ("c", 777)):
            Image.fromarray(picture).save(files.images / f"1/{name}.{suffix}", quality=95)
            files.row("train", f"1/{name}.{suffix}", box=(left, 152, 400, 400))
    files.finish()
    source = AffectNet(str(tmp_path), 64, crop_shift=0.0)
    with mock.patch.object(images, "read_reduced", wraps=images.read_reduced) as read:
        faces = [example["image"].astype(int) for example in source.examples("train")]
    assert [call.args[1] for call in read.call_args_list] == [1.12 * 400 / 96] * 6
    assert source.report()["dropped"] == {"box outside the picture": ["1/c.png", "1/c.jpg"]}
    assert len(faces) == 4
    for png, jpg in zip(faces[:2], faces[2:], strict=True):
        assert 0 < np.abs(png - jpg).mean() < 1


def test_a_wrong_folder_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for name, what in (("", "holds no AffectNet"), ("gone", "is no folder"), ("file", "is no fol")):
        source = AffectNet(str(tmp_path / name))
        for act in (source.options, source.splits, lambda s=source: list(s.examples("train"))):
            with pytest.raises(EmotionError) as error:
                act()
            assert str(error.value).startswith(f"data.dir: '{tmp_path / name}' {what}")
            assert "train_set" in str(error.value) and "\n" not in str(error.value)
    (tmp_path / "training.csv").write_text(COLUMNS.replace("face_x", "left") + "\n")
    with pytest.raises(EmotionError, match="training.csv: no column 'face_x'"):
        list(AffectNet(str(tmp_path)).examples("train"))


def test_no_picture_at_all_is_one_sentence_too(tmp_path):
    known = write_plain_csv(tmp_path / "a", 3, 1)
    shutil.rmtree(tmp_path / "a" / "Manually_Annotated_Images")
    with pytest.raises(EmotionError) as error:
        open_data(config_of(tmp_path))
    assert str(error.value) == (
        "affectnet: no faces in the train split (3 rows read, kept 0 train, dropped 3 (3 missing "
        "file)); is the data's folder whole?"
    )
    assert len(known.answers) == 4


def test_annotations_without_faces_are_one_sentence(tmp_path):
    """Of the layout of 2021, whose two halves are two downloads."""
    write_npy(tmp_path / "a", 3, 1)
    (tmp_path / "a" / "val_set" / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(EmotionError) as error:
        open_data(config_of(tmp_path))
    said = f"data.dir: '{tmp_path / 'a' / 'val_set'}' has annotations, but no folder 'images'; "
    assert str(error.value) == said + "put the faces there"


def test_options_tell_folders_lists_pictures_and_crops_apart(tmp_path):
    for name in "ab":
        write_plain_csv(tmp_path / name, 3, 1)
    write_npy(tmp_path / "c", 3, 1)
    for name in ("images", "annotations"):  # on another disk, say
        (tmp_path / "c/train_set" / name).rename(tmp_path / name)
        (tmp_path / "c/train_set" / name).symlink_to(tmp_path / name)
    seen = []
    for root in "abc":
        for options in ({}, {"size": 32}, {"crop_scale": 1.5}, {"crop_shift": 0.1}):
            seen.append(source_of(tmp_path / root, **options).options())
            assert seen[-1] == source_of(tmp_path / root, **options).options()
    # What was missing has come; a face has another label.
    (tmp_path / "a/Manually_Annotated_Images/0/9999.png").write_bytes(b"")
    seen.append(source_of(tmp_path / "a").options())
    with (tmp_path / "a/training.csv").open("a") as file:
        file.write("0/9999.png,1,1,9,9,,0,0,0\n")
    seen.append(source_of(tmp_path / "a").options())
    np.save(tmp_path / "c/train_set/annotations/0_exp.npy", np.array("07"))
    seen.append(source_of(tmp_path / "c").options())
    texts = {json.dumps(options, sort_keys=True) for options in seen}
    assert len(texts) == len(seen) - 2  # the npy layout is not cropped


def config_of(tmp_path, **data):
    config = default_config()
    config.data.update(
        source="affectnet", dir=str(tmp_path / "a"), cache_dir=str(tmp_path / "cache"), **data
    )
    config.image_size = SIDE
    config.data.crop_scale, config.data.crop_shift = 1.0, 0.0
    check_config(config)
    return config


def test_a_build_says_what_it_kept_and_writes_it_down(tmp_path, capfd):
    known = write_flawed_csv(tmp_path / "a")
    config = config_of(tmp_path)
    built = build(make_source(config), config.data.cache_dir)
    report = json.loads((built.folder / "build_report.json").read_text())
    assert report == known.report()
    said = capfd.readouterr().out
    kept = report["kept"]
    assert (
        f"{report['rows']} rows read, kept {kept['train']} train, {kept['validation']} val" in said
    )
    assert "2 none" in said and "6 bad expression" in said and said.count("\n") == 4
    assert said.endswith(f"once you have replaced unreadable ones, delete {built.folder}\n")
    for split in ("train", "validation"):
        answers = known.kept(split)
        assert built.targets[split].tolist() == [a.label for a in answers]
        assert len(built.digests[split]) == len(answers)
    # The numbers that the source declares stand in the records.
    import tensorflow_datasets as tfds

    records = tfds.builder_from_directory(built.folder).as_dataset(split="train")
    first = next(records.as_numpy_iterator())
    assert (first["valence"], first["arousal"]) == (0.25, -0.5)
    train = open_data(config)["train"]
    faces = [a.face for a in known.kept("train") if a.exact and a.face is not None]
    np.testing.assert_array_equal(train.read(np.array([len(train) - 1]))[0], faces[-1])


def test_holdout_leaves_the_own_validation_to_the_last_report(tmp_path):
    files = Csv(tmp_path / "a")
    for number in range(40):
        files.face("train", f"1/{number}.png", number)
    for number in range(40):  # every face twice more, under other names, the labels adrift
        data = (files.images / f"1/{number}.png").read_bytes()
        for copy in range(2):
            files.file(f"2/{number}-{copy}.png", data)
            files.row("train", f"2/{number}-{copy}.png", expression=(number + copy) % 8)
    for number in range(100, 108):
        files.face("validation", f"3/{number}.png", number)
    files.finish()
    splits = open_data(config_of(tmp_path, holdout=0.2))
    parts = {name: set(split.rows.tolist()) for name, split in splits.items()}
    assert parts["test"] == set(range(8)) and splits["test"].pixels is not splits["train"].pixels
    assert parts["train"] | parts["validation"] == set(range(120))
    assert not parts["train"] & parts["validation"]
    images = {
        name: {i.tobytes() for i in split.read(np.arange(len(split)))}
        for name, split in splits.items()
    }
    assert not images["train"] & images["validation"]
    # Five faces of each class, three pictures of each: one of five is held out.
    assert len(images["validation"]) == 8 and len(parts["validation"]) == 24
    again = open_data(config_of(tmp_path, holdout=0.2))
    assert set(again["validation"].rows.tolist()) == parts["validation"]
    other = open_data(config_of(tmp_path, holdout=0.2, seed=1))
    assert set(other["validation"].rows.tolist()) != parts["validation"]


def test_subsets_and_caps_of_the_build(tmp_path, capsys):
    write_plain_csv(tmp_path / "a", 24, 8)
    config = config_of(tmp_path, train_images=16, val_images=50)
    splits = open_data(config)
    assert splits["train"].counts().tolist() == [2] * 8 and len(splits["validation"]) == 8
    said = capsys.readouterr().out
    assert "data.val_images: 50, but there are 8 validation faces: takes them all" in said
    assert open_data(config_of(tmp_path, class_cap=1))["train"].counts().tolist() == [1] * 8


def test_the_crop_goes_with_the_weights(tmp_path):
    write_plain_csv(tmp_path / "a", 8, 8)
    config = config_of(tmp_path)
    config.data.crop_scale, config.batch_size, config.num_devices = 1.3, 8, 1
    spec = make_experiment(config).meta["spec"]
    assert (spec["crop_scale"], spec["crop_shift"], spec["size"]) == (1.3, 0.0, SIDE)
    source = make_source(config)
    assert (source.crop_scale, source.crop_shift) == (1.3, 0.0)


def test_the_array_file_holds_the_same_faces(tmp_path):
    known = write_plain_csv(tmp_path / "a", 8, 4)
    arrays = collect(source_of(tmp_path / "a"))
    np.testing.assert_array_equal(arrays.images, [a.face for a in known.answers])
    assert arrays.labels.tolist() == [a.label for a in known.answers]
    assert arrays.split.tolist() == [0] * 8 + [1] * 4


def test_both_layouts_train_to_the_same_numbers(tmp_path, monkeypatch):
    monkeypatch.setitem(models.MODELS, "tiny", Tiny)
    write_plain_csv(tmp_path / "csv", 64, 16)
    write_npy(tmp_path / "npy", 64, 16)
    logs = []
    for layout in ("csv", "npy"):
        config = config_of(tmp_path, holdout=0.25)
        config.data.dir = str(tmp_path / layout)
        config.model = {"name": "tiny"}
        config.update({"batch_size": 16, "eval_batch_size": 16, "num_epochs": 2})
        train_and_evaluate(config, tmp_path / f"run-{layout}")
        lines = (tmp_path / f"run-{layout}" / "metrics.jsonl").read_text().splitlines()
        logs.append([{**json.loads(line), "images_per_s": 0} for line in lines])
    assert len(logs[0]) == 2 and logs[0] == logs[1]


def test_summaries():
    assert summary({"rows": 0, "kept": {}, "dropped": {}}) == "0 rows read, kept none"
    report = {"rows": 6, "kept": {"train": 2}, "dropped": {"a": ["x"], "b": ["y", "z", "y"]}}
    assert summary(report) == "6 rows read, kept 2 train, dropped 4 (3 b, 1 a)"
