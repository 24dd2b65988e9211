"""AffectNet as an ordinary TFDS data set, for programs other than this project's training:

    tfds build affectnet --imports=emotion_jax.data.affectnet_builder --manual_dir=FOLDER

    import emotion_jax.data.affectnet_builder, tensorflow_datasets as tfds
    faces = tfds.load("affectnet/64", split="train")

TFDS goes by name: build another FOLDER with `--overwrite`, or into another `--data_dir`. Training
makes a build of its own, named by what it was made from.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import tensorflow_datasets as tfds
from rich.progress import Progress

from emotion_jax.data.affectnet import AffectNet
from emotion_jax.data.builds import REPORT, Faces
from emotion_jax.data.tally import source_report, summary


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """Faces of one size."""

    size: int = 64


class Affectnet(Faces):
    """The builder; its configs are "64" and "224", the inputs of SimpleNetV2 and VGG16."""

    BUILDER_CONFIGS = [
        Config(name=str(size), size=size, description=f"Faces of {size} x {size} pixels.")
        for size in (64, 224)
    ]
    ABOUT = {
        "description": "Faces from the web, labelled by hand with one of eight emotions, and with "
        "valence and arousal from -1 to 1 (NaN where nobody said), cropped around the given box.",
        "homepage": "http://mohammadmahoor.com/affectnet/",
        "citation": """\
@article{mollahosseini2019affectnet,
  title={AffectNet: A Database for Facial Expression, Valence, and Arousal Computing in the Wild},
  author={Mollahosseini, Ali and Hasani, Behzad and Mahoor, Mohammad H.},
  journal={IEEE Transactions on Affective Computing},
  volume={10}, number={1}, pages={18--31}, year={2019},
}""",
    }
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "AffectNet is licensed: ask its authors for a copy. --manual_dir is the folder with "
        "training.csv, validation.csv and Manually_Annotated_Images, or with train_set and val_set."
    )

    def __init__(self, **kwargs: Any):
        # TFDS has a bar of its own. Which config is meant is known after super().__init__ alone.
        super().__init__(source=AffectNet(""), progress=Progress(disable=True), **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        self.source = AffectNet("", self.builder_config.size)
        return super()._info()

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        self.source = AffectNet(str(dl_manager.manual_dir), self.builder_config.size)
        return super()._split_generators(dl_manager)

    def _download_and_prepare(self, *args: Any, **kwargs: Any) -> None:
        super()._download_and_prepare(*args, **kwargs)
        # Into the unfinished build, which TFDS moves to its place as a whole.
        report = source_report(self.source)
        assert report is not None
        (self.data_path / REPORT).write_text(json.dumps(report, indent=1))
        print(f"\n{summary(report)}; names in {REPORT} beside the records")
