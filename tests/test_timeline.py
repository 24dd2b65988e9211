"""The timeline: true means in bounded memory, and a picture in the right proportions."""

import numpy as np
import pytest

from emotion_jax import draw, images
from emotion_jax.errors import EmotionError
from emotion_jax.prediction import timeline
from emotion_jax.prediction.timeline import Timeline, plot_timeline


def test_means_are_those_of_the_frames_in_each_interval():
    rng, line = np.random.default_rng(0), Timeline(step_s=0.5)
    times = np.sort(rng.uniform(0, 10, 300))
    rows = rng.dirichlet(np.ones(8), 300)
    for time, row in zip(times, rows, strict=True):
        line.add([4], row[None], float(time))
    edges, means = line.series(4)
    np.testing.assert_allclose(edges, np.arange(21) / 2)
    for i in range(20):
        inside = (times >= i / 2) & (times < (i + 1) / 2)
        np.testing.assert_allclose(means[i], rows[inside].mean(axis=0), atol=1e-9)
    assert line.seconds(4) == 10


def test_a_long_film_takes_no_more_memory(monkeypatch):
    monkeypatch.setattr(timeline, "_MOST_BINS", 64)
    line, rng = Timeline(step_s=0.1), np.random.default_rng(0)
    rows = rng.dirichlet(np.ones(8), 3000)
    for i, row in enumerate(rows):
        line.add([1], row[None], i / 10 + 0.05)
    edges, means = line.series(1)
    assert len(means) <= 64
    step = edges[1] - edges[0]
    count = round(step * 10)
    assert abs(count - step * 10) < 1e-9 and count == 64
    np.testing.assert_allclose(means[3], rows[3 * count : 4 * count].mean(axis=0), atol=1e-9)


def test_gaps_are_bridged_when_short_and_empty_when_long():
    line = Timeline(step_s=0.1)
    for i in (0, 1, 2, 5, 6, 20):  # 0.2 seconds without, then 1.3
        line.add([1], np.eye(8)[[i % 2]], i / 10 + 0.05)
    _, means = line.series(1)
    assert np.isfinite(means[:7]).all() and np.isnan(means[7:20]).all()
    np.testing.assert_allclose(means[:7].sum(axis=1), 1)
    assert np.isfinite(means[20]).all()


def test_who_is_seen_longest_stands_first():
    line = Timeline(step_s=0.1)
    for i in range(10):
        numbers = [1, 2, 3] if i < 3 else [2]
        line.add(numbers, np.full((len(numbers), 8), 1 / 8), i / 10)
    assert line.people() == [2, 1, 3]


def test_the_picture_has_a_strip_each_in_the_colours_of_the_emotions(tmp_path):
    """Person 1 is glad for three quarters of the time; person 2 angry, in the first half alone."""
    line = Timeline(step_s=0.1)
    for i in range(80):
        numbers = [1, 2] if i < 40 else [1]
        codes = [1 if i >= 20 else 0, 6][: len(numbers)]
        line.add(numbers, np.eye(8)[codes], i / 10)
    plot_timeline(line, tmp_path / "t.png", title="$ a film_.mp4")
    picture = images.read_image(tmp_path / "t.png").astype(int)
    area = {code: (np.abs(picture - draw.COLORS[code]).sum(axis=2) < 6).sum() for code in (0, 1, 6)}
    assert area[1] / area[0] == pytest.approx(3, rel=0.1)
    assert area[6] / area[0] == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("people", [1, 8, 30])
def test_no_more_strips_than_can_be_read(tmp_path, people):
    line = Timeline(step_s=0.1)
    for i in range(3):
        line.add(range(1, people + 1), np.full((people, 8), 1 / 8), i * 60.0)
    plot_timeline(line, tmp_path / "t.png")
    assert images.read_image(tmp_path / "t.png").shape[0] < 1700


def test_a_folder_that_is_missing_is_one_sentence(tmp_path):
    line = Timeline(step_s=0.1)
    line.add([1], np.full((1, 8), 1 / 8), 0.0)
    with pytest.raises(EmotionError, match="cannot be written"):
        plot_timeline(line, tmp_path / "absent" / "t.png")


@pytest.mark.parametrize("name", ["b\udcffyte", "日本", "$x^{$", "[red]\n\t"])
@pytest.mark.filterwarnings("error")
def test_any_name_of_a_file_can_be_the_title(tmp_path, name):
    line = Timeline(step_s=0.1)
    line.add([1], np.full((1, 8), 1 / 8), 0.0)
    plot_timeline(line, tmp_path / "timeline.png", title=name)
    assert images.read_image(tmp_path / "timeline.png").size
