"""Read the emotions in pictures, films and what a camera sees: flags, then one call."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import threading
from typing import TYPE_CHECKING, NoReturn

# While libraries load there is nothing to save, and JAX can swallow a KeyboardInterrupt: Ctrl-C
# ends the process. One that its parent told to ignore it still does.
LOADING = __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler
if LOADING:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from absl import flags  # noqa: E402

from emotion_jax.errors import EmotionError, run  # noqa: E402
from emotion_jax.host.compilation_cache import enable_compilation_cache  # noqa: E402

if TYPE_CHECKING:
    from emotion_jax.classifying import Predictor
    from emotion_jax.faces import Finder

EXAMPLES = """\
Read the emotions of the faces in pictures, films and what a camera sees.

  python predict.py --camera
  python predict.py --image="shots/**/*.jpg" --image=party.png --output=results
  python predict.py --video=film.mp4 --output=results
  python predict.py --cropped --image=faces --output=results
"""

# Flags of their own: the libraries' global ones would crowd the help.
FLAGS = flags.FlagValues()
FLAGS.set_gnu_getopt(True)  # flags count after plain words, too
flags.DEFINE_multi_string("image", [], "a file, a folder or a glob", FLAGS)
flags.DEFINE_boolean("camera", False, "what a camera sees: s saves, r records, q quits", FLAGS)
flags.DEFINE_string("device", "0", "the camera: an index, a path, an address, a film", FLAGS)
flags.DEFINE_string(
    "model",
    None,
    "weights: a path, or simplenet-ferplus (for pictures) or simplenet-narrow-ferplus (else)",
    FLAGS,
)
flags.DEFINE_string("output", None, "folder for the rows and what is drawn", FLAGS)
flags.DEFINE_enum("format", "csv", ["csv", "jsonl"], "of the rows", FLAGS)
flags.DEFINE_string("video", None, "a film", FLAGS)
flags.DEFINE_integer("every", 1, "read every so many frames of the film alone", flag_values=FLAGS)
flags.DEFINE_float("start", 0.0, "seconds of the film to leave out", flag_values=FLAGS)
flags.DEFINE_float("end", None, "seconds of the film at which to stop", flag_values=FLAGS)
flags.DEFINE_float(
    "smoothing", None, "seconds to average each person over: 0.2; 0 for none", flag_values=FLAGS
)
flags.DEFINE_float(
    "min_face",
    None,
    "width in pixels of about the smallest faces to find: 40 in pictures, 80 in films up to "
    "1280 x 720, a sixth of a camera's height",
    flag_values=FLAGS,
)
flags.DEFINE_enum("detector", "hog", ["hog", "cnn"], "cnn finds turned faces too, slowly", FLAGS)
flags.DEFINE_boolean("landmarks", False, "find 68 points a face, and level faces by them", FLAGS)
flags.DEFINE_string("cnn_model", None, "file of --detector=cnn, if not the extra's", FLAGS)
flags.DEFINE_string("landmarks_model", None, "file of --landmarks, if not the extra's", FLAGS)
flags.DEFINE_boolean("mirrored", False, "read each face twice, once in a mirror: the mean", FLAGS)
flags.DEFINE_boolean("cropped", False, "each picture is a face, cut out already", FLAGS)
flags.DEFINE_boolean("blur", False, "hide the faces in what is drawn", FLAGS)
flags.DEFINE_boolean("show", None, "a window, as --camera opens without --noshow; q quits", FLAGS)
flags.DEFINE_boolean("debug", False, "show the traceback of an error", FLAGS)
flags.DEFINE_boolean("version", False, "print the version", FLAGS)
flags.DEFINE_boolean("help", False, "print this", FLAGS, short_name="h")
FINDING = ("min_face", "detector", "landmarks", "cnn_model", "landmarks_model")
FILES = ("model", "output", "video", "device", "landmarks_model", "cnn_model")
HELPED = [name for name in FLAGS if len(name) > 1]


def parse_flags(argv: list[str]) -> list[str]:
    """Set FLAGS from the command line and return the pictures to read.

    Raises:
      EmotionError: a flag is unknown or has a wrong value, or a word belongs to no flag.
    """
    try:
        words = FLAGS(argv)[1:]
    except flags.Error as error:
        # Of some values absl says a pair: the reason, and the value once more.
        what = re.sub(r"\('(.*?)', .*?\)", r"\1", " ".join(str(error).split()).rstrip(".?! "))
        raise EmotionError(f"{what}; python predict.py --help lists the flags") from error
    for name in ("model", "output", "video"):
        if FLAGS[name].value == "":
            raise EmotionError(f"--{name} is empty; give it a value or leave it out")
    for name in FILES:  # a shell leaves the ~ of --output=~/faces as it is
        FLAGS[name].value = FLAGS[name].value and os.path.expanduser(FLAGS[name].value)
    check_film_flags()
    check_camera_flags()
    check_cropped_flags()
    if words and not FLAGS.image:
        raise EmotionError(f"'{words[0]}' belongs to no flag; write --image={words[0]}")
    return [*FLAGS.image, *words]  # a shell that expands `--image *.jpg` leaves words over


def check_film_flags() -> None:
    """Refuse what would otherwise be passed over.

    Raises:
      EmotionError: several films, a film beside pictures, or an option that has no meaning.
    """
    if FLAGS["video"].present > 1:
        raise EmotionError("--video stands twice; read one film at a time")
    if FLAGS.video and FLAGS.image:
        raise EmotionError("--image and --video do not go together; use one at a time")
    for name in ("every", "start", "end", "smoothing"):
        followed = FLAGS.video or (FLAGS.camera and name == "smoothing")
        if FLAGS[name].present and not followed:
            raise EmotionError(f"--{name} is for films; add --video=PATH")
    if FLAGS.blur and not (FLAGS.output or FLAGS.show):
        raise EmotionError("--blur hides faces in what is drawn; add --output=FOLDER")
    if FLAGS.cnn_model is not None and FLAGS.detector != "cnn":
        raise EmotionError("--cnn_model is for the other detector; add --detector=cnn")
    if FLAGS.min_face is not None and not FLAGS.min_face >= 1:
        raise EmotionError(f"--min_face: {FLAGS.min_face:g}; use 1 or more pixels")


def check_camera_flags() -> None:
    """Refuse what would otherwise be passed over.

    Raises:
      EmotionError: another source beside the camera, or an option that has no meaning.
    """
    if FLAGS["device"].present and not FLAGS.camera:
        raise EmotionError("--device is for cameras; add --camera")
    if FLAGS.camera and (FLAGS.image or FLAGS.video):
        raise EmotionError("--camera goes with neither --image nor --video; use one at a time")
    if FLAGS.camera and FLAGS.blur:
        raise EmotionError(
            "--blur looks ahead, which a camera cannot; record without, then use --video"
        )


def check_cropped_flags() -> None:
    """Refuse what would otherwise be passed over.

    Raises:
      EmotionError: no pictures are meant, or an option has no meaning.
    """
    if not FLAGS.cropped:
        return
    if not FLAGS.image:
        raise EmotionError("--cropped is for pictures; add --image=PATH")
    for name in (*FINDING, "blur", "show"):
        if FLAGS[name].value != FLAGS[name].default:
            raise EmotionError(
                f"--cropped looks for no faces and draws nothing; leave out --{name}"
            )


def main() -> None:
    """Parse the flags and do what they say; every import that takes time waits for its turn."""
    pictures = parse_flags(sys.argv)
    if FLAGS.version:
        import emotion_jax

        print(f"emotion_jax {emotion_jax.__version__}")
    elif FLAGS.camera and not FLAGS.help:
        watch_camera()
    elif FLAGS.video and not FLAGS.help:
        read_film()
    elif FLAGS.help or not any(FLAGS[name].present for name in FLAGS if name != "debug"):
        lines = [f"  --{name:15} {' '.join(FLAGS[name].help.split())}" for name in HELPED]
        print(
            "\n".join([EXAMPLES, *lines, ""]), end=""
        )  # at once: `| head` may leave after the first lines
    elif pictures:
        read_pictures(pictures)
    else:
        raise EmotionError("nothing to read; add --image=PATH, --video=FILE or --camera")


def read_pictures(pictures: list[str]) -> None:
    """Do what `--image` says."""
    from emotion_jax.prediction.paths import check_sources

    check_sources(pictures)  # a wrong name is told at once: JAX can take seconds to load
    predictor = load()
    end_loading()
    if FLAGS.cropped:
        from emotion_jax.prediction.crops import analyze_crops

        analyze_crops(pictures, predictor, output=FLAGS.output, format=FLAGS.format)
    else:
        from emotion_jax.prediction.pictures import analyze_pictures

        analyze_pictures(
            pictures,
            predictor,
            finder=make_finder(),
            output=FLAGS.output,
            format=FLAGS.format,
            blur=FLAGS.blur,
            show=bool(FLAGS.show),
        )


def load(default: str | None = None) -> Predictor:
    """Load the network, as fast as can be; without `--model` the one of this name."""
    folder = enable_compilation_cache()
    from emotion_jax.classifying import Mirrored
    from emotion_jax.prediction.instant import load_instantly

    predictor = load_instantly(default if FLAGS.model is None else FLAGS.model, folder)
    return Mirrored(predictor) if FLAGS.mirrored else predictor


def load_fast() -> Predictor:
    """Load the network; by default one that keeps pace with a camera's frames."""
    from emotion_jax.weights import FAST

    return load(FAST)


def end_loading() -> None:
    """Let Ctrl-C be a KeyboardInterrupt from now on: there will be files to finish."""
    if LOADING:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def make_finder() -> Finder:
    """Make what finds the faces, as the flags say."""
    from emotion_jax.faces import Finder

    return Finder(
        min_face=FLAGS.min_face or Finder.min_face,
        detector=FLAGS.detector,
        landmarks=FLAGS.landmarks or FLAGS.landmarks_model is not None,
        cnn_model=FLAGS.cnn_model,
        landmarks_model=FLAGS.landmarks_model,
    )


def read_film() -> None:
    """Do what `--video` says."""
    from emotion_jax.video import FilmReader

    FilmReader(FLAGS.video)  # a wrong name is told at once, likewise
    from emotion_jax.prediction.film import analyze_film
    from emotion_jax.tracking import SMOOTHING

    predictor = load_fast()
    end_loading()
    analyze_film(
        FLAGS.video,
        predictor,
        finder=make_finder(),
        min_face=FLAGS.min_face,
        output=FLAGS.output,
        format=FLAGS.format,
        every=FLAGS.every,
        start=FLAGS.start,
        end=FLAGS.end,
        smoothing=SMOOTHING if FLAGS.smoothing is None else FLAGS.smoothing,
        blur=FLAGS.blur,
        show=bool(FLAGS.show),
    )


def watch_camera() -> None:
    """Do what `--camera` says."""
    from emotion_jax.prediction.live import watch
    from emotion_jax.tracking import SMOOTHING

    end_loading()
    watch(
        FLAGS.device,
        load_fast,
        finder=make_finder(),
        min_face=FLAGS.min_face,
        smoothing=SMOOTHING if FLAGS.smoothing is None else FLAGS.smoothing,
        output=FLAGS.output,
        format=FLAGS.format,
        show=FLAGS.show is not False,
    )


def leave(status: int | str | None) -> NoReturn:
    """End the process, at once where a camera's network is still being loaded on its thread.

    An orderly end would pull Python away from under it, in the middle of a library.
    """
    if isinstance(status, int) and any(t.name == "labeller" for t in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # whoever read it has gone
                stream.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    try:
        status: int | str | None = run(main, debug="--debug" in sys.argv)
    except SystemExit as end:
        status = end.code
    leave(status)
