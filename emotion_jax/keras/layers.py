"""The layers of a Keras file, `.h5`, `.weights.h5` or `.keras`, of Keras 1 to 3, as plain arrays.

Keras' own loader builds what the file describes, which runs code. Here nothing of a file is
followed but groups and plain arrays inside it: links, references and storage in other files are
refused, and so is an array that claims more than the file holds. The only file that knows HDF5.
"""

from __future__ import annotations

import contextlib
import lzma
import math
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from emotion_jax.errors import EmotionError

if TYPE_CHECKING:
    import h5py

# What is inside a `.keras` archive: the weights, and the JSON that describes the network, which an
# `.h5` file has as an attribute.
MEMBER, CONFIG = "model.weights.h5", "config.json"
ATTRIBUTE = "model_config"
# Of a network of sixteen layers it has some 20 kB.
MAX_CONFIG = 1 << 22
# More of any is no network, but a trap: groups may be linked in circles, and many names may all
# be the same very long one.
MAX_DEPTH, MAX_NODES, MAX_NAMES = 16, 10_000, 512
# Weights barely compress: an archive that unpacks to more than this many times itself is a trap.
MAX_RATIO = 4

# What HDF5 and Python's readers of archives raise at damage, besides errors of their own.
_TROUBLE = (OSError, EOFError, RuntimeError, KeyError, ValueError, TypeError)

# The arrays of a convolution, a dense layer and a BatchNorm, by the rank of the first, in the
# order in which Keras keeps them.
KINDS = {
    4: ("kernel", "bias"),
    2: ("kernel", "bias"),
    1: ("scale", "bias", "mean", "var"),
}


class Layer(NamedTuple):
    """One layer with weights.

    Attributes:
      name: in the file.
      rank: of its first array: 4 for a convolution, 2 for a dense layer, 1 for BatchNorm.
      arrays: "kernel" and "bias", or "scale", "bias", "mean" and "var", not read yet.
    """

    name: str
    rank: int
    arrays: dict[str, h5py.Dataset]


@contextlib.contextmanager
def open_layers(path: Path) -> Iterator[tuple[list[Layer], bytes | None]]:
    """Finds the layers of a Keras file, in the network's order within each kind.

    Yields them and the JSON that describes their network; None where the file has weights alone.
    What is yielded may be read (`array[()]`) until the context is left: its numbers are known to
    lie in the file, plainly and whole.

    Raises:
      EmotionError: it is no such file, or one that Keras would not write.
    """
    import h5py

    try:
        with _open_hdf5(path) as (stream, size, config), h5py.File(stream, "r") as file:
            walk = _Walk(path)
            layers = _find_layers(walk, file)
            _check_storage(path, layers, size)
            yield layers, config or walk.text(file, ATTRIBUTE)
    except (*_TROUBLE, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
        if isinstance(error, EmotionError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EmotionError(
            f"'{path}' cannot be read as a Keras file ({reason}); save it anew as .h5"
        ) from error


@contextlib.contextmanager
def _open_hdf5(path: Path) -> Iterator[tuple[IO[bytes], int, bytes | None]]:
    """The HDF5 file that `path` is or holds, its size in bytes, and an archive's JSON."""
    if not path.is_file():
        raise EmotionError(f"no file '{path}'; name a Keras file, .h5 or .keras")
    size = path.stat().st_size
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            yield file, size, None
        return
    with zipfile.ZipFile(path) as archive, tempfile.TemporaryFile() as unpacked:
        if MEMBER not in archive.namelist():
            raise EmotionError(f"'{path}' holds no {MEMBER}; save the model anew as .h5")
        if archive.getinfo(MEMBER).file_size > MAX_RATIO * size:
            raise EmotionError(f"'{path}' unpacks to far more than weights do; fetch it anew")
        # ZipFile stops at the size that was checked, whatever follows.
        with archive.open(MEMBER) as member:
            shutil.copyfileobj(member, unpacked)
        config = None
        if CONFIG in archive.namelist():
            if archive.getinfo(CONFIG).file_size > MAX_CONFIG:
                raise EmotionError(f"'{path}': its {CONFIG} is no network's; fetch it anew")
            config = archive.read(CONFIG)
        yield unpacked, unpacked.seek(0, os.SEEK_END), config


class _Walk:
    """Steps from group to group, along nothing but real members of this very file."""

    def __init__(self, path: Path):
        self.path, self.nodes = path, 0

    def refuse(self, where: str, what: str) -> EmotionError:
        return EmotionError(f"'{self.path}': {where} {what}, which Keras never writes; not read")

    def has(self, group: h5py.Group, name: str) -> bool:
        """Whether a group has a member, real or not; `name in group` would follow a link."""
        return group.id.links.exists(name.encode())

    def enter(self, group: h5py.Group, name: str) -> Any:
        """The member of a group that `name` leads to, slashes and all."""
        import h5py

        parts = [part for part in name.split("/") if part]
        self.nodes += len(parts)
        if self.nodes > MAX_NODES or len(parts) > MAX_DEPTH:
            raise self.refuse(str(group.name), "leads to more groups than a network has")
        for part in parts:
            if not isinstance(group, h5py.Group):
                raise self.refuse(f"'{name}'", "leads through an array")
            if not self.has(group, part):
                raise EmotionError(
                    f"'{self.path}' is damaged: {group.name} has no '{part}'; fetch it anew"
                )
            if group.id.links.get_info(part.encode()).type != h5py.h5l.TYPE_HARD:
                raise self.refuse(f"'{part}' of {group.name}", "is a link")
            group = group[part]
        if isinstance(group, h5py.Dataset):
            stored = group.id.get_create_plist()
            plain = stored.get_layout() in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT)
            if not plain or stored.get_external_count():
                raise self.refuse(f"{group.name}", "is compressed, or lies in another file")
        return group

    def text(self, group: h5py.Group, attribute: str) -> bytes | None:
        """What an attribute says; None where there is none."""
        import h5py

        if attribute not in group.attrs:
            return None
        what = group.attrs.get_id(attribute)
        if h5py.check_string_dtype(what.dtype) is None or math.prod(what.shape) != 1:
            raise self.refuse(f"'{attribute}' of {group.name}", "is no text")
        text = np.atleast_1d(group.attrs[attribute])[0]
        return text.encode() if isinstance(text, str) else bytes(text)

    def names(self, group: h5py.Group, attribute: str) -> list[str]:
        """A list of names that Keras keeps in an attribute, or in numbered ones where it is long.

        None of them is read before their number is known.
        """
        import h5py

        found: list[str] = []
        for key in [attribute, *(f"{attribute}{i}" for i in range(len(group.attrs)))]:
            if key not in group.attrs:
                continue
            what = group.attrs.get_id(key)
            count = math.prod(what.shape)
            if not count:  # a layer without weights
                continue
            if h5py.check_string_dtype(what.dtype) is None or count > MAX_NAMES:
                raise self.refuse(f"'{key}' of {group.name}", "is no list of names")
            names = np.atleast_1d(group.attrs[key])
            found += [name.decode() if isinstance(name, bytes) else name for name in names]
        return found


def _find_layers(walk: _Walk, file: h5py.File) -> list[Layer]:
    root = walk.enter(file, "model_weights") if walk.has(file, "model_weights") else file
    found: list[Layer] = []
    if "layer_names" in root.attrs or "layer_names0" in root.attrs:
        for name in walk.names(root, "layer_names"):
            group = walk.enter(root, name)
            arrays = [walk.enter(group, weight) for weight in walk.names(group, "weight_names")]
            found += _split_layers(walk, name, arrays)
        return found
    for place, group in _variable_groups(walk, file, "", 0):
        arrays = [walk.enter(group, name) for name in sorted(group, key=int)]
        found += _split_layers(walk, place, arrays)
    return _in_order(walk, found)


def _variable_groups(
    walk: _Walk, group: h5py.Group, place: str, depth: int
) -> Iterator[tuple[str, h5py.Group]]:
    """Every group "vars" of Keras 3's layout, with the place of its layer."""
    import h5py

    if depth > MAX_DEPTH:
        raise walk.refuse(str(group.name), "lies too deep")
    for name in group:
        # Beside the layers lie what the optimizer and running metrics remember.
        if depth == 0 and "layer" not in name:
            continue
        child = walk.enter(group, name)
        if name == "vars":
            yield place, child
        elif isinstance(child, h5py.Group):
            yield from _variable_groups(walk, child, f"{place}/{name}", depth + 1)


def _split_layers(walk: _Walk, name: str, arrays: list[Any]) -> list[Layer]:
    """The layers whose arrays follow one another: one, or all those of a network in a network."""
    # Integers are the random state of dropout.
    arrays = [x for x in arrays if not hasattr(x, "dtype") or x.dtype.kind not in "iu"]
    layers = _layer_by_layer(name, arrays) or _layer_by_layer(name, _statistics_back(arrays))
    if arrays and not layers:
        raise EmotionError(
            f"'{walk.path}': layer '{name}' has arrays of ranks {list(map(_rank, arrays))}; needs "
            "a kernel and a bias, or BatchNorm's gamma, beta, mean and variance"
        )
    return layers


def _rank(array: Any) -> int:
    return len(getattr(array, "shape", ()))


def _layer_by_layer(name: str, arrays: list[Any]) -> list[Layer]:
    """Arrays as layers, one after the other; none where they are not."""
    ranks, layers, i = list(map(_rank, arrays)), [], 0
    while i < len(arrays):
        leaves = KINDS.get(ranks[i], ())
        here = slice(i, i + len(leaves))
        if not leaves or ranks[here] != [ranks[i]] + [1] * (len(leaves) - 1):
            return []
        layers.append(Layer(name, ranks[i], dict(zip(leaves, arrays[here], strict=True))))
        i += len(leaves)
    return layers


def _statistics_back(arrays: list[Any]) -> list[Any]:
    """Of a network in a network Keras writes what is trained first, and at the end BatchNorms'
    means and variances: these, each back to its layer."""
    pairs = [arrays[i : i + 2] for i in range(0, len(arrays), 2)]
    count = sum(_rank(pair[0]) == 1 for pair in pairs) // 2
    statistics = iter(pairs[len(pairs) - count :])
    ordered = []
    for pair in pairs[: len(pairs) - count]:
        ordered += pair + (next(statistics, []) if _rank(pair[0]) == 1 else [])
    return ordered


def _in_order(walk: _Walk, found: list[Layer]) -> list[Layer]:
    """Sorts layers by the numbers that end the parts of their names ("/layers/conv2d_10").

    Keras numbers the layers of a class in their order; between two classes there is none.
    """
    number = re.compile(r"_?(\d+)$")
    stems: dict[int, list[str]] = {}
    for layer in found:
        stem = [number.sub("", part) for part in layer.name.split("/")]
        if stems.setdefault(layer.rank, stem) != stem:
            raise EmotionError(
                f"'{walk.path}' does not say in what order the layers {'/'.join(stem)} and "
                f"{'/'.join(stems[layer.rank])} stand; save the model as .h5"
            )

    def place(layer: Layer) -> list[int]:
        ends = [number.search(part) for part in layer.name.split("/")]
        return [int(end[1]) if end else 0 for end in ends]

    return sorted(found, key=place)


def _check_storage(path: Path, layers: list[Layer], size: int) -> None:
    """Refuses arrays that are not numbers of this file, before anything of them is read."""
    total = 0
    for layer in layers:
        for leaf, array in layer.arrays.items():
            stored = array.id.get_storage_size()
            total += stored
            whole = 0 < stored == array.size * array.dtype.itemsize
            if array.dtype.kind != "f" or not whole or total > size:
                raise EmotionError(
                    f"'{path}': the {leaf} {array.shape} of layer '{layer.name}' does not lie in "
                    "the file as floating-point numbers; save it anew with Keras"
                )
