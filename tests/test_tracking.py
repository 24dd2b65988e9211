"""Who is who: numbers that stay with their persons, and emotions averaged over true time."""

import numpy as np
import pytest

from emotion_jax.faces import Face
from emotion_jax.tracking import People

SIDE = 80.0


def face(x, y=100.0, side=SIDE):
    return Face(x, y, side, side, 1.0)


def even(count):
    return np.full((count, 8), 1 / 8, np.float32)


def follow(paths, *, rate=30.0, jitter=0.0, people=None):
    """Numbers of each frame for paths: a function of the frame to the faces that are seen there."""
    rng, people = np.random.default_rng(0), people or People()
    numbers = []
    for i, faces in enumerate(paths):
        moved = [
            Face(*(np.array([f.x, f.y]) + jitter * rng.normal(size=2)), f.width, f.height, 1.0)
            for f in faces
        ]
        numbers.append(people.update(moved, even(len(moved)), i / rate)[0])
    return numbers


def test_the_first_frame_is_numbered_from_one_and_no_face_is_fine():
    people = People()
    assert people.update([], even(0), 0.0)[0] == []
    numbers, smoothed = people.update([face(10), face(300)], even(2), 0.04)
    assert numbers == [1, 2] and smoothed.shape == (2, 8) and smoothed.dtype == np.float32
    assert people.update([], even(0), 0.08)[1].shape == (0, 8)


@pytest.mark.parametrize("rate", [1 / 3, 1, 5, 30, 120])
def test_a_person_keeps_the_number_at_any_frame_rate(rate):
    still = follow([[face(100)]] * 20, rate=rate, jitter=4)
    assert still == [[1]] * 20


def test_a_walker_is_followed():
    # A face width in a quarter of a second: as fast as people get who still look at the camera.
    paths = [[face(20 + SIDE * 4 * i / 25)] for i in range(50)]
    assert follow(paths, rate=25, jitter=3) == [[1]] * 50


@pytest.mark.parametrize("speed", [0, 40, 200, 400])
def test_who_leaves_and_returns_is_the_same(speed):
    out = [[face(400 + speed * i / 30)] for i in range(30)]
    back = [[face(400 + speed - speed * i / 30)] for i in range(30)]
    numbers = follow(out + [[]] * 45 + back, jitter=2)  # away for a second and a half
    assert numbers[:30] == [[1]] * 30 and numbers[75:] == [[1]] * 30


def test_who_stays_away_long_is_new_and_no_number_is_used_twice():
    numbers = follow([[face(100)]] * 5 + [[]] * 90 + [[face(100)]] * 5 + [[face(600)]] * 5)
    assert numbers[-10:] == [[2]] * 5 + [[3]] * 5


@pytest.mark.parametrize("hidden", [0, 6, 12])
def test_two_who_cross_keep_their_numbers(hidden):
    """They pass each other; for `hidden` frames the detector finds one of them or none."""
    paths = []
    for i in range(60):
        right, left = face(100 + 5.0 * i, 100), face(395 - 5.0 * i, 110)
        near = abs(i - 29.5) < hidden / 2
        paths.append([] if near else [right, left])
    numbers = follow(paths, jitter=1.5)
    assert numbers[0] == numbers[-1] == [1, 2]
    assert all(seen in ([], [1, 2]) for seen in numbers)


def test_who_was_away_may_have_moved_further_than_who_was_not():
    """Of two unseen persons the one near enough returns, though the other is unseen for less."""
    people = People()
    people.update([face(100), face(600)], even(2), 0.0)
    for i in range(1, 11):  # the first has gone, the second stays
        people.update([face(600)], even(1), i / 10)
    people.update([], even(0), 1.1)
    assert people.update([face(190)], even(1), 1.2)[0] == [1]
    assert people.update([face(190), face(600)], even(2), 1.3)[0] == [1, 2]


def test_who_stays_is_not_taken_for_who_was_away():
    people = People()
    people.update([face(100), face(200)], even(2), 0.0)
    for i in range(1, 11):
        people.update([face(200)], even(1), i / 10)
    assert people.update([face(185)], even(1), 1.1)[0] == [2]


def test_many_faces_in_any_order():
    rng = np.random.default_rng(1)
    grid = [face(130.0 * (i % 8), 130.0 * (i // 8)) for i in range(40)]
    people = People()
    first = people.update(grid, even(40), 0.0)[0]
    assert first == list(range(1, 41))
    for i in range(1, 30):
        seen = rng.permutation(40)[:35]  # a detector that misses an eighth
        moved = [face(grid[j].x + 6 * rng.normal(), grid[j].y + 6 * rng.normal()) for j in seen]
        assert people.update(moved, even(35), i / 25)[0] == [first[j] for j in seen]
    assert people.seen == 40


def test_a_small_face_at_the_same_place_is_another():
    numbers = follow([[face(100, 100, 160)]] * 5 + [[face(150, 150, 50)]] * 5)
    assert numbers[0] == [1] and numbers[-1] == [2]


def test_one_face_too_many_takes_nobodys_number():
    numbers = follow([[face(100), face(300)]] * 5 + [[face(103), face(200), face(298)]] * 5)
    assert numbers[-1] == [1, 3, 2]


def test_the_missing_are_those_remembered():
    people = People()
    people.update([face(100), face(300)], even(2), 0.0)
    people.update([face(100)], even(1), 0.5)
    assert [f.x for f in people.missing()] == [300]
    people.update([face(100)], even(1), 1.9)
    assert [f.x for f in people.missing()] == [300]
    people.update([face(100)], even(1), 2.1)
    assert people.missing() == []


def test_emotions_follow_a_step_with_the_time_constant_whatever_the_rate():
    """After a step at time 0 the share of the new emotion is 1 - exp(-t / smoothing)."""
    for times in (np.arange(0, 2, 1 / 30), np.sort(np.random.default_rng(2).uniform(0, 2, 40))):
        people = People(smoothing=0.5)
        calm, glad = np.eye(8, dtype=np.float32)[:2]
        people.update([face(100)], calm[None], 0.0)
        for time in times:
            _, smoothed = people.update([face(100)], glad[None], float(time))
            np.testing.assert_allclose(smoothed[0, 1], 1 - np.exp(-time / 0.5), atol=1e-5)
            np.testing.assert_allclose(smoothed.sum(), 1, atol=1e-6)


def test_without_smoothing_nothing_changes():
    people, rng = People(), np.random.default_rng(3)
    for i in range(10):
        rows = rng.dirichlet(np.ones(8), 2).astype(np.float32)
        np.testing.assert_array_equal(people.update([face(100), face(300)], rows, i / 30)[1], rows)


def test_each_person_is_averaged_alone():
    people = People(smoothing=1.0)
    rows = np.eye(8, dtype=np.float32)[[0, 3]]
    people.update([face(100), face(300)], rows, 0.0)
    _, smoothed = people.update([face(300), face(100)], rows[::-1], 0.1)
    np.testing.assert_allclose(smoothed, rows[::-1], atol=1e-6)


@pytest.mark.parametrize("tall, wide", [(0.5, 0.5), (3, 3), (0.25, 0.5), (2, 1)])
def test_who_is_who_in_a_picture_of_another_size(tall, wide):
    people, size = People(), (480, 640)
    for i in range(10):
        seen = [face(100 + 5 * i), face(400)]
        assert people.update(seen, even(2), i / 30, size=size)[0] == [1, 2]
    size = round(tall * size[0]), round(wide * size[1])
    for i in range(10, 20):
        seen = [
            Face(wide * f.x, tall * f.y, wide * f.width, tall * f.height, 1.0)
            for f in (face(400), face(100 + 5 * i))
        ]
        assert people.update(seen, even(2), i / 30, size=size)[0] == [2, 1]
    assert people.update([], even(0), 20 / 30, size=(48, 64))[0] == []
    # Who is hidden goes along, too.
    assert [person.x for person in people.missing()] == pytest.approx([19.5, 40.0])
