"""Films whose files say their times wrongly: joined ones, and H.264 in AVI."""

import av
import numpy as np
import pytest
from false_films import shade_numbers, shades, sound_packets, write_film

from emotion_jax.video import FilmReader, FilmWriter

COUNT, RATE = 45, 30


def read(path, **options):
    return list(FilmReader(path).frames(**options))


def join(path, parts):
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def make_part(path, begin=0.0, seconds=None):
    times = [begin + i / RATE for i in range(COUNT)] if seconds is None else seconds
    sound = None if begin else "aac"  # which would begin at zero
    return write_film(path, shades(COUNT), times=times, rate=RATE, sound=sound)


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    return make_part(tmp_path_factory.mktemp("part") / "a.ts")


@pytest.mark.parametrize("count", [2, 3])
def test_films_joined_byte_by_byte_are_one_after_the_other(tmp_path, part, count):
    source = join(tmp_path / "all.ts", [part] * count)
    frames = read(source)
    assert shade_numbers([frame.image for frame in frames]) == [*range(COUNT)] * count
    times = np.array([frame.time_s for frame in frames])
    steps = np.diff(times)
    # Between two, what the first one's sound lasts longer.
    between = np.arange(1, count) * COUNT - 1
    np.testing.assert_allclose(np.delete(steps, between), 1 / RATE, atol=2e-3)
    assert (steps > 0).all() and steps.max() < 0.25
    with FilmWriter(tmp_path / "b.mp4", rate_hint=RATE, audio_from=source) as film:
        for frame in frames:
            film.write(frame.image, frame.time_s)
        film.copy_sound()
    np.testing.assert_allclose([f.time_s for f in read(film.path)], times - times[0], atol=1e-3)
    heard = sound_packets(film.path)
    assert (np.diff([time for time, _ in heard]) > 0).all()
    assert len(heard) >= count * (len(sound_packets(part)) - 3)
    # It is heard where it is seen: each begins with the same sound, so much later as its pictures.
    again = [time for time, data in heard if data == heard[5][1]]
    np.testing.assert_allclose(np.diff(again), times[COUNT] - times[0], atol=2e-3)
    assert len(again) == count


def test_a_part_of_joined_films_is_what_it_is_in_the_whole(tmp_path, part):
    source = join(tmp_path / "all.ts", [part] * 2)
    whole, late = read(source), read(source, start=2.0)
    assert [(f.index, f.time_s) for f in late] == [
        (f.index, f.time_s) for f in whole if f.time_s >= 2
    ]
    assert shade_numbers([late[-1].image]) == [COUNT - 1] and len(late) > 20


def test_a_clock_that_leaps_ahead_leaves_no_gap_and_a_pause_does(tmp_path, part):
    later = make_part(tmp_path / "later.ts", 5000.0)
    frames = read(join(tmp_path / "all.ts", [part, later]))
    assert len(frames) == 2 * COUNT and frames[-1].time_s < 3.5
    pause = [i / RATE + 8 * (i >= 20) for i in range(COUNT)]
    steps = np.diff([f.time_s for f in read(make_part(tmp_path / "pause.ts", seconds=pause))])
    assert steps[19] == pytest.approx(8 + 1 / RATE, abs=2e-3)
    np.testing.assert_allclose(np.delete(steps, 19), 1 / RATE, atol=2e-3)


def test_frames_that_look_ahead_come_evenly_from_an_avi(tmp_path):
    """AVI has one time for each, and what PyAV makes of it goes back and forth."""
    with av.open(str(tmp_path / "a.avi"), "w") as film:
        stream = film.add_stream("libx264", rate=RATE, options={"bf": "2", "crf": "12"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i, image in enumerate(shades(COUNT)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = i
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
    with av.open(str(tmp_path / "a.avi")) as film:  # else this would prove nothing
        stamps = [frame.pts for frame in film.decode(video=0)]
    assert stamps != sorted(stamps)
    frames = read(tmp_path / "a.avi")
    assert shade_numbers([frame.image for frame in frames]) == list(range(COUNT))
    times = np.array([frame.time_s for frame in frames])
    np.testing.assert_allclose(np.diff(times)[2:], 1 / RATE, atol=1e-3)
    assert (np.diff(times) > 0).all() and times[-1] < (COUNT + 3) / RATE
