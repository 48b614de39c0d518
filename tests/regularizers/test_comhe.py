"""CoMHE as a regularizer: names of projections, values of the papers, errors and examples."""

import json
import re
from pathlib import Path

import keras
import numpy as np
import oracle
import pytest
from differentiate import value_and_gradient
from helpers import normals, on_compiled_and_other_steps

from keras_mhe import (
    AdversarialProjection,
    AngleProjection,
    CoMHE,
    GroupProjection,
    HypersphericalRegularization,
    RandomProjection,
)
from keras_mhe.energies._programs import fresh_programs
from keras_mhe.regularizers import _projections as projections_module

SHORT_FORMS = {
    "random": RandomProjection(),
    "angle": AngleProjection(),
    "adversarial": AdversarialProjection(),
    "group": GroupProjection(),
}


@pytest.mark.parametrize("name", SHORT_FORMS)
def test_strings_select_projections_with_defaults(name):
    assert CoMHE(projection=name).projection == SHORT_FORMS[name]


@pytest.mark.parametrize("projection", ["other", None, 3, RandomProjection])
def test_invalid_projections_raise_an_error(projection):
    with pytest.raises(ValueError, match=r"`projection`.*Received: projection="):
        CoMHE(projection=projection)


@pytest.mark.parametrize("half_space", [False, True])
@pytest.mark.parametrize("t", [2.0, 40.0])
def test_gaussian_energy_is_the_logarithm_of_a_mean_over_all_projections(t, half_space, float64):
    kernel, projection = normals(9, 6, dtype="float64"), RandomProjection(dim=3, count=2)
    options = {"distance": "gaussian", "t": t, "half_space": half_space}
    value, gradient = value_and_gradient(
        CoMHE(projection=projection, bounded=False, **options), kernel
    )
    draws = keras.ops.convert_to_numpy(projection.draw(kernel))

    def energy(kernel):
        projected = np.concatenate([draw @ kernel for draw in draws], axis=1)
        return oracle.gaussian_energy(projected, t, half_space, groups=2)

    # Losses have the default dtype of Keras.
    assert value == pytest.approx(energy(kernel), rel=1e-6)
    expected = oracle.central_differences(energy, kernel, 1e-5)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7)


def test_gaussian_energy_of_a_learned_projection_is_that_of_its_points():
    regularizer = CoMHE(distance="gaussian", projection=AngleProjection(dim=4, unroll=False))
    layer = keras.layers.Dense(6)
    wrapper = HypersphericalRegularization(layer, regularizer)
    wrapper.build((None, 9))
    tensors = wrapper.state["projection"], layer.kernel
    projection, kernel = map(keras.ops.convert_to_numpy, tensors)
    expected = oracle.gaussian_energy(projection @ kernel, 2.0, half_space=True)
    [loss] = wrapper.losses
    assert float(keras.ops.convert_to_numpy(loss)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("projection", ["adversarial", "group", GroupProjection(3)])
def test_other_projections_raise_an_error_with_a_gaussian(projection):
    with pytest.raises(ValueError, match=r"gaussian.*Received: projection="):
        CoMHE(distance="gaussian", projection=projection)


@pytest.mark.parametrize("name", ["angle", "adversarial"])
def test_learned_projection_without_the_wrapper_raises_an_error(name):
    layer = keras.layers.Dense(4, kernel_regularizer=CoMHE(projection=name))
    layer.build((None, 50))
    code = r"keras_mhe\.HypersphericalRegularization\(keras\.layers\.Dense\(64\), keras_mhe\.CoMHE"
    with pytest.raises(ValueError, match=code):
        _ = layer.losses


def test_code_in_the_error_message_runs():
    import keras_mhe

    with pytest.raises(ValueError, match="Use the layer wrapper") as raised:
        CoMHE(projection="angle")(normals(50, 4))
    code = str(raised.value).split("`")[3]
    wrapped = eval(code, {"keras": keras, "keras_mhe": keras_mhe})
    wrapped.build((None, 50))
    assert len(wrapped.losses) == 1


class TestPaperValues:
    """The papers' programs use ‖w‖² + 1e-4, so gradients agree to 1e-2 only, as for MHE."""

    rows = json.loads((Path(__file__).parents[1] / "data" / "papers_comhe.json").read_text())

    @pytest.mark.parametrize("row", rows, ids=lambda row: row["kind"])
    def test_values_and_gradients_match_the_papers(self, row, monkeypatch):
        with fresh_programs():
            self.check(row, monkeypatch)

    def check(self, row, monkeypatch):
        shape, d, dim = row["shape"], int(np.prod(row["shape"][:-1])), row["pd"]
        kernel = normals(*shape, seed=row["seed"], dtype="float64") * row["scale"]
        count = row.get("pn", 1)
        projections = np.stack([normals(dim, d, seed=row["proj_seed"] + i) for i in range(count)])
        learned = {"angle": AngleProjection, "adversarial": AdversarialProjection}
        if row["kind"] == "random":
            projection = RandomProjection(dim, count)
            drawn = keras.ops.convert_to_tensor(projections)
            monkeypatch.setattr(projections_module._Draw, "projections", lambda *_: drawn)
        else:
            projection = learned[row["kind"]](dim, learning_rate=row["lr"])
        layer = keras.layers.Conv2D(shape[-1], shape[0])
        wrapper = HypersphericalRegularization(layer, CoMHE(projection=projection, softening=0))
        wrapper.build((None, 9, 9, shape[-2]))
        layer.kernel.assign(kernel)
        if wrapper.state:
            wrapper.state["projection"].assign(projections[0])
        assert float(wrapper.losses[0]) == pytest.approx(row["loss"], rel=1e-3)

        value, gradient = value_and_gradient(layer.kernel.regularizer, kernel.astype("float32"))
        probe = np.random.default_rng(999).standard_normal(shape)
        assert value == pytest.approx(row["loss"], rel=1e-3)
        assert np.linalg.norm(gradient) == pytest.approx(row["gnorm"], rel=1e-2)
        assert np.sum(gradient * probe) == pytest.approx(row["gprobe"], abs=1e-2 * row["gnorm"])


def zero_loss(y_true, y_pred):
    """A data loss of zero, so the loss of a step is that of the regularizer."""
    return 0.0 * y_pred[:, 0]


@on_compiled_and_other_steps
def test_training_steps_draw_new_projections_and_a_loaded_model_repeats_them(tmp_path, jit_compile):
    """Each compiled step computes its loss with the projections that its kernel draws."""
    projection = RandomProjection(dim=4, count=2)
    keras.utils.set_random_seed(0)
    layer = keras.layers.Dense(12, kernel_regularizer=CoMHE(projection=projection, softening=0))
    model = keras.Sequential([keras.Input((9,)), layer])
    # Without momentum, saved weights are sufficient to resume.
    model.compile(keras.optimizers.SGD(0.01), zero_loss, jit_compile=jit_compile)
    x, y = np.ones((4, 9), "float32"), np.zeros((4, 1), "float32")
    fixed = CoMHE(projection=RandomProjection(4, 2), softening=0)

    def step(model):
        kernel = model.layers[0].kernel
        drawn = keras.ops.convert_to_numpy(projection.draw(kernel))
        expected = float(fixed(keras.ops.convert_to_tensor(kernel)))
        model.reset_metrics()
        assert float(model.train_on_batch(x, y)) == pytest.approx(expected, rel=1e-5)
        return drawn

    first = step(model)
    model.save(tmp_path / "model.keras")
    others = [step(model) for _ in range(4)]
    draws = [first, *others]
    assert all(np.all(a != b) for i, a in enumerate(draws) for b in draws[:i])

    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    loaded.compile(keras.optimizers.SGD(0.01), zero_loss, jit_compile=jit_compile)
    for expected in others:
        np.testing.assert_array_equal(step(loaded), expected)


@pytest.mark.slow
@pytest.mark.once
def test_examples_of_the_page_on_compressive_mhe_run():
    page = (Path(__file__).parents[2] / "docs" / "compressive.md").read_text()
    names = {}
    bare, wrapped, warm_up = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(bare, names)
    names["layer"].build((None, 9, 9, 8))
    assert len(names["layer"].losses) == 1
    exec(wrapped, names)
    assert tuple(names["projection"].shape) == (30, 144)
    learned = keras.ops.convert_to_numpy(names["projection"])
    exec(warm_up, names)
    wrapper = names["model"].layers[1]
    assert float(keras.ops.convert_to_numpy(wrapper.factor)) == 1
    assert np.any(keras.ops.convert_to_numpy(wrapper.state["projection"]) != learned)
