"""What a run shows for itself: what went in, how good the best checkpoint is, what to type next."""

from __future__ import annotations

import itertools
import json
import math
import os
import shlex
import shutil
import sys
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from emotion_jax import metrics, report, sharding
from emotion_jax.checkpoint import Checkpoints
from emotion_jax.data.pipeline import Stream
from emotion_jax.errors import EmotionError
from emotion_jax.host.atomic import replace_text
from emotion_jax.host.stopping import say
from emotion_jax.inference import model_from_meta
from emotion_jax.labels import EMOTIONS
from emotion_jax.preprocess import luminance
from emotion_jax.steps import predict_probs
from emotion_jax.training.experiment import Experiment, make_experiment
from emotion_jax.training.reliability import plot_reliability

# Faces on a contact sheet: four lines of eight.
SHOWN = 32
# The best checkpoint's scores, as the tables say them.
SCORES = "scores.json"


# Of scores that may be of what was learnt.
NOT_ITS_FACES = "note: these are other faces than the run selected on, or it was trained on some"


def evaluate_workdir(config: Any, workdir: str | Path) -> None:
    """Measures a workdir's best checkpoint on the validation split and the test split, if any.

    Raises:
      EmotionError: the workdir holds no checkpoint, or one of another network.
    """
    workdir = Path(os.path.expanduser(workdir))
    if not (workdir / "checkpoints").is_dir():
        raise EmotionError(f"--workdir: no run in '{workdir}'; train it first, without --mode=eval")
    experiment = make_experiment(config)
    folder = workdir / "checkpoints"
    with Checkpoints(folder, monitor=config.best, read_only=True) as checkpoints:
        if checkpoints.latest_step is None:
            raise EmotionError(f"--workdir: '{workdir}' holds no finished checkpoint yet")
        conclude(experiment, checkpoints, workdir)


def conclude(experiment: Experiment, checkpoints: Checkpoints, workdir: Path) -> None:
    """Prints the best checkpoint's scores and the next command; draws its mistakes and answers."""
    # Every process evaluates its share; the first one tells.
    first, names = jax.process_index() == 0, list(experiment.emotions)
    console = Console(quiet=not first)
    step = checkpoints.best_step
    variables = _best_model(experiment, checkpoints, workdir)
    ways = (False, True) if experiment.config.report_mirrored else (False,)
    scores: dict[str, Any] = {"step": step}
    for name, mirrored in itertools.product(("validation", "test"), ways):
        if name not in experiment.splits:
            continue
        feed = Stream(experiment.splits[name], experiment.mesh)
        measured = experiment.compile_evaluation(feed, mirrored=mirrored)(variables)
        summary = metrics.summarize(measured)
        title = f"{name}, mirrored faces' answers added" if mirrored else name
        console.print(f"\n{title}, best checkpoint (step {step}, by {experiment.config.best}):")
        console.print(report.summary_table(summary, names))
        scores[f"{name}_mirrored" if mirrored else name] = _as_json(summary)
        if name == "validation" and first and not mirrored:
            report.plot_confusion(measured.confusion, workdir / "confusion_matrix.png", names)
            plot_reliability(measured.bins, workdir / "reliability.png")
    if not first:
        return
    replace_text(workdir / SCORES, json.dumps(scores, indent=1) + "\n")
    _draw_predictions(experiment, variables, workdir)
    picture: str | Path = "YOUR_PHOTO.jpg"
    if experiment.config.data.source == "drawn_faces":
        picture = _draw_sample(workdir, experiment.config.data.seed)
    # Printed bare: a narrow terminal must not break the line that is there to be copied.
    print(f"\ncurves, pictures and tables: {workdir}\nnext:")
    flags = [f"--model={workdir}", f"--image={picture}", "--output=predictions"]
    print(f"  {shlex.join([_python(), 'predict.py', *flags])}")


def draw_inputs(experiment: Experiment, workdir: Path) -> None:
    """Draws what goes in: how many faces of what, and a batch as the network sees it."""
    counts = {name: split.counts() for name, split in experiment.splits.items()}
    report.plot_labels(counts, workdir / "labels.png", list(experiment.emotions))
    train, config = experiment.splits["train"], experiment.config
    numbers = experiment.epoch_order(0)[0][:SHOWN]
    numbers = numbers[: len(numbers) // 2 * 2]  # mixup blends pairs
    if not len(numbers):
        return
    batch: Any = {
        "image": train.read(numbers),
        "label": train.labels[numbers],
        "weight": train.weight[numbers],
    }
    if experiment.augment_fn is not None:
        keys = jax.random.split(jax.random.key(config.seed), len(numbers))
        batch = jax.jit(experiment.augment_fn)(batch, keys)
    images = np.asarray(batch["image"], np.float32)
    if experiment.spec.grey:
        images = np.asarray(luminance(jnp.asarray(images)))
    captions = [EMOTIONS[i] for i in np.asarray(batch["label"]).argmax(1)]
    report.contact_sheet(images.round().astype(np.uint8), captions, workdir / "train_batch.png")


def _as_json(value: Any) -> Any:
    """A summary in JSON's own types; what is not a number, as a recall without faces, is null."""
    if isinstance(value, dict):
        return {name: _as_json(item) for name, item in value.items()}
    if isinstance(value, np.ndarray):
        return [_as_json(item) for item in value.tolist()]
    return value if math.isfinite(value) else None


def _python() -> str:
    """How this very interpreter is called from the current folder."""
    if shutil.which("python") == sys.executable:
        return "python"
    near = os.path.relpath(sys.executable)
    return sys.executable if near.startswith("..") else near


def _best_model(experiment: Experiment, checkpoints: Checkpoints, workdir: Path) -> Any:
    meta = checkpoints.read_meta(checkpoints.best_step)
    mine = json.loads(json.dumps(experiment.meta))
    for key in ("emotions", "model", "spec"):
        if meta.get(key) != mine[key]:
            raise EmotionError(
                f"'{workdir}' holds a network of {key} {meta.get(key)}, the config asks for "
                f"{mine[key]}; use another --workdir, or that run's config"
            )
    if not experiment.knows(meta):
        say(NOT_ITS_FACES)
    *_, shapes = model_from_meta(meta)
    return sharding.replicate(experiment.mesh, checkpoints.read_model(shapes))


def _draw_predictions(experiment: Experiment, variables: Any, workdir: Path) -> None:
    """Labels beside predictions, for faces from all over the validation split."""
    split = experiment.splits["validation"]
    numbers = np.linspace(0, len(split) - 1, min(SHOWN, len(split))).astype(int)
    images = split.read(numbers)
    probs = jax.jit(partial(predict_probs, model=experiment.model, spec=experiment.spec))
    predicted = np.asarray(probs(jax.device_get(variables), images)).argmax(1)
    true = split.labels[numbers].argmax(1)
    captions = [
        EMOTIONS[t] if t == p else f"{EMOTIONS[t]}\nread as {EMOTIONS[p]}"
        for t, p in zip(true, predicted, strict=True)
    ]
    path = workdir / "val_predictions.png"
    report.contact_sheet(images, captions, path, good=(true == predicted).tolist())


def _draw_sample(workdir: Path, seed: int) -> Path:
    """A picture of people nobody trained on, to predict on."""
    from emotion_jax.data.drawing.faces import draw_group
    from emotion_jax.data.drawn_faces import DrawnFaces
    from emotion_jax.images import write_image

    people = list(DrawnFaces(seed=seed).people("validation"))[:4]
    emotions = [EMOTIONS.index(name) for name in ("happiness", "surprise", "anger", "sadness")]
    picture, _ = draw_group(people, emotions, seed)
    write_image(workdir / "sample.png", picture)
    return workdir / "sample.png"
