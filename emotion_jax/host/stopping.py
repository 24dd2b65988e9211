"""A program that is told to stop, and does so in good order."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from typing import Any


def say(message: str) -> None:
    """Prints, where several processes train one network, from the first alone."""
    import jax  # who only wants to be stopped in good order need not load it

    if jax.process_index() == 0:
        print(message, flush=True)


class Stop(contextlib.AbstractContextManager["Stop"]):
    """Turns Ctrl-C and SIGTERM into a wish, granted after the step and once the state is saved.

    Processes that train one network must save the same step: they leave SIGTERM to the notice of
    preemption that JAX has for that, and pass Ctrl-C on to it. Whichever of them gets either, all
    agree on a step. The second Ctrl-C means now; so does the second SIGTERM of a process alone.

    Attributes:
      asked: the signal to end with; None as long as there is no reason to.
    """

    def __init__(self, agree: Callable[[int], bool] | None = None):
        """Takes, of several processes, what tells of a step whether all stop there."""
        self.asked: int | None = None
        self._agree = agree
        self._got: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        ours = (signal.SIGINT, signal.SIGTERM) if self._agree is None else (signal.SIGINT,)
        with contextlib.suppress(ValueError):  # not the main thread: its owner handles signals
            for number in ours:
                self._before[number] = signal.signal(number, self._ask)
        return self

    def _ask(self, number: int, frame: Any) -> None:
        if self._got is not None:  # the second time means now
            self.__exit__()
            signal.raise_signal(number)
        self._got = number
        if self._agree is None:
            self.asked = number
        else:
            signal.raise_signal(signal.SIGTERM)  # JAX's notice: it tells the others

    def due(self, step: int) -> bool:
        """Whether to save and leave after `step`; of several processes each asks at every one."""
        if self._agree is not None and self._agree(step):
            self.asked = self._got or signal.SIGTERM
        return self.asked is not None

    def leave_if_asked(self, step: int) -> None:
        """Says what is saved and ends the program as the signal would have."""
        if self.asked is not None:
            say(f"stopped, saved at step {step}; the same command goes on from there")
            self.leave()

    def leave(self) -> None:
        """Ends the program as the signal would have, if one came; the caller has said so."""
        if self.asked == signal.SIGINT:
            raise KeyboardInterrupt("saved")
        if self.asked is not None:
            raise SystemExit(128 + self.asked)

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
