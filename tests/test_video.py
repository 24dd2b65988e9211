"""Films in and out: true times, upright, sound copied, and readable whatever happens."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import weakref

import av
import cv2
import numpy as np
import pytest
from false_films import shade_numbers, shades, sound_packets, write_film

from emotion_jax import images
from emotion_jax.errors import EmotionError
from emotion_jax.video import FilmReader, FilmWriter, sound, writing


def read(path, **options):
    return list(FilmReader(path).frames(**options))


def test_every_frame_at_its_time(tmp_path):
    path = write_film(tmp_path / "a.mp4", shades(45))
    reader = FilmReader(path)
    frames = list(reader.frames())
    assert [frame.index for frame in frames] == list(range(45))
    assert shade_numbers(frame.image for frame in frames) == list(range(45))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(45) / 30, atol=1e-4)
    assert (reader.rate, reader.size, reader.damage) == (30, (48, 64), None)
    assert abs(reader.duration_s - 1.5) < 0.01


TIMES = np.cumsum([0, *np.random.default_rng(0).uniform(0.01, 0.3, 44)])


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_variable_rate_keeps_its_times(tmp_path, suffix):
    frames = read(write_film(tmp_path / f"a.{suffix}", shades(45), times=TIMES))
    assert shade_numbers(frame.image for frame in frames) == list(range(45))
    np.testing.assert_allclose([frame.time_s for frame in frames], TIMES, atol=6e-4)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize(
    "part", [{"every": 7}, {"start": 0.5}, {"start": 0.71, "end": 1.2, "every": 2}, {"end": 0.1}]
)
def test_a_part_is_that_part_of_the_whole(tmp_path, suffix, part):
    codec = "mpeg4" if suffix == "avi" else "libx264"
    path = write_film(tmp_path / f"a.{suffix}", shades(45), codec=codec)
    whole = read(path)
    assert whole[0].time_s == 0 and len(whole) == 45
    begin, end = part.get("start", 0), part.get("end", 99)
    expected = [
        (frame.index, frame.time_s)
        for frame in whole
        if begin <= frame.time_s < end and frame.index % part.get("every", 1) == 0
    ]
    frames = read(path, **part)
    assert [(frame.index, frame.time_s) for frame in frames] == expected
    assert shade_numbers(frame.image for frame in frames) == [index for index, _ in expected]


def corners():
    """Four colours, none of which lies where a turn or a mirror would put it."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :32], image[:24, 32:], image[24:, :32] = (200, 40, 40), (40, 200, 40), (40, 40, 200)
    return image


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_turned_films_stand_upright(tmp_path, degrees):
    path = write_film(tmp_path / "a.mp4", [corners()] * 3, turn=(degrees, False))
    (frame, *_) = read(path)
    reference = cv2.VideoCapture(str(path)).read()[1][:, :, ::-1]  # turns by itself
    assert frame.image.shape == reference.shape
    assert np.abs(frame.image.astype(int) - reference).mean() < 3
    turned = np.rot90(corners(), degrees // 90)
    assert np.abs(frame.image.astype(int) - turned).mean() < 8


def test_mirrored_films_are_mirrored(tmp_path):
    (frame, *_) = read(write_film(tmp_path / "a.mp4", [corners()] * 3, turn=(0, True)))
    assert np.abs(frame.image.astype(int) - corners()[:, ::-1]).mean() < 8


def test_pixels_become_square(tmp_path):
    (frame, *_) = read(write_film(tmp_path / "a.mp4", [corners()] * 3, aspect="3/2"))
    assert frame.image.shape == (48, 96, 3)


def test_a_size_that_changes(tmp_path):
    small = write_film(tmp_path / "a.ts", shades(10))
    large = write_film(tmp_path / "b.ts", shades(10, 96, 80))
    both = tmp_path / "c.ts"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    shapes = [frame.image.shape[:2] for frame in read(both)]
    assert shapes == [(48, 64)] * 10 + [(96, 80)] * 10


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_what_there_is_of_a_truncated_film_is_read(tmp_path, suffix):
    options = {"movflags": "faststart"} if suffix == "mp4" else {}
    noise = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), dtype=np.uint8)
    path = write_film(tmp_path / f"a.{suffix}", noise, sound="aac", **options)
    whole = read(path)
    path.write_bytes(path.read_bytes()[: int(0.6 * path.stat().st_size)])
    reader = FilmReader(path)
    frames = list(reader.frames())
    assert 20 < len(frames) < 45
    for frame, before in zip(frames[:-2], whole, strict=False):
        assert frame.time_s == before.time_s and (frame.image == before.image).all()
    assert reader.damage is not None and "incomplete" in reader.damage


@pytest.mark.parametrize("count", [8, 15, 30])
def test_half_of_a_short_film_is_said_to_be_incomplete(tmp_path, count):
    noise = np.random.default_rng(0).integers(0, 256, (count, 48, 64, 3), dtype=np.uint8)
    path = write_film(tmp_path / "a.mkv", noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    reader = FilmReader(path)
    assert 0 < len(list(reader.frames())) < count
    assert "incomplete" in (reader.damage or "")


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
@pytest.mark.parametrize("sound", [None, "aac"])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 15])
def test_a_short_film_is_whole(tmp_path, suffix, sound, count):
    codec = "mpeg4" if suffix == "avi" else "libx264"
    path = write_film(tmp_path / f"a.{suffix}", shades(count), codec=codec, sound=sound)
    reader = FilmReader(path)
    assert len(list(reader.frames())) == count and reader.damage is None


def test_damage_in_the_middle_is_left_out_and_counted(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), dtype=np.uint8)
    path = write_film(tmp_path / "a.mkv", noise, codec="mjpeg")
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as film:
        at = next(p.pos for i, p in enumerate(film.demux(video=0)) if i == 30)
    data[at + 20 : at + 80] = bytes(60)
    path.write_bytes(data)
    reader = FilmReader(path)
    assert len(list(reader.frames())) >= 58
    assert reader.damage is None or "damaged" in reader.damage


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.mp4", None, "is no file"),
        ("empty.mp4", b"", "is empty"),
        ("words.mp4", b"no film at all " * 99, "no readable film"),
        ("words.txt", b"words in lines\n" * 99, "no film"),
        ("half.mp4", "half", "no readable film"),
        ("picture.png", "picture", "--image"),
        ("song.m4a", "song", "no pictures"),
    ],
)
def test_what_is_no_film_is_one_sentence(tmp_path, name, content, words):
    path = tmp_path / name
    if content == "half":  # its index stands at the end
        data = write_film(path, shades(60)).read_bytes()
        path.write_bytes(data[: len(data) // 2])
    elif content == "picture":
        images.write_image(path, corners())
    elif content == "song":
        film = write_film(tmp_path / "a.mp4", shades(5), sound="aac")
        with av.open(str(film)) as source, av.open(str(path), "w", format="mp4") as song:
            stream = song.add_stream_from_template(source.streams.audio[0])
            for packet in source.demux(audio=0):
                if packet.size:
                    packet.stream = stream
                    song.mux(packet)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(EmotionError, match=words) as error:
        list(FilmReader(path).frames())
    assert name in str(error.value) and "\n" not in str(error.value)


def test_a_name_with_a_colon_is_a_file(tmp_path):
    path = write_film(tmp_path / "10:30.mp4", shades(3), format="mp4")
    with FilmWriter(tmp_path / "out:1.mp4", rate_hint=30) as film:
        for frame in read(path):
            film.write(frame.image, frame.time_s)
    assert len(read(tmp_path / "out:1.mp4")) == 3


def write(path, frames, times, **options):
    with FilmWriter(path, rate_hint=30, **options) as film:
        for image, time in zip(frames, times, strict=True):
            film.write(image, time)
    return path


def test_what_is_written_is_read_at_the_same_times(tmp_path):
    frames = read(write(tmp_path / "new" / "a.mp4", shades(45), TIMES + 100))
    np.testing.assert_allclose([frame.time_s for frame in frames], TIMES, atol=1e-4)
    assert shade_numbers(frame.image for frame in frames) == list(range(45))
    stream = av.open(str(tmp_path / "new" / "a.mp4")).streams.video[0]
    assert (stream.codec_context.name, stream.frames) == ("h264", 45)  # an ordinary mp4
    assert stream.codec_context.pix_fmt == "yuv420p"


def test_colours_survive(tmp_path):
    (frame, *_) = read(write(tmp_path / "a.mp4", [corners()] * 3, [0, 0.1, 0.2]))
    flat = corners()[12::24, 16::32]
    assert np.abs(frame.image[12::24, 16::32].astype(int) - flat).max() < 8


def test_times_that_do_not_grow_still_make_a_film(tmp_path):
    frames = read(write(tmp_path / "a.mp4", shades(5), [0, 0.1, 0.1, 0.05, 0.2]))
    assert shade_numbers(frame.image for frame in frames) == list(range(5))


@pytest.mark.parametrize("size", [(47, 64), (48, 63), (47, 63), (1, 1)])
def test_odd_sizes_gain_a_row_or_column(tmp_path, size):
    image = np.random.default_rng(0).integers(90, 160, (*size, 3), dtype=np.uint8)
    (frame, *_) = read(write(tmp_path / "a.mp4", [image] * 3, [0, 0.1, 0.2]))
    height, width = size[0] + size[0] % 2, size[1] + size[1] % 2
    assert frame.image.shape == (height, width, 3)
    assert abs(frame.image[: size[0], : size[1]].mean() - image.mean()) < 6


def test_another_size_is_fitted_on_black(tmp_path):
    wide = np.full((30, 120, 3), 200, np.uint8)
    first, second = read(write(tmp_path / "a.mp4", [np.full((60, 60, 3), 90, np.uint8), wide],
                               [0, 0.1]))  # fmt: skip
    assert second.image.shape == first.image.shape == (60, 60, 3)
    middle = second.image[:, 30].mean(axis=1)  # 60 of 120 wide: a band 15 high
    assert (middle[24:36] > 180).all() and (middle[:18] < 30).all() and (middle[42:] < 30).all()


@pytest.mark.parametrize("codec", ["aac", "libmp3lame", "libopus"])
def test_sound_is_copied_packet_by_packet(tmp_path, codec):
    rate = {"libopus": "mkv"}.get(codec, "mp4")
    source = write_film(tmp_path / f"a.{rate}", shades(60), sound=codec)
    with FilmWriter(tmp_path / "b.mp4", rate_hint=30, audio_from=source) as film:
        for frame in read(source):
            film.write(frame.image, frame.time_s)
        film.copy_sound()
    before, after = sound_packets(source), sound_packets(tmp_path / "b.mp4")
    assert len(before) > 50 and [data for _, data in after] == [data for _, data in before]
    np.testing.assert_allclose([t for t, _ in after], [t for t, _ in before], atol=1.5e-3)


def test_a_broadcast_s_sound_is_taken_over(tmp_path):
    """A transport stream's AAC says in each packet what it is, which mp4 refuses."""
    source = write_film(tmp_path / "a.ts", shades(60), sound="aac")
    with FilmWriter(tmp_path / "b.mp4", rate_hint=30, audio_from=source) as film:
        for frame in read(source):
            film.write(frame.image, frame.time_s)
        film.copy_sound()
    before, after = sound_packets(source), sound_packets(tmp_path / "b.mp4")
    # The first ends where the picture begins. Of each its header has gone.
    assert len(before) - 1 <= len(after) > 50
    pairs = zip(before[-len(after) :], after, strict=True)
    assert all(old.endswith(new) and 0 < len(old) - len(new) < 10 for (_, old), (_, new) in pairs)
    with av.open(tmp_path / "b.mp4") as film:
        assert sum(frame.samples for frame in film.decode(audio=0)) > 60_000


def test_sound_of_a_part_begins_with_it_and_ends_with_it(tmp_path):
    source = write_film(tmp_path / "a.mp4", shades(75), sound="aac")
    part = read(source, start=1.0, end=2.0)
    with FilmWriter(tmp_path / "b.mp4", rate_hint=30, audio_from=source) as film:
        for frame in part:
            film.write(frame.image, frame.time_s)
    before, after = sound_packets(source), sound_packets(tmp_path / "b.mp4")
    times = {data: time for time, data in before}
    for time, data in after:
        assert abs(times[data] - 1.0 - time) < 1e-3
    assert after[0][0] <= 0 and 0.93 < after[-1][0] < 1.0


def test_uncompressed_sound_becomes_aac(tmp_path):
    source = write_film(tmp_path / "a.avi", shades(60), codec="mpeg4", sound="pcm_s16le")
    with FilmWriter(tmp_path / "b.mp4", rate_hint=30, audio_from=source) as film:
        for frame in read(source):
            film.write(frame.image, frame.time_s)
        film.copy_sound()
    with av.open(str(tmp_path / "b.mp4")) as result:
        stream = result.streams.audio[0]
        assert stream.codec_context.name == "aac"
        samples = np.concatenate([f.to_ndarray()[0] for f in result.decode(audio=0)])
    assert abs(len(samples) / 44100 - 2) < 0.1
    # The tone rises by 400 hertz a second from 300: at half a second it has 500.
    spectrum = np.abs(np.fft.rfft(samples[20050:24050] * np.hanning(4000)))
    assert abs(spectrum.argmax() * 44100 / 4000 - 500) < 25


class Stuttering:
    """A film whose packets of sound come twice, the second time without saying when."""

    def __init__(self, film):
        self.film = film

    def __getattr__(self, name):
        return getattr(self.film, name)

    def demux(self):
        for packet in self.film.demux():
            again = av.Packet(bytes(packet))
            again.stream, again.time_base = packet.stream, packet.time_base
            yield packet
            if again.size and packet.stream.type == "audio":
                yield again


@pytest.mark.parametrize("suffix, codec", [("mp4", "aac"), ("avi", "pcm_s16le")])
def test_sound_that_does_not_say_when_is_left_out(tmp_path, monkeypatch, suffix, codec):
    source = write_film(tmp_path / f"a.{suffix}", shades(60), codec="mpeg4", sound=codec)
    opened, found = sound.open_film, []
    for damage in (lambda film: film, Stuttering):
        monkeypatch.setattr(sound, "open_film", lambda path, damage=damage: damage(opened(path)))
        with FilmWriter(tmp_path / "b.mp4", rate_hint=30, audio_from=source) as film:
            for frame in FilmReader(source).frames():
                film.write(frame.image, frame.time_s)
            film.copy_sound()
        found.append([time for time, _ in sound_packets(tmp_path / "b.mp4")])
    assert found[0] == found[1] and len(found[0]) > 80


def test_a_film_without_sound_is_no_trouble(tmp_path):
    source = write_film(tmp_path / "a.mp4", shades(5))
    write(tmp_path / "b.mp4", shades(5), np.arange(5) / 30, audio_from=source)
    assert not av.open(str(tmp_path / "b.mp4")).streams.audio


def test_without_h264_there_is_mpeg4(tmp_path, monkeypatch):
    mpeg4 = writing._ENCODERS["mpeg4"]
    monkeypatch.setattr(writing, "_ENCODERS", {"no_such_encoder": {}, "mpeg4": mpeg4})
    frames = read(write(tmp_path / "a.mp4", shades(20), np.arange(20) / 30))
    assert shade_numbers(frame.image for frame in frames) == list(range(20))


def test_without_a_frame_there_is_no_file(tmp_path):
    with FilmWriter(tmp_path / "a.mp4", rate_hint=30):
        pass
    assert not (tmp_path / "a.mp4").exists()


def test_an_error_leaves_a_whole_film_and_is_the_one_told(tmp_path):
    with pytest.raises(ZeroDivisionError):
        with FilmWriter(tmp_path / "a.mp4", rate_hint=30) as film:
            for i, image in enumerate(shades(20)):
                film.write(image, i / 30)
            raise ZeroDivisionError
    assert len(read(tmp_path / "a.mp4")) == 20


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EmotionError, match="cannot be written"):
        write(tmp_path / "file" / "a.mp4", shades(1), [0])


# Writes noise, a second in 30 frames, until something ends it.
WRITER = """
import os, resource, signal, sys
import numpy as np
from emotion_jax.video import FilmWriter
path, how = sys.argv[1:]
if how == "full":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
rng = np.random.default_rng(0)
with FilmWriter(path, rate_hint=10) as film:
    for i in range(1000):
        film.write(rng.integers(0, 256, (96, 128, 3), dtype=np.uint8), i / 10)
        if how == "killed" and i == 200:
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("how", ["full", "killed"])
def test_a_full_disk_and_a_kill_leave_what_was_written(tmp_path, how):
    path = tmp_path / "a.mp4"
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(path), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if how == "full":
        assert done.returncode == 1 and "EmotionError" in done.stderr, done.stderr
        assert "cannot be written" in done.stderr
    else:
        assert done.returncode == -signal.SIGKILL
    frames = read(path)
    assert len(frames) > 50
    np.testing.assert_allclose([f.time_s for f in frames], np.arange(len(frames)) / 10, atol=1e-3)


def test_frames_are_read_one_at_a_time(tmp_path):
    """Ours and PyAV's, whether or not the garbage collector comes."""
    path = write_film(tmp_path / "a.mp4", shades(70), turn=(90, False))
    alive, most = [], 0
    gc.collect()
    gc.disable()
    try:
        for frame in FilmReader(path).frames():
            alive.append(weakref.ref(frame.image))
            decoded = sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects())
            most = max(most, decoded + sum(reference() is not None for reference in alive))
    finally:
        gc.enable()
    assert len(alive) == 70 and most <= 12


def test_the_real_clip(scenes):
    clip = os.path.join(scenes, "clips", "single_face.mp4")
    reader = FilmReader(clip)
    frames = list(reader.frames())
    assert len(frames) == 72 and reader.damage is None and reader.rate == 30
    capture = cv2.VideoCapture(clip)
    for frame in frames[:5]:
        reference = capture.read()[1][:, :, ::-1]
        assert np.abs(frame.image.astype(int) - reference).mean() < 2
