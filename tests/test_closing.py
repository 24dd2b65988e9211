"""A `with` block that closes: always, and the first thing that goes wrong is the one told."""

import pytest

from emotion_jax.errors import EmotionError
from emotion_jax.host.closing import Closing


class Thing(Closing):
    def __init__(self, failure=None):
        self.closed, self._failure = 0, failure

    def close(self):
        self.closed += 1
        if self._failure is not None:
            raise self._failure


def test_it_is_closed_once_with_and_without_an_error():
    with Thing() as thing:
        assert thing.closed == 0
    assert thing.closed == 1
    with pytest.raises(KeyboardInterrupt), Thing() as thing:
        raise KeyboardInterrupt
    assert thing.closed == 1


def test_what_closing_raises_is_told_after_a_block_that_went_well():
    with pytest.raises(EmotionError, match="full"), Thing(EmotionError("the disk is full")):
        pass


def test_bad_input_while_closing_does_not_hide_the_first_error():
    with pytest.raises(KeyError, match="first"), Thing(EmotionError("the disk is full")):
        raise KeyError("first")


def test_a_mistake_while_closing_is_never_silent():
    with pytest.raises(ZeroDivisionError), Thing(ZeroDivisionError()):
        raise KeyError("first")
