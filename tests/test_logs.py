"""metrics.jsonl, TensorBoard's events and the terminal: what is written is what stands there."""

from __future__ import annotations

import io
import json
import struct
import sys

import numpy as np
import pytest
from rich.console import Console

from emotion_jax.errors import EmotionError
from emotion_jax.logs import MetricsLog, best_row
from emotion_jax.training.progress import TrainProgress


def refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def strict_rows(path) -> list[dict]:
    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def tensorboard_events(folder) -> list:
    """All events, oldest file first: records are length, its checksum, bytes, their checksum."""
    from tensorboardX.proto.event_pb2 import Event

    events = []
    for path in sorted(folder.glob("events.out.tfevents.*")):
        content, position = path.read_bytes(), 0
        while position < len(content):
            (length,) = struct.unpack_from("<Q", content, position)
            events.append(Event.FromString(content[position + 12 : position + 12 + length]))
            position += 12 + length + 4
    return events


def tensorboard_scalars(folder) -> list[tuple[str, int, float]]:
    return [
        (value.tag, event.step, round(value.simple_value, 5))
        for event in tensorboard_events(folder)
        for value in event.summary.value
    ]


def test_rows_come_back_as_written(tmp_path):
    row = {"step": 3, "epoch": 1, "train/loss": 1.25, "note": "a", "val/recall": [0.5, 0.25]}
    with MetricsLog(tmp_path / "new" / "run") as log:
        assert log.rows() == []
        log.write(row)
        assert strict_rows(log.path) == [row], "the row is on the disk before the run ends"
        log.write({"step": 4, "train/loss": 1.0})
        assert log.rows() == [row, {"step": 4, "train/loss": 1.0}]


def test_numbers_of_every_kind_become_json(tmp_path):
    import ml_dtypes  # the bfloat16 of JAX

    row = {
        "step": np.int32(7),
        "f32": np.float32(0.5),
        "bf16": np.asarray(1.5, ml_dtypes.bfloat16),
        "0-d": np.asarray(2),
        "recall": np.array([0.5, np.nan]),
        "nan": float("nan"),
        "inf": np.float64("inf"),
        "none": None,
        "flag": np.bool_(True),
    }
    with MetricsLog(tmp_path) as log:
        log.write(row)
    (back,) = strict_rows(tmp_path / "metrics.jsonl")
    assert back == {
        "step": 7, "f32": 0.5, "bf16": 1.5, "0-d": 2, "recall": [0.5, None],
        "nan": None, "inf": None, "none": None, "flag": True,
    }  # fmt: skip


def test_a_row_without_step_is_refused_and_leaves_nothing(tmp_path):
    with MetricsLog(tmp_path) as log:
        with pytest.raises(KeyError, match="step"):
            log.write({"epoch": 1})
        assert log.rows() == []


def test_rewind_drops_later_rows_and_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "a": 1}\n{"step": 2, "a": 2}\n{"step": 3, "a": 3}\n{"step": 4, "a')
    log = MetricsLog(tmp_path)
    assert [row["step"] for row in log.rows()] == [1, 2, 3]
    log.rewind(2)
    assert path.read_text() == '{"step": 1, "a": 1}\n{"step": 2, "a": 2}\n'
    assert list(tmp_path.iterdir()) == [path], "nothing is left beside the file"


def test_a_torn_line_does_not_swallow_the_next_row(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2, "tra')
    with MetricsLog(tmp_path) as log:
        log.write({"step": 2, "a": 5})
    assert strict_rows(log.path) == [{"step": 1}, {"step": 2, "a": 5}]


def test_a_whole_last_line_without_its_newline_is_kept(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}')
    with MetricsLog(tmp_path) as log:
        log.write({"step": 3})
    assert [row["step"] for row in strict_rows(log.path)] == [1, 2, 3]


@pytest.mark.parametrize("broken", ['{"step": 2', "[1]", '{"epoch": 2}', '{"step": null}'])
def test_a_broken_line_in_the_middle_is_named(tmp_path, broken):
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1}}\n{broken}\n{{"step": 3}}\n')
    with pytest.raises(EmotionError, match=r"metrics\.jsonl, line 2"):
        MetricsLog(tmp_path).rows()


def test_after_rewind_and_write_each_step_stands_once(tmp_path):
    with MetricsLog(tmp_path) as log:
        for step in (10, 20, 30):
            log.write({"step": step, "train/loss": step / 10})
    # At once, so within the second by which TensorBoard's files are named.
    with MetricsLog(tmp_path) as log:
        log.rewind(10)
        log.write({"step": 20, "train/loss": 0.2})
    losses = [(row["step"], row["train/loss"]) for row in log.rows()]
    assert losses == [(10, 1.0), (20, 0.2)]

    shown: dict[int, float] = {}
    for event in tensorboard_events(tmp_path):
        if event.HasField("session_log"):  # what TensorBoard does on a restart
            shown = {step: value for step, value in shown.items() if step < event.step}
        for value in event.summary.value:
            shown[event.step] = round(value.simple_value, 5)
    assert shown == dict(losses)
    assert len(tensorboard_scalars(tmp_path)) == 4, "no file of events overwrote another"


def test_rewind_in_the_middle_of_a_log(tmp_path):
    with MetricsLog(tmp_path) as log:
        for step in (1, 2):
            log.write({"step": step, "x": 1.0})
        log.rewind(1)
        log.write({"step": 2, "x": 2.0})
    assert [row["x"] for row in log.rows()] == [1.0, 2.0]
    assert tensorboard_scalars(tmp_path) == [("x", 1, 1.0), ("x", 2, 1.0), ("x", 2, 2.0)]


def test_tensorboard_gets_the_scalars(tmp_path):
    with MetricsLog(tmp_path) as log:
        log.write({"step": 5, "epoch": 1, "val/loss": 1.5, "note": "a", "x": float("nan")})
        log.write({"step": 9, "epoch": 2, "val/loss": np.float32(0.5), "val/recall": [0.1]})
    assert tensorboard_scalars(tmp_path) == [("val/loss", 5, 1.5), ("val/loss", 9, 0.5)]


def test_a_log_that_is_not_enabled_writes_nothing(tmp_path):
    with MetricsLog(tmp_path / "run", enabled=False) as log:
        log.write({"step": 1})
        log.rewind(0)
    assert list(tmp_path.iterdir()) == []


def test_best_row():
    rows = [{"step": 1, "val/accuracy": 0.5, "val/loss": 1.0}, {"step": 2}]
    rows += [{"step": 3, "val/accuracy": 0.7, "val/loss": 2.0}, {"step": 4, "val/accuracy": 0.7}]
    rows += [{"step": 5, "val/accuracy": None, "val/loss": float("nan")}]
    best = best_row(rows)
    assert best is not None and best["step"] == 4  # the last of equals
    best = best_row(rows, "val/loss")
    assert best is not None and best["step"] == 1
    assert best_row(rows, "val/macro_f1") is None


class Clock:
    """Seconds that pass only when told."""

    def __init__(self):
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def train(console: Console | None, clock: Clock, scores, steps=10, first_epoch=1, **options):
    """Two seconds a step, 50 a validation; each epoch ends with its score, `val/accuracy`."""
    last = first_epoch + len(scores) - 1
    with TrainProgress(last, steps, 32, console=console, clock=clock, **options) as progress:
        for epoch, score in enumerate(scores, start=first_epoch):
            for step in range(1, steps + 1):
                clock.now += 2
                progress.update(epoch, step, 1.5, 0.25)
            clock.now += 50
            row = {"epoch": epoch, "train/loss": 1.5, "train/accuracy": 0.25}
            progress.end_epoch({**row, "val/loss": 1.25, "val/accuracy": score})


def plain_output(*args, **options) -> list[str]:
    file = io.StringIO()
    train(Console(file=file, width=40), Clock(), *args, **options)
    return file.getvalue().splitlines()


def test_a_log_file_gets_one_line_an_epoch():
    header, *lines = plain_output([0.5, 0.4, 0.625], plain_every=1e9)
    assert header.split() == "epoch train loss acc val loss acc F1 img/s".split()
    assert [line.split() for line in lines] == [
        "1/3 1.5000 25.0% 1.2500 50.0% - 16 best".split(),
        "2/3 1.5000 25.0% 1.2500 40.0% - 16".split(),
        "3/3 1.5000 25.0% 1.2500 62.5% - 16 best".split(),
    ]


def test_a_long_epoch_speaks_in_between():
    lines = plain_output([0.5, 0.5], steps=40, plain_every=30)
    between = [line for line in lines if "step" in line]
    assert [line.split("step ")[1].split()[0] for line in between] == ["15/40", "30/40"] * 2
    # 80 steps of 2 s: 65 are left after step 15.
    assert "epoch 1/2" in between[0] and "16 img/s" in between[0] and "0:02:10 left" in between[0]
    # Step 70 came 69 steps and one validation after the first.
    assert "16 img/s" in between[-1] and "0:00:27 left" in between[-1]


def test_time_left_counts_validation():
    file, clock = io.StringIO(), Clock()
    console = Console(file=file)
    with TrainProgress(3, 2, 8, console=console, clock=clock, plain_every=0) as progress:
        progress.update(1, 1, 1.0, 0.5)
        clock.now += 1
        progress.update(1, 2, 1.0, 0.5)
        clock.now += 9  # validation, and the first step of the next epoch
        progress.update(2, 1, 1.0, 0.5)
    # Two steps took 10 s, three are left.
    assert "0:00:15 left" in file.getvalue().splitlines()[-1]


def test_before_a_step_is_known_there_is_a_dash():
    file = io.StringIO()
    console = Console(file=file)
    with TrainProgress(3, 2, 8, console=console, clock=Clock(), plain_every=0) as progress:
        progress.update(1, 1, float("nan"), float("nan"))
    assert file.getvalue().splitlines()[-1].split("  ")[2:4] == ["loss -", "acc -"]


def test_a_resumed_run_knows_its_best_and_its_place():
    history = [{"step": 10, "val/accuracy": 0.6}, {"step": 20, "val/accuracy": 0.3}]
    lines = plain_output([0.5, 0.7], first_epoch=3, start_step=20, history=history)
    assert [line.split()[0] for line in lines[1:]] == ["3/4", "4/4"]
    assert [line.endswith("best") for line in lines[1:]] == [False, True]


def test_only_the_process_that_is_enabled_speaks():
    assert plain_output([0.5], enabled=False, plain_every=0) == []


def test_a_terminal_gets_a_bar_and_keeps_the_lines():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100, color_system=None)
    clock = Clock()
    with TrainProgress(2, 10, 32, start_step=13, console=console, clock=clock) as progress:
        for step in (4, 5):
            clock.now += 2
            progress.update(2, step, 1.5, 0.25)
        progress._bar.refresh()
        progress.end_epoch({"epoch": 2, "val/accuracy": 0.5})
    said = file.getvalue()
    assert "epoch 2/2" in said and "3/10" in said and "5/10" in said and "0:00:10 left" in said
    assert "50.0%" in said and "best" in said


def test_without_tensorboardx_rows_are_written_and_it_is_said_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with MetricsLog(tmp_path) as log:
        for step in (1, 2):
            log.write({"step": step, "val/loss": 0.5})
        log.rewind(1)
        log.write({"step": 2, "val/loss": 0.4})
        assert [row["val/loss"] for row in log.rows()] == [0.5, 0.4]
    assert capsys.readouterr().err.count("tensorboardX is not here") == 1
    assert not list(tmp_path.glob("events*"))
