"""Read the emotions in pictures: flags, then one call of `emotion_jax.pictures`."""

from __future__ import annotations

import sys

from absl import flags

from emotion_jax.errors import EmotionError, run

EXAMPLES = """\
Read the emotions of the faces in pictures.

  python predict.py --image=portrait.jpg
  python predict.py --image=holiday --image=party.png --output=results
  python predict.py --image="shots/**/*.jpg" --format=jsonl > faces.jsonl
"""

# Flags of their own: the libraries' global ones would crowd the help.
FLAGS = flags.FlagValues()
FLAGS.set_gnu_getopt(True)  # flags count after plain words, too
flags.DEFINE_multi_string("image", [], "a file, a folder or a glob", FLAGS)
flags.DEFINE_string("model", None, "weights: a path or a shipped name", FLAGS)
flags.DEFINE_string("output", None, "folder for the rows and the annotated pictures", FLAGS)
flags.DEFINE_enum("format", "csv", ["csv", "jsonl"], "of the rows", FLAGS)
flags.DEFINE_boolean("show", False, "open a window; a key for the next, q or Esc to quit", FLAGS)
flags.DEFINE_float("min_face", 40, "width in pixels of the smallest faces", flag_values=FLAGS)
flags.DEFINE_enum("detector", "hog", ["hog", "cnn"], "cnn finds turned faces too, slowly", FLAGS)
flags.DEFINE_boolean("landmarks", False, "find 68 points a face, and level faces by them", FLAGS)
flags.DEFINE_string("cnn_model", None, "file of --detector=cnn, if not of the extra", FLAGS)
flags.DEFINE_string("landmarks_model", None, "file of --landmarks, likewise", FLAGS)
flags.DEFINE_boolean("debug", False, "show the traceback of an error", FLAGS)
flags.DEFINE_boolean("version", False, "print the version", FLAGS)
flags.DEFINE_boolean("help", False, "print this", FLAGS, short_name="h")
HELPED = [name for name in FLAGS if len(name) > 1]
# Of a later version; known here to be refused with a word of their own.
flags.DEFINE_boolean("camera", False, "", FLAGS)
flags.DEFINE_string("video", None, "", FLAGS)
flags.DEFINE_integer("device", 0, "", flag_values=FLAGS)


def parse_flags(argv: list[str]) -> list[str]:
    """Set FLAGS from the command line and return the pictures to read.

    Raises:
      EmotionError: a flag is unknown or has a wrong value, or a word belongs to no flag.
    """
    try:
        words = FLAGS(argv)[1:]
    except flags.Error as error:
        what = " ".join(str(error).split()).rstrip(".")
        raise EmotionError(f"{what}; python predict.py --help lists the flags") from error
    for name in ("model", "output"):
        if FLAGS[name].value == "":
            raise EmotionError(f"--{name} is empty; give it a value or leave it out")
    if words and not FLAGS.image:
        raise EmotionError(f"'{words[0]}' belongs to no flag; write --image={words[0]}")
    return [*FLAGS.image, *words]  # a shell that expands `--image *.jpg` leaves words over


def main() -> None:
    """Parse the flags and do what they say; every import that takes time waits for its turn."""
    pictures = parse_flags(sys.argv)
    if FLAGS.version:
        import emotion_jax

        print(f"emotion_jax {emotion_jax.__version__}")
    elif FLAGS.camera or FLAGS.video:
        what = "--camera" if FLAGS.camera else "--video"
        raise EmotionError(f"{what} is not in this version yet; read pictures with --image=PATH")
    elif FLAGS.help or not pictures:
        print(EXAMPLES)
        for name in HELPED:
            print(f"  --{name:15} {' '.join(FLAGS[name].help.split())}")
    else:
        from emotion_jax import load_predictor
        from emotion_jax.faces import Finder
        from emotion_jax.pictures import analyze_pictures

        analyze_pictures(
            pictures,
            load_predictor(FLAGS.model),
            finder=Finder(
                min_face=FLAGS.min_face,
                detector=FLAGS.detector,
                landmarks=FLAGS.landmarks or FLAGS.landmarks_model is not None,
                cnn_model=FLAGS.cnn_model,
                landmarks_model=FLAGS.landmarks_model,
            ),
            output=FLAGS.output,
            format=FLAGS.format,
            show=FLAGS.show,
        )


if __name__ == "__main__":
    sys.exit(run(main, debug="--debug" in sys.argv))
