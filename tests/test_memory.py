"""Memory that was freed leaves the process."""

from pathlib import Path

import pytest

from emotion_jax.memory import give_back

STATUS = Path("/proc/self/status")


def resident():
    """MB of this process, without files that are mapped."""
    return int(STATUS.read_text().split("RssAnon:")[1].split()[0]) / 1000


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
