"""Data sets: what a config names, opened as splits to train and to evaluate on."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from emotion_jax.data import selection
from emotion_jax.data.pipeline import ArrayPixels, Pixels, Split
from emotion_jax.data.sources import Source
from emotion_jax.errors import EmotionError
from emotion_jax.labels import EMOTIONS, one_hot, vote_targets

SOURCES = ("drawn_faces", "ferplus", "affectnet", "folder", "arrays")
# Of an array file that has nothing but training faces: the share to hold out where the config has
# none.
HELD_OUT = 0.1
# Not a split: the training faces that evaluation would count, while some are held out.
COUNTED = "counted"
# What `data.dir` names. Empty, it would be the folder one stands in.
PLACES = {
    "ferplus": "the folder that holds fer2013.csv (FER2013) and fer2013new.csv (FER+)",
    "affectnet": "the folder that holds training.csv or train_set",
    "folder": "the folder that holds train/<emotion> and val/<emotion>",
    "arrays": "an array file",
}


def make_source(config: Any) -> Source:
    """Builds the source that `config.data.source` names.

    Raises:
      EmotionError: there is no such source, or it is made of other files than it should be.
    """
    name, data = config.data.source, config.data
    if name == "arrays":
        raise EmotionError(f"data.source: '{data.dir}' is an array file already; name its source")
    _check_place(data)
    if name == "drawn_faces":
        from emotion_jax.data.drawn_faces import DrawnFaces

        return DrawnFaces(
            size=config.image_size,
            train_faces=data.train_faces,
            validation_faces=data.val_faces,
            seed=data.seed,
        )
    if name == "ferplus":
        from emotion_jax.data.ferplus import FerPlus

        return FerPlus(folder=data.dir, size=config.image_size)
    if name == "affectnet":
        from emotion_jax.data.affectnet import AffectNet

        return AffectNet(data.dir, config.image_size, data.crop_scale, data.crop_shift)
    if name == "folder":
        from emotion_jax.data.folder import Folder

        return Folder(data.dir, config.image_size)
    known = ", ".join(SOURCES)
    raise EmotionError(f"data.source: no source '{name}' to read faces from; use one of {known}")


def _check_place(data: Any) -> None:
    if data.source in PLACES and not data.dir:
        what = PLACES[data.source]
        raise EmotionError(f"data.dir is empty; name {what} by --config.data.dir=PATH")


def open_data(config: Any) -> dict[str, Split]:
    """Opens the splits that `config.data` describes: "train", "validation" and perhaps "test".

    The faces of an array file lie in memory, in whatever size, and are brought to
    `config.image_size`; every other source is built once under `data.cache_dir`. Which faces count
    is drawn afterwards, so that one build serves every `data.holdout`, subset and seed.

    Raises:
      EmotionError: the source is wrong, or a split is empty.
    """
    records = _read(config)
    share, train_votes = config.data.holdout, config.data.train_votes
    if config.data.source == "arrays" and list(records) == ["train"]:
        share = share or HELD_OUT
    splits = {
        name: _split(read, train_votes if name == "train" else "majority")
        for name, read in records.items()
    }
    if share and "train" in records:
        # What may be held out: evaluation counts the majority's faces alone.
        splits[COUNTED] = _split(records["train"], "majority")
    if config.data.num_classes < len(EMOTIONS):
        splits = {name: _first_classes(s, config.data.num_classes) for name, s in splits.items()}
    if config.data.drop_seen and "train" in splits:
        splits["train"] = _drop_seen(splits)
    faces = len(splits.get("train", ()))
    if share:
        splits = _hold_out(splits, share, config.data.seed)
    splits = _select(splits, config)
    for name, other in (("train", "less"), ("validation", "more")):
        if len(splits.get(name, ())):
            continue
        if share and faces:
            raise EmotionError(
                f"data.holdout: {share} of {faces} training faces leaves none for the {name} "
                f"split; use {other}"
            )
        hint = " data.holdout=0.1 holds out a tenth of training" if name == "validation" else ""
        raise EmotionError(
            f"data.source {config.data.source}: no faces in the {name} split; "
            f"is '{config.data.dir}' whole?{hint}"
        )
    return splits


class _Records(NamedTuple):
    """All faces of one split: `rows` are their places in all else, votes or labels among it."""

    pixels: Pixels
    rows: np.ndarray
    marks: np.ndarray
    labels: np.ndarray | None
    votes: np.ndarray | None


def _read(config: Any) -> dict[str, _Records]:
    """The splits' records."""
    if config.data.source == "arrays":
        from emotion_jax.data.arrays import SPLITS, load_arrays

        _check_place(config.data)
        arrays = load_arrays(config.data.dir)
        all_pixels = ArrayPixels(_resized(arrays.images, config.image_size))
        marks = selection.digests(arrays.images)
        places = {name: np.flatnonzero(arrays.split == i) for i, name in enumerate(SPLITS)}
        return {
            name: _Records(all_pixels, rows, marks, arrays.labels, arrays.votes)
            for name, rows in places.items()
            if len(rows)
        }
    source = make_source(config)
    # Reads the files: what is missing is told before TensorFlow's import.
    options = source.options()
    from emotion_jax.data.builds import build

    built = build(source, config.data.cache_dir, options)
    records = {}
    for name, targets in built.targets.items():
        labels, votes = (targets, None) if source.targets == "label" else (None, targets)
        rows, marks = np.arange(len(targets)), built.digests[name]
        records[name] = _Records(built.pixels(name), rows, marks, labels, votes)
    return records


def _drop_seen(splits: dict[str, Split]) -> Split:
    """The training faces whose pictures are in no other split."""
    train, others = splits["train"], [splits[name] for name in splits.keys() - {"train", COUNTED}]
    seen = np.concatenate([np.zeros(0, np.uint64), *(split.marks for split in others)])
    return _part(train, np.flatnonzero(~np.isin(train.marks, seen)))


def _hold_out(splits: dict[str, Split], share: float, seed: int) -> dict[str, Split]:
    """Part of training as "validation", to select on; the source's validation becomes "test"."""
    if {"validation", "test"} <= splits.keys():
        raise EmotionError(
            f"data.holdout: {share}; this data has a validation and a test split of its own, use 0"
        )
    counted = splits.pop(COUNTED, None)
    if not len(splits.get("train", ())) or counted is None:
        return splits
    train, classes = splits["train"], splits["train"].labels.argmax(1)
    held = selection.hold_out(classes, train.marks, share, seed)
    judged = np.isin(counted.rows, train.rows[held])
    parts = {
        "train": _part(train, np.flatnonzero(~held)),
        "validation": _part(counted, np.flatnonzero(judged)),
    }
    for name in splits.keys() & {"validation", "test"}:
        parts["test"] = splits[name]
    return parts


def _select(splits: dict[str, Split], config: Any) -> dict[str, Split]:
    """The subsets that the config asks for."""
    data, chosen = config.data, dict(splits)
    if data.class_cap and "train" in chosen:
        labels = chosen["train"].labels.argmax(1)
        chosen["train"] = _part(chosen["train"], selection.cap(labels, data.class_cap, data.seed))
    for name, key in (("train", "train_images"), ("validation", "val_images")):
        count, split = data[key], chosen.get(name)
        if not count or split is None:
            continue
        if count > len(split):
            print(f"data.{key}: {count}, but there are {len(split)} {name} faces: takes them all")
        elif count < len(split):
            rows = selection.stratify(split.labels.argmax(1), count, data.seed)
            chosen[name] = _part(split, rows)
    return chosen


def _first_classes(split: Split, count: int) -> Split:
    """The faces whose label lies among the first classes, their labels' shares made whole again."""
    split = _part(split, np.flatnonzero(split.labels.argmax(1) < count))
    labels = split.labels[:, :count]
    return dataclasses.replace(split, labels=labels / labels.sum(axis=1, keepdims=True))


def _part(split: Split, places: np.ndarray) -> Split:
    arrays = split.rows, split.labels, split.weight, split.marks
    return Split(split.pixels, *(array[places] for array in arrays))


def _split(records: _Records, rule: Any) -> Split:
    pixels, rows, marks, labels, votes = records
    if labels is not None:
        targets = one_hot(labels[rows])
    else:
        assert votes is not None
        targets, keep = vote_targets(votes[rows], rule)
        rows, targets = rows[keep], targets[keep]
    return Split(pixels, rows, targets, np.ones(len(rows), np.float32), marks[rows])


def _resized(images: np.ndarray, size: int) -> np.ndarray:
    if images.shape[1:3] == (size, size):
        return images
    from emotion_jax.images import resize

    return np.stack([resize(image, size, size) for image in images])
