"""What a session on a GPU would run is there to be run."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def gpu_session(tmp_path, monkeypatch):
    """Runs a part of it with programs that only note what is asked of them: lines of words."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    for name in ("python3", "nvidia-smi"):
        said = tmp_path / name
        variables = '"$XLA_FLAGS" "$JAX_PLATFORMS" "$*"'
        said.write_text(f'#!/bin/sh\nprintf "%s\\n" {variables} >> "$0.said"\n')
        said.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("RESULTS", str(tmp_path))
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    (tmp_path / "out").mkdir()

    def session(part):
        subprocess.run(["bash", f"{ROOT}/benchmarks/gpu_session.sh", part], check=True)
        lines = (tmp_path / "python3.said").read_text().splitlines()
        # Not a CPU's figures, where there is a graphics card.
        calls = [line for line in lines if line.startswith("benchmarks")]
        assert lines.count("cuda,cpu") == len(calls)
        return lines

    return session


@pytest.mark.parametrize("part, fewest", [("step", 20), ("peers", 10)])
def test_the_gpu_session_asks_for_rows_that_exist(part, fewest, gpu_session, tmp_path, monkeypatch):
    import train_step

    monkeypatch.setenv("LEVERS", "pad16+still")
    lines = gpu_session(part)
    calls = [line for line in lines if line.startswith("benchmarks/train_step.py")]
    groups = [flags for call in calls for flags in train_step.parse(call.split()[1:])]
    assert sum(len(train_step.list_keys(flags)) for flags in groups) >= fewest
    assert (groups[0].network, groups[0].precision) == (["simplenet"], ["bfloat16"])
    assert any("command_buffer" in line for line in lines) == (part == "peers")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["results.tar.gz"]


def test_the_gpu_session_scouts_for_variants_that_exist(gpu_session):
    import ablations
    from running import base_config

    [call] = [line for line in gpu_session("scout") if line.startswith("benchmarks")]
    words = dict(word.lstrip("-").partition("=")[::2] for word in call.split())
    names = words["only"].split(",")
    base = ablations.with_network(base_config(str(ROOT / "configs/ferplus.py")))
    assert list(ablations.differing(names, base)) == names
    assert (words["output"], words["num_epochs"]) == ("runs/scout", "20")
