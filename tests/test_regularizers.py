"""Regularizers are Keras regularizers: called, added, configured, saved, cloned."""

import copy
import math
import pickle

import keras
import numpy as np
import pytest

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
    hyperspherical_energy,
)
from keras_mhe.regularizers import RegularizerSum

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
        MHS(0.1, half_space=True, every=True) + RMHP(0.2, groups=2),
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

    def test_factor_zero_costs_nothing_in_the_loss(self):
        assert loss(MHE(0)) == 0

    def test_half_space_is_a_short_form(self):
        assert loss(HalfSpaceMHE(2.0)) == loss(MHE(2.0, half_space=True))

    def test_keras_takes_class_and_instance(self):
        assert isinstance(keras.regularizers.get(MHE), MHE)
        regularizer = HalfSpaceMHE()
        assert keras.regularizers.get(regularizer) is regularizer


class TestSum:
    def test_ours_on_either_side_of_any(self):
        decay = keras.regularizers.L2(5e-4)
        expected = loss(MHE()) + loss(decay)
        for both in (MHE() + decay, decay + MHE()):
            assert isinstance(both, keras.Regularizer)
            assert loss(both) == pytest.approx(expected)

    def test_sums_add_and_open(self):
        l1, l2 = keras.regularizers.L1(1e-3), keras.regularizers.L2(1e-3)
        both = (l1 + MHE()) + (HalfSpaceMHE() + l2)
        assert [type(r).__name__ for r in both.regularizers] == ["L1", "MHE", "HalfSpaceMHE", "L2"]
        assert loss(both) == pytest.approx(sum(map(loss, (l1, MHE(), HalfSpaceMHE(), l2))))

    def test_adding_leaves_the_parts_as_they_were(self):
        left = MHE() + keras.regularizers.L2(1e-3)
        left + HalfSpaceMHE()
        assert len(left.regularizers) == 2

    @pytest.mark.parametrize("other", [1, None, {"class_name": "L2"}, abs])
    def test_nothing_else_adds(self, other):
        with pytest.raises(TypeError, match="unsupported operand"):
            MHE() + other
        with pytest.raises(TypeError, match="unsupported operand"):
            other + MHE()

    def test_sum_of_nothing_or_of_numbers_is_refused(self):
        with pytest.raises(ValueError, match=r"regularizers=\[\]"):
            RegularizerSum([])
        with pytest.raises(TypeError, match="Received: 2"):
            RegularizerSum([MHE(), 2])

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    @pytest.mark.parametrize(
        "regularizer", [MHE(), MHE() + keras.regularizers.L2(1e-3)], ids=["alone", "sum"]
    )
    def test_losses_add_to_those_of_keras_whatever_the_kernel(self, regularizer, dtype):
        kernel = keras.ops.cast(KERNEL, dtype)
        value = regularizer(kernel)
        assert keras.backend.standardize_dtype(value.dtype) == keras.config.floatx()
        expected = float(regularizer(keras.ops.cast(kernel, "float32")))
        assert float(value) == pytest.approx(expected, rel=1e-2)


class TestConfiguration:
    @every_regularizer
    def test_config_round_trip(self, regularizer):
        twin = type(regularizer).from_config(regularizer.get_config())
        assert twin.get_config() == regularizer.get_config()
        assert loss(twin) == loss(regularizer)

    @every_regularizer
    def test_serialised_under_the_name_of_the_package(self, regularizer):
        config = keras.regularizers.serialize(regularizer)
        assert config["registered_name"].startswith("keras_mhe>")
        assert loss(keras.regularizers.deserialize(config)) == loss(regularizer)

    @every_regularizer
    def test_copies_and_pickles(self, regularizer):
        for twin in (copy.deepcopy(regularizer), pickle.loads(pickle.dumps(regularizer))):
            assert loss(twin) == loss(regularizer)

    def test_a_list_of_axes_is_the_callers_to_change(self):
        axes = [2, 3]
        regularizer = MHE(neuron_axis=axes)
        axes.append(7)
        assert regularizer.get_config()["neuron_axis"] == [2, 3]

    def test_repr_is_the_call_that_makes_it(self):
        regularizer = HalfSpaceMHE(0.5, 0, groups=2)
        assert eval(repr(regularizer)).get_config() == regularizer.get_config()
        compressive = CoMHE(projection="angle")
        assert eval(repr(compressive), vars(keras_mhe)).get_config() == compressive.get_config()
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


def losses(model):
    return [float(keras.ops.convert_to_numpy(x)) for x in model.losses]


class TestModels:
    @every_regularizer
    def test_saved_models_load_without_custom_objects(self, regularizer, tmp_path):
        model = model_with(regularizer)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert losses(loaded) == losses(model)
        found = loaded.layers[0].kernel_regularizer
        assert found.get_config() == regularizer.get_config()

    @every_regularizer
    def test_cloned_models_and_json(self, regularizer):
        model = model_with(regularizer)
        for twin in (
            keras.models.clone_model(model),
            keras.models.model_from_json(model.to_json()),
        ):
            twin.set_weights(model.get_weights())
            assert losses(twin) == losses(model)

    def test_one_regularizer_serves_many_layers(self):
        regularizer = MHE(s=1)
        dense = keras.layers.Dense
        shared = [dense(4, kernel_regularizer=regularizer) for _ in range(3)]
        model = keras.Sequential([keras.Input((5,)), *shared])
        assert losses(model) == [loss(regularizer, layer.kernel) for layer in shared]

    def test_many_shapes_train_without_a_word(self, caplog):
        """TensorFlow used to warn of retracing from the fifth layer on."""
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
    def test_axes_and_groups_reach_every_kind_of_kernel(self, layer, shape, options):
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
        ("options", "error", "words"),
        [
            ({"factor": -1}, ValueError, "factor=-1"),
            ({"factor": math.nan}, ValueError, "factor=nan"),
            ({"factor": "1"}, TypeError, "factor='1'"),
            ({"s": -0.5}, ValueError, "s=-0.5"),
            ({"s": math.nan}, ValueError, "s=nan"),
            ({"distance": "manhattan"}, ValueError, "distance='manhattan'"),
            ({"neuron_axis": "last"}, TypeError, "neuron_axis='last'"),
            ({"groups": 0}, ValueError, "groups=0"),
            ({"softening": "off"}, ValueError, "softening='off'"),
        ],
    )
    def test_bad_arguments_are_named_at_construction(self, cls, options, error, words):
        with pytest.raises(error) as raised:
            cls(**options)
        assert str(raised.value).endswith(words)

    @pytest.mark.parametrize("kernel", [np.ones(3, "float32"), np.float32(1)])
    def test_kernels_without_neurons_are_refused(self, kernel):
        with pytest.raises(ValueError, match="at least two axes"):
            MHE()(kernel)

    def test_integer_kernels_are_refused(self):
        with pytest.raises(TypeError, match=r"kernel\.dtype=int32"):
            MHE()(np.ones((3, 4), "int32"))
