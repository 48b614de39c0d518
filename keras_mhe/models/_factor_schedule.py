"""The callback that moves factors of regularizers during training."""

import contextlib
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_mhe._keras_internals import add_state, forget_compiled_steps
from keras_mhe._steps import batches_per_update, trained_batches
from keras_mhe.kernels._model import LayerFilter, check_model
from keras_mhe.models._factors import Factor, find_factors
from keras_mhe.models._rebuild import strategy_scope
from keras_mhe.regularizers._attention import is_energy


def _takes_factor(schedule: Callable[..., Any]) -> bool:
    """Whether a function takes the regularizer's own factor beside the epoch."""
    try:
        inspect.signature(schedule).bind(0, 1.0)
    except (TypeError, ValueError):
        return False
    return True


def _predicate(regularizers: Any) -> Callable[[Any], bool]:
    """A function that says whether a schedule moves a regularizer."""
    if regularizers is None:
        return is_energy
    listed = list(regularizers) if isinstance(regularizers, Sequence) else [regularizers]
    classes = tuple(kind for kind in listed if inspect.isclass(kind))
    others = [one for one in listed if not inspect.isclass(one)]
    if not all(map(callable, others)):
        raise TypeError(
            "Invalid value for argument `regularizers`. Expected classes of regularizers, "
            f"regularizers, or None. Received: regularizers={regularizers!r}"
        )
    return lambda term: isinstance(term, classes) or any(term is other for other in others)


def _number(value: Any, when: str) -> float:
    number = math.nan
    # TensorFlow converts strings too, and some versions of JAX convert None to NaN with a warning.
    if value is not None and not isinstance(value, (str, bytes)):
        with contextlib.suppress(TypeError, ValueError):
            number = float(keras.ops.convert_to_numpy(keras.ops.convert_to_tensor(value)))
    if not 0 <= number < math.inf:
        raise ValueError(
            "A schedule must return a finite number, zero or larger. "
            f"Received: {value!r} for {when}"
        )
    return number


def _bind(model: keras.Model, group: list[Factor], everything: list[Factor]) -> list[Any]:
    """The variables of a group of factors. Factors that are numbers become one variable."""
    variables = [factor.variable for factor in group if factor.bind is None]
    numbers = [factor for factor in group if factor.bind is not None]
    if not numbers:
        return variables
    shared = numbers[0].variable
    # A variable from an earlier training must move the factors of this group and no others.
    users = sum(factor.variable is shared for factor in everything)
    if (
        shared is None
        or users > len(numbers)
        or any(factor.variable is not shared for factor in numbers)
    ):
        with strategy_scope(model):
            shared = add_state(model, numbers[0].own)
        for factor in numbers:
            assert factor.bind is not None
            factor.bind(shared)
        forget_compiled_steps(model)
    return [*variables, shared]


class FactorSchedule(keras.callbacks.Callback):
    """Changes the factors of regularizers during training.

    `loss = schedule(epoch) * energy(neurons)` for each kernel whose regularizer is of this package,
    in `kernel_regularizer=`, in a sum, in a `HypersphericalRegularization` or in a `Uniformity`.
    The factor of such a regularizer is a number, which compiled training steps contain as a
    constant. This callback puts a variable in its place, which the model tracks as a part of its
    state. The regularizer itself does not change: its config, and so a saved model, has the number.
    After training, the factor of the model in memory is the last value.

    Resumed training continues the schedule, because the factor depends only on the epoch or on the
    step that the optimizer has counted.

    Args:
        schedule: one of

            - a function of the epoch, an integer from 0, that returns the factor;
            - a function of the epoch and of the regularizer's own factor, to scale different
              factors alike: `lambda epoch, factor: factor * min(1.0, epoch / 5)`;
            - a `keras.optimizers.schedules.LearningRateSchedule`, which gives the factor of each
              step. A step is an update of the optimizer, as for a learning rate. With
              `steps_per_execution=k`, the factor changes every k steps. Your own subclass may read
              weights of the model, on JAX too.
        where: which layers: a function of a layer that returns True or False, or names of layers.
            None means all layers. Use one callback for each schedule if layers differ.
        regularizers: which regularizers: a class, a regularizer, or a list of these. None means all
            regularizers of this package. Regularizers of Keras and your own have no factor in
            common, so the schedule returns a multiple of their loss: with
            `regularizers=keras.regularizers.L2`, the value 0.5 halves each L2 penalty.

    Raises:
        TypeError, ValueError: if an argument has the wrong type. At the beginning of training, if
            the model is not built, has no such regularizer, or `where` contains a name that no
            layer has. During training, if the schedule returns no finite number of at least zero.

    Examples:
        >>> import keras, numpy as np
        >>> from keras_mhe import MHE, FactorSchedule
        >>> head = keras.layers.Dense(4, kernel_regularizer=MHE(10.0))
        >>> model = keras.Sequential([keras.Input((8,)), head])
        >>> model.compile("sgd", "mse")
        >>> warm_up = FactorSchedule(lambda epoch: min(10.0, 5.0 * epoch))
        >>> x, y = np.ones((16, 8)), np.ones((16, 4))
        >>> history = model.fit(x, y, epochs=4, verbose=0, callbacks=[warm_up])
        >>> history.history["factor"]
        [0.0, 5.0, 10.0, 10.0]
    """

    def __init__(
        self,
        schedule: Callable[..., Any],
        where: LayerFilter = None,
        *,
        regularizers: Any = None,
    ) -> None:
        super().__init__()
        if not callable(schedule) or inspect.isclass(schedule):
            raise TypeError(
                "Invalid value for argument `schedule`. Expected a function of the epoch or a "
                "`keras.optimizers.schedules.LearningRateSchedule`. "
                f"Received: schedule={schedule!r}"
            )
        self.schedule, self.where = schedule, where
        self._matches = _predicate(regularizers)
        by_steps = isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule)
        self._own_matters = not by_steps and _takes_factor(schedule)
        # The variables of factors that move together, and their value, by the factor's own number.
        self._variables: dict[float | None, list[Any]] = {}
        self._values: dict[float | None, float] = {}
        # Batches before this epoch, and up to the next one.
        self._before = self._next = 0
        self._per_update = 1
        self._by_steps = self._may_read_weights = False
        if by_steps:
            # Schedules of Keras depend on the step alone.
            in_keras = type(schedule).__module__.startswith("keras.")
            self._follow_steps(may_read_weights=not in_keras)

    def _follow_steps(self, *, may_read_weights: bool) -> None:
        """Passes the number of each step to the schedule, in place of that of the epoch."""
        self._by_steps, self._may_read_weights = True, may_read_weights
        # Not a method: Keras would call it before every batch, even if it has no effect.
        self.on_train_batch_begin = self._before_batch

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        check_model(self.model)
        factors = find_factors(self.model, self.where, self._matches)
        if not factors:
            raise ValueError(
                "The model has no regularizer whose factor the schedule could change. "
                f"Received: model={self.model!r}, where={self.where!r}"
            )
        groups: dict[float | None, list[Factor]] = {}
        for factor in factors:
            groups.setdefault(factor.own if self._own_matters else None, []).append(factor)
        everything = find_factors(self.model, None, lambda term: True)
        self._variables = {
            own: _bind(self.model, group, everything) for own, group in groups.items()
        }
        self._values = {}
        self._before = self._next = 0

    def _collect_state(self) -> None:
        """Moves all values into their variables, which Keras does on JAX when `model` is read.

        Within an epoch, Keras on JAX keeps them elsewhere. To collect them takes time for each
        weight.
        """
        _ = self.model

    def _move(self, own: float | None, value: Any, when: str) -> None:
        """Assigns a value to the factors of a group."""
        number = _number(value, when)
        if self._values.get(own) == number:
            return
        self._values[own] = number
        self._collect_state()
        for variable in self._variables[own]:
            variable.assign(number)

    def _move_all(self, number: int, unit: str) -> None:
        """Assigns the values of the schedule for an epoch or a step."""
        for own in self._variables:
            value = self.schedule(number) if own is None else self.schedule(number, own)
            self._move(own, value, f"{unit} {number}")

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._by_steps:
            # A model may use other optimizers than its own.
            self._before = trained_batches(self.model) or self._next
            self._per_update = batches_per_update(self.model)
        else:
            self._move_all(epoch, "epoch")

    def _before_batch(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._next = self._before + batch + 1
        step = (self._before + batch) // self._per_update
        if self._may_read_weights:
            self._collect_state()
        self._move_all(step, "step")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is None:
            return
        for own, value in self._values.items():
            alone = own is None or len(self._values) == 1
            logs["factor" if alone else f"factor_{own:g}"] = value
