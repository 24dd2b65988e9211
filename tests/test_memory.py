"""What a process may use is known, and memory that was freed leaves it."""

import os
from pathlib import Path

import pytest

from emotion_jax.host.memory import give_back, host_limit

STATUS = Path("/proc/self/status")


def resident():
    """MB of this process, without files that are mapped."""
    return int(STATUS.read_text().split("RssAnon:")[1].split()[0]) / 1000


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/job/step\n", {"job/memory.max": "3000"}, 3000),
        ("0::/job/step\n", {"job/memory.max": "3000", "job/step/memory.max": "max"}, 3000),
        ("0::/outside\n", {"memory.max": "5000"}, 5000),
        ("9:cpu:/\n4:memory:/job\n", {"memory/job/memory.limit_in_bytes": "7000"}, 7000),
        ("0::/job\n", {"job/memory.max": "max"}, None),
        ("0::/job\n", {"job/memory.max": str(1 << 62)}, None),
        (None, {"memory.max": "3000"}, None),
    ],
    ids=["outer", "inner without", "container", "version 1", "none", "huge", "no Linux"],
)
def test_a_group_of_processes_limits_what_the_machine_has(tmp_path, groups, files, expected):
    if groups is not None:
        (tmp_path / "groups").write_text(groups)
    for name, text in files.items():
        path = tmp_path / "mounted" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = host_limit(str(tmp_path / "groups"), str(tmp_path / "mounted"))
    assert found == (whole if expected is None else expected)


@pytest.mark.skipif(not STATUS.exists(), reason="memory is read from Linux's /proc")
def test_what_is_freed_is_given_back():
    # Blocks of a size that comes from the heap; one that stays on top keeps the rest from leaving.
    blocks = [bytes([i % 256]) * 60_000 for i in range(4000)]
    keep, full = blocks[-1], resident()
    del blocks
    before = resident()
    give_back()
    assert keep and full - resident() > 200
    assert before - resident() > 200, "the system has it already: this tests nothing"


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_elsewhere_it_does_nothing(monkeypatch, error):
    def refuse(name):
        raise error(name)

    monkeypatch.setattr("ctypes.CDLL", refuse)
    give_back()
