"""The gradient steps of a learned projection, and the energy after one more, in closed form."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keras import ops

from keras_mhe.pairs import gradient_from_pull, unit_neurons, value_and_gradient
from keras_mhe.potentials import Potential
from keras_mhe.strips import by_strips, distinct


def _times(matrix: Any, columns: Any) -> Any:
    """`transpose(matrix) @ columns`."""
    return ops.matmul(ops.swapaxes(matrix, -1, -2), columns)


def _outer(rows: Any, columns: Any) -> Any:
    """`sum over neurons of rows_i columns_i^T`, over all groups."""
    product = ops.matmul(rows, ops.swapaxes(columns, -1, -2))
    return product if len(product.shape) == 2 else ops.sum(product, axis=0)


def _gradient_change(
    unit: Any, reciprocal: Any, pull: Any, change: Any, unit_change: Any, pull_change: Any
) -> Any:
    """The derivative of `gradient_from_pull(unit, reciprocal, pull, 1)` along a path of points.

    `change`, `unit_change`, `pull_change` are the velocities of points, directions and pull.
    """

    def dot(a: Any, b: Any) -> Any:
        return ops.sum(a * b, axis=-2, keepdims=True)

    radial = dot(unit, pull)
    turned = pull_change - unit_change * radial
    turned = turned - unit * (dot(unit_change, pull) + dot(unit, pull_change))
    return reciprocal * (turned - (pull - unit * radial) * (reciprocal * dot(unit, change)))


@dataclass(frozen=True)
class CosineDistance:
    """`L(P) = |cos(PW) - cos(W)|_F`, over the ordered pairs of neurons of each group."""

    direction = -1.0

    def gradient(self, unit: Any, points: Any) -> tuple[Any, Callable[[Any], tuple[Any, Any]]]:
        """The gradient of L in the projected neurons, and how it changes.

        Args:
            unit: unit neurons of shape `(..., d, n)`.
            points: these projected, `P @ unit`.

        Returns:
            A tensor like `points`, and a function of their velocity, which returns the velocity
            of the gradient and the gradient of its product with that velocity in `unit`, as far
            as it does not go through `points`.
        """
        n = unit.shape[-1]
        projected, reciprocal = unit_neurons(points)

        def difference(own: Any, column: Any, index: Any) -> Any:
            error = _times(projected, own) - _times(unit, column)
            return ops.where(distinct(n, index), error, 0.0)

        def squares_and_pull(own: Any, column: Any, index: Any) -> tuple[Any, Any]:
            error = difference(own, column, index)
            return ops.sum(ops.square(error), axis=-2, keepdims=True), ops.matmul(projected, error)

        squares, pull = by_strips(squares_and_pull, projected, unit)
        square = ops.sum(squares)
        inverse = ops.where(square > 0, ops.rsqrt(ops.where(square > 0, square, 1.0)), 0.0)
        pull = 2.0 * inverse * pull
        gradient = gradient_from_pull(projected, reciprocal, pull, 1.0)

        def along(change: Any) -> tuple[Any, Any]:
            projected_change = gradient_from_pull(projected, reciprocal, change, 1.0)
            share = ops.sum(ops.sum(gradient * change, axis=-1)) * inverse * inverse

            def changes(own: Any, column: Any, own_change: Any, index: Any) -> tuple[Any, Any]:
                error = difference(own, column, index)
                cosine_change = _times(projected_change, own) + _times(projected, own_change)
                cosine_change = ops.where(distinct(n, index), cosine_change, 0.0)
                slope_change = 2.0 * (inverse * cosine_change - share * error)
                pull_change = ops.matmul(projected, slope_change)
                pull_change = pull_change + 2.0 * inverse * ops.matmul(projected_change, error)
                return pull_change, -ops.matmul(unit, slope_change)

            pull_change, direct = by_strips(changes, projected, unit, projected_change)
            turned = _gradient_change(
                projected, reciprocal, pull, change, projected_change, pull_change
            )
            return turned, direct

        return gradient, along


@dataclass(frozen=True)
class FullSpaceEnergy:
    """`L(P) = E(PW)`, the energy of the projected neurons in full space."""

    potential: Potential
    direction = 1.0

    def gradient(self, unit: Any, points: Any) -> tuple[Any, Callable[[Any], tuple[Any, Any]]]:
        """As in `CosineDistance`."""
        n = points.shape[-1]
        _, gradient = value_and_gradient(points, self.potential)

        def along(change: Any) -> tuple[Any, Any]:
            projected, reciprocal = unit_neurons(points)
            projected_change = gradient_from_pull(projected, reciprocal, change, 1.0)

            def pull_and_change(own: Any, own_change: Any, index: Any) -> tuple[Any, Any]:
                cosine = _times(projected, own)
                _, slope = self.potential(cosine)
                cosine_change = _times(projected_change, own) + _times(projected, own_change)
                true = distinct(n, index)
                bend = self.potential.curvature(cosine, slope) * cosine_change
                slope, bend = ops.where(true, slope, 0.0), ops.where(true, bend, 0.0)
                change = ops.matmul(projected, bend) + ops.matmul(projected_change, slope)
                return ops.matmul(projected, slope), change

            pull, pull_change = by_strips(pull_and_change, projected, projected_change)
            turned = _gradient_change(
                projected, reciprocal, pull, change, projected_change, pull_change
            )
            pairs = math.prod(points.shape[:-2]) * n * max(n - 1, 1)
            return turned * (2.0 / pairs), ops.zeros_like(unit)

        return gradient, along


Objective = CosineDistance | FullSpaceEnergy


def stepped(matrix: Any, projection: Any, objective: Objective, rate: float, steps: int) -> Any:
    """The projection after some gradient steps: down the cosine distance, up the energy."""
    unit, _ = unit_neurons(matrix)

    def step(_: Any, projection: Any) -> Any:
        gradient, _ = objective.gradient(unit, ops.matmul(projection, unit))
        return projection + objective.direction * rate * _outer(gradient, unit)

    return ops.fori_loop(0, steps, step, projection)


def value_and_gradient_after_step(
    matrix: Any, projection: Any, objective: Objective, rate: float, potential: Potential
) -> tuple[Any, Any]:
    """The energy of the neurons projected by `P' = P +- rate * dL/dP`, and its gradient in them.

    `E(P'W)`, in which `P'` moves with W too. With `V = dE/dP'` the gradient is that of `E` at fixed
    `P'` plus that of `+- rate * <V, dL/dP>` at fixed V: a product of the second derivative of L
    with one vector, which costs little more than the first.
    """
    rate = objective.direction * rate
    unit, reciprocal = unit_neurons(matrix)
    gradient, along = objective.gradient(unit, ops.matmul(projection, unit))
    moved = projection + rate * _outer(gradient, unit)
    value, outer = value_and_gradient(ops.matmul(moved, unit), potential)
    ascent = _outer(outer, unit)
    turned, direct = along(ops.matmul(ascent, unit))
    pull = _times(moved, outer) + rate * (_times(ascent, gradient) + _times(projection, turned))
    return value, gradient_from_pull(unit, reciprocal, pull + rate * direct, 1.0)


def projected_value_and_gradient(
    matrix: Any, projections: Any, potential: Potential
) -> tuple[Any, Any]:
    """The mean energy of the neurons under fixed projections, and its gradient in them.

    Args:
        matrix: tensor of shape `(d, n)` or `(groups, d, n)`.
        projections: tensor of shape `(count, p, d)`.
        potential: energy of a pair of projected neurons.
    """
    unit, reciprocal = unit_neurons(matrix)
    *batch, d, n = matrix.shape
    count, p, _ = projections.shape
    rows = ops.reshape(projections, (count * p, d))
    points = ops.reshape(ops.matmul(rows, unit), (*batch, count, p, n))
    value, gradient = value_and_gradient(points, potential)
    pull = _times(rows, ops.reshape(gradient, (*batch, count * p, n)))
    return value, gradient_from_pull(unit, reciprocal, pull, 1.0)
