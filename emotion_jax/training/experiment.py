"""What a config means, built: the data, the mesh, and everything static that the steps take."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from jax.sharding import Mesh

from emotion_jax import metrics, sharding, steps
from emotion_jax.augmentation import Augmentation, augment
from emotion_jax.config_check import check_config, make_spec
from emotion_jax.data import open_data
from emotion_jax.data.pipeline import (
    Resident,
    Split,
    Stream,
    choose_feed,
    epoch_order,
    evaluation_order,
)
from emotion_jax.data.selection import epoch_counts, sample
from emotion_jax.errors import EmotionError
from emotion_jax.image_spec import ImageSpec
from emotion_jax.inference import make_meta, model_from_meta
from emotion_jax.labels import EMOTIONS
from emotion_jax.losses import (
    LossFn,
    cross_entropy,
    distillation,
    inverse_frequency_weights,
    log_shares,
)
from emotion_jax.models.winograd import accelerate
from emotion_jax.optim import make_optimizer, make_schedule
from emotion_jax.training.teachers import Teacher, answers, load_teachers

Feed = Stream | Resident
# Steps are counted in int32.
MAX_STEPS = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A config's parts.

    Attributes:
      splits: the faces, "train" and "validation" at least.
      steps_per_epoch: of training; the ragged end of an epoch is left out.
      meta: what a checkpoint must say for its weights to be used; see `inference.make_meta`.
    """

    config: Any
    mesh: Mesh
    splits: dict[str, Split]
    steps_per_epoch: int
    model: nn.Module
    spec: ImageSpec
    tx: optax.GradientTransformation
    schedule: optax.Schedule
    loss_fn: LossFn
    augment_fn: steps.AugmentFn | None
    meta: dict[str, Any]

    @property
    def total_steps(self) -> int:
        return self.steps_per_epoch * self.config.num_epochs

    @property
    def emotions(self) -> tuple[str, ...]:
        """The classes, in the order of the network's outputs."""
        return tuple(self.meta["emotions"])

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the faces to train and to select on: number, places, labels, pixels."""
        mark = hashlib.sha256()
        for split in (self.splits["train"], self.splits["validation"]):
            for array in (split.rows, split.labels, split.marks):
                mark.update(np.ascontiguousarray(array).data)
        return mark.hexdigest()[:16]

    def knows(self, meta: dict[str, Any]) -> bool:
        """Whether a checkpoint was trained and measured on these very faces."""
        return meta.get("faces") == self.fingerprint

    @cached_property
    def teachers(self) -> tuple[Teacher, ...]:
        """Whose answers are learnt, read when first asked for: training alone needs them."""
        return load_teachers(self.config.distill.teachers, self.emotions)

    @property
    def teacher_hashes(self) -> list[str]:
        """The teachers' SHA-256, in their order: a checkpoint holds these in their place."""
        return [teacher.sha256 for teacher in self.teachers]

    @cached_property
    def feed(self) -> str:
        """How the faces of training and validation travel: "resident" or "stream"."""
        splits = [self.splits[name] for name in ("train", "validation")]
        feed = self.config.data.feed
        return choose_feed(splits, self.mesh) if feed == "auto" else feed

    def epoch_order(self, epoch: int) -> np.ndarray:
        """The faces of an epoch's steps, places in the training split, int32 `[S, B]`."""
        config, train = self.config, self.splits["train"]
        order = epoch_order(config.seed, epoch, len(train), config.batch_size)
        if power := config.data.sampling_power:
            order = sample(train.labels.argmax(1), power, config.seed, epoch)[order]
        return order.astype(np.int32)

    def init_state(self) -> steps.TrainState:
        """Draws the first state, on every device."""
        init = partial(
            steps.init_state,
            model=self.model,
            tx=self.tx,
            spec=self.spec,
            ema=self.config.ema_decay > 0,
        )
        key = jax.random.key(self.config.seed)
        return jax.jit(init, out_shardings=sharding.replicated(self.mesh))(key)

    def _convolutions(self) -> AbstractContextManager[None]:
        """In which networks are called: on one CPU they train nearly twice as fast."""
        # Only on one: several are simulated, to test what other devices do.
        alone = self.mesh.size == 1
        return accelerate(self.mesh.devices.item().platform) if alone else nullcontext()

    def compile_train_step(
        self, feed: Feed
    ) -> Callable[..., tuple[steps.TrainState, metrics.Metrics]]:
        """`steps.train_step`, compiled, as a function of (state, the feed's arguments, key)."""
        teachers, config = self.teachers, self.config
        knowledge = sharding.replicate(self.mesh, [teacher.variables for teacher in teachers])
        teach = partial(answers, teachers=teachers, temperature=config.distill.temperature)

        def step(state: steps.TrainState, args: Any, key: jax.Array, knowledge: Any) -> Any:
            with self._convolutions():
                return steps.train_step(
                    state,
                    feed.select(*args),
                    key,
                    model=self.model,
                    tx=self.tx,
                    spec=self.spec,
                    loss_fn=self.loss_fn,
                    augment_fn=self.augment_fn,
                    teach_fn=partial(teach, variables=knowledge) if teachers else None,
                    ema_decay=config.ema_decay,
                    sam_rho=config.optimizer.sam_rho,
                    accumulate=config.accumulate,
                )

        jitted = jax.jit(step, donate_argnums=0, out_shardings=sharding.replicated(self.mesh))
        return lambda state, args, key: jitted(state, args, key, knowledge)

    def compile_evaluation(
        self, feed: Feed, *, mirrored: bool = False
    ) -> Callable[[Any], metrics.Metrics]:
        """A function that measures variables on the feed's whole split, each face once.

        `mirrored` as in `steps.eval_step`.
        """

        order = evaluation_order(len(feed.split), self.config.eval_batch_size)
        step = partial(self._eval_step, select=feed.select, mirrored=mirrored)

        def evaluate(variables: Any) -> metrics.Metrics:
            sums = metrics.Running(metrics.empty(len(self.emotions)))
            for args in feed(order):
                sums.add(step(variables, args))
            return sums.all()

        return evaluate

    @cached_property
    def _eval_step(self) -> Callable[..., metrics.Metrics]:
        """Compiled once for all streams, whatever their split."""

        def step(variables: Any, args: Any, *, select: Any, mirrored: bool) -> metrics.Metrics:
            # Scored against the labels as they are: smoothing and class weights are for training.
            with self._convolutions():
                return steps.eval_step(
                    variables,
                    select(*args),
                    model=self.model,
                    spec=self.spec,
                    loss_fn=cross_entropy,
                    mirrored=mirrored,
                )

        replicated = sharding.replicated(self.mesh)
        return jax.jit(step, static_argnames=("select", "mirrored"), out_shardings=replicated)


def make_experiment(config: Any) -> Experiment:
    """Opens the data and builds what `config` describes.

    Args:
      config: see `config.default_config`.

    Raises:
      EmotionError: a value cannot be meant, the data is not there, or the devices do not fit.
    """
    check_config(config)
    # First what is wrong at once: opening the data may take a minute.
    options = {k: v for k, v in config.model.to_dict().items() if k != "name"}
    spec = make_spec(config)
    emotions = EMOTIONS[: config.data.num_classes]
    meta = make_meta(config.model.name, options, spec, emotions=emotions)
    model, *_ = model_from_meta(meta)
    make_tx = partial(make_optimizer, **_without(config.optimizer, "learning_rate", "sam_rho"))
    make_tx(learning_rate=1.0)
    mesh = _make_mesh(config)
    splits = open_data(config)
    steps_per_epoch = len(splits["train"]) // config.batch_size
    if not steps_per_epoch:
        faces = len(splits["train"])
        raise EmotionError(
            f"batch_size: {config.batch_size} is more than the {faces} training faces"
        )
    if config.num_epochs * steps_per_epoch > MAX_STEPS:
        raise EmotionError(
            f"num_epochs: {config.num_epochs} of {steps_per_epoch} steps; a run has at most "
            f"{MAX_STEPS} steps"
        )
    schedule = make_schedule(
        learning_rate=config.optimizer.learning_rate,
        total_steps=config.num_epochs * steps_per_epoch,
        warmup_steps=round(config.schedule.warmup_epochs * steps_per_epoch),
        **_without(config.schedule, "warmup_epochs"),
    )
    power = config.loss.class_weight_power
    counts = epoch_counts(splits["train"].counts(), config.data.sampling_power)
    tau = config.loss.logit_adjustment
    loss_fn = partial(
        cross_entropy,
        label_smoothing=config.loss.label_smoothing,
        class_weights=inverse_frequency_weights(counts, power) if power else None,
        logit_adjustment=log_shares(counts, tau) if tau else None,
    )
    augmentation = Augmentation(**config.augment.to_dict())
    plain = Augmentation(erase_area=augmentation.erase_area)
    return Experiment(
        config=config,
        mesh=mesh,
        splits=splits,
        steps_per_epoch=steps_per_epoch,
        model=model,
        spec=spec,
        tx=make_tx(learning_rate=schedule),
        schedule=schedule,
        loss_fn=_taught(config.distill, loss_fn),
        augment_fn=None if augmentation == plain else partial(augment, config=augmentation),
        meta=meta,
    )


def _taught(distill: Any, loss_fn: LossFn) -> LossFn:
    """The labels' loss, mixed with the teachers' where there are any."""
    if not distill.teachers:
        return loss_fn
    temperature, share = distill.temperature, distill.share
    return partial(distillation, loss_fn=loss_fn, temperature=temperature, share=share)


def _without(section: Any, *keys: str) -> dict[str, Any]:
    return {name: value for name, value in section.to_dict().items() if name not in keys}


def _make_mesh(config: Any) -> Mesh:
    mesh = sharding.make_mesh(config.num_devices)
    for key in ("batch_size", "eval_batch_size"):
        if config[key] % mesh.size:
            raise EmotionError(f"{key}: {config[key]}; must be a multiple of {mesh.size} devices")
    if config.batch_size // mesh.size % config.accumulate:
        raise EmotionError(
            f"accumulate: {config.accumulate}; must divide each device's share of a batch, "
            f"{config.batch_size // mesh.size}"
        )
    if config.augment.mixup and config.batch_size // mesh.size % 2:
        raise EmotionError(
            f"batch_size: {config.batch_size}; mixup blends pairs, so each of {mesh.size} devices "
            "needs an even share"
        )
    return mesh
