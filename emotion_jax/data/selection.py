"""Which faces count: parts held out, subsets, caps, balanced epochs; seeded, pure NumPy."""

from __future__ import annotations

import hashlib

import numpy as np


def digests(images: np.ndarray) -> np.ndarray:
    """Marks of pictures, uint64 `[N]`: equal where the pixels of uint8 `[N, H, W, C]` are."""
    # Of Python's hashes the fastest, by two to one, on processors that know it.
    marks = [hashlib.sha256(np.ascontiguousarray(x).data).digest()[:8] for x in images]
    return np.frombuffer(b"".join(marks), np.uint64)


def hold_out(labels: np.ndarray, marks: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Draws a part of every class; what is equal pixel for pixel stays on one side.

    Args:
      labels: codes of classes, int `[N]`.
      marks: of the pictures, `[N]`; see `digests`.
      share: of each class to hold out, in 0..1, exact up to the size of a group of duplicates.
      seed: another one draws other faces.

    Returns:
      bool `[N]`, True for what is held out.
    """
    _, first, group, sizes = np.unique(
        marks, return_index=True, return_inverse=True, return_counts=True
    )
    rng, held = np.random.default_rng([seed, 1]), np.zeros(len(sizes), bool)
    # np.unique sorts by mark; by their first face, the draw depends on the files' order alone.
    order = np.argsort(first)
    # A group goes by its first face's label: duplicates are labelled unlike at times.
    of = labels[first]
    for label in np.unique(labels):
        groups = rng.permutation(order[of[order] == label])
        total = np.cumsum(sizes[groups])
        goal = round(share * total[-1]) if len(total) else 0
        held[groups[total <= goal]] = True
    return held[group]


def stratify(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Draws `count` faces with the classes' shares as they are, each to the nearest whole face.

    Args:
      labels: codes of classes, int `[N]`.
      count: of the faces, at most N.
      seed: another one draws other faces.

    Returns:
      Their places, `[count]`, in order.
    """
    classes, counts = np.unique(labels, return_counts=True)
    takes = _round(counts * (count / max(len(labels), 1)), count)
    return _draw(labels, dict(zip(classes.tolist(), takes.tolist(), strict=True)), [seed, 2])


def epoch_counts(counts: np.ndarray, power: float) -> np.ndarray:
    """Draws of each class in an epoch of as many draws as there are faces.

    Args:
      counts: faces a class, int `[K]`.
      power: a class's share is count ** (1 - power): 0 leaves the shares, 1 makes them equal.

    Returns:
      int `[K]`, of the same sum; 0 where there is no face.
    """
    shares = np.where(counts > 0, np.maximum(counts, 1.0) ** (1 - power), 0)
    return _round(shares * (counts.sum() / max(shares.sum(), 1e-9)), int(counts.sum()))


def sample(labels: np.ndarray, power: float, seed: int, epoch: int) -> np.ndarray:
    """Draws an epoch in which rare classes come more often; no face is drawn again while another
    of its class was drawn less.

    Args:
      labels: codes of classes, int `[N]`.
      power: see `epoch_counts`.
      seed: another one draws other faces.
      epoch: likewise.

    Returns:
      Places, `[N]`, class by class.
    """
    rng, drawn = np.random.default_rng([seed, 4, epoch]), [np.zeros(0, int)]
    for label, draws in enumerate(epoch_counts(np.bincount(labels), power)):
        places = np.flatnonzero(labels == label)
        while draws > 0:
            drawn.append(rng.permutation(places)[:draws])
            draws -= len(places)
    return np.concatenate(drawn)


def cap(labels: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """Draws at most `limit` faces of each class; returns their places in order."""
    return _draw(labels, dict.fromkeys(np.unique(labels).tolist(), limit), [seed, 3])


def _round(exact: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers of the given sum: what rounding down leaves goes to the largest remainders."""
    whole = np.floor(exact).astype(int)
    whole[np.argsort(whole - exact, kind="stable")[: total - whole.sum()]] += 1
    return whole


def _draw(labels: np.ndarray, takes: dict[int, int], seed: list[int]) -> np.ndarray:
    rng = np.random.default_rng(seed)
    drawn = [rng.permutation(np.flatnonzero(labels == k))[:n] for k, n in takes.items()]
    return np.sort(np.concatenate(drawn)) if drawn else np.zeros(0, int)
