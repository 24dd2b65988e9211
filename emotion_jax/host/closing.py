"""What is closed at the end of a `with` block, and does not hide what went wrong in it."""

from __future__ import annotations

import abc
import contextlib
from types import TracebackType
from typing import Self

from emotion_jax.errors import EmotionError


class Closing(abc.ABC):
    """Makes of a class with `close` a context manager that calls it."""

    @abc.abstractmethod
    def close(self) -> None:
        """End what is open.

        Raises:
          EmotionError: that fails. After an error in the block it is not raised.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # After an error all is finished as well as can be; the first error is the one to tell.
        with contextlib.nullcontext() if error is None else contextlib.suppress(EmotionError):
            self.close()
