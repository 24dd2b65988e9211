"""Configs: every key with its default and its reason; `config_check` says what values may be.

A file in `configs/` takes `default_config()` and changes what differs.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Any

from ml_collections import ConfigDict

# What may choose the best checkpoint; the first does unless a config says otherwise.
MONITORED = ("val/accuracy", "val/macro_f1", "val/loss")
SCHEDULES = ("constant", "cosine", "multistep")


def default_config() -> ConfigDict:
    """A config with every key; what is random or costly is off."""
    return ConfigDict(
        {
            "seed": 0,
            # Of the network's input, in pixels; SimpleNetV2's own is 64.
            "image_size": 64,
            # Keep the luminance only: FER2013 has no colours, and a camera's must not matter then.
            "grey": False,
            # Of the input: 1 saves a little where `grey`; 3 fits weights made for colours.
            "channels": 3,
            # Taken off the input's intensities (0..1), and what the rest is divided by: one number
            # or one a channel. Half and a quarter suit any picture; trained weights need their own.
            "mean": (0.5,),
            "std": (0.25,),
            # Weights to begin with: a folder that emotion_jax.export wrote, a run, a shipped name.
            # Read once; "" draws them. A narrower network's are widened. Whatever the
            # seed, a run draws crops that its weights have not seen: a network remembers those.
            "init_from": "",
            "batch_size": 128,
            # Larger: nothing is kept for gradients. It must be a multiple of the devices.
            "eval_batch_size": 256,
            # Parts in which a batch that does not fit is taken, gradients added up: the same loss
            # and steps, but BatchNorm sees each part alone. Each device's share must divide by it.
            "accumulate": 1,
            "num_epochs": 100,
            # Devices to train on; 0 takes all.
            "num_devices": 0,
            # Checkpoints between those at the end of each epoch, every so many steps; 0 for none.
            "checkpoint_every": 0,
            # A step whose loss or gradients are not finite is never taken: "stop" ends the run and
            # keeps the batch; "skip" counts it and goes on, for when a few faces are to blame.
            "on_nonfinite": "stop",
            # Chooses the best checkpoint: val/accuracy, val/macro_f1 or val/loss.
            "best": "val/accuracy",
            # Also reports the best checkpoint's answers averaged with those to mirrored faces.
            "report_mirrored": False,
            "data": {
                # drawn_faces, ferplus, affectnet, folder or arrays.
                "source": "drawn_faces",
                # The source's folder, or the array file.
                "dir": "",
                # Builds lie here, each named by what it was built from.
                "cache_dir": "~/.cache/emotion_jax",
                # "stream" decodes as it goes; "resident" keeps the set on the device, which is
                # faster wherever it fits (AffectNet at 64 pixels: 3.5 GB); "auto" takes resident
                # if that needs at most a third of the device's memory. The faces are the same.
                "feed": "auto",
                # Faces to train on, where people voted: those with a "majority" by FER+'s rule, or
                # all that have a "distribution". Evaluation always counts the majority's.
                "train_votes": "majority",
                # A subset with the classes' shares as they are, drawn by `seed`; 0 takes all.
                "train_images": 0,
                "val_images": 0,
                # The most faces of a class to train on, drawn by `seed`; 0 takes all.
                "class_cap": 0,
                # 8, or 7 to leave contempt out everywhere, as AffectNet-7 does.
                "num_classes": 8,
                # An epoch draws as many faces as there are, a class's share being
                # count ** (1 - power): 0 takes each face once, 1 all classes alike.
                "sampling_power": 0.0,
                # The share of training that is held out to select on, equal pictures on one side;
                # the source's own validation is then the test of the last report. 0 is off.
                "holdout": 0.0,
                # Leaves out of training what stands in validation or test, too, pixel for pixel.
                "drop_seen": False,
                # How a face is cut around its box: the square's side in sides of the box, and how
                # far below the box's centre its own lies. AffectNet's faces are cut so, and the
                # camera's. The defaults make dlib's boxes look like FER2013's frames.
                "crop_scale": 1.12,
                "crop_shift": -0.08,
                # Of drawn faces: how many.
                "train_faces": 6400,
                "val_faces": 1600,
                # Draws people, subsets and what is held out.
                "seed": 0,
            },
            "model": {
                # simplenet or vgg16.
                "name": "simplenet",
                # Multiplies every layer's width.
                "width": 1.0,
                # Two rates; () leaves the network's own, those of its paper.
                "dropout": (),
                # Of every convolution: SAME; "" leaves the network's own.
                "padding": "",
                # Of the computation: bfloat16 where a GPU has it.
                "dtype": "float32",
            },
            "optimizer": {
                # adamw, muon, sgd (Nesterov) or adadelta.
                "name": "adamw",
                "learning_rate": 1e-3,
                "weight_decay": 0.0,
                "momentum": 0.9,
                "b2": 0.999,
                "rho": 0.95,
                "clip_norm": 0.0,
                # How far up the slope the gradient is taken (arXiv 2010.01412); doubles the work.
                "sam_rho": 0.0,
            },
            "schedule": {
                # constant, cosine or multistep.
                "name": "cosine",
                "warmup_epochs": 0.0,
                # Of multistep: shares of what follows the warm-up, at which the rate is multiplied
                # by `factor`.
                "milestones": (0.5, 0.75),
                "factor": 0.1,
                # Of cosine: the last rate, as a share of the first.
                "final_ratio": 0.0,
            },
            "loss": {
                "label_smoothing": 0.0,
                # Classes weigh count ** -power: 0 leaves them, 1 balances them. Counts here and
                # below are those of an epoch, as `data.sampling_power` draws it.
                "class_weight_power": 0.0,
                # Times the logarithm of each class's share, added to its logit in training alone
                # (Menon et al., arXiv 2007.07314): 1 makes the network judge classes alike.
                "logit_adjustment": 0.0,
            },
            # Exported weights whose mean answer this network learns (arXiv 1503.02531); () is off.
            # The temperature divides the logits of both; the share of the loss is the teachers'.
            "distill": {"teachers": (), "temperature": 2.0, "share": 0.5},
            # The fields of augmentation.Augmentation; the defaults are "off".
            "augment": {
                "flip": 0.0,
                "crop_area": 1.0,
                "crop_aspect": 1.0,
                "translate": 0.0,
                "rotate": 0.0,
                "brightness": 0.0,
                "contrast": 0.0,
                "grey": 0.0,
                "glasses": 0.0,
                "darkness": 0.0,
                "backlight": 0.0,
                "blur": 0.0,
                "motion": 0.0,
                "jpeg": 0.0,
                "erase": 0.0,
                "erase_area": 0.25,
                "mixup": 0.0,
            },
            # Of the moving averages of weights and BatchNorm statistics; 0 is off.
            "ema_decay": 0.0,
        }
    )


def affectnet_config() -> ConfigDict:
    """The default config with AffectNet's faces and what is shared by all that train on them."""
    config = default_config()
    config.data.source = "affectnet"
    # 5 % of 287,651 faces: 14,383, of which the rarest class, contempt, has 188.
    config.data.holdout = 0.05
    # What stands pixel for pixel among the faces of the test set is no test of what was learned.
    config.data.drop_seen = True
    # The given box is centred on the face already.
    config.data.crop_shift = 0.0
    # Tensor cores; parameters, statistics and logits stay float32. On a CPU use float32.
    config.model.dtype = "bfloat16"
    # Ten times as many faces as FER2013, where 100 to 300 epochs are best: as many steps.
    config.num_epochs = 30
    config.schedule.warmup_epochs = 1.0
    # Happy faces are 36 times as many as contemptuous ones; the test set has 500 of each.
    config.loss.class_weight_power = 1.0
    # Judges every class alike, as that test set does; the held-out part has training's shares.
    config.best = "val/macro_f1"
    # What is published to help from scratch on FER2013.
    config.loss.label_smoothing = 0.1
    config.augment.flip = 0.5
    config.augment.crop_area = 0.8
    config.augment.rotate = 10.0
    config.augment.translate = 0.1
    config.augment.erase = 0.5
    # Poor light is what people complain of.
    config.augment.brightness = 0.2
    config.augment.contrast = 0.2
    return config


def flatten(config: Any, section: str = "") -> Iterator[tuple[str, Any]]:
    """Every key that has a value, in full ("data.dir"), with it."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from flatten(value, f"{section}{name}.")
        else:
            yield f"{section}{name}", value


def unknown_key(key: str, known: Iterable[str]) -> str:
    """What to say of a key that is none."""
    near = difflib.get_close_matches(key, known, n=1)
    # "data.dri" is near; "num_epoch" of a wrong section may still end right.
    near = near or [k for k in known if k.rpartition(".")[2] == key.rpartition(".")[2]]
    hint = f"did you mean {near[0]}?" if near else "emotion_jax/config.py lists them all"
    return f"{key}: no such key; {hint}"
