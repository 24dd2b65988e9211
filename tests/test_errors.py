"""Bad input is told in one line, whatever it quotes."""

import pickle

import pytest

from emotion_jax.errors import EmotionError, run

NASTY = "a\nb\x1b]0;title\x07\r\u2028\udcff.jpg"


def test_what_is_quoted_stays_on_its_line(capsys):
    def main():
        raise EmotionError(f"'{NASTY}' is no file; give the path of a picture")

    assert run(main) == 2
    said = capsys.readouterr().err
    assert said.startswith(r"error: 'a\nb\x1b]0;title\x07\r\u2028\udcff.jpg' is no file")
    assert said.count("\n") == 1


def test_what_the_system_refuses_stays_on_its_line(capsys):
    def main():
        raise PermissionError(13, "Permission denied", NASTY)

    assert run(main) == 2
    said = capsys.readouterr().err
    assert r"'a\nb\x1b" in said and said.count("\n") == 1


@pytest.mark.parametrize("text", ["c:\\new\\table.csv is no file", "Gesicht ü 顔 🙂"])
def test_names_in_any_language_are_left_alone(text):
    error = EmotionError(text)
    assert str(error) == text == str(pickle.loads(pickle.dumps(error)))
