"""Pictures and tables of a run: read back, they say what went in."""

from __future__ import annotations

import csv
import io
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from rich.console import Console

from emotion_jax import report
from emotion_jax.labels import EMOTIONS


def pixels(path) -> np.ndarray:
    """The picture as uint8 `[H, W, 3]`."""
    from PIL import Image

    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def texts(monkeypatch) -> list[str]:
    """Collects every text that is on a figure when it is saved."""
    from matplotlib.figure import Figure
    from matplotlib.text import Text

    seen: list[str] = []
    save = Figure.savefig

    def savefig(self, *args, **kwargs):
        save(self, *args, **kwargs)
        seen.extend(text.get_text() for text in self.findobj(Text))

    monkeypatch.setattr(Figure, "savefig", savefig)
    return seen


def run_python(code: str) -> None:
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def some_rows(epochs: int) -> list[dict]:
    return [
        {
            "step": 10 * epoch, "epoch": epoch, "zebra": epoch, "learning_rate": 0.1 / epoch,
            "train/loss": 2 / epoch, "train/accuracy": 1 - 1 / (epoch + 1),
            "val/loss": 2.1 / epoch, "val/accuracy": 0.5 / epoch, "val/macro_f1": 0.4,
        }
        for epoch in range(1, epochs + 1)
    ]  # fmt: skip


def test_the_csv_holds_the_rows(tmp_path):
    rows = [
        {"epoch": 1, "step": 10, "train/loss": 0.1 + 0.2, "b/extra": None, "a/extra": [1, 2]},
        {"step": 20, "epoch": 2, "val/accuracy": 1 / 3, "train/loss": float("nan"), "name": "a, b"},
    ]
    path, _ = report.write_results(rows, tmp_path)
    with path.open(newline="") as file:
        back = list(csv.DictReader(file))
    assert list(back[0]) == [*report.FIRST_COLUMNS, "a/extra", "b/extra", "name"]
    assert [{key: cell for key, cell in row.items() if cell} for row in back] == [
        {"step": "10", "epoch": "1", "train/loss": repr(0.1 + 0.2), "a/extra": "[1, 2]"},
        {"step": "20", "epoch": "2", "val/accuracy": repr(1 / 3), "name": "a, b"},
    ]


def test_columns_do_not_depend_on_the_order_of_keys(tmp_path):
    rows = some_rows(3)
    path, _ = report.write_results(rows, tmp_path)
    first = path.read_text()
    report.write_results([dict(reversed(row.items())) for row in rows], tmp_path)
    assert path.read_text() == first


@pytest.mark.parametrize("epochs", [0, 1, 2, 300])
def test_curves_of_any_length(tmp_path, epochs):
    _, path = report.write_results(some_rows(epochs), tmp_path)
    assert pixels(path).shape == (504, 1560, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.csv", "results.png"]


def test_the_curves_name_the_best_epoch(tmp_path, monkeypatch):
    seen = texts(monkeypatch)
    rows = some_rows(4)
    rows[2]["val/accuracy"] = 0.875
    report.write_results(rows, tmp_path)
    assert "best: epoch 3, val accuracy 87.5 %" in seen
    report.write_results(rows, tmp_path, monitor="train/loss")
    assert "best: epoch 4, train loss 0.5000" in seen


def test_rows_within_an_epoch_are_drawn_over_steps(tmp_path, monkeypatch):
    seen = texts(monkeypatch)
    rows = [{"step": step, "epoch": 1, "train/loss": 1.0} for step in (5, 10)]
    report.write_results([*rows, {"step": 10, "epoch": 1, "val/accuracy": 0.5}], tmp_path)
    assert "step" in seen and "epoch" not in seen
    assert "best: step 10, val accuracy 50.0 %" in seen


def test_confusion_shows_counts_and_shares(tmp_path, monkeypatch):
    seen = texts(monkeypatch)
    confusion = np.array([[6, 2, 0], [1, 1234, 0], [0, 0, 0]])
    path = report.plot_confusion(confusion, tmp_path / "c.png", ["a", "$b$", "c"])
    for text in ("6", "1,234", "75.0", "25.0", "99.9", "$b$"):
        assert text in seen
    assert seen.count("-") == 3, "a class without faces has no shares"
    assert "1,243 faces, 99.8 % of them right" in seen
    assert "% of each true class, mean recall 87.5 %" in seen
    assert pixels(path).std() > 10


def test_confusion_puts_true_classes_in_rows(tmp_path):
    picture = pixels(report.plot_confusion(np.array([[0, 9], [0, 0]]), tmp_path / "c.png", "ab"))
    dark = np.argwhere((picture < 100).all(axis=2) & (picture[..., 2] > picture[..., 0] + 20))
    left = dark[dark[:, 1] < picture.shape[1] // 2]
    box = left.min(axis=0), left.max(axis=0)
    assert box[1][0] < picture.shape[0] / 2, "the true class 0 is the upper row"
    assert box[0][1] > picture.shape[1] / 4, "the predicted class 1 is the right column"


@pytest.mark.parametrize("classes", [1, 8, 12])
def test_confusion_without_any_face(tmp_path, classes):
    names = [f"class {index}" for index in range(classes)]
    report.plot_confusion(np.zeros((classes, classes), int), tmp_path / "c.png", names)


def test_label_counts_and_shares(tmp_path, monkeypatch):
    seen = texts(monkeypatch)
    counts = {"train": np.array([1500, 500, 0]), "val": np.zeros(3, int)}
    report.plot_labels(counts, tmp_path / "labels.png", ["a", "b", "c"])
    assert {"train: 2,000 faces", "val: 0 faces", "1,500   75.0 %", "0   0.0 %"} <= set(seen)
    assert seen.count("0   -") == 3, "an empty split has no shares"


@pytest.mark.parametrize("draw", [report.plot_confusion, lambda c, *a: report.plot_labels(c, *a)])
def test_names_must_fit_the_numbers(tmp_path, draw):
    wrong = np.zeros((3, 3)) if draw is report.plot_confusion else {"train": np.zeros(3)}
    with pytest.raises(ValueError, match="for 8 names"):
        draw(wrong, tmp_path / "x.png", EMOTIONS)
    assert list(tmp_path.iterdir()) == []


def spots_of(sheet: np.ndarray, picture: np.ndarray, factor: int) -> list[tuple[int, int]]:
    """Where `picture`, enlarged by a plain loop, stands in the sheet: its top left corners."""
    height, width = picture.shape[:2]
    large = np.zeros((height * factor, width * factor, 3), np.uint8)
    for y in range(height * factor):
        for x in range(width * factor):
            large[y, x] = picture[y // factor, x // factor]
    found = np.lib.stride_tricks.sliding_window_view(sheet[..., 0], large.shape[:2])
    spots = np.argwhere((found[..., :3, :3] == large[:3, :3, 0]).all(axis=(2, 3)))
    return [
        (y, x)
        for y, x in spots
        if np.array_equal(sheet[y : y + height * factor, x : x + width * factor], large)
    ]


@pytest.mark.parametrize(
    ("size", "channels", "factor", "columns"),
    [((64, 64), 3, 2, 8), ((48, 48), 1, 3, 2), ((50, 31), 3, 3, 3), ((130, 97), 1, 1, 1)],
)
def test_a_tile_is_the_picture_enlarged(tmp_path, size, channels, factor, columns):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, *size, channels), dtype=np.uint8)
    captions = [
        "neutral",
        r"$\frac$",
        "two\nlines",
        "",
        "a caption longer than its picture is wide",
    ]
    path = report.contact_sheet(images, captions, tmp_path / "s.png", columns=columns)
    sheet = pixels(path)
    spots = [spots_of(sheet, image, factor) for image in images]
    assert [len(spot) for spot in spots] == [1] * 5, "each picture stands there once, exactly"
    order = sorted(range(5), key=lambda index: spots[index][0])
    assert order == [0, 1, 2, 3, 4], "row by row, left to right"
    assert len({spot[0][1] for spot in spots}) == min(columns, 5)


def test_captions_are_green_or_red(tmp_path):
    images = np.full((2, 64, 64, 1), 255, np.uint8)
    path = report.contact_sheet(images, ["fear"] * 2, tmp_path / "s.png", good=[True, False])
    sheet = pixels(path).astype(int)
    middle = sheet.shape[1] // 2

    def redness(part):
        return (part[..., 0] - part[..., 1]).sum()

    assert redness(sheet[:, :middle]) < -1000 and redness(sheet[:, middle:]) > 1000
    ink = pixels(report.contact_sheet(images, ["fear"] * 2, path)).astype(int)
    assert abs(redness(ink[:, :middle])) < 1000, "without truths a caption has no color"


@pytest.mark.parametrize(
    ("images", "captions"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), ["a", "b"]),
        (np.zeros((2, 8, 8, 2), np.uint8), ["a", "b"]),
        (np.zeros((2, 8, 8, 3), np.uint8), ["a"]),
        (np.zeros((0, 8, 8, 3), np.uint8), []),
    ],
)
def test_a_contact_sheet_refuses_what_is_no_batch(tmp_path, images, captions):
    with pytest.raises(ValueError, match="captions"):
        report.contact_sheet(images, captions, tmp_path / "s.png")


def test_summary_table_shows_each_class_and_dashes():
    nan = float("nan")
    summary = {
        "loss": 1.18712, "accuracy": 0.612, "macro_f1": 0.5, "ece": 0.0712, "count": [1200.0, 0.0],
        "recall": [0.75, nan], "precision": [0.5, nan], "f1": [0.6, nan],
    }  # fmt: skip
    file = io.StringIO()
    Console(file=file, width=80).print(report.summary_table(summary, ["[red]x", "contempt"]))
    said = file.getvalue()
    assert "accuracy 61.2 %   macro-F1 50.0 %   loss 1.1871   ECE 0.071" in said
    cells = [line.replace("│", " ").split() for line in said.splitlines()]
    assert "[red]x 1,200 50.0 % 75.0 % 60.0 %".split() in cells
    assert "contempt 0 - - -".split() in cells


def test_importing_loads_no_matplotlib():
    run_python("""
        import sys, emotion_jax.report, emotion_jax.logs, emotion_jax.training.progress
        assert not {"matplotlib", "tensorboardX", "jax"} & set(sys.modules)
    """)


def test_an_importers_matplotlib_stays_as_it_is(tmp_path):
    run_python(f"""
        import sys, numpy as np, matplotlib
        matplotlib.use("svg")
        matplotlib.rcParams["axes.facecolor"] = "black"
        before = dict(matplotlib.rcParams)
        from emotion_jax import report
        report.write_results([{{"step": 1, "epoch": 1, "val/loss": 1.0}}], {str(tmp_path)!r})
        report.plot_confusion(np.eye(2), {str(tmp_path / "c.png")!r}, "ab")
        report.contact_sheet(np.zeros((1, 8, 8, 3), np.uint8), ["a"], {str(tmp_path / "s.png")!r})
        assert dict(matplotlib.rcParams) == before and matplotlib.get_backend() == "svg"
        assert "matplotlib.pyplot" not in sys.modules
    """)


def test_an_old_picture_stays_where_drawing_fails(tmp_path):
    path = tmp_path / "c.png"
    report.plot_confusion(np.eye(2), path, "ab")
    before = path.read_bytes()
    with pytest.raises(ValueError):
        report.plot_confusion(np.eye(3), path, "ab")
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]
