"""The factor of a layer's energy, which is a variable."""

from typing import Any

import keras


class FactorVariable:
    """Gives a layer the attribute `factor`, a variable that cannot be replaced by a number."""

    _factor: keras.Variable

    @property
    def factor(self) -> keras.Variable:
        return self._factor

    @factor.setter
    def factor(self, value: Any) -> None:
        raise AttributeError(
            "The factor of a layer is a variable. Change it during training with "
            "`keras_mhe.FactorSchedule`, or before training with `layer.factor.assign(...)`. "
            f"Received: factor={value!r}"
        )
