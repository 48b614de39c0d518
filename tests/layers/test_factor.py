"""The factor of a layer is a variable that no number can replace."""

import keras
import pytest

from keras_mhe import MHE, HypersphericalRegularization, Uniformity


@pytest.mark.parametrize(
    "make",
    [lambda r: HypersphericalRegularization(keras.layers.Dense(3), r), Uniformity],
    ids=["wrapper", "uniformity"],
)
def test_assigning_a_number_raises_and_names_what_works(make):
    """A compiled step reads the variable, so a number in its place would have no effect."""
    regularizer = MHE(2.0)
    layer = make(regularizer)
    with pytest.raises(AttributeError, match=r"FactorSchedule.*assign\(...\)`. Received: factor=5"):
        layer.factor = 5
    with pytest.raises(AttributeError, match="FactorSchedule"):
        regularizer.factor = 5
    layer.factor.assign(3.0)
    assert float(layer.factor.value) == 3.0
    assert [variable.name for variable in layer.variables] == ["factor"]
