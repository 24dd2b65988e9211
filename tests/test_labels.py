"""Labels: AffectNet's order, spellings, and FER+'s rule against a plain statement of it."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from emotion_jax.errors import EmotionError
from emotion_jax.labels import (
    EMOTIONS,
    FERPLUS_COLUMNS,
    VOTES,
    emotion_code,
    one_hot,
    vote_targets,
)

# Names as in the header of fer2013new.csv, in its order.
HEADER = "neutral happiness surprise sadness anger disgust fear contempt unknown NF".split()


def majority(votes: dict[str, int]) -> str | None:
    """The official rule for one face: the emotion it counts as, or None where it is dropped."""
    votes = {name: n for name, n in votes.items() if n > 1}
    for name, n in votes.items():
        if 2 * n > sum(votes.values()):
            return None if name in ("unknown", "no face") else name
    return None


def random_votes(rng, faces):
    """Up to ten people a face, from unanimous to scattered."""
    rows = []
    for _ in range(faces):
        shares = rng.dirichlet(np.full(10, rng.choice([0.05, 0.3, 1.0, 5.0])))
        rows.append(rng.multinomial(rng.choice([1, 2, 9, 10, 10, 10]), shares))
    return np.array(rows)


def test_emotions_are_in_affectnet_s_order():
    assert EMOTIONS == (
        "neutral",
        "happiness",
        "sadness",
        "surprise",
        "fear",
        "disgust",
        "anger",
        "contempt",
    )
    assert VOTES == (*EMOTIONS, "unknown", "no face")
    assert FERPLUS_COLUMNS == tuple("no face" if name == "NF" else name for name in HEADER)


@pytest.mark.parametrize(
    ("code", "spellings"),
    [
        (0, "neutral Neutral NEUTRAL"),
        (1, "happiness happy Happy joy"),
        (2, "sadness sad Sad"),
        (3, "surprise surprised"),
        (4, "fear afraid fearful"),
        (5, "disgust disgusted"),
        (6, "anger angry Anger"),
        (7, "contempt Contempt"),
    ],
)
def test_emotion_code(code, spellings):
    for spelling in spellings.split():
        assert emotion_code(spelling) == emotion_code(f" {spelling}\n") == code


def test_unknown_spelling_is_named():
    for name in ("bored", "", "unknown"):
        with pytest.raises(EmotionError, match=f"'{name}'.*neutral, happiness, .*contempt"):
            emotion_code(name)


def test_one_hot():
    codes = np.array([3, 0, 7, 3])
    got = one_hot(codes)
    assert got.dtype == np.float32 and got.shape == (4, 8)
    for row, code in zip(got, codes, strict=True):
        assert row.tolist() == [float(k == code) for k in range(8)]
    assert one_hot(codes[:2], 5).shape == (2, 5)


def test_majority_is_the_official_rule():
    votes = random_votes(np.random.default_rng(0), 3000)
    targets, keep = vote_targets(votes, "majority")
    kinds = set()
    for row, target, kept in zip(votes, targets, keep, strict=True):
        label = majority(dict(zip(VOTES, row.tolist(), strict=True)))
        kinds.add(label)
        assert kept == (label is not None), row
        if kept:
            assert EMOTIONS[target.argmax()] == label, row
    assert kinds == {None, *EMOTIONS}


@pytest.mark.parametrize("rule", ["majority", "distribution"])
def test_targets_are_the_shares_of_the_votes_that_remain(rule):
    votes = random_votes(np.random.default_rng(1), 1000)
    targets, keep = vote_targets(votes, rule)
    assert targets.dtype == np.float32 and targets.shape == (1000, 8)
    assert keep.dtype == bool and keep.any() and not keep.all()
    for row, target in zip(votes.tolist(), targets, strict=True):
        left = [n if n > 1 else 0 for n in row[:8]]
        expected = [n / sum(left) for n in left] if sum(left) else [1 / 8] * 8
        np.testing.assert_allclose(target, expected, rtol=1e-6)


def test_distribution_keeps_faces_that_someone_read():
    votes = random_votes(np.random.default_rng(2), 2000)
    _, keep = vote_targets(votes, "distribution")
    for row, kept in zip(votes.tolist(), keep, strict=True):
        emotions = [n for n in row[:8] if n > 1]
        no_face = row[9] if row[9] > 1 else 0
        leads = no_face > max([0, row[8] if row[8] > 1 else 0, *emotions])
        assert kept == (bool(emotions) and not leads), row
    assert not (vote_targets(votes, "majority")[1] & ~keep).any()


@pytest.mark.parametrize("rule", ["majority", "distribution"])
def test_votes_over_the_emotions_alone_are_taken_as_they_are(rule):
    """Fractions too, whatever they sum to: the outlier rule is for ten people's counts."""
    rng = np.random.default_rng(3)
    votes = rng.dirichlet(np.full(8, 0.5), 500) * rng.choice([0.25, 1, 10], (500, 1))
    votes[0] = 0
    targets, keep = vote_targets(votes, rule)
    np.testing.assert_allclose(targets.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(targets[0], 1 / 8)
    np.testing.assert_allclose(targets[1:], votes[1:] / votes[1:].sum(1, keepdims=True), rtol=1e-5)
    most = votes.max(axis=1) > votes.sum(axis=1) / 2 if rule == "majority" else votes.any(axis=1)
    assert keep.tolist() == most.tolist()
    assert not keep[0]


def test_bad_votes_are_refused():
    with pytest.raises(EmotionError, match=r"\(4, 9\)"):
        vote_targets(np.ones((4, 9)), "majority")
    with pytest.raises(EmotionError, match=r"\(10,\)"):
        vote_targets(np.ones(10), "majority")
    with pytest.raises(EmotionError, match="'plurality'.*majority.*distribution"):
        vote_targets(np.ones((4, 10)), "plurality")


def test_majority_leaves_the_published_numbers_of_faces():
    if not (shared := os.environ.get("EMOTION_JAX_SHARED")):
        pytest.skip("EMOTION_JAX_SHARED is not set: FER+'s own votes are not read")
    published = {  # in the file's order
        "Training": [8740, 7287, 3149, 3014, 2100, 119, 532, 119],
        "PublicTest": [1182, 865, 415, 351, 287, 24, 62, 13],
    }
    votes = {usage: [] for usage in published}
    names = {"no face": "NF"}
    with (Path(shared) / "data/fer2013/fer2013new.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["Usage"] in votes:
                votes[row["Usage"]].append([int(row[names.get(v, v)]) for v in VOTES])
    totals = {}
    for usage, expected in published.items():
        targets, keep = vote_targets(np.array(votes[usage]), "majority")
        totals[usage] = int(keep.sum())
        counts = np.bincount(targets[keep].argmax(axis=1), minlength=8)
        assert [counts[EMOTIONS.index(name)] for name in HEADER[:8]] == expected
    assert totals == {"Training": 25_060, "PublicTest": 3_199}
