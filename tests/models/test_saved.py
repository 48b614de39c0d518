"""Saving a regularized model keeps its energies, or the table says which ones are lost."""

import keras
import pytest
from keras import layers
from small_models import (
    convolutional_model,
    row_of,
    sum_of_losses,
    transformer_model,
)

from keras_mhe import regularize


@pytest.mark.parametrize("build", [transformer_model, convolutional_model])
def test_loaded_model_has_the_energies_of_all_kernels(build, tmp_path):
    model = build()
    table = regularize(model)
    assert all(row.saved for row in table.rows if row.action != "skipped")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(loaded.losses) == len(model.losses)
    assert sum_of_losses(loaded) == pytest.approx(sum_of_losses(model), rel=1e-6)
    assert sum_of_losses(keras.models.clone_model(model)) > 0
    regularize(loaded)
    assert sum_of_losses(loaded) == pytest.approx(sum_of_losses(model), rel=1e-6)


def test_table_marks_kernels_whose_energy_is_lost_by_saving(tmp_path):
    @keras.saving.register_keras_serializable(package="test_models")
    class Block(layers.Layer):
        """A layer whose config omits its inner layer."""

        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units, self.inner = units, layers.Dense(units, name="inner")

        def build(self, input_shape):
            self.inner.build(input_shape)

        def call(self, inputs):
            return self.inner(inputs)

        def get_config(self):
            return {**super().get_config(), "units": self.units}

    inputs = keras.Input((8,))
    x = layers.LayerNormalization()(Block(6, name="block")(inputs))
    model = keras.Model(inputs, layers.Dense(3, name="head")(x))
    table = regularize(model)
    inner, head = row_of(table, "block/inner"), row_of(table, "head")
    assert (inner.saved, head.saved) == (False, True)
    assert "after loading" in inner.note
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(loaded.losses) == 1
    regularize(loaded)
    assert sum_of_losses(loaded) == pytest.approx(sum_of_losses(model), rel=1e-6)
