"""What imports what: downwards only, and nothing heavy before it is needed."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "emotion_jax"
HEAVY = ("tensorflow", "tensorflow_datasets", "cv2", "dlib", "orbax", "matplotlib")

# From the ground up; a module imports from its own floor and those below, and never in a circle.
FLOORS = (
    {"errors", "labels", "host", "image_spec"},
    {"models", "preprocess", "augmentation", "losses", "metrics", "optim", "calibration"},
    {"steps"},
    {"config", "config_check", "command_line", "sharding", "data", "checkpoint", "weights"}
    | {"images", "faces", "video", "classifying", "rows", "tracking", "draw"}
    | {"figures", "logs", "report"},
    {"inference", "analysis", "keras"},
    {"training", "prediction"},
    {"train", "export"},
)
# Everything up to the step is for other people's programs, and brings no more than these.
LIGHT = {"jax", "jaxlib", "flax", "optax", "numpy", "emotion_jax"}
# The command in it that makes an array file opens every source, as the programs above it do.
COMMANDS = {("data.arrays", "data")}


def name_of(path):
    """The module that a file is, below the package: "models.layers", and "models" for its own."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path):
    """Every module that a file imports, at the top or within a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(path):
    """The package's modules that a file imports; what a module defines is the module's."""
    for name in imports(path):
        if not name.startswith("emotion_jax."):
            continue
        name = name.removeprefix("emotion_jax.")
        for module in (name, name.rpartition(".")[0]):
            if module in MODULES:
                yield module
                break


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
MODULES = {name_of(path): path for path in FILES}
FLOOR = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}


def room_of(module):
    return module.partition(".")[0]


def test_every_room_has_its_floor():
    assert set(FLOOR) == {room_of(module) for module in MODULES}


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downwards(module):
    room, path = room_of(module), MODULES[module]
    for other in map(room_of, ours(path)):
        assert FLOOR[other] <= FLOOR[room], f"{module} imports {other}"
    if FLOOR[room] <= FLOOR["steps"]:
        standard = sys.stdlib_module_names
        assert {name.split(".")[0] for name in imports(path)} - standard <= LIGHT


@pytest.mark.parametrize("place", [room_of, str], ids=["rooms", "modules"])
def test_no_imports_in_a_circle(place):
    edges = {place(module): set() for module in MODULES}
    for module, path in MODULES.items():
        others = {other for other in ours(path) if (module, other) not in COMMANDS}
        edges[place(module)] |= {place(other) for other in others} - {place(module)}
    while edges:
        free = {name for name, needs in edges.items() if not needs & set(edges)}
        assert free, f"a circle among {sorted(edges)}"
        edges = {name: needs for name, needs in edges.items() if name not in free}


def loaded(code):
    """The heavy modules that are there after `code` ran in a fresh interpreter."""
    code += f"\nimport sys, json; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_import_loads_nothing_heavy():
    assert loaded("import emotion_jax, sys; assert 'jax' not in sys.modules") == []


def test_the_public_names_load_nothing_heavy():
    code = "import emotion_jax as ej\nfor name in {}: assert getattr(ej, name) is not None"
    pictures = {"Face", "Finder", "analyze", "crop", "detect"}  # these work with OpenCV
    assert loaded(code.format("set(ej.__all__) - " + repr(pictures))) == []
    assert loaded(code.format("ej.__all__")) == ["cv2"]


def test_an_unknown_name_is_an_attribute_error():
    import emotion_jax

    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = emotion_jax.Nothing
    assert set(emotion_jax.__all__) <= set(dir(emotion_jax))


def test_the_source_stays_small():
    for path in FILES:
        assert len(path.read_text().splitlines()) <= 310, f"{path} wants a second look"
