"""Configs: the keys that are promised, the files, and what wrong flags get."""

import functools
import operator
import sys
from pathlib import Path

import pytest
from absl.flags import FlagValues
from ml_collections import ConfigDict

from emotion_jax import command_line
from emotion_jax.command_line import config_name, parse_flags
from emotion_jax.config import default_config, flatten
from emotion_jax.config_check import check_config
from emotion_jax.errors import EmotionError

ROOT = Path(__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.py"))
QUICK = "--config=configs/quickstart.py"


@pytest.fixture
def parse(monkeypatch):
    """Parses a command line as in a process of its own; returns the config."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(command_line, "FLAGS", FlagValues())
    holder = command_line.define_config()

    def act(*arguments):
        monkeypatch.setattr(sys, "argv", ["launch.py", *map(str, arguments)])
        parse_flags("python launch.py", "What it does.")
        return holder.value

    return act


def test_the_promised_keys():
    values = dict(flatten(default_config()))
    promised = {
        "data.source": str,
        "data.dir": str,
        "model.name": str,
        "model.width": float,
        "image_size": int,
        "batch_size": int,
        "num_epochs": int,
        "seed": int,
    }
    assert {key: type(values.get(key)) for key in promised} == promised
    check_config(default_config())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_file_loads(parse, path):
    config = parse(f"--config={path}")
    assert config_name() == path.stem
    check_config(config)


def test_there_are_files():
    names = {"quickstart", "ferplus_narrow", "simplenet", "simplenet_20k", "vgg16", "folder"}
    assert names <= {path.stem for path in CONFIGS}


def test_values_of_every_type_are_read(parse):
    config = parse(
        QUICK,
        "--config.batch_size=12",
        "--config.optimizer.learning_rate=2e-4",
        "--config.model.width=1",
        "--config.data.dir=some folder=x",
        "--config.grey",
        "--config.model.dropout=(0.1, 0.4)",
    )
    assert config.batch_size == 12 and config.optimizer.learning_rate == 2e-4
    assert config.model.width == 1.0 and isinstance(config.model.width, float)
    assert config.data.dir == "some folder=x" and config.grey is True
    assert config.model.dropout == (0.1, 0.4)
    assert config.num_epochs == 8  # of the file
    check_config(config)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            [QUICK, "--config.batchsize=3"],
            "--config.batchsize: no such key; did you mean batch_size?",
        ),
        ([QUICK, "--config.data.dri=x"], "--config.data.dri: no such key; did you mean data.dir?"),
        ([QUICK, "--config.learning_rate=1"], "did you mean optimizer.learning_rate?"),
        ([QUICK, "--config.zzzz=1"], "--config.zzzz: no such key; emotion_jax/config.py lists"),
        ([QUICK, "--config.data=x"], "--config.data: no such key; did you mean data."),
        (
            [QUICK, "--config.batch_size=x"],
            "--config.batch_size: 'x'; must be a whole number, such",
        ),
        ([QUICK, "--config.batch_size=2.5"], "'2.5'; must be a whole number, such as 64"),
        ([QUICK, "--config.ema_decay=x=y"], "ema_decay: 'x=y'; must be a number, such as 0.0"),
        ([QUICK, "--config.grey=so"], "--config.grey: 'so'; must be true or false, such as False"),
        (["--config=configs/none.py"], "--config: no file 'configs/none.py'; configs/ has some"),
        (["--config=configs"], "--config: no file 'configs'"),
        (["--config="], "--config: no file ''"),
        ([], "no --config; name a file, such as --config=configs/quickstart.py"),
        (["--config.seed=1"], "no --config; name a file"),
        (["--config"], "Missing value for flag --config; python launch.py --help lists the flags"),
        (["--config.seed=1", QUICK], "--config.seed=1 in argv before a value for --config"),
        ([QUICK, "--confg=x"], "'confg'. Did you mean: config; python launch.py --help"),
        ([QUICK, "--epochs=3"], "Unknown command line flag 'epochs'; python launch.py --help"),
        ([QUICK, "train"], "'train' belongs to no flag; python launch.py --help lists the flags"),
    ],
)
def test_wrong_flags_get_one_sentence(parse, arguments, said):
    with pytest.raises(EmotionError) as error:
        parse(*arguments)
    assert said in str(error.value) and "\n" not in str(error.value)
    assert len(str(error.value)) < 200


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def get_config(:", "SyntaxError: "),
        ("import nowhere", "No module named 'nowhere'"),
        ("x = 1", "it has no get_config()"),
        ("def get_config(): return 1 / 0", "ZeroDivisionError: division by zero"),
        (
            "def get_config(): raise ValueError('one\\n\\ntwo' + 99 * ' more')",
            "ValueError: one two",
        ),
        ("def get_config(): return None", "must return a ConfigDict"),
        ("def get_config(): return {}", "must return a ConfigDict"),
        ("\0", "null bytes"),
    ],
)
def test_a_config_file_that_is_none(parse, tmp_path, text, said):
    path = tmp_path / "mine.py"
    path.write_text(text + "\n")
    with pytest.raises(EmotionError) as error:
        parse(f"--config={path}")
    assert said in str(error.value) and f"'{path}'" in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 350


def test_help_comes_before_all_errors(parse, capsys):
    for word in ("--help", "-h"):
        with pytest.raises(SystemExit) as exit_:
            parse("--config=none.py", "--nothing", word)
        out = capsys.readouterr().out
        assert exit_.value.code == 0 and out.startswith("What it does.")
        assert "--config " in out and "--debug " in out and "--config.KEY=VALUE" in out


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("batch_size", 0, "must be at least 1"),
        ("num_epochs", -1, "must be at least 1"),
        ("num_epochs", 10**12, "must be at most 1000000"),
        ("batch_size", 10**12, "must be at most 1048576"),
        ("image_size", 4097, "must be a whole number from 1 to 4096"),
        ("seed", -1, "must be from 0 to 4294967295"),
        ("data.seed", 2**32, "must be from 0 to 4294967295"),
        ("data.train_faces", 0, "must be at least 1"),
        ("data.crop_scale", float("nan"), "must be a number"),
        ("data.crop_scale", 9.0, "must be from 0.5 to 4.0"),
        ("data.class_cap", -1, "must be from 0 to"),
        ("mean", (float("nan"),), "must be numbers"),
        ("std", ("a",), "must be numbers"),
        ("std", (0.0,), "must be one number above 0, or such ones"),
        ("mean", (0.5, 0.5), "must be one number, or one a channel"),
        ("schedule.milestones", (0.5, 1.5), "must lie in 0..1"),
        ("image_size", 0, "must be a whole number from 1 to 4096"),
        ("channels", 2, "must be 3, or 1 where grey"),
        ("channels", 1, "must be 3, or 1 where grey"),
        ("best", "val/f1", "use one of val/accuracy, val/macro_f1, val/loss"),
        ("data.feed", "disk", "use one of auto, stream, resident"),
        ("data.train_votes", "most", "use one of majority, distribution"),
        ("model.dropout", ("much",), "must be numbers"),
        ("schedule.milestones", (0.5, None), "must be numbers, such as (0.5, 0.75)"),
        ("ema_decay", 1.0, "below 1"),
        ("optimizer.learning_rate", 0.0, "must be > 0"),
        ("augment.crop_area", 1.5, "must be in (0, 1]"),
        ("batchsize", 3, "no such key; did you mean batch_size?"),
        ("data.direct", "x", "no such key; did you mean data.dir?"),
    ],
)
def test_values_that_cannot_be_meant(key, value, said):
    config = default_config()
    *sections, name = key.split(".")
    functools.reduce(operator.getitem, sections, config)[name] = value
    with pytest.raises(EmotionError) as error:
        check_config(config)
    assert str(error.value).startswith(f"{key}: ") and said in str(error.value)


def test_mixup_needs_pairs():
    config = default_config()
    config.batch_size, config.augment.mixup = 7, 0.2
    with pytest.raises(EmotionError, match="^batch_size: 7; mixup blends pairs"):
        check_config(config)


def test_networks_have_options_of_their_own():
    config = default_config()
    config.model = ConfigDict({"name": "mine", "depth": 3})
    check_config(config)


@pytest.mark.parametrize("key", ["seed", "data", "model.name"])
def test_a_key_that_is_missing_is_named(key):
    config = default_config()
    section, _, name = key.rpartition(".")
    del (config[section] if section else config)[name]
    with pytest.raises(EmotionError, match=rf"^{key}[.\w]*: is missing; "):
        check_config(config)
