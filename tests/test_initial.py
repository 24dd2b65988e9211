"""What a run may begin from: the layers it shares with other weights, at the same pixels."""

from functools import partial

import jax
import numpy as np
import optax
import pytest

from emotion_jax.errors import EmotionError
from emotion_jax.image_spec import ImageSpec
from emotion_jax.inference import make_meta, model_from_meta
from emotion_jax.labels import EMOTIONS
from emotion_jax.steps import TrainState, init_state
from emotion_jax.training import initial
from emotion_jax.training.initial import begin_from
from emotion_jax.weights import save_weights

SPEC = ImageSpec(size=32, mean=(0.4, 0.3, 0.2), std=(0.1,))
OPTIONS = {"width": 1 / 64}


def make(spec=SPEC, classes=8, name="vgg16"):
    meta = make_meta(name, OPTIONS, spec, emotions=EMOTIONS[:classes])
    model, spec, _ = model_from_meta(meta)
    init = partial(init_state, model=model, tx=optax.sgd(0.1), spec=spec, ema=True)
    return meta, jax.jit(init)(jax.random.key(classes))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder without a top, as of ImageNet's file; and its parameters."""
    meta, state = make()
    tops = ("fc1", "fc2", "head")
    params = {key: value for key, value in state.params.items() if key not in tops}
    folder = tmp_path_factory.mktemp("weights")
    save_weights(folder, {"params": params, "batch_stats": {}}, {**meta, "emotions": []})
    return str(folder), params


def test_a_missing_top_stays_as_drawn(weights):
    folder, params = weights
    meta, state = make(ImageSpec(size=96, mean=SPEC.mean, std=SPEC.std))
    begun, drawn, *_ = begin_from(folder, state, meta)
    assert drawn == ["fc1", "fc2", "head"]
    for tree in (begun.params, begun.ema["params"]):
        for key, layer in tree.items():
            for leaf, value in layer.items():
                expected = params.get(key, state.params[key])[leaf]
                np.testing.assert_allclose(value, expected, atol=1e-3)
                assert (key in params) != np.array_equal(value, state.params[key][leaf]) or (
                    leaf == "bias"
                )
    assert begun.step == 0
    buffers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves((begun.params, begun.ema))]
    assert len(set(buffers)) == len(buffers)  # else a donated state cannot be stepped


def test_a_head_of_other_classes_stays_as_drawn(tmp_path):
    meta, state = make(classes=8)
    save_weights(tmp_path, {"params": state.params, "batch_stats": {}}, meta)
    mine, new = make(classes=7)
    begun, drawn, *_ = begin_from(str(tmp_path), new, mine)
    assert drawn == ["head"]
    np.testing.assert_array_equal(begun.params["head"]["kernel"], new.params["head"]["kernel"])
    with pytest.raises(EmotionError, match="fc1/kernel .*; set image_size=32"):
        meta, larger = make(ImageSpec(size=64, mean=SPEC.mean, std=SPEC.std))
        begin_from(str(tmp_path), larger, meta)


def test_other_pixels_and_networks_are_told(weights):
    folder, _ = weights
    meta, state = make()
    for other, message in (
        (
            make_meta("vgg16", OPTIONS, ImageSpec(size=32)),
            r"mean: \(0.5,\), but .* \(0.4, 0.3, 0.2",
        ),
        (make_meta("vgg16", {"width": 1 / 128}, SPEC), "model.width: 0.0078125, but"),
        (make_meta("simplenet", OPTIONS, SPEC), "model.name: simplenet, but"),
        (
            make_meta("vgg16", {**OPTIONS, "padding": "SAME"}, SPEC),
            "model.padding: SAME, but .* has ''; set the same",
        ),
    ):
        with pytest.raises(EmotionError, match=message):
            begin_from(folder, state, other)
    with pytest.raises(EmotionError, match="no workdir"):
        begin_from(folder + "/none", state, meta)


def test_narrower_weights_are_widened(tmp_path):
    meta, state = make(name="simplenet")
    save_weights(tmp_path, {"params": state.params, "batch_stats": state.batch_stats}, meta)
    wide = {**meta, "model": {**meta["model"], "width": 1 / 4}}
    model, spec, _ = model_from_meta(wide)
    drawn = init_state(jax.random.key(1), model=model, tx=optax.sgd(0.1), spec=spec, ema=True)
    begun, left, width, _ = begin_from(str(tmp_path), drawn, wide)
    assert (left, width) == ([], 1 / 64)
    for params in (begun.params, begun.ema["params"]):
        kernel = np.asarray(params["conv02"]["kernel"])
        features = state.params["conv02"]["kernel"].shape[-1]
        assert len(np.unique(kernel[0, 0, 0])) == features < kernel.shape[-1]
    save_weights(tmp_path, {"params": begun.params, "batch_stats": begun.batch_stats}, wide)
    with pytest.raises(EmotionError, match="model.width: 0.015625, .* has 0.25; set as much or"):
        begin_from(str(tmp_path), state, meta)


def test_a_little_more_width_that_rounds_to_less_is_refused(tmp_path):
    """At width 1 the first layer has 66 features, no multiple of 8; at 1.01 it has 64."""
    meta, _ = make(name="simplenet")
    narrow, wide = ({**meta, "model": {**meta["model"], "width": w}} for w in (1.0, 1.01))
    shapes = {"params/conv01/kernel": (3, 3, 3, 66), "params/head/kernel": (432, 9)}
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    tree = {"conv01": {"kernel": np.zeros((3, 3, 3, 64))}, "head": {"kernel": np.zeros((440, 8))}}
    state = TrainState(0, tree, {}, None, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(initial, "read_variables", lambda path: (arrays, narrow))
        with pytest.raises(EmotionError, match="^model.width: 1.01 rounds .*conv01/kernel to 64"):
            begin_from("weights", state, wide)
