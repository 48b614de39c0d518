"""Trains a compiled Keras model on JAX: images stay on the device, and an epoch is one program.

The numbers are those of `model.fit` with the same batches. `fit` returns to Python in each step and
copies a batch to the device; these programs do neither.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import keras
import numpy as np

from workloads.augmentation import Draws, crops, draw


class State(NamedTuple):
    """Values of the variables of a model and of its optimizer."""

    trainable: list[Any]
    non_trainable: list[Any]
    optimizer: list[Any]


def _variables(model: keras.Model) -> State:
    return State(
        model.trainable_variables, model.non_trainable_variables, model.optimizer.variables
    )


def state_of(model: keras.Model) -> State:
    """Returns copies of the values of a compiled model."""
    model.optimizer.build(model.trainable_variables)
    return State(*([jnp.array(v.value) for v in group] for group in _variables(model)))


def assign(model: keras.Model, state: State) -> None:
    """Gives a model the values of a state, as copies: the next steps reuse those of the state."""
    for variables, values in zip(_variables(model), state, strict=True):
        for variable, value in zip(variables, values, strict=True):
            variable.assign(jnp.array(value))


def stack(states: Sequence[Any]) -> Any:
    """Returns states of equal models, or draws, with a first axis for the models."""
    return jax.tree.map(lambda *values: jnp.stack(values), *states)


def unstack(states: Any, count: int) -> list[Any]:
    """Returns what was stacked."""
    return [jax.tree.map(lambda values, k=k: values[k], states) for k in range(count)]


def best_steps_per_call(steps: int) -> int:
    """Returns how many of the steps one call of a program should have on the default device.

    On a CPU, convolutions in a loop are 35 times slower than outside
    (https://github.com/jax-ml/jax/issues/12868), so a call has one step. Elsewhere it is the
    largest divisor of `steps` up to 125, so that runs of several lengths can use one program.
    """
    if jax.default_backend() == "cpu":
        return 1
    return next(count for count in range(125, 0, -1) if steps % count == 0)


def training_program(model: keras.Model, several: bool = False) -> Callable[..., Any]:
    """Returns a compiled function that trains a model for as many steps as it gets draws.

    Args:
        model: a compiled model. Its variables are not changed.
        several: whether states and draws have a first axis for models with other seeds, which
            train at the same time.

    Returns:
        A function from a state, which it overwrites, padded images, labels and `Draws` to the next
        state and the losses of all steps, regularization included.
    """

    def total_loss(trainable: Any, non_trainable: Any, x: Any, y: Any) -> Any:
        outputs, non_trainable, losses = model.stateless_call(
            trainable, non_trainable, x, training=True, return_losses=True
        )
        return sum(losses, start=model.loss(y, outputs)), non_trainable

    gradient = jax.value_and_grad(total_loss, has_aux=True)

    def train(state: State, images: Any, labels: Any, draws: Draws) -> tuple[State, Any]:
        def step(state: State, draws: Draws) -> tuple[State, Any]:
            x, y = crops(images, draws, jnp), labels[draws.image]
            (loss, non_trainable), gradients = gradient(*state[:2], x, y)
            trainable, optimizer = model.optimizer.stateless_apply(
                state.optimizer, gradients, state.trainable
            )
            return State(trainable, non_trainable, optimizer), loss

        if len(draws.image) == 1:
            # `scan` would compile a loop even for one step.
            state, loss = step(state, Draws(*(values[0] for values in draws)))
            return state, loss[None]
        return jax.lax.scan(step, state, draws)

    if several:
        train = jax.vmap(train, in_axes=(0, None, None, 0))
    return jax.jit(train, donate_argnums=0)


def fit(
    model: keras.Model,
    images: Any,
    labels: Any,
    chosen: np.ndarray,
    epochs: int,
    steps: int,
    seed: int,
    callbacks: list[keras.callbacks.Callback],
) -> np.ndarray:
    """Trains as `model.fit` with `AugmentedImages`, and returns the losses of all steps.

    Args:
        model: a compiled model.
        images: padded images on the device.
        labels: their labels, on the device.
        chosen: indices of the training images.
        epochs: number of epochs. Callbacks run before and after each.
        steps: number of steps in each epoch.
        seed: seed of the batches.
        callbacks: callbacks that use the model in `on_epoch_begin` and `on_epoch_end`.
    """
    events = keras.callbacks.CallbackList(callbacks, model=model, epochs=epochs, steps=steps)
    program, state, losses = training_program(model), state_of(model), []
    steps_per_call = best_steps_per_call(steps)
    events.on_train_begin()
    for epoch in range(epochs):
        events.on_epoch_begin(epoch)
        # The first step of `AugmentedImages` is `steps`.
        draws = draw(seed, (epoch + 1) * steps, steps, len(chosen))
        draws = draws._replace(image=chosen[draws.image].astype("int32"))
        for first in range(0, steps, steps_per_call):
            part = Draws(*(values[first : first + steps_per_call] for values in draws))
            state, of_part = program(state, images, labels, part)
            losses.append(of_part)
        assign(model, state)
        events.on_epoch_end(epoch, {})
    events.on_train_end()
    return np.concatenate([np.asarray(part) for part in losses])
