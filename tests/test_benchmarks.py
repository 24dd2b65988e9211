"""What the benchmarks compare is the same network and step, and what they count is right."""

import contextlib
import json
from functools import cache, partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from emotion_jax import losses, steps
from emotion_jax.image_spec import ImageSpec
from emotion_jax.models import VGG16, SimpleNetV2, make_model, simplenet, vgg

BENCHMARKS = str(Path(__file__).parents[1] / "benchmarks")


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    """Their folder is a program's own: it comes first while one runs, and never else."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    # The padding lever widens these tables, in a process of its own.
    monkeypatch.setattr(simplenet, "BLOCKS", simplenet.BLOCKS)
    monkeypatch.setattr(vgg, "STAGES", vgg.STAGES)


@pytest.mark.parametrize("name", ["simplenet", "vgg16"])
def test_counted_parameters_are_the_networks(name):
    from flops import layers

    model = make_model(name)
    image = jnp.zeros((1, *{"simplenet": (64, 64), "vgg16": (224, 224)}[name], 3))
    shapes = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), image)
    count = sum(x.size for x in jax.tree.leaves(shapes["params"]))
    assert sum(layer.parameters for layer in layers(name)) == count


@pytest.mark.parametrize("name", ["simplenet", "vgg16"])
def test_counted_flops_are_those_that_xla_counts(name):
    """But for padding, whose products with nothing XLA leaves out, and elementwise work."""
    from flops import layers, training_flops

    size = {"simplenet": 64, "vgg16": 224}[name]
    model, image = make_model(name, dropout=(0.0, 0.0)), jnp.zeros((1, size, size, 3))
    shapes = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), image)

    def loss(params):
        variables = shapes | {"params": params}
        logits, _ = model.apply(variables, image, train=True, mutable=["batch_stats"])
        return logits.sum()

    stats = shapes.get("batch_stats", {})
    shapes = {"batch_stats": jax.tree.map(lambda x: jnp.zeros(x.shape), stats)} if stats else {}
    params = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), image)["params"]
    counted = jax.jit(jax.grad(loss)).lower(params).cost_analysis()["flops"]
    assert training_flops(name) == pytest.approx(counted, rel=0.05)
    assert training_flops(name) < 3 * sum(layer.flops for layer in layers(name))


SPEC = ImageSpec(size=28)
NARROW = SimpleNetV2(width=1 / 8, dropout=(0.0, 0.0))


@cache
def train(*levers):
    """The parameters and statistics after a step with levers pulled."""
    import levers as pull

    tx, rng = optax.sgd(0.1), np.random.default_rng(0)
    batch = {
        "image": rng.integers(0, 256, (6, 28, 28, 3), np.uint8),
        "label": np.eye(8, dtype=np.float32)[:6],
        "weight": np.ones(6, np.float32),
    }
    init = partial(steps.init_state, model=NARROW, tx=tx, spec=SPEC)
    state = jax.jit(init)(jax.random.key(0))
    wrapped = pull.wrap_model(NARROW, SPEC, levers)
    step = partial(steps.train_step, model=wrapped, tx=tx, spec=SPEC, loss_fn=losses.cross_entropy)

    def with_levers(state):
        with contextlib.ExitStack() as stack:
            pull.intercept(stack, levers)
            return step(state, batch, jax.random.key(1))[0]

    # One step: a second on six faces would multiply what rounding does, by more on some processors.
    state = jax.jit(with_levers)(state)
    return state.params, state.batch_stats


@pytest.mark.parametrize(
    "levers",
    [["in4", "pad16"], ["still", "bf16norm", "remat", "scatterpool"], ["trusting"]],
    ids="+".join,
)
def test_levers_change_no_number_of_a_float32_step(levers):
    expected, got = train(), train(*levers)
    jax.tree.map(partial(np.testing.assert_allclose, atol=2e-4), got, expected)


@pytest.mark.parametrize("levers, taken", [([], 0), (["trusting"], 1)])
def test_a_trusting_step_is_taken_whatever_it_makes(levers, taken):
    import levers as pull

    with contextlib.ExitStack() as stack:
        pull.intercept(stack, levers)
        assert steps._select(False, 1, 0) == taken


def test_the_input_is_padded_apart_from_the_layers():
    import levers as pull

    wide = pull.wrap_model(SimpleNetV2(), SPEC, ["in4", "pad8"]).wide["params"]
    assert wide["conv01"]["kernel"].shape == (3, 3, 4, 72)
    assert wide["conv12"]["kernel"].shape == (3, 3, 288, 360)


def test_a_padded_vgg16_answers_as_the_plain_one(monkeypatch):
    """Its first dense layer takes the channels of one pixel after the other."""
    import levers as pull

    monkeypatch.setattr(vgg, "STAGES", vgg.STAGES)  # which is changed for the process's life
    monkeypatch.setattr(simplenet, "BLOCKS", simplenet.BLOCKS)
    model, x = VGG16(width=1 / 8), jax.random.normal(jax.random.key(0), (2, 64, 64, 3))
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(1), x)
    expected = jax.jit(partial(model.apply, train=False))(variables, x)
    wide = pull.wrap_model(model, ImageSpec(size=64), ["pad96"])
    assert wide.wide["params"]["conv5_3"]["bias"].shape == (72,)
    got, _ = jax.jit(partial(wide.apply, train=False, mutable=["batch_stats"]))(variables, x)
    np.testing.assert_allclose(got, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("levers, scatters", [([], False), (["scatterpool"], True)])
@pytest.mark.parametrize("model", [NARROW, VGG16(width=1 / 64)], ids=["simplenet", "vgg16"])
def test_a_scattering_pool_scatters(model, levers, scatters):
    import levers as pull

    image = jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(partial(model.init, train=False), jax.random.key(0), image)

    def loss(variables):
        with contextlib.ExitStack() as stack:
            pull.intercept(stack, levers)
            return model.apply(variables, image, train=False).sum()

    assert ("select_and_scatter" in str(jax.make_jaxpr(jax.grad(loss))(variables))) == scatters


@pytest.mark.parametrize("levers, given_away", [([], True), (["nodonate"], False)])
def test_the_state_is_given_away_or_not(levers, given_away):
    import step_ours

    state = jnp.zeros(4)
    step_ours.jit_steps(lambda state, data, key: (state + data, key), levers)(state, 1.0, 0.0)
    assert state.is_deleted() == given_away


def test_dropout_from_eight_bits_keeps_its_share_and_mean():
    import levers as pull

    x = jnp.ones((50, 20, 20, 7))
    with contextlib.ExitStack() as stack:
        pull.intercept(stack, ["bits8"])
        layer = nn.Dropout(0.3, deterministic=False)
        y = np.asarray(layer.apply({}, x, rngs={"dropout": jax.random.key(0)}))
    keep = round(256 * 0.7) / 256
    # Five standard errors of 140,000 draws.
    assert (y > 0).mean() == pytest.approx(keep, abs=5 * (keep * (1 - keep) / y.size) ** 0.5)
    assert np.unique(y).tolist() == [0, pytest.approx(1 / keep)]
    assert len(np.unique(y.reshape(50, -1), axis=0)) == 50


def test_the_network_in_torch_is_ours():
    torch = pytest.importorskip("torch")
    import step_torch

    rng = np.random.default_rng(0)
    for ours, theirs, size in (
        (SimpleNetV2(), step_torch.SimpleNetV2(), 32),
        (VGG16(), step_torch.VGG16(32), 32),
    ):
        x = rng.normal(size=(2, size, size, 3)).astype(np.float32)
        shapes = jax.eval_shape(partial(ours.init, train=False), jax.random.key(0), x)
        # Scaled by each layer's inputs, so that the signal neither dies nor bursts.
        variables = jax.tree.map(
            lambda s: (rng.normal(size=s.shape) / max(1, np.prod(s.shape[:-1])) ** 0.5).astype(
                np.float32
            ),
            {"batch_stats": {}, **shapes},
        )
        for stats in variables["batch_stats"].values():
            stats["var"] = np.abs(stats["var"]) + 0.5
        for name, layer in variables["params"].items():
            if name.startswith("bn"):
                layer["scale"] = 1 + 0.1 * layer["scale"]
        count = sum(x.size for x in jax.tree.leaves(variables["params"]))
        assert sum(p.numel() for p in theirs.parameters()) == count
        step_torch.carry_weights(theirs, variables["params"], variables["batch_stats"])
        with torch.no_grad():
            got = theirs.eval()(torch.tensor(x.transpose(0, 3, 1, 2))).numpy()
        expected = np.asarray(ours.apply(variables, x, train=False))
        assert np.abs(expected).max() > 1e-2
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_train_step_measures_a_row_once(tmp_path, monkeypatch, capsys):
    """Really, but for the second time."""
    import train_step

    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("COMMIT", "abc1234")
    words = ["--network=vgg16", "--precision=float32", "--batch=2", "--width=0.02"]
    words += ["--implementation=ours:direct", "--seconds=0.1", f"--output={tmp_path / 'rows.json'}"]
    assert train_step.main(words) == 0
    table = json.loads((tmp_path / "rows.json").read_text())
    assert {"device", "matmul_tflops", "versions", "commit"} <= table.keys()
    (row,) = table["rows"]
    once = "network precision batch implementation faces_per_s mfu ratio_to_torch ratio_to_keras"
    assert {*once.split(), "peak_memory", "compile_s"} <= row.keys()
    assert row["faces_per_s"] > 0 and row["compile_s"] > 0 and row["peak_memory"] > 0
    assert row["commit"] == table["commit"] == "abc1234"
    assert row["versions"] == table["versions"] and row["versions"]["jax"] == jax.__version__
    assert row["matmul_tflops"] == table["matmul_tflops"]["float32"] > 0
    assert row["mfu"] is None  # its FLOPs are not those that are counted
    monkeypatch.setattr(train_step, "ask", pytest.fail)
    assert train_step.main(words) == 0
    assert json.loads((tmp_path / "rows.json").read_text()) == table
    assert "ours:direct" in capsys.readouterr().out


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Calls the benchmark with workers that measure nothing; what the last call asked of them."""
    import train_step

    def call(*words, answer=None, device="a chip", memory=10**9):
        asked = []

        def ask(name, *, limit, task, **request):
            if task == "matmul":
                return {"device": "a chip", "tflops": dict.fromkeys(request["precisions"], 100.0)}
            asked.append(":".join([name, "+".join(request["levers"])]).strip(":"))
            if answer:
                raise answer
            step_s = {"ours": 0.1, "torch": 0.2, "keras": 0.4}[name]
            found = {"step_s": step_s, "spread": 0.0, "compile_s": 1.0, "peak_memory": memory}
            return {**found, "loss": 1.0, "device": device, "versions": {name: "1.0"}}

        monkeypatch.setattr(train_step, "ask", ask)
        flags = ["--network=simplenet", "--precision=float32", "--batch=8", *words]
        status = train_step.main([*flags, f"--output={tmp_path}"])
        path = tmp_path / "train_step-a-chip.json"
        return status, asked, json.loads(path.read_text()) if path.exists() else None

    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setenv("COMMIT", "first")
    return call


def test_a_row_keeps_what_it_was_measured_with(measured, monkeypatch):
    _, asked, _ = measured("--implementation=ours,torch")
    assert asked == ["ours", "torch"]
    monkeypatch.setenv("COMMIT", "second")
    monkeypatch.setenv("XLA_FLAGS", " --xla_gpu_enable_command_buffer= ")
    _, asked, table = measured("--implementation=ours,torch,keras", "then", "--batch=16,8")
    # PyTorch does not read these flags.
    assert asked == ["ours", "keras", "ours", "torch", "keras"]
    rows = {
        tuple(row[k] for k in ("implementation", "batch", "xla_flags")): row
        for row in table["rows"]
    }
    flag = "--xla_gpu_enable_command_buffer="
    assert rows["ours", 8, ""]["commit"] == "first"
    assert rows["ours", 8, flag]["commit"] == "second"
    assert table["commit"] == "first second"
    assert table["versions"] == {"ours": "1.0", "torch": "1.0", "keras": "1.0"}
    assert rows["ours", 8, ""]["ratio_to_torch"] == pytest.approx(80 / 80)
    assert rows["ours", 16, flag]["ratio_to_torch"] == pytest.approx(2)
    assert rows["ours", 16, flag]["ratio_to_keras"] == pytest.approx(4)
    assert rows["ours", 8, ""]["mfu"] == pytest.approx(80 * 24.66e9 / 100e12, rel=1e-3)


def test_what_failed_is_tried_again_only_on_demand(measured, capsys):
    from measuring import Failed, Late

    status, _, table = measured("--implementation=torch", answer=Failed("out of memory"))
    assert (status, table["rows"]) == (1, [])
    assert "no row was measured: failed: simplenet float32 8 torch: out" in capsys.readouterr().err
    status, asked, table = measured("--implementation=torch,ours", answer=None)
    assert (status, asked) == (0, ["ours"])
    assert "out of memory" in capsys.readouterr().out
    assert [row["reason"] for row in table["failed"]] == ["out of memory"]
    _, asked, table = measured("--implementation=torch,ours", "--again")
    assert (asked, table["failed"]) == (["torch"], [])
    # Too slow for the time that is left is not too slow.
    late = Late("stopped")
    _, _, table = measured("--implementation=keras", "--limit=9", answer=late)
    assert table["failed"] == []
    _, _, table = measured("--implementation=keras", "--row_limit=9", answer=late)
    assert [row["implementation"] for row in table["failed"]] == ["keras"]


def test_all_that_a_failed_row_said_is_kept(measured, tmp_path):
    from measuring import Failed

    said = "E0000 cuda_dnn.cc: no engine\nRuntimeError: look at the errors above\n"
    measured("--implementation=ours:pad8+still", answer=Failed("status 1: look", said))
    (log,) = tmp_path.glob("*.log")
    assert (log.name, log.read_text()) == ("failed-simplenet-float32-8-ours-pad8-still.log", said)


def test_a_row_of_the_cpu_is_none_of_the_device(measured):
    import measuring

    _, _, table = measured("--implementation=torch", device=measuring.processor())
    assert table["rows"] == []
    assert [row["reason"] for row in table["failed"]] == ["it ran on the CPU, not on a chip"]


def test_a_device_that_tells_no_memory_has_a_row(measured, capsys):
    _, _, table = measured("--implementation=ours", memory=None)
    assert table["rows"][0]["peak_memory"] is None and " -  " in capsys.readouterr().out


@pytest.mark.parametrize(
    "words, said",
    [
        ("--implementation=ours:pad8+bit8", "no lever 'bit8'"),
        ("--implementation=ours:pad", "no lever 'pad'"),
        ("--implementation=ours:pad8+pad16", "'pad' is pulled twice"),
        ("--implementation=ours,torch:fast", "torch takes one of eager"),
        ("--implementation=keras:pad8", "keras takes no levers"),
        ("--implementation=jax", "use ours, torch or keras"),
        ("--precision=float16", "use float32 or bfloat16"),
        ("--network=vgg", "use simplenet or vgg16"),
    ],
)
def test_an_unknown_word_is_refused_before_anything_is_measured(words, said, monkeypatch, capsys):
    import train_step

    monkeypatch.setattr(train_step, "ask", pytest.fail)
    with pytest.raises(SystemExit) as status:
        train_step.main(["--batch=8", "then", words])
    assert status.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_the_committed_rows_can_still_be_read(capsys):
    import train_step

    for path in Path(BENCHMARKS, "results").glob("train_step-*.json"):
        table = train_step.read(path)
        train_step.show(table)
        assert len(capsys.readouterr().out.splitlines()) > len(table["rows"]) > 0
        asked = [tuple(row[k] for k in train_step.KEY) for row in table["rows"]]
        assert train_step.missing(table, asked, again=False) == []


def test_the_commit_without_git(monkeypatch):
    import train_step

    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("COMMIT", raising=False)
    assert train_step.commit() == ""
    monkeypatch.setenv("COMMIT", "abc1234")
    assert train_step.commit() == "abc1234"


def test_a_worker_that_hangs_is_stopped_with_its_helpers(tmp_path, monkeypatch):
    import measuring

    monkeypatch.setattr(measuring, "__file__", str(tmp_path / "measuring.py"))
    helper = "import subprocess, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"
    (tmp_path / "step_slow.py").write_text(helper)
    (tmp_path / "step_bad.py").write_text("raise RuntimeError('no memory')")
    with pytest.raises(measuring.Late, match="stopped after 1 s"):
        measuring.ask("slow", limit=1.0)
    with pytest.raises(measuring.Failed, match="RuntimeError: no memory") as info:
        measuring.ask("bad", limit=60.0)
    assert info.value.said.startswith("Traceback")
    after = "E: x\njax.errors.JaxRuntimeError: OUT\n-----\nFor simplicity, JAX has removed ..."
    assert measuring.last_words(after) == "jax.errors.JaxRuntimeError: OUT"
    assert measuring.last_words("\n") == "nothing said"
