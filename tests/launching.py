"""launch.py in a process of its own, with one CPU device, as a test needs it."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def launch(*arguments, code=None, timeout=120):
    """What became of `python launch.py ARGUMENTS`, or of a program in its place."""
    return subprocess.run(
        [sys.executable, *(["-c", code] if code else ["launch.py"]), *arguments],
        cwd=ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
