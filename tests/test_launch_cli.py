"""launch.py as people type it, in a process of its own."""

import runpy
import sys
from pathlib import Path

import pytest
from absl.flags import FlagValues
from launching import launch

from emotion_jax import command_line

ROOT = Path(__file__).parent.parent
QUICK = "--config=configs/quickstart.py"


def test_help():
    done = launch("--help")
    assert done.returncode == 0 and done.stderr == ""
    assert "python launch.py --config=configs/quickstart.py" in done.stdout
    for flag in ("config", "workdir", "mode", "debug", "help"):
        assert f"--{flag} " in done.stdout
    assert "--config.KEY=VALUE" in done.stdout and "train|eval" in done.stdout
    assert len(done.stdout.splitlines()) < 25  # the libraries' flags stay out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([QUICK, "--config.batchsize=3"], ["batchsize", "batch_size"]),
        ([QUICK, "--mode=test"], ["--mode=test", "train|eval"]),
        (["--config=absent.py"], ["'absent.py'", "configs/"]),
        ([], ["no --config"]),
        (["quickstart"], ["'quickstart'", "write --config=configs/quickstart.py"]),
        (["configs/quickstart.py"], ["write --config=configs/quickstart.py"]),
        ([QUICK, "--config.num_epochs=0"], ["num_epochs: 0", "at least 1"]),
        ([QUICK, "--config.model.name=resnet"], ["resnet", "simplenet"]),
        ([QUICK, "--config.data.source=imagenet"], ["data.source", "'imagenet'", "ferplus"]),
        (
            [QUICK, "--config.data.source=arrays", "--config.data.dir=absent.npz"],
            ["data.dir", "'absent.npz'"],
        ),
        (
            ["--config=configs/ferplus_narrow.py", "--config.data.dir=absent"],
            ["data.dir", "'absent'", "fer2013.csv"],
        ),
        ([QUICK, "--mode=eval"], ["{workdir}"]),
    ],
)
def test_bad_input_is_one_sentence(tmp_path, monkeypatch, capsys, arguments, words):
    workdir = tmp_path / "run"
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(command_line, "FLAGS", FlagValues())  # as in a process of its own
    monkeypatch.setattr(sys, "argv", ["launch.py", *arguments, f"--workdir={workdir}"])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path("launch.py", run_name="__main__")
    said = capsys.readouterr()
    assert exit_.value.code == 2 and said.out == ""
    assert said.err.startswith("error: ") and said.err.count("\n") == 1, said.err
    assert all(word.format(workdir=workdir) in said.err for word in words), said.err


# launch.py, and which of some modules it imported.
WITH_MODULES = """
import runpy, sys
try:
    runpy.run_path("launch.py", run_name="__main__")
finally:
    print(sorted({"jax", "orbax", "matplotlib", "tensorflow"} & set(sys.modules)))
"""


def test_a_wrong_flag_is_told_before_anything_heavy_is_imported():
    done = launch(QUICK, "--config.batchsize=3", code=WITH_MODULES)
    assert done.returncode == 2 and done.stdout == "[]\n"
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1


def test_a_missing_folder_is_told_before_tensorflow_is_imported(tmp_path):
    arguments = ["--config=configs/ferplus_narrow.py", "--config.data.dir=absent"]
    done = launch(*arguments, f"--workdir={tmp_path}/run", code=WITH_MODULES)
    assert done.returncode == 2 and "tensorflow" not in done.stdout
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1


def test_debug_shows_where():
    done = launch("--config=absent.py", "--debug")
    assert done.returncode != 0 and "Traceback" in done.stderr and "EmotionError" in done.stderr
