"""The runners of the recipe: what is done stays done, what is not goes on, and the tables."""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from emotion_jax.config import flatten
from emotion_jax.config_check import check_config
from emotion_jax.data.arrays import Arrays, save_arrays
from emotion_jax.errors import EmotionError
from emotion_jax.inference import load_predictor
from emotion_jax.models import make_model

ROOT = Path(__file__).parents[1]

# Stands in for launch.py: notes its calls, waits where told to, and scores by its seed.
PROGRAM = """
import json, os, pathlib, sys, time
words = dict(word.lstrip("-").split("=", 1) for word in sys.argv[1:])
workdir = pathlib.Path(words["workdir"])
workdir.mkdir(parents=True, exist_ok=True)
with (workdir / "calls").open("a") as file:
    file.write(f"{os.getpid()}\\n")
if pathlib.Path(__file__).with_name("wait").exists():
    time.sleep(600)
if words.get("config.loss.label_smoothing") == "0.7":
    sys.exit("error: smoothing is too much")
seed = int(words["config.seed"])
row = {"epoch": 1, "images_per_s": 10.0}
(workdir / "metrics.jsonl").write_text(json.dumps(row) + "\\n")
test = {"accuracy": 0.6 + seed / 10, "macro_f1": 0.5, "loss": 0.8 - seed / 10}
if words.get("config.augment.erase") == "0.0":
    test["loss"] += 0.01 * (1 + seed)
scores = {"step": 5, "validation": {"accuracy": 0.5, "macro_f1": 0.4, "loss": 0.9}, "test": test}
(workdir / "scores.json").write_text(json.dumps(scores))
"""


@pytest.fixture
def running(monkeypatch, tmp_path):
    """The module, with a program that takes no time."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import ablations  # noqa: F401 - keeps the ROOT that it finds first
    import running

    (tmp_path / "launch.py").write_text(PROGRAM)
    monkeypatch.setattr(running, "ROOT", tmp_path)
    monkeypatch.setattr(running, "LEAST", 0.0)
    return running


def make_run(running, seed=0, smoothing=0.1):
    changes = {"loss.label_smoothing": smoothing}
    return running.Run("some", str(ROOT / "configs/ferplus.py"), seed, changes)


def test_a_finished_run_is_not_repeated_and_a_stopped_one_goes_on(running, tmp_path):
    (tmp_path / "wait").touch()
    with pytest.raises(running.TimeIsUp):
        running.Runner(tmp_path / "out", 1.0).train(make_run(running))
    with pytest.raises(running.TimeIsUp):  # and nothing is begun when nothing is left
        running.Runner(tmp_path / "out", 0.0).train(make_run(running, 1))
    assert not (tmp_path / "out/some-1").exists()
    (tmp_path / "wait").unlink()
    runner = running.Runner(tmp_path / "out", float("inf"))
    assert runner.rows() == []
    row = runner.train(make_run(running))
    calls = (tmp_path / "out/some-0/calls").read_text()
    again = running.Runner(tmp_path / "out", float("inf"))
    assert again.train(make_run(running)) == row == again.rows()[0]
    assert (tmp_path / "out/some-0/calls").read_text() == calls
    assert row["test"]["accuracy"] == 0.6 and row["settings"]["config"] == make_run(running).config
    with pytest.raises(EmotionError, match="some-0: .* use another --output"):
        again.train(make_run(running, smoothing=0.2))


# Saves and leaves when it is asked once, as launch.py does; asked twice it leaves unsaved.
SAVING = """
import os, pathlib, signal, sys, time
workdir = pathlib.Path(dict(x.lstrip("-").split("=", 1) for x in sys.argv[1:])["workdir"])
workdir.mkdir(parents=True)
asked = []
def ask(number, frame):
    if asked:
        os._exit(1)
    asked.append(number)
signal.signal(signal.SIGTERM, ask)
(workdir / "calls").write_text(f"{os.getpid()}\\n")
while not asked:
    time.sleep(0.01)
time.sleep(0.5)
(workdir / "saved").touch()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("group", [False, True])
def test_what_stops_a_runner_makes_its_run_save(number, group, tmp_path):
    """Whether it reaches the runner alone or, as of `timeout` or Ctrl-C, its whole group."""
    (tmp_path / "launch.py").write_text(SAVING)
    program = (
        "import pathlib, running\n"
        f"running.ROOT = here = pathlib.Path({str(tmp_path)!r})\n"
        "running.Runner(here / 'out', 60.0).train(running.Run('some', 'x.py', 0, {}))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "benchmarks")}
    runner = subprocess.Popen(
        [sys.executable, "-c", program],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    folder = tmp_path / "out/some-0"
    wait_for(lambda: (folder / "calls").exists() and (folder / "calls").read_text()[-1:] == "\n")
    (os.killpg if group else os.kill)(runner.pid, number)
    said = runner.communicate(timeout=30)[1]
    assert ("KeyboardInterrupt" if number == signal.SIGINT else "TimeIsUp") in said
    assert (folder / "saved").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((folder / "calls").read_text()), 0)


def test_a_signal_before_there_is_a_run_waits_for_it(running):
    """Raised while the process starts, it would leave that behind, training on unseen."""
    before = signal.getsignal(signal.SIGTERM)
    with running._Asked() as asked:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(running.TimeIsUp):
            asked.listen()
    assert signal.getsignal(signal.SIGTERM) is before


def wait_for(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_half_a_row_that_a_kill_left_is_no_row(running, tmp_path):
    runner = running.Runner(tmp_path / "out", float("inf"))
    kept = runner.keep({"label": "a"})
    with (tmp_path / "out" / running.RESULTS).open("a") as file:
        file.write('{"label": "b", "na')
    assert runner.rows() == [kept]
    other = runner.keep({"label": "c"})
    assert runner.rows() == [kept, other]


def test_rows_of_other_settings_are_none_of_these_runs(running, tmp_path):
    """Else a table would name new settings beside old scores."""
    runner = running.Runner(tmp_path / "out", float("inf"))
    row = runner.train(make_run(running))
    assert runner.finished([make_run(running), make_run(running, 1)]) == [row]
    assert runner.finished([make_run(running, smoothing=0.2)]) == []
    inside = running.Run("some", str(tmp_path / "configs/x.py"), 0, {})
    assert inside.settings()["config"] == "configs/x.py"


def test_a_failed_run_leaves_no_row_and_its_last_word(running, tmp_path):
    runner = running.Runner(tmp_path / "out", float("inf"))
    with pytest.raises(EmotionError, match=r"some-0 failed \(error: smoothing is too much\)"):
        runner.train(make_run(running, smoothing=0.7))
    assert runner.rows() == []


def test_the_table_has_means_deviations_and_numbers(running, tmp_path):
    from tables import table

    runner = running.Runner(tmp_path / "out", float("inf"))
    for seed in (0, 2):
        runner.train(make_run(running, seed))
    lines = table(runner.rows(), {"some": "it"}).splitlines()
    assert lines[0].endswith("| test | test, mirrored | test loss |")
    # 60 and 80: a sample deviation of 20 / sqrt(2).
    assert lines[2] == "| some | it | 2 | 50.00 ± 0.00 | 70.00 ± 14.14 | - | 0.700 ± 0.141 |"
    one = table(runner.rows()[:1], {})
    assert one.splitlines()[-1] == "| some |  | 1 | 50.00 | 60.00 | - | 0.800 |"
    # Neither a run without seed nor one whose loss was not finite stops the table.
    odd = [*runner.rows(), {"name": "ensemble", "test": {"accuracy": 0.5, "loss": None}}]
    assert table(odd, {}).splitlines()[-1] == "| ensemble |  | 1 | - | 50.00 | - | - |"


def test_ablations_show_gains_seed_by_seed(running, tmp_path, monkeypatch, capsys):
    import ablations
    import campaign

    monkeypatch.setattr(campaign, "DEVICE", "print('some chip')")
    out, config = tmp_path / "out", str(ROOT / "configs/ferplus.py")
    words = ["--only=base,no-erasing", "--seeds=0,1,2", f"--output={out}", "--overrides"]
    monkeypatch.setattr(sys, "argv", ["ablations.py", f"--config={config}", *words, "num_epochs=2"])
    # One run more than the base has is counted, but in no gain.
    runner = running.Runner(out, float("inf"))
    runner.train(running.Run("no-erasing", config, 3, {"num_epochs": 2, "augment.erase": 0.0}))
    ablations.main()
    said = capsys.readouterr().out.splitlines()
    head = said.index(next(line for line in said if line.startswith("| variant")))
    assert said[head - 1].startswith("some chip; jax ")
    assert said[head].endswith("| test loss | test - base's | test loss - base's |")
    assert said[head + 2].endswith("| 70.00 ± 10.00 | - | 0.700 ± 0.100 | - | - |")
    # 0.01, 0.02 and 0.03 more than the base, though seeds spread the losses far wider.
    assert said[head + 3].startswith("| no-erasing | `augment.erase=0.0` | 3 |")
    assert said[head + 3].endswith("| 0.720 ± 0.090 | +0.00 ± 0.00 | +0.020 ± 0.010 |")
    kept = json.loads((out / "ablations.json").read_text())
    assert (kept["config"], kept["overrides"]) == (config, {"num_epochs": 2})
    assert kept["variants"] == {"base": {}, "no-erasing": {"augment.erase": 0.0}}
    assert kept["machines"][0]["device"] == "some chip"
    assert [row["name"] for row in kept["rows"]] == ["base", "no-erasing"] * 3
    assert kept["rows"][1]["test"] == {"accuracy": 0.6, "macro_f1": 0.5, "loss": 0.81}
    # The same command again trains nothing, and says the same of what is there.
    ablations.main()
    assert capsys.readouterr().out.splitlines() == said[head - 1 :]


def test_overrides_are_values_of_known_keys(running):
    config = str(ROOT / "configs/ferplus.py")
    words = ["num_epochs=2", "data.dir=a=b", "model.dropout=(0.0, 0.1)", "grey=false"]
    assert running.parse_overrides(words, config) == {
        "num_epochs": 2,
        "data.dir": "a=b",
        "model.dropout": (0.0, 0.1),
        "grey": False,
    }
    with pytest.raises(EmotionError, match="--set: 'grey'; write KEY=VALUE"):
        running.parse_overrides(["grey"], config, "--set")
    for word, said in (("num_epochs", "write KEY=VALUE"), ("epochs=2", "did you mean num_epochs")):
        with pytest.raises(EmotionError, match=said):
            running.parse_overrides([word], config)


# What ablations leave out, for it is as the config says, or as another variant.
LEFT_OUT = {
    "ferplus": {"mixup", "published-dropout", "sam", "sgd"},
    "ferplus_narrow": {"no-mixup", "no-sam", "no-sam-longer"},
}


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda p: p.stem)
def test_every_variant_is_a_config_that_differs_from_the_others(path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import ablations
    from running import base_config

    base, seen = ablations.with_network(base_config(str(path))), []
    changes = ablations.differing(list(ablations.VARIANTS), base)
    left_out = ablations.VARIANTS.keys() - changes.keys()
    assert left_out == LEFT_OUT.get(path.stem, left_out)
    assert ("same-padding" in changes) == (base["model.name"] == "simplenet")
    assert "half-dropout" in changes and "half-width" in changes and changes["base"] == {}
    for each in changes.values():
        config = runpy.run_path(str(path))["get_config"]()
        config.update_from_flattened_dict(each)
        check_config(config)
        make_model(**config.model.to_dict())
        values = ablations.with_network(dict(flatten(config)))
        assert values not in seen
        seen.append(values)


def test_ablations_of_nothing_are_refused(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import ablations

    words = ["ablations.py", "--only=sam,mixup", f"--output={tmp_path / 'out'}"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(EmotionError, match="--only: nothing of it changes anything in"):
        ablations.main()
    assert not (tmp_path / "out").exists()


def test_variants_are_made_of_the_base(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from ablations import VARIANTS, half, resolve

    base = {"num_epochs": 100, "model.dropout": (0.2, 0.3)}
    longer = resolve(VARIANTS["no-sam-longer"], base)
    assert longer == {"optimizer.sam_rho": 0.0, "num_epochs": 200}
    assert resolve({"model.dropout": half}, base) == {"model.dropout": (0.1, 0.15)}


def test_from_faces_to_an_exported_student(tmp_path):
    """Everything that a GPU will be asked to do, as small as it goes."""
    rng = np.random.default_rng(0)
    votes = 10 * np.eye(10, dtype=np.uint8)[rng.integers(0, 8, 120)]
    images = 30 * votes[:, :8].argmax(1)[:, None, None, None] + rng.integers(
        0, 20, (120, 28, 28, 1)
    )
    split = np.repeat([0, 1], [100, 20]).astype(np.uint8)
    save_arrays(tmp_path / "f.npz", Arrays(images.astype(np.uint8), split, votes=votes))
    overrides = [f"data.dir={tmp_path / 'f.npz'}", "data.source=arrays", "image_size=28"]
    overrides += ["model.width=0.125", "model.dtype=float32", "num_epochs=1", "batch_size=16"]
    overrides += ["eval_batch_size=16", "data.holdout=0.2", "num_devices=1"]
    command = [sys.executable, str(ROOT / "benchmarks/recipe.py"), "--seeds=0"]
    command += [f"--output={tmp_path / 'out'}", "--overrides", *overrides, "--narrow"]
    done = subprocess.run([*command, "image_size=30"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("ferplus", "ensemble", "distilled", "narrow"):
        assert f"| {name} |" in done.stdout
    rows = [json.loads(x) for x in (tmp_path / "out/results.jsonl").read_text().splitlines()]
    scores = {row["name"]: row["test"] for row in rows}
    # An ensemble of one is that one, but for kernels in float16.
    assert scores["ensemble"]["accuracy"] == pytest.approx(scores["ferplus"]["accuracy"], abs=0.11)
    student = load_predictor(tmp_path / "out/weights/distilled-0")
    assert student.spec.size == 30 and student.meta["temperature"] > 0
    said = (tmp_path / "out/distilled-0.log").read_text()
    assert f"learns from {tmp_path / 'out/weights/ferplus-0'}" in said
    assert "learns from" not in (tmp_path / "out/narrow-0.log").read_text()
