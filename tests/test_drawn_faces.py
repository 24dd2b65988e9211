"""Drawn faces: repeatable, fair, varied as asked, and faces to a face detector."""

import dataclasses
import json

import numpy as np
import pytest

from emotion_jax.data.drawing import faces
from emotion_jax.data.drawing.actions import ALWAYS, sample_actions
from emotion_jax.data.drawing.faces import draw_face, draw_group
from emotion_jax.data.drawing.people import Conditions, sample_person, sample_shot
from emotion_jax.data.drawn_faces import DrawnFaces
from emotion_jax.errors import EmotionError
from emotion_jax.image_spec import ImageSpec
from emotion_jax.labels import EMOTIONS

PLAIN = Conditions(glasses=False, light=1.0, yaw=0.0)


@pytest.fixture(scope="module")
def source():
    return DrawnFaces(size=24, train_faces=64, validation_faces=32)


def test_the_same_seeds_draw_the_same_face():
    first = draw_face(3, 1, 7, size=48)
    draw_face(4, 2, 8, size=48)
    np.testing.assert_array_equal(first, draw_face(3, 1, 7, size=48))
    for other in (
        draw_face(2, 1, 7, size=48),
        draw_face(3, 2, 7, size=48),
        draw_face(3, 1, 6, size=48),
    ):
        assert (first != other).mean() > 0.3


@pytest.mark.parametrize("size", [16, 31, 32, 64, 100])
def test_a_face_has_the_size_that_was_asked_for(size):
    face = draw_face(0, 0, 0, size=size)
    assert face.shape == (size, size, 3) and face.dtype == np.uint8
    assert face.std() > 10


def test_an_emotion_changes_the_face_and_not_the_person():
    for person in range(6):
        calm, stranger = (
            draw_face(p, 0, 7, conditions=PLAIN).astype(int) for p in (person, person + 50)
        )
        for emotion in range(1, 8):
            moved = draw_face(person, emotion, 7, conditions=PLAIN).astype(int)
            # Hair and forehead: there little moves but the brows' highest and the furrows.
            assert (np.abs(moved - calm)[:8] > 2).mean() < 0.25
            assert (np.abs(moved - calm)[16:56, 8:56] > 2).mean() > 0.1
        assert (np.abs(stranger - calm)[:8] > 2).mean() > 0.6


def test_a_person_is_recognized_in_another_shot():
    people = range(20)

    def look(person, emotion, shot):
        face = draw_face(person, emotion, shot, conditions=PLAIN).astype(float)
        # The colours of the hair above and of the skin between eyes and mouth.
        return np.concatenate([face[:6, 16:48].mean((0, 1)), face[32:42, 16:48].mean((0, 1))])

    known = np.stack([look(p, 0, p) for p in people])
    seen = np.stack([look(p, 6, 1000 + p) for p in people])
    distances = np.linalg.norm(seen[:, None] - known[None], axis=2)
    rank = (distances < np.diag(distances)[:, None]).sum(axis=1)
    # Were the person drawn from the shot, the right one would be 9 or 10 places down the list.
    assert rank.mean() < 2


@pytest.mark.parametrize("emotion", range(8))
def test_each_emotion_moves_its_action_units_and_contempt_one_side(emotion):
    rest = np.zeros((28, 2))
    drawn = np.stack([sample_actions(np.random.default_rng(i), emotion, rest) for i in range(40)])
    assert drawn.min() >= 0 and drawn.max() <= 1
    units = ALWAYS[EMOTIONS[emotion]]
    moved = drawn.max(axis=2)
    for unit, peak in units.items():
        assert (moved[:, unit] > 0.6 * 0.75 * peak).all()
        assert moved[:, unit].std() > 0.03
    one_sided = (drawn.min(axis=(1, 2)) == 0) & (drawn[:, [12, 14]].min(axis=2) == 0).all(axis=1)
    if EMOTIONS[emotion] == "contempt":
        assert one_sided.all()
        assert 0.2 < (drawn[:, 14, 0] > 0).mean() < 0.8  # either side has its turn
    elif units:
        sides = drawn[:, list(units)]
        assert (sides.min(axis=2) > 0.6 * sides.max(axis=2)).all()


def test_no_person_is_in_both_splits(source, monkeypatch):
    drawn = {}

    def record(person, emotion, shot, **_):
        people.append(person)
        shots.append((person, emotion, shot))

    monkeypatch.setattr(faces, "draw_face", record)
    for seed in (0, 1):
        for split in source.splits():
            people, shots = [], []
            list(dataclasses.replace(source, seed=seed).examples(split))
            assert len(set(shots)) == len(shots) == (64 if split == "train" else 32)
            drawn[seed, split] = set(people)
    # Nor does another seed meet the same people.
    assert len(set.union(*drawn.values())) == sum(len(people) for people in drawn.values()) == 24


def test_splits_are_balanced_mixed_and_repeatable(source):
    for split, count in (("train", 8), ("validation", 4)):
        examples = list(source.examples(split))
        labels = [example["label"] for example in examples]
        assert np.bincount(labels, minlength=8).tolist() == [count] * 8
        assert set(labels[:40]) == set(range(8)) and labels != sorted(labels)
        for first, second in zip(examples, source.examples(split), strict=True):
            assert first["label"] == second["label"]
            assert first["image"].shape == (24, 24, 3) and first["image"].dtype == np.uint8
            np.testing.assert_array_equal(first["image"], second["image"])


def test_half_the_light_halves_the_brightness():
    for shot in range(4):
        full, half = (
            draw_face(shot, 0, shot, conditions=Conditions(light=light)).mean()
            for light in (0.8, 0.4)
        )
        assert half == pytest.approx(full / 2, rel=0.06)


def test_glasses_change_the_eyes_and_not_the_chin():
    for shot in range(4):
        without, worn = (
            draw_face(shot, 0, shot, conditions=Conditions(glasses=g, yaw=0.0)).astype(int)
            for g in (False, True)
        )
        change = np.abs(worn - without).mean(axis=(1, 2))
        assert change[20:34].max() > 8
        np.testing.assert_array_equal(worn[52:], without[52:])


def test_a_turned_head_takes_the_eyes_along():
    def eyes_at(yaw):
        """Mean column of what surprise changes about the eyes."""
        columns = []
        for shot in range(6):
            calm, startled = (
                draw_face(shot, e, shot, conditions=Conditions(glasses=False, yaw=yaw)).astype(
                    float
                )
                for e in (0, 3)
            )
            change = np.abs(startled - calm)[16:34].mean(axis=(0, 2))
            columns.append((change * np.arange(64)).sum() / change.sum())
        return np.mean(columns)

    left, front, right = (eyes_at(yaw) for yaw in (-25.0, 0.0, 25.0))
    assert left + 2 < front < right - 2


def test_forcing_what_chance_drew_changes_nothing():
    shot = sample_shot(sample_person(8), 4, 2, Conditions())
    forced = Conditions(glasses=sample_person(8).glasses, light=shot.light, yaw=shot.yaw)
    np.testing.assert_array_equal(draw_face(8, 4, 2), draw_face(8, 4, 2, conditions=forced))


def test_a_face_detector_finds_them_and_its_crop_is_the_drawn_one():
    dlib = pytest.importorskip("dlib")
    detector, spec = dlib.get_frontal_face_detector(), ImageSpec()
    asked, crops, strays = 0, [], 0
    for group in range(3):
        people = range(100 + 6 * group, 106 + 6 * group)
        picture, boxes = draw_group(people, [(group + p) % 8 for p in people], group, face_size=150)
        asked += len(boxes)
        free = [(x + w / 2, y + h / 2, w) for x, y, w, h in boxes]
        for found in detector(picture, 0):
            x = (found.left() + found.right()) / 2
            y = (found.top() + found.bottom()) / 2 + spec.crop_shift * found.height()
            side = spec.crop_scale * found.width()
            near = [box for box in free if abs(box[0] - x) + abs(box[1] - y) < 0.4 * box[2]]
            strays += not near
            for box in near:
                free.remove(box)
                crops.append(((x - box[0]) / box[2], (y - box[1]) / box[2], side / box[2]))
    assert len(crops) >= 0.8 * asked
    assert strays <= 1
    dx, dy, scale = np.median(crops, axis=0)
    assert abs(dx) < 0.06 and abs(dy) < 0.06
    assert scale == pytest.approx(1, abs=0.08)


def test_a_group_holds_everyone_side_by_side():
    picture, boxes = draw_group([1, 2, 3], [0, 1, 2], face_size=60)
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    assert len(boxes) == 3
    for (x, y, width, height), (following, *_) in zip(boxes, [*boxes[1:], (10**6,)], strict=True):
        assert 0 <= x and 0 <= y and x + width <= following
        assert y + height <= picture.shape[0]
    assert boxes[-1][0] + boxes[-1][2] <= picture.shape[1]


def test_options_tell_all_that_is_drawn(source):
    changes = dict(size=40, train_faces=128, validation_faces=8, faces_per_person=16, seed=1)
    changed = [dataclasses.replace(source, **{key: value}) for key, value in changes.items()]
    for key, value in dict(glasses=True, light=0.5, yaw=10.0).items():
        changed.append(dataclasses.replace(source, conditions=Conditions(**{key: value})))
    assert set(changes) | {"conditions"} == {field.name for field in dataclasses.fields(source)}
    told = [json.dumps(each.options(), sort_keys=True) for each in (source, *changed)]
    assert len(set(told)) == len(told)
    assert "drawing_version" in source.options()


@pytest.mark.parametrize(
    ("nonsense", "word"),
    [
        (lambda: draw_face(0, 8, 0), "emotion 8"),
        (lambda: draw_face(0, -1, 0), "emotion -1"),
        (lambda: draw_face(-1, 0, 0), "-1"),
        (lambda: draw_face(0, 0, 0, size=4), "4 pixels"),
        (lambda: draw_group([1, 2], [0]), "2 people and 1 emotions"),
        (lambda: draw_group([], []), "0 people"),
        (lambda: Conditions(light=0.0), "light is 0.0"),
        (lambda: Conditions(yaw=90.0), "yaw is 90.0"),
        (lambda: DrawnFaces(faces_per_person=7), "faces_per_person is 7"),
        (lambda: DrawnFaces(train_faces=100), "data.train_faces): 100"),
        (lambda: DrawnFaces(validation_faces=0), "data.val_faces): 0"),
        (lambda: DrawnFaces(size=8), "image_size): 8"),
        (lambda: DrawnFaces(seed=-1), "data.seed): -1"),
        (lambda: list(DrawnFaces().examples("test")), "'test'"),
    ],
)
def test_nonsense_is_refused_in_one_sentence(nonsense, word):
    with pytest.raises(EmotionError) as error:
        nonsense()
    assert word in str(error.value) and "\n" not in str(error.value)
