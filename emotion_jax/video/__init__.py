"""Films: frames with their true times in, frames and sound out. The only folder that knows PyAV."""

from emotion_jax.video.reading import FilmReader, Frame
from emotion_jax.video.writing import FilmWriter

__all__ = ["FilmReader", "FilmWriter", "Frame"]
