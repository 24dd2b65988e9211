"""What people receive: a wheel with everything in it, and a README whose links lead somewhere."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "emotion_jax"
PAGES = [
    path.relative_to(ROOT)
    for folder, pattern in ((ROOT, "*.md"), (ROOT / "docs", "*.md"), (SOURCE, "shipped/*/*.md"))
    for path in sorted(folder.glob(pattern))
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of what it is made of, so that the checkout stays clean."""
    copy = tmp_path_factory.mktemp("wheel")
    shutil.copytree(SOURCE, copy / "emotion_jax", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    code = "from setuptools import build_meta; build_meta.build_wheel('.')"
    subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, capture_output=True)
    return next(copy.glob("*.whl"))


def test_the_wheel_holds_the_whole_package(wheel):
    held = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("emotion_jax/")}
    files = [path for path in SOURCE.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert held == {str(path.relative_to(ROOT)) for path in files}
    assert {"emotion_jax/py.typed", "emotion_jax/data/drawing/faces.py"} <= held


def test_the_wheel_works_from_another_folder(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, 'site'); import emotion_jax as ej, numpy as np\n"
        "assert 'site' in ej.__file__\n"
        "print(ej.load_predictor()(np.zeros((1, 60, 50, 3), np.uint8)).shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.strip() == "(1, 8)", done.stderr


def test_the_lock_file_is_of_these_requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    asked = [Requirement(line) for group in groups for line in group]
    packages = tomllib.loads((ROOT / "uv.lock").read_text())["package"]
    own = next(package for package in packages if package["name"] == "emotion-jax")
    locked = own["metadata"]["requires-dist"]
    # `uv lock` mends the file.
    assert sorted((x["name"], str(SpecifierSet(x.get("specifier", "")))) for x in locked) == sorted(
        (canonicalize_name(x.name), str(x.specifier)) for x in asked
    )


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page):
    """To files that are there, and to headings that these have."""
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", (ROOT / page).read_text())
    assert links or page.name != "README.md"
    for link in links:
        name, _, heading = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.M)
            anchors = [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]
            assert heading in anchors, link


def test_the_ten_lines_of_the_readme_run():
    text = (ROOT / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.S)[1]
    scope = {}
    exec(code, scope)
    variables = {"params": scope["state"].params, "batch_stats": scope["state"].batch_stats}
    import jax.numpy as jnp

    out = scope["features"].apply(variables, jnp.zeros((2, 64, 64, 3)), train=False)
    assert out.shape == (2, 56)
    assert int(scope["state"].step) == 1


def test_the_rows_of_the_readme_are_what_it_says(monkeypatch):
    text = (ROOT / "README.md").read_text()
    code = re.findall(r"```python\n(.*?)```", text, re.S)[1]
    scope = {}
    monkeypatch.chdir(ROOT)
    exec(code, scope)
    said = re.findall(r"^# (docs/.*)$", code, re.M)
    assert said == repr(scope["rows"]).splitlines() and said
    assert len(scope["frame"]) == len(scope["rows"]) == len(said)
    assert scope["quick"]
