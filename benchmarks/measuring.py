"""How the step benchmarks measure: one worker a process, the device waited for, medians."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from emotion_jax.host.atomic import replace_text

# Windows of steps whose median counts: fewer where a single step takes long.
FEWEST, MOST = 3, 9


def time_steps(
    step: Callable[[], Any], wait: Callable[[Any], Any], *, seconds: float
) -> dict[str, float]:
    """Measures a training step.

    Args:
      step: starts one step, and may return before it is done.
      wait: waits until what `step` returned is there.
      seconds: to spend, more or less, after compiling.

    Returns:
      step_s, the median over windows of steps at whose end the device was waited for; spread, the
      middle half of the windows by that median; compile_s, the first call less a step.
    """
    first = _timed(step, wait, 1)
    # Not the first after compiling: it may still tune, and fills caches.
    _timed(step, wait, 1)
    once = _timed(step, wait, 1)
    windows = min(max(FEWEST, round(seconds / once)), MOST)
    count = max(1, round(seconds / windows / once))
    times = [_timed(step, wait, count) / count for _ in range(windows)]
    median, (low, _, high) = statistics.median(times), statistics.quantiles(times, n=4)
    spread = (high - low) / median
    return {"step_s": median, "spread": spread, "compile_s": max(first - median, 0.0)}


def _timed(step: Callable[[], Any], wait: Callable[[Any], Any], count: int) -> float:
    begun = time.perf_counter()
    for _ in range(count):
        last = step()
    wait(last)
    return time.perf_counter() - begun


def peak_resident() -> int:
    """Bytes that this process has had in memory at most."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def processor() -> str:
    """What the CPU calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # macOS has no such file
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def device_name() -> str:
    """Of JAX's first device; of a CPU its model."""
    import jax  # not every worker has it

    device = jax.devices()[0]
    return processor() if device.platform == "cpu" else device.device_kind


def results_path(output: Path, stem: str, device: str) -> Path:
    """A .json file as it is; in a folder, one named by what was measured and on which device."""
    if output.suffix == ".json":
        return output
    name = re.sub("[^a-z0-9]+", "-", device.lower()).strip("-")
    return output / f"{stem}-{name}.json"


def save_table(table: dict[str, Any], path: Path) -> None:
    """Writes a table as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(table, indent=1) + "\n")


def commit() -> str:
    """Of the code that is measured; empty outside a checkout."""
    if said := os.environ.get("COMMIT"):
        return said
    here = Path(__file__).parent
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    with contextlib.suppress(OSError):  # no git
        return subprocess.run(command, capture_output=True, text=True, cwd=here).stdout.strip()
    return ""


def serve(work: Callable[..., dict[str, Any]]) -> None:
    """Answers the one request of a worker: JSON keywords in, a last line of JSON out."""
    print("\n" + json.dumps(work(**json.loads(sys.argv[1]))))


class Failed(Exception):
    """A worker that measured nothing.

    Attributes:
      said: all that it wrote to standard error, of which the message quotes a line.
    """

    def __init__(self, message: str, said: str = ""):
        super().__init__(message)
        self.said = said


class Late(Failed):
    """A worker that was stopped, because it had taken all the time it was given."""


def ask(name: str, *, limit: float, **words: Any) -> dict[str, Any]:
    """What the worker `step_NAME.py` answers to a request, in a process of its own.

    Raises:
      Late: it took more than `limit` seconds.
      Failed: it ended without an answer.
    """
    here = Path(__file__).parent
    command = [sys.executable, str(here / f"step_{name}.py"), json.dumps(words)]
    # A group of its own, because compilers start helpers, which hold the pipes open after it.
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # What PyTorch compiled for an earlier row would make this one's time to compile too short.
    environment = {**os.environ, "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    with subprocess.Popen(
        command, cwd=here.parent, env=environment, start_new_session=True, **pipes
    ) as process:
        try:
            out, err = process.communicate(timeout=max(limit, 0.0))
        except subprocess.TimeoutExpired:
            raise Late(f"stopped after {limit:.0f} s") from None
        finally:
            # Itself, if it still runs, and what it left running.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        raise Failed(f"status {process.returncode}: {last_words(err)}", err)
    try:
        return json.loads(out.splitlines()[-1])
    except (IndexError, ValueError):
        raise Failed(f"no answer: {last_words(out)}", err) from None


def last_words(said: str) -> str:
    """The line of a failed process's standard error that says what was wrong, shortened."""
    lines = [line.strip() for line in said.splitlines() if line.strip(" -")]
    # Not the last line: after the error itself JAX says something about tracebacks, and a process
    # that aborts where it was.
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b|F\d{4} ", line)]
    return (errors or lines or ["nothing said"])[-1][:300]
