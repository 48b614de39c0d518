"""`regularize` accepts every regularizer that Keras accepts, and refuses everything else."""

import keras
import pytest
from keras import layers
from small_models import dense_model, sum_of_losses

from keras_mhe import MHE, HalfSpaceMHE, regularize
from keras_mhe.models import _arguments
from keras_mhe.models._arguments import accepts_functions, check_regularizer
from keras_mhe.regularizers import AttentionEnergy, RegularizerSum

pytestmark = pytest.mark.once


needs_functions = pytest.mark.skipif(
    not accepts_functions(), reason="this version of Keras accepts no functions as regularizers"
)


def absolute(kernel):
    return 0.01 * keras.ops.sum(keras.ops.abs(kernel))


class Absolute(keras.Regularizer):
    def __call__(self, kernel):
        return absolute(kernel)


def sums(model):
    """The sums of the absolute values and of the squares of all kernels."""
    kernels = [layer.kernel for layer in model.layers]
    return [float(sum(keras.ops.sum(f(w)) for w in kernels)) for f in (abs, keras.ops.square)]


@pytest.mark.parametrize(
    ("regularizer", "l1", "l2"),
    [
        ("l2", 0, 0.01),
        ("L1", 0.01, 0),
        ({"class_name": "L2", "config": {"l2": 0.5}}, 0, 0.5),
        (keras.regularizers.L1L2(0.1, 0.2), 0.1, 0.2),
        pytest.param(absolute, 0.01, 0, marks=needs_functions),
        pytest.param(lambda kernel: 0.5 * keras.ops.sum(kernel**2), 0, 0.5, marks=needs_functions),
        (Absolute(), 0.01, 0),
        (RegularizerSum([absolute, keras.regularizers.L2(0.5)]), 0.01, 0.5),
        (RegularizerSum([keras.regularizers.L1(0.1), keras.regularizers.L2(0.5)]), 0.1, 0.5),
    ],
)
def test_all_kernels_get_any_regularizer_that_keras_accepts(regularizer, l1, l2):
    model = dense_model(6, 4)
    absolutes, squares = sums(model)
    regularize(model, regularizer)
    assert sum_of_losses(model) == pytest.approx(l1 * absolutes + l2 * squares, rel=1e-5)
    assert len(model.losses) == 2
    regularize(model, regularizer)
    assert sum_of_losses(model) == pytest.approx(l1 * absolutes + l2 * squares, rel=1e-5)


def test_an_output_that_is_not_given_is_that_of_hidden_layers_without_energy():
    l1, l2 = keras.regularizers.L1(0.1), keras.regularizers.L2(0.1)
    for arguments, expected in (
        ((), (HalfSpaceMHE, MHE)),
        ((HalfSpaceMHE(2.0),), (HalfSpaceMHE, MHE)),
        ((HalfSpaceMHE(2.0) + l2,), (RegularizerSum, MHE)),
        ((l2,), (keras.regularizers.L2, keras.regularizers.L2)),
        ((l2, None), (keras.regularizers.L2, type(None))),
        ((l2, l1), (keras.regularizers.L2, keras.regularizers.L1)),
        ((l2, MHE(10.0)), (keras.regularizers.L2, MHE)),
        ((None,), (type(None), MHE)),
    ):
        model = dense_model(6, 4)
        regularize(model, *arguments)
        assert tuple(type(layer.kernel.regularizer) for layer in model.layers) == expected
    model = dense_model(6, 4)
    regularize(model, output=l2)
    assert [type(layer.kernel.regularizer) for layer in model.layers] == [
        HalfSpaceMHE,
        keras.regularizers.L2,
    ]


@pytest.mark.parametrize(
    ("regularizer", "message"),
    [
        (3, "a function of a kernel.*Received: hidden=3"),
        ("l3", "the name of a regularizer of Keras.*'l3'"),
        ({"class_name": "Nothing", "config": {}}, "Nothing"),
        (keras.regularizers.L2, r"`L2\(\)`, not the class"),
        (AttentionEnergy(MHE(), [(2, 3)]), "inside `AttentionEnergy`"),
        (MHE() + AttentionEnergy(MHE(), [(2, 3)]), "inside `AttentionEnergy`"),
    ],
)
def test_other_arguments_raise_a_clear_error(regularizer, message):
    with pytest.raises(TypeError, match=message):
        check_regularizer(regularizer, "hidden")


def test_kernels_that_a_regularizer_does_not_accept_are_skipped_with_its_reason():
    model = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(3)]
    )
    table = regularize(model, keras.regularizers.OrthogonalRegularizer(0.1))
    assert [row.action for row in table.rows] == ["skipped", "regularized"]
    assert table.rows[0].note.startswith("OrthogonalRegularizer does not accept it: inputs to Orth")
    assert len(model.losses) == 1

    class Broken(keras.Regularizer):
        def __call__(self, kernel):
            raise RuntimeError

    with pytest.raises(ValueError, match="Broken does not accept it: RuntimeError"):
        regularize(model, Broken())


def test_functions_are_refused_if_keras_does(monkeypatch):
    monkeypatch.setattr(_arguments, "accepts_functions", lambda: False)
    with pytest.raises(TypeError, match="accepts no functions as regularizers"):
        regularize(dense_model(6, 4), absolute)
    # Keras accepts them in a sum.
    regularize(dense_model(6, 4), RegularizerSum([absolute, keras.regularizers.L2(0.5)]))
