"""Regularizers work as Keras regularizers: calls, sums, configs, saved and cloned models."""

import copy
import math
import pickle

import keras
import numpy as np
import pytest
from differentiate import value_and_gradient

import keras_mhe
from keras_mhe import (
    MGD,
    MHC,
    MHE,
    MHP,
    MHS,
    RMHP,
    CoMHE,
    GroupProjection,
    HalfSpaceMHE,
    HypersphericalRegularization,
    hyperspherical_energy,
)
from keras_mhe.regularizers import AttentionEnergy, HypersphericalRegularizer, RegularizerSum

KERNEL = np.random.default_rng(0).standard_normal((3, 3, 4, 8)).astype("float32")

every_regularizer = pytest.mark.parametrize(
    "regularizer",
    [
        MHE(),
        MHE(10.0, 0, distance="angular", half_space=True, softening=0.2),
        MHE(2.0, 1.5, neuron_axis=(0, -1), groups=4, softening=0),
        HalfSpaceMHE(0.5, neuron_axis=-2),
        HalfSpaceMHE(1.0) + keras.regularizers.L2(5e-4),
        keras.regularizers.L1(1e-3) + MHE(0.1) + HalfSpaceMHE(0.2),
        CoMHE(2.0, 0, projection="random", groups=2),
        CoMHE(distance="angular", projection=GroupProjection(3)) + keras.regularizers.L2(5e-4),
        MHS(0.1, half_space=True, all_neurons=True) + RMHP(0.2, groups=2),
        MHS(measure="log") + MHS(measure="angle", half_space=True, all_neurons=False),
        MHE(2.0, distance="gaussian", t=3.0, half_space=True),
        HalfSpaceMHE(distance="gaussian", sample=4, scale="position"),
        CoMHE(distance="gaussian", t=20.0, groups=2),
        MHP(1.0, 1, pole="worst", softening=0.2, neuron_axis=-2),
        MHC(0.1, 5.0, pole="worst", half_space=True) + MGD(0.1, half_space=True),
    ],
    ids=lambda regularizer: type(regularizer).__name__,
)


def loss(regularizer, kernel=KERNEL):
    return float(keras.ops.convert_to_numpy(regularizer(keras.ops.convert_to_tensor(kernel))))


def energy(**options):
    return float(keras.ops.convert_to_numpy(hyperspherical_energy(KERNEL, **options)))


class TestCall:
    def test_loss_is_factor_times_energy(self):
        options = {"s": 1, "distance": "angular", "neuron_axis": -2, "groups": 2, "softening": 0.5}
        expected = 3 * energy(**options)
        assert loss(MHE(3, **options)) == pytest.approx(expected)
        assert loss(HalfSpaceMHE(3, **options)) == pytest.approx(
            3 * energy(half_space=True, **options)
        )

    def test_factor_zero_gives_zero_loss(self):
        assert loss(MHE(0)) == 0

    def test_half_space_mhe_equals_mhe_with_half_space(self):
        assert loss(HalfSpaceMHE(2.0)) == loss(MHE(2.0, half_space=True))

    def test_keras_accepts_class_and_instance(self):
        assert isinstance(keras.regularizers.get(MHE), MHE)
        regularizer = HalfSpaceMHE()
        assert keras.regularizers.get(regularizer) is regularizer


class TestSum:
    def test_sums_with_keras_regularizers_work_in_both_orders(self):
        decay = keras.regularizers.L2(5e-4)
        expected = loss(MHE()) + loss(decay)
        for total in (MHE() + decay, decay + MHE()):
            assert isinstance(total, keras.Regularizer)
            assert loss(total) == pytest.approx(expected)

    def test_sums_of_sums_are_flat(self):
        l1, l2 = keras.regularizers.L1(1e-3), keras.regularizers.L2(1e-3)
        total = (l1 + MHE()) + (HalfSpaceMHE() + l2)
        assert [type(r).__name__ for r in total.regularizers] == ["L1", "MHE", "HalfSpaceMHE", "L2"]
        assert loss(total) == pytest.approx(sum(map(loss, (l1, MHE(), HalfSpaceMHE(), l2))))

    def test_addition_does_not_change_its_operands(self):
        left = MHE() + keras.regularizers.L2(1e-3)
        left + HalfSpaceMHE()
        assert len(left.regularizers) == 2

    @pytest.mark.parametrize("make", [list, tuple, iter], ids=["list", "tuple", "iterator"])
    def test_sum_of_python_equals_the_operator(self, make):
        terms = [MHE(), keras.regularizers.L2(5e-4), HalfSpaceMHE()]
        total = sum(make(terms))
        assert total.regularizers == terms

    @pytest.mark.parametrize(
        "regularizer",
        [MHE(), MHE() + HalfSpaceMHE(), AttentionEnergy(MHE(), [(2, 3)])],
        ids=lambda regularizer: type(regularizer).__name__,
    )
    def test_adding_zero_returns_the_regularizer_itself(self, regularizer):
        assert sum([regularizer]) is regularizer
        for zero in (0, 0.0):
            assert zero + regularizer is regularizer
            assert regularizer + zero is regularizer

    def test_addition_of_a_name_raises_an_error(self):
        with pytest.raises(TypeError, match="unsupported operand"):
            MHE() + "l2"
        with pytest.raises(TypeError):
            "l2" + MHE()

    @pytest.mark.parametrize("other", [1, 1.0, False, None, {"class_name": "L2"}, abs])
    def test_addition_of_other_objects_raises_an_error(self, other):
        with pytest.raises(TypeError, match="unsupported operand"):
            MHE() + other
        with pytest.raises(TypeError, match="unsupported operand"):
            other + MHE()

    def test_empty_sum_and_sum_of_numbers_raise_an_error(self):
        with pytest.raises(ValueError, match=r"regularizers=\[\]"):
            RegularizerSum([])
        with pytest.raises(TypeError, match="Received: 2"):
            RegularizerSum([MHE(), 2])
        with pytest.raises(TypeError, match="or functions"):
            RegularizerSum([MHE(), keras.regularizers.L2])

    def test_sum_contains_functions_after_saving_too(self):
        @keras.saving.register_keras_serializable(package="test_base")
        def total(kernel):
            return keras.ops.sum(kernel)

        both = RegularizerSum([keras.regularizers.L2(0.5), total])
        for regularizer in (both, RegularizerSum.from_config(both.get_config())):
            assert float(regularizer(keras.ops.ones((2, 3)))) == 9

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    @pytest.mark.parametrize(
        "regularizer", [MHE(), MHE() + keras.regularizers.L2(1e-3)], ids=["alone", "sum"]
    )
    def test_losses_of_half_precision_kernels_have_the_default_dtype(self, regularizer, dtype):
        kernel = keras.ops.cast(KERNEL, dtype)
        value = regularizer(kernel)
        assert keras.backend.standardize_dtype(value.dtype) == keras.config.floatx()
        expected = float(regularizer(keras.ops.cast(kernel, "float32")))
        assert float(value) == pytest.approx(expected, rel=1e-2)


def losses(model):
    return [float(keras.ops.convert_to_numpy(x)) for x in model.losses]


# Constructors, because each regularizer warns once.
MEASURES_OF_DIRECTIONS = {
    "MHE": MHE,
    "MHE-sample": lambda: MHE(sample=2),
    "MHE-position": lambda: MHE(scale="position", groups=2, bounded=False),
    "HalfSpaceMHE": HalfSpaceMHE,
    "CoMHE": CoMHE,
    "CoMHE-group": lambda: CoMHE(projection=GroupProjection(4)),
    "MHE-gaussian": lambda: MHE(distance="gaussian"),
    "MHS": lambda: MHS(half_space=True),
    "MHS-log": lambda: MHS(measure="log"),
    "MHP": lambda: MHP(pole="worst"),
    "MHC": lambda: MHC(pole="worst"),
    "MGD": MGD,
}


class TestOneCoordinate:
    """Neurons of one coordinate have no directions: loss 0, gradient 0 and one warning."""

    kernel = np.array([[1.0, 2.0, -0.5, 1.0, -3.0, 0.1, 0.0, 2.0]], "float32")

    def test_every_measure_is_tested(self):
        tested = {name.split("-")[0] for name in MEASURES_OF_DIRECTIONS} | {"RMHP"}
        exported = {
            name: getattr(keras_mhe.regularizers, name)
            for name in keras_mhe.__all__
            if hasattr(keras_mhe.regularizers, name)
        }
        measures = {
            name
            for name, cls in exported.items()
            if isinstance(cls, type) and issubclass(cls, HypersphericalRegularizer)
        }
        assert measures == tested

    @pytest.mark.parametrize("name", MEASURES_OF_DIRECTIONS)
    def test_loss_and_gradient_are_zero_with_one_warning(self, name):
        regularizer = MEASURES_OF_DIRECTIONS[name]()
        with pytest.warns(UserWarning, match=r"no directions.*Received: [48] neurons"):
            value, gradient = value_and_gradient(regularizer, self.kernel)
        assert value == 0
        np.testing.assert_array_equal(gradient, np.zeros_like(self.kernel))
        # A second warning would be an error.
        assert value_and_gradient(regularizer, self.kernel)[0] == 0

    def test_measure_of_neurons_keeps_its_loss(self):
        value, gradient = value_and_gradient(RMHP(3.0, bounded=False), self.kernel)
        assert value == pytest.approx(3 * abs(self.kernel.sum()), rel=1e-6)
        np.testing.assert_allclose(gradient, np.full_like(self.kernel, 3.0))

    def test_energy_as_a_function_stays_exact(self):
        # Pairs are equal or opposite, at squared distances of 0 and 4.
        kernel = keras.ops.convert_to_tensor(self.kernel[:, :2] * [1.0, -1.0])
        assert float(hyperspherical_energy(kernel)) == pytest.approx(1 / 4)
        assert float(MHE().energy(kernel, {})) == pytest.approx(1 / 4)

    @pytest.mark.parametrize(
        ("regularizer", "shape"),
        [
            (MHE(neuron_axis=0), (6, 1)),
            (HalfSpaceMHE(), (1, 1, 1, 8)),
            (MHE(neuron_axis=(0, -1), groups=2), (6, 1, 2)),
            (AttentionEnergy(HalfSpaceMHE(), [(2, 3)]), (1, 2, 3)),
            (MHE() + keras.regularizers.L2(0.0), (1, 8)),
        ],
        ids=["embedding", "pointwise", "axes", "attention", "sum"],
    )
    @pytest.mark.parametrize("dtype", ["float16", "float32"])
    def test_every_axis_and_dtype_counts(self, regularizer, shape, dtype):
        kernel = keras.ops.full(shape, math.nan if shape[0] > 1 else 2.0, dtype)
        with pytest.warns(UserWarning, match="no directions"):
            value = copy.deepcopy(regularizer)(kernel)
        assert float(value) == 0
        assert keras.backend.standardize_dtype(value.dtype) == keras.config.floatx()

    @pytest.mark.parametrize("make", [HalfSpaceMHE, MHP], ids=["energy", "learned"])
    def test_wrapper_regularizes_the_other_kernels_of_a_layer(self, make):
        layer = keras.layers.LSTM(3)
        wrapper = HypersphericalRegularization(layer, make())
        wrapper.build((None, 4, 1))
        with pytest.warns(UserWarning, match="no directions"):
            of_kernel, of_recurrent_kernel = losses(wrapper)
        assert of_kernel == 0
        assert of_recurrent_kernel != 0
        assert losses(wrapper) == [of_kernel, of_recurrent_kernel]
        # Files of earlier versions hold the poles of both kernels.
        shapes = {name: tuple(value.shape) for name, value in wrapper.state.items()}
        poles = {"kernel/pole": (1,), "recurrent_kernel/pole": (3,)}
        assert shapes == (poles if make is MHP else {})

    def test_training_warns_once(self):
        dense = keras.layers.Dense(8, kernel_regularizer=MHE(100.0))
        model = keras.Sequential([keras.Input((1,)), dense])
        model.compile(keras.optimizers.SGD(0.1), lambda y, p: 0.0 * p[:, 0])
        before = keras.ops.convert_to_numpy(dense.kernel)
        ones = np.ones((6, 1), "float32")
        with pytest.warns(UserWarning, match="no directions"):
            history = model.fit(ones, ones, 4, epochs=2, verbose=0)
        # A second warning would be an error: in another program, and in eager mode.
        assert model.evaluate(ones, ones, verbose=0) == 0
        assert losses(model) == [0]
        assert history.history["loss"] == [0, 0]
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(dense.kernel), before)


class TestConfiguration:
    @every_regularizer
    def test_config_round_trip(self, regularizer):
        restored = type(regularizer).from_config(regularizer.get_config())
        assert restored.get_config() == regularizer.get_config()
        assert loss(restored) == loss(regularizer)

    @every_regularizer
    def test_registered_name_begins_with_the_package(self, regularizer):
        config = keras.regularizers.serialize(regularizer)
        assert config["registered_name"].startswith("keras_mhe>")
        assert loss(keras.regularizers.deserialize(config)) == loss(regularizer)

    @every_regularizer
    def test_copies_and_pickles_have_equal_losses(self, regularizer):
        for copied in (copy.deepcopy(regularizer), pickle.loads(pickle.dumps(regularizer))):
            assert loss(copied) == loss(regularizer)

    def test_arguments_change_before_the_first_use_only(self):
        """Compiled steps contain them as constants: a later change would have no effect."""
        regularizer = MHE(1.0)
        regularizer.factor = 2.0
        assert loss(regularizer) == pytest.approx(2 * loss(MHE(1.0)), rel=1e-6)
        with pytest.raises(AttributeError, match=r"FactorSchedule\(.* Received: factor=3\.0"):
            regularizer.factor = 3.0
        with pytest.raises(AttributeError, match=r"new regularizer. Received: neuron_axis=0"):
            regularizer.neuron_axis = 0
        assert regularizer.get_config() == MHE(2.0).get_config()
        for copied in (copy.copy(regularizer), pickle.loads(pickle.dumps(regularizer))):
            copied.factor = 4.0
            assert loss(copied) == pytest.approx(4 * loss(MHE(1.0)), rel=1e-6)

    @pytest.mark.parametrize("regularizer", [MHE(), CoMHE()], ids=["MHE", "CoMHE"])
    def test_config_is_not_computed_in_a_step(self, regularizer, monkeypatch):
        """With projections, it takes milliseconds."""
        loss(regularizer)
        monkeypatch.setattr(type(regularizer), "get_config", None)
        loss(regularizer)

    @pytest.mark.parametrize("inside", ["bare", "sum", "wrapper", "attention"])
    def test_assigning_the_factor_in_a_callback_names_the_schedule(self, inside):
        regularizer = MHE(1.0)
        dense = {"bare": regularizer, "sum": regularizer + keras.regularizers.L2(1e-4)}
        layer = keras.layers.Dense(4, kernel_regularizer=dense.get(inside))
        if inside == "wrapper":
            layer = HypersphericalRegularization(layer, regularizer)
        if inside == "attention":
            energy = AttentionEnergy(regularizer, heads=[(2, 4)])
            layer = keras.layers.EinsumDense("ab,bcd->acd", (2, 4), kernel_regularizer=energy)
        model = keras.Sequential([keras.Input((6,)), layer])
        model.compile("sgd", "mse")

        class Raise(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                regularizer.factor = 5.0

        x = np.ones((4, 6), "float32")
        with pytest.raises(AttributeError, match="FactorSchedule"):
            model.fit(x, model.predict(x, verbose=0), verbose=0, callbacks=[Raise()])

    @pytest.mark.parametrize("cls", [MHE, HalfSpaceMHE, CoMHE])
    def test_power_is_two_by_default_and_none_for_a_gaussian(self, cls):
        assert (cls().s, cls(1.0, 3).s, cls(s=None).s, cls().t) == (2.0, 3.0, 2.0, None)
        gaussian = cls(distance="gaussian")
        assert (gaussian.s, gaussian.t, gaussian.softening) == (None, 2.0, "auto")

    @pytest.mark.parametrize("cls", [MHE, HalfSpaceMHE, CoMHE])
    def test_configs_of_earlier_versions_load_and_are_still_written(self, cls):
        """They have a power and no `t`."""
        config = cls(0.5, 1, distance="angular").get_config()
        assert config["s"] == 1
        assert "t" not in config
        assert cls.from_config(config).get_config() == config
        assert cls(distance="gaussian", t=3).get_config()["t"] == 3.0

    def test_later_changes_of_a_list_of_axes_have_no_effect(self):
        axes = [2, 3]
        regularizer = MHE(neuron_axis=axes)
        axes.append(7)
        assert regularizer.get_config()["neuron_axis"] == [2, 3]

    def test_repr_is_the_constructor_call(self):
        regularizer = HalfSpaceMHE(0.5, 0, groups=2)
        assert eval(repr(regularizer)).get_config() == regularizer.get_config()
        comhe = CoMHE(projection="angle")
        assert eval(repr(comhe), vars(keras_mhe)).get_config() == comhe.get_config()
        assert repr(MHE() + regularizer) == f"{MHE()!r} + {regularizer!r}"


def model_with(regularizer):
    return keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            keras.layers.Conv2D(8, 3, kernel_regularizer=regularizer),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, kernel_regularizer=MHE(10.0, s=0)),
        ]
    )


class TestModels:
    @every_regularizer
    def test_saved_models_load_without_custom_objects(self, regularizer, tmp_path):
        model = model_with(regularizer)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert losses(loaded) == losses(model)
        restored = loaded.layers[0].kernel_regularizer
        assert restored.get_config() == regularizer.get_config()

    @every_regularizer
    def test_cloned_and_json_models_have_equal_losses(self, regularizer):
        model = model_with(regularizer)
        for clone in (
            keras.models.clone_model(model),
            keras.models.model_from_json(model.to_json()),
        ):
            clone.set_weights(model.get_weights())
            assert losses(clone) == losses(model)

    def test_one_regularizer_can_serve_several_layers(self):
        regularizer = MHE(s=1)
        dense = keras.layers.Dense
        shared = [dense(4, kernel_regularizer=regularizer) for _ in range(3)]
        model = keras.Sequential([keras.Input((5,)), *shared])
        assert losses(model) == [loss(regularizer, layer.kernel) for layer in shared]

    def test_many_kernel_shapes_cause_no_warnings(self, caplog):
        """TensorFlow used to warn about retracing from the fifth layer on."""
        dense = keras.layers.Dense
        layers = [dense(n, kernel_regularizer=MHE()) for n in range(9, 16)]
        model = keras.Sequential([keras.Input((8,)), *layers])
        assert np.all(np.isfinite(losses(model)))
        assert not caplog.records

    @pytest.mark.parametrize(
        ("layer", "shape", "options"),
        [
            (keras.layers.Conv2DTranspose(6, 3), (None, 5, 5, 4), {"neuron_axis": -2}),
            (keras.layers.Conv1D(6, 3, groups=2), (None, 9, 4), {"groups": 2}),
            (keras.layers.Embedding(20, 4), (None,), {"neuron_axis": 0}),
            (keras.layers.LSTM(5), (None, 3, 4), {"groups": 4}),
            (keras.layers.EinsumDense("ab,bcd->acd", (3, 4)), (None, 5), {"neuron_axis": (1, 2)}),
        ],
        ids=lambda x: type(x).__name__,
    )
    def test_neuron_axis_and_groups_apply_to_every_kind_of_kernel(self, layer, shape, options):
        embedding = isinstance(layer, keras.layers.Embedding)
        name = "embeddings_regularizer" if embedding else "kernel_regularizer"
        config = {**layer.get_config(), name: MHE(**options)}
        layer = type(layer)(**{k: v for k, v in config.items() if k != "build_config"})
        layer.build(shape)
        [got] = losses(layer)
        assert math.isfinite(got)
        weight = layer.embeddings if embedding else layer.trainable_weights[0]
        assert got == pytest.approx(float(hyperspherical_energy(weight, **options)))


class TestArguments:
    @pytest.mark.parametrize("cls", [MHE, HalfSpaceMHE, CoMHE])
    @pytest.mark.parametrize(
        ("options", "error", "message"),
        [
            ({"factor": -1}, ValueError, "factor=-1"),
            ({"factor": math.nan}, ValueError, "factor=nan"),
            ({"factor": "1"}, TypeError, "factor='1'"),
            ({"s": -0.5}, ValueError, "s=-0.5"),
            ({"s": math.nan}, ValueError, "s=nan"),
            ({"s": 2.0, "distance": "gaussian"}, ValueError, "s=2.0"),
            ({"softening": 0.1, "distance": "gaussian"}, ValueError, "softening=0.1"),
            ({"t": 2.0}, ValueError, 't=2.0, distance="euclidean"'),
            ({"t": 0, "distance": "gaussian"}, ValueError, "t=0"),
            ({"distance": "manhattan"}, ValueError, "distance='manhattan'"),
            ({"neuron_axis": "last"}, TypeError, "neuron_axis='last'"),
            ({"groups": 0}, ValueError, "groups=0"),
            ({"softening": "off"}, ValueError, "softening='off'"),
        ],
    )
    def test_invalid_arguments_are_named_at_construction(self, cls, options, error, message):
        with pytest.raises(error) as raised:
            cls(**options)
        assert str(raised.value).endswith(message)

    @pytest.mark.parametrize("kernel", [np.ones(3, "float32"), np.float32(1)])
    def test_kernels_with_fewer_than_two_axes_raise_an_error(self, kernel):
        with pytest.raises(ValueError, match="at least two axes"):
            MHE()(kernel)

    def test_integer_kernels_raise_an_error(self):
        with pytest.raises(TypeError, match=r"kernel\.dtype=int32"):
            MHE()(np.ones((3, 4), "int32"))
