"""Damage to files, drawn by Hypothesis, and a process that reads them and may die of it."""

import ctypes
import json
import os
import select
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import hypothesis.strategies as st

# Of the whole process, its libraries and JAX among them (300 MB).
MEMORY = 1 << 30
# Far more than any input takes, on a machine that has much else to do: what takes longer hangs.
PATIENCE_S = 120
WORDS = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63)


class Child:
    """Runs `fuzz_child.py`; counts inputs, those read, the slowest and the most memory."""

    def __init__(self):
        self.count, self.read, self.slowest, self.peak = 0, 0, 0.0, 0
        self._process = None

    def __call__(self, reader, path):
        """Has a file read, True if it was; fails where anything but one sentence comes of it."""
        what = self.ask(reader, path)
        assert what == "read" or what.startswith("refused: "), what
        return what == "read"

    def ask(self, reader, path):
        """What came of it, as the child says it; fails where it dies, hangs or swells."""
        self._process = self._process or _start()
        self._process.stdin.write(json.dumps([reader, str(path)]) + "\n")
        self._process.stdin.flush()
        ready, *_ = select.select([self._process.stdout], [], [], PATIENCE_S)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            self.close()
            raise AssertionError(f"{reader} {'died' if ready else 'hangs'}")
        what, seconds, peak = json.loads(line)
        self.count += 1
        self.read += what == "read"
        self.slowest, self.peak = max(self.slowest, seconds), max(self.peak, peak)
        if peak > MEMORY:  # the mark never falls again
            self.close()
            raise AssertionError(f"{reader} took {peak / 1e9:.2f} GB: {what}")
        return what

    def close(self):
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def summary(self):
        peak = f"{self.peak / 1e6:.0f} MB"
        return f"{self.count} inputs, {self.read} read, slowest {self.slowest:.2f} s, {peak}"


def _start():
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("fuzz_child.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # FFmpeg's and HDF5's own words
        text=True,
    )


class Tripwire:
    """Notices whether anybody opens what lies in a folder; Linux alone can tell."""

    OPENED = 0x20  # IN_OPEN of inotify(7)

    def __init__(self, folder):
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK)
        for place in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            watch = libc.inotify_add_watch(self._fd, os.fsencode(place), self.OPENED)
            assert watch > 0, os.strerror(ctypes.get_errno())

    def touched(self):
        """Whether that has happened since the last call."""
        try:
            return bool(os.read(self._fd, 1 << 16))
        except BlockingIOError:
            return False

    def close(self):
        os.close(self._fd)


@st.composite
def damaged(draw, data, head=200):
    """Bytes flipped, set to numbers that lie, cut, dropped or doubled; most near the head."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        size = len(data)
        at = draw(st.integers(0, min(size, head)) | st.integers(0, size))
        kind = draw(st.sampled_from(["flip", "byte", "word", "word", "cut", "drop", "double"]))
        if kind == "flip" and at < size:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "byte" and at < size:
            data[at] = draw(st.integers(0, 255))
        elif kind == "word":
            form = draw(st.sampled_from(["<H", ">H", "<I", ">I", "<Q", ">Q"]))
            word = draw(st.sampled_from(WORDS)) % 256 ** struct.calcsize(form)
            data[at : at + struct.calcsize(form)] = struct.pack(form, word)
        elif kind == "cut":
            del data[at:]
        else:
            end = at + draw(st.integers(1, 64))
            data[at:end] = b"" if kind == "drop" else bytes(data[at:end]) * 2
    return bytes(data)


def reseal(png):
    """A PNG whose chunks' check sums are right again, so that what they say is believed."""
    out, at = bytearray(png), 8
    while at + 12 <= len(out):
        (size,) = struct.unpack_from(">I", out, at)
        end = at + 8 + size
        if end + 4 > len(out):
            break
        struct.pack_into(">I", out, end, zlib.crc32(bytes(out[at + 4 : end])))
        at = end + 4
    return bytes(out)


def table(rows):
    """Rows of cells as a csv file, not a quote more than they hold."""
    return "".join(",".join(row) + "\n" for row in rows).encode("utf-8", "surrogatepass")
