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
    {
        "errors",
        "labels",
        "atomic",
        "closing",
        "json_files",
        "wording",
        "threads",
        "memory",
        "widening",
    },
    {"geometry", "conditions", "winograd", "image_spec", "executables"},
    {"calibration", "models", "preprocess", "augmentation", "losses", "metrics", "optim"},
    {"steps"},
    {
        "checkpoint",
        "manifest",
        "sharding",
        "config",
        "config_check",
        "command_line",
        "workdir",
        "images",
        "paths",
        "dlib_models",
        "landmarks",
        "faces",
        "rows",
        "classifying",
        "draw",
        "tracking",
        "timeline",
        "video",
        "searching",
        "compilation_cache",
        "devices",
        "camera",
        "window",
        "logs",
    }
    | {"figures", "progress", "report", "reliability", "data", "weights", "hdf5_layers"}
    | {"keras_config"},
    {"inference", "analysis", "pictures", "keras_files"},
    {"instant", "crops"},
    {"film", "labeller", "recorder", "live"},
    {"teachers"},
    {"experiment", "export", "initial"},
    {"train", "conclude", "nonfinite"},
)
# Everything up to the step is for other people's programs, and brings no more than these.
LIGHT = {"jax", "jaxlib", "flax", "optax", "numpy", "emotion_jax"}


def module_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts


def imports(path):
    """Every module that a file imports, at the top or within a function."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(path):
    """The package's modules that a file imports, by their first name below the package."""
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "emotion_jax" and len(parts) > 1 and parts[1] in ROOMS:
            yield parts[1]


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")
ROOMS = {module_of(path)[0] for path in FILES}
FLOOR = {room: i for i, rooms in enumerate(FLOORS) for room in rooms}


def test_every_room_has_its_floor():
    assert set(FLOOR) == ROOMS


@pytest.mark.parametrize("path", FILES, ids=lambda path: ".".join(module_of(path)))
def test_imports_run_downwards(path):
    room = module_of(path)[0]
    # The command that makes an array file reads a config, as the programs above it do.
    for other in set(ours(path)) - {room}:
        assert FLOOR[other] <= FLOOR[room], f"{room} imports {other}"
    if FLOOR[room] <= FLOOR["steps"]:
        standard = sys.stdlib_module_names
        assert {name.split(".")[0] for name in imports(path)} - standard <= LIGHT


def test_no_imports_in_a_circle():
    edges = {room: set() for room in ROOMS}
    for path in FILES:
        room = module_of(path)[0]
        edges[room] |= set(ours(path)) - {room}
    while edges:
        free = {room for room, needs in edges.items() if not needs & set(edges)}
        assert free, f"a circle among {sorted(edges)}"
        edges = {room: needs for room, needs in edges.items() if room not in free}


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
