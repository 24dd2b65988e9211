"""Films made on the spot, by PyAV alone: of any times, rotation, sound and container."""

from fractions import Fraction

import av
import numpy as np

from emotion_jax.data.drawing.faces import draw_face

TICKS = 90_000
FACE = 120  # pixels along each side of a drawn face


def write_film(
    path,
    images,
    *,
    times=None,
    rate=30,
    codec="libx264",
    turn=None,
    aspect=None,
    sound=None,
    **options,
):
    """Write images `[H, W, 3]` of even sides; `times` in seconds, `sound` the name of a codec.

    `turn` is (degrees counter-clockwise, mirrored left to right) of a player.
    """
    times = [i / rate for i in range(len(images))] if times is None else times
    with av.open(str(path), "w", options=options) as film:
        quality = (
            {"crf": "12"} if codec == "libx264" else {"flags": "+qscale", "global_quality": "118"}
        )
        pictures = film.add_stream(codec, rate=rate, options=quality)
        pictures.height, pictures.width = images[0].shape[:2]
        pictures.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        pictures.codec_context.gop_size = 10
        if turn is not None:
            pictures.set_display_rotation(turn[0], hflip=turn[1])
        if aspect is not None:
            pictures.codec_context.sample_aspect_ratio = Fraction(aspect)
        if codec == "libx264":  # the others count in frames
            pictures.codec_context.time_base = Fraction(1, TICKS)
        if sound is not None:
            _add_sound(film, sound, times[-1] + 1 / rate)
        base = pictures.codec_context.time_base or Fraction(1, rate)
        for image, time in zip(images, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = round(Fraction(time) / base), base
            film.mux(pictures.encode(frame))
        film.mux(pictures.encode())
    return path


def _add_sound(film, codec, seconds):
    """A tone that rises, so that no two packets are alike."""
    rate = 48000 if codec == "libopus" else 44100
    stream = film.add_stream(codec, rate=rate, layout="mono")
    at = np.arange(round(rate * seconds)) / rate
    tone = (20000 * np.sin(2 * np.pi * (300 + 200 * at) * at)).astype(np.int16)[None]
    frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
    frame.sample_rate, frame.pts = rate, 0
    film.mux(stream.encode(frame))
    film.mux(stream.encode())


def sound_packets(path):
    """The packets of sound: (seconds, bytes) each."""
    with av.open(str(path)) as film:
        packets = film.demux(film.streams.audio[0])
        return [(float(p.pts * p.time_base), bytes(p)) for p in packets if p.size]


def shades(count, height=48, width=64):
    """Frames that tell their number: the grey of frame i is 20 + 3 i."""
    return [np.full((height, width, 3), 20 + 3 * i, np.uint8) for i in range(count)]


def shade_numbers(images):
    return [round((float(np.mean(image)) - 20) / 3) for image in images]


def draw_people(spots, *, height=240, width=480):
    """A picture with a drawn face at each (person, left, top)."""
    image = np.full((height, width, 3), 120, np.uint8)
    for person, left, top in spots:
        image[top : top + FACE, left : left + FACE] = draw_face(person, 1, 0, size=FACE)
    return image
