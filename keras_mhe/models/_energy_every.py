"""The callback that computes energies at every k-th step only."""

import math
from typing import Any

from keras_mhe._arguments import check_integer
from keras_mhe._keras_internals import forget_compiled_steps
from keras_mhe.kernels._model import LayerFilter
from keras_mhe.models._factor_schedule import FactorSchedule
from keras_mhe.regularizers._base import is_lazy, make_lazy


class EnergyEvery(FactorSchedule):
    """Computes energies at every k-th training step only, with k times their factors.

    `loss = k * factor * energy(neurons)` if the step is a multiple of k, and 0 otherwise. The mean
    over steps is that of training without this callback, and the energies take 1/k of the time.
    Neurons move little in a few steps, so the gradients hardly differ. The factor is the number
    with which a regularizer was created, as in `FactorSchedule`.

    A step is an update of the optimizer. With `steps_per_execution=m`, energies are computed in
    all m steps of every k-th execution. In validation, the loss has the factors themselves, as it
    has after training. Resumed training continues with the step that the optimizer has counted. If
    an error or a user interrupts training, some factors are zero until `fit` is called with this
    callback again.

    The bound of a gradient (`bounded=True`) holds for k times the factor. The energies of
    `Uniformity` are weighted in this way too, but computed in each step.

    Args:
        k: number of steps, a positive integer.
        where: which layers, as in `FactorSchedule`. None means all layers.
        regularizers: which regularizers, as in `FactorSchedule`. None means all of this package.

    Raises:
        TypeError, ValueError: if an argument has the wrong type or is out of range. At the
            beginning of training, as for `FactorSchedule`.

    Source: Karras et al. (2020), "Analyzing and Improving the Image Quality of StyleGAN", CVPR,
    for lazy regularization.

    Examples:
        >>> import keras, numpy as np
        >>> from keras_mhe import EnergyEvery, MHE
        >>> head = keras.layers.Dense(4, kernel_regularizer=MHE(10.0))
        >>> model = keras.Sequential([keras.Input((8,)), head])
        >>> model.compile("sgd", "mse")
        >>> x, y = np.ones((16, 8)), np.ones((16, 4))
        >>> history = model.fit(x, y, batch_size=1, verbose=0, callbacks=[EnergyEvery(8)])
    """

    def __init__(self, k: int, where: LayerFilter = None, *, regularizers: Any = None) -> None:
        k = check_integer(k, "k", least=1, expected="a positive integer")
        super().__init__(
            lambda step, own: 0.0 if step % k else k * own, where, regularizers=regularizers
        )
        self.k = k
        self._follow_steps(may_read_weights=False)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        factors = [factor for group in self._variables.values() for factor in group]
        if not all(map(is_lazy, factors)):
            forget_compiled_steps(self.model)
        for factor in factors:
            make_lazy(factor)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_begin(epoch, logs)
        # The factor cannot change within an execution, nor within an update.
        self._per_update = math.lcm(self._per_update, self.model.steps_per_execution)

    def _use_own_factors(self) -> None:
        for own in self._variables:
            self._move(own, own, "validation")

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._use_own_factors()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._use_own_factors()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Adds nothing to the logs: the factor of the last step says nothing."""
