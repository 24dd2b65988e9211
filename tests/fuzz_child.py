"""Reads files that may be damaged, in a process of its own: what it dies of is then seen.

Each line of standard input names a reader and a path; each line of output says what became of it.
"""

import contextlib
import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

from emotion_jax.data.tally import DroppedError  # noqa: E402
from emotion_jax.errors import EmotionError  # noqa: E402

# What is asked for beyond this is refused, as on a small machine: JAX alone maps 2 GB.
ADDRESSES = 10 << 30
# Of a film that pretends to be endless.
FRAMES = 200


def read_affectnet_csv(path):
    from emotion_jax.data.affectnet_rows import csv_rows

    assert all(row.flaw or row.path for row in csv_rows(path))


def read_affectnet(path):
    from emotion_jax.data.affectnet import AffectNet

    source = AffectNet(str(path), size=16)
    for split in source.splits():
        for example in source.examples(split):
            assert example["image"].shape == (16, 16, 3) and example["label"] in range(8)


def read_npy(path):
    from emotion_jax.data.affectnet_rows import read_npy

    assert isinstance(read_npy(path.parent, path.name), str)


def read_ferplus(path):
    from emotion_jax.data.ferplus import FerPlus

    source = FerPlus(str(path))
    source.options()
    for split in source.splits():
        assert all(x["image"].shape == (48, 48, 1) for x in source.examples(split))


def read_arrays(path):
    from emotion_jax.data.arrays import load_arrays

    arrays = load_arrays(path)
    assert arrays.images.ndim == 4 and len(arrays.split) == len(arrays.images)


def read_manifest(path):
    from emotion_jax.host.manifest import find_damage

    assert find_damage(path) != ""


def read_picture(path):
    from emotion_jax.errors import EmotionError
    from emotion_jax.images import check_image, read_image, read_reduced

    try:
        reduced = read_reduced(path, 4)
    except EmotionError:
        read_image(path)  # must be refused, too
        raise AssertionError("read whole, and refused in part") from None
    whole = check_image(read_image(path))
    assert check_image(reduced.image).size <= whole.size and reduced.size == whole.shape[:2]


def read_film(path):
    from emotion_jax.video.reading import FilmReader

    reader = FilmReader(path)
    for start in (0.0, 0.2):
        with contextlib.closing(reader.frames(start=start)) as frames:
            for frame, _ in zip(frames, range(FRAMES), strict=False):
                assert frame.image.shape[2] == 3 and frame.time_s >= start


def label_film(path):
    """Reads a film and writes it anew with its sound, as predict.py does."""
    from emotion_jax.video import FilmReader, FilmWriter

    reader = FilmReader(path)
    copy = path.with_name("labelled.mp4")
    with (
        contextlib.closing(reader.frames()) as frames,
        FilmWriter(copy, rate_hint=reader.rate, audio_from=path) as writer,
    ):
        for frame, _ in zip(frames, range(FRAMES), strict=False):
            writer.write(frame.image, frame.time_s)
        writer.copy_sound()
    assert not writer.frames or FilmReader(copy).size


def crop_box(path):
    """A face cut out of a picture by a box, scale and shift that may be any numbers."""
    import numpy as np

    from emotion_jax.data.affectnet import crop_box
    from emotion_jax.images import Reduced

    asked = json.loads(path.read_text())
    picture = np.zeros((*asked.pop("shape"), 3), np.uint8)
    for part in (1, 4):
        reduced = Reduced(picture[::part, ::part], picture.shape[:2], part)
        assert crop_box(reduced, size=20, **asked).shape == (20, 20, 3)


def read_teachers(path):
    """Loads a network to learn from and asks it."""
    import numpy as np

    from emotion_jax.labels import EMOTIONS
    from emotion_jax.training.teachers import answers, load_teachers

    teachers = load_teachers([str(path)], EMOTIONS)
    faces = np.zeros((1, 24, 24, 3), np.uint8)
    variables = [teacher.variables for teacher in teachers]
    rows = answers(faces, variables, teachers=teachers, temperature=2.0)
    assert rows.shape == (1, 8) and abs(float(rows.sum()) - 1) < 1e-3


def read_weights(path):
    """Loads a predictor and asks it."""
    import numpy as np

    from emotion_jax.inference import load_predictor

    faces = np.arange(40 * 40 * 3, dtype=np.uint8).reshape(1, 40, 40, 3)
    rows = load_predictor(path)(faces)
    assert rows.shape == (1, 8) and abs(rows.sum() - 1) < 1e-3


def load_weights(path):
    from emotion_jax.inference import load_predictor

    load_predictor(path)


def read_variables(path):
    from emotion_jax.inference import read_variables

    read_variables(path)


def read_config(path):
    from emotion_jax.config_check import check_config
    from emotion_jax.training.workdir import read_config

    check_config(read_config(path))


def read_flags(path):
    """A command line, as a process of its own reads it."""
    from absl.flags import FlagValues

    from emotion_jax import command_line
    from emotion_jax.config_check import check_config

    command_line.FLAGS = FlagValues()
    config = command_line.define_config()
    sys.argv = ["launch.py", *json.loads(path.read_text())]
    command_line.parse_flags("python launch.py", "What it does.")
    check_config(config.value)


def read_keras(path):
    import numpy as np

    from emotion_jax.keras.files import read_keras

    network = read_keras(path)
    head = network.variables["params"]["head"]["kernel"]
    assert head.dtype == np.float32 and np.isfinite(head).all()


def peak_memory():
    """The most memory that this process has held, in bytes."""
    status = Path("/proc/self/status")
    if not status.exists():  # macOS, in bytes; on Linux this counts the parent's before exec, too
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def answer(reader, path):
    """ "read", "refused: <sentence>", or the traceback of what should never come out."""
    try:
        globals()[reader](Path(path))
    except (EmotionError, DroppedError) as error:
        return f"refused: {error}" if "\n" not in str(error) else f"two lines: {error}"
    except BaseException:  # Rust's panics are no Exception
        return traceback.format_exc()
    return "read"


def main():
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, hard))
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no reply
    for line in sys.stdin:
        reader, path = json.loads(line)
        began = time.perf_counter()
        what = answer(reader, path)
        seconds = time.perf_counter() - began
        replies.write(json.dumps([what, seconds, peak_memory()]) + "\n")
        replies.flush()


if __name__ == "__main__":
    main()
