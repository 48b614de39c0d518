"""Gradient steps of a learned projection, and the energy after one more step, in closed form."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from keras import ops

from keras_mhe._backend import matmul
from keras_mhe._typing import Tensor
from keras_mhe.energies._blocks import map_column_blocks, off_diagonal_mask
from keras_mhe.energies._neurons import tangent_gradient, tangent_part, unit_neurons
from keras_mhe.energies._pairs import value_and_gradient
from keras_mhe.energies._potential import Potential
from keras_mhe.energies._riesz import RieszPotential

_Gradient = tuple[Tensor, Tensor, Callable[[Tensor], tuple[Tensor, Tensor]]]


def _transposed_product(matrix: Tensor, columns: Tensor) -> Tensor:
    """`transpose(matrix) @ columns`."""
    return matmul(ops.swapaxes(matrix, -1, -2), columns)


def _outer_product(rows: Tensor, columns: Tensor) -> Tensor:
    """`sum over neurons of rows_i columns_i^T`, over all groups."""
    product = matmul(rows, ops.swapaxes(columns, -1, -2))
    return product if len(product.shape) == 2 else ops.sum(product, axis=0)


def _tangent_gradient_derivative(
    unit: Tensor,
    reciprocal: Tensor,
    direction_gradient: Tensor,
    change: Tensor,
    unit_change: Tensor,
    direction_gradient_change: Tensor,
) -> Tensor:
    """The directional derivative of `tangent_gradient(unit, reciprocal, direction_gradient, 1)`.

    `change` is the derivative of the points, `unit_change` of their directions and
    `direction_gradient_change` of the gradient with respect to these.
    """

    def dot(a: Tensor, b: Tensor) -> Tensor:
        return ops.sum(a * b, axis=-2, keepdims=True)

    radial = dot(unit, direction_gradient)
    tangent = direction_gradient_change - unit_change * radial
    radial_change = dot(unit_change, direction_gradient) + dot(unit, direction_gradient_change)
    tangent = tangent - unit * radial_change
    scaling = (direction_gradient - unit * radial) * (reciprocal * dot(unit, change))
    return reciprocal * (tangent - scaling)


class Objective(Protocol):
    """A function L of the projection P that its steps decrease or increase."""

    @property
    def direction(self) -> float:
        """-1 if the steps decrease L, 1 if they increase it."""

    @property
    def limit(self) -> float | None:
        """The largest L that a step may lead to; None for no limit."""

    def gradient(self, unit: Tensor, points: Tensor) -> _Gradient:
        """L, its gradient with respect to the projected neurons, and the gradient's derivative.

        Args:
            unit: unit neurons of shape `(..., d, n)`.
            points: their projections, `P @ unit`.

        Returns:
            A scalar, a tensor like `points`, and a function of a direction `change` in which the
            points move. That function returns the directional derivative of the gradient, and the
            gradient of its product with `change` with respect to `unit`, without the part through
            `points`.
        """


@dataclass(frozen=True)
class CosineDistance:
    """`L(P) = |cos(PW) - cos(W)|_F`, over the ordered pairs of neurons of each group."""

    direction = -1.0
    limit = None

    def gradient(self, unit: Tensor, points: Tensor) -> _Gradient:
        n = unit.shape[-1]
        projected, reciprocal = unit_neurons(points)

        def difference(own: Tensor, column: Tensor, index: Tensor) -> Tensor:
            error = _transposed_product(projected, own) - _transposed_product(unit, column)
            return ops.where(off_diagonal_mask(n, index), error, 0.0)

        def squares_and_products(
            own: Tensor, column: Tensor, index: Tensor
        ) -> tuple[Tensor, Tensor]:
            error = difference(own, column, index)
            return ops.sum(ops.square(error), axis=-2, keepdims=True), matmul(projected, error)

        squares, products = map_column_blocks(squares_and_products, projected, unit)
        square = ops.sum(squares)
        inverse = ops.where(square > 0, ops.rsqrt(ops.where(square > 0, square, 1.0)), 0.0)
        direction_gradient = 2.0 * inverse * products
        gradient = tangent_gradient(projected, reciprocal, direction_gradient, 1.0)

        def directional_derivative(change: Tensor) -> tuple[Tensor, Tensor]:
            unit_change = tangent_gradient(projected, reciprocal, change, 1.0)
            share = ops.sum(ops.sum(gradient * change, axis=-1)) * inverse * inverse

            def changes(
                own: Tensor, column: Tensor, own_change: Tensor, index: Tensor
            ) -> tuple[Tensor, Tensor]:
                error = difference(own, column, index)
                cosine_change = _transposed_product(unit_change, own)
                cosine_change = cosine_change + _transposed_product(projected, own_change)
                cosine_change = ops.where(off_diagonal_mask(n, index), cosine_change, 0.0)
                slope_change = 2.0 * (inverse * cosine_change - share * error)
                result = matmul(projected, slope_change)
                result = result + 2.0 * inverse * matmul(unit_change, error)
                return result, -matmul(unit, slope_change)

            direction_gradient_change, direct = map_column_blocks(
                changes, projected, unit, unit_change
            )
            derivative = _tangent_gradient_derivative(
                projected,
                reciprocal,
                direction_gradient,
                change,
                unit_change,
                direction_gradient_change,
            )
            return derivative, direct

        return ops.sqrt(square), gradient, directional_derivative


@dataclass(frozen=True)
class FullSpaceEnergy:
    """`L(P) = E(PW)`, the energy of the projected neurons in full space."""

    potential: RieszPotential
    limit: float | None = None
    direction = 1.0

    def gradient(self, unit: Tensor, points: Tensor) -> _Gradient:
        n = points.shape[-1]
        value, gradient = value_and_gradient(points, self.potential)

        def directional_derivative(change: Tensor) -> tuple[Tensor, Tensor]:
            projected, reciprocal = unit_neurons(points)
            unit_change = tangent_gradient(projected, reciprocal, change, 1.0)

            def products(own: Tensor, own_change: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
                cosine = _transposed_product(projected, own)
                _, slope = self.potential(cosine)
                cosine_change = _transposed_product(unit_change, own)
                cosine_change = cosine_change + _transposed_product(projected, own_change)
                mask = off_diagonal_mask(n, index)
                slope_change = self.potential.curvature(cosine, slope) * cosine_change
                slope = ops.where(mask, slope, 0.0)
                slope_change = ops.where(mask, slope_change, 0.0)
                result = matmul(projected, slope_change) + matmul(unit_change, slope)
                return matmul(projected, slope), result

            direction_gradient, direction_gradient_change = map_column_blocks(
                products, projected, unit_change
            )
            derivative = _tangent_gradient_derivative(
                projected,
                reciprocal,
                direction_gradient,
                change,
                unit_change,
                direction_gradient_change,
            )
            pairs = math.prod(points.shape[:-2]) * n * max(n - 1, 1)
            return derivative * (2.0 / pairs), ops.zeros_like(unit)

        return value, gradient, directional_derivative


def gradient_steps(
    matrix: Tensor, projection: Tensor, objective: Objective, rate: float, steps: int
) -> Tensor:
    """The projection after gradient steps in the direction of the objective.

    With a limit, P stays where it is if a step would lead to a larger objective.
    """
    unit, _ = unit_neurons(matrix)

    def value_and_slope(projection: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient, _ = objective.gradient(unit, matmul(projection, unit))
        return value, gradient

    def moved(projection: Tensor, gradient: Tensor) -> Tensor:
        return projection + objective.direction * rate * _outer_product(gradient, unit)

    def step(_: Tensor, projection: Tensor) -> Tensor:
        return moved(projection, value_and_slope(projection)[1])

    def limited_step(_: Tensor, carry: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        projection, gradient = carry
        candidate = moved(projection, gradient)
        value, slope = value_and_slope(candidate)
        allowed = value <= objective.limit
        return ops.where(allowed, candidate, projection), ops.where(allowed, slope, gradient)

    if objective.limit is None:
        return ops.fori_loop(0, steps, step, projection)
    carry = (projection, value_and_slope(projection)[1])
    return ops.fori_loop(0, steps, limited_step, carry)[0]


def value_and_tangent_after_step(
    matrix: Tensor, projection: Tensor, objective: Objective, rate: float, potential: Potential
) -> tuple[Tensor, Tensor, Tensor]:
    """The energy of the neurons projected by `P' = P +- rate * dL/dP`, and its gradient.

    In `E(P'W)`, `P'` depends on W too. With `V = dE/dP'`, the gradient is the gradient of `E` at
    constant `P'`, plus the gradient of `+- rate * <V, dL/dP>` at constant V. The second term is a
    product of the second derivative of L with one vector, which costs little more than the first
    derivative.
    """
    rate = objective.direction * rate
    unit, reciprocal = unit_neurons(matrix)
    _, gradient, directional_derivative = objective.gradient(unit, matmul(projection, unit))
    moved = projection + rate * _outer_product(gradient, unit)
    value, point_gradient = value_and_gradient(matmul(moved, unit), potential)
    projection_gradient = _outer_product(point_gradient, unit)
    derivative, direct = directional_derivative(matmul(projection_gradient, unit))
    through_step = _transposed_product(projection_gradient, gradient)
    through_step = through_step + _transposed_product(projection, derivative) + direct
    total = _transposed_product(moved, point_gradient) + rate * through_step
    return value, tangent_part(unit, total), reciprocal


def value_and_tangent_through(
    matrix: Tensor,
    project: Callable[[Tensor], Tensor],
    project_back: Callable[[Tensor], Tensor],
    count: int,
    potential: Potential,
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean energy of the neurons under constant linear maps, and its gradient.

    Args:
        matrix: tensor of shape `(d, n)` or `(groups, d, n)`.
        project: function from neurons to their projections under all maps, one below the other.
        project_back: the transpose of `project`.
        count: number of maps, all to the same number of dimensions.
        potential: energy of a pair of projected neurons.
    """
    unit, reciprocal = unit_neurons(matrix)
    points = project(unit)
    *batch, rows, n = points.shape
    value, gradient = value_and_gradient(
        ops.reshape(points, (*batch, count, rows // count, n)), potential
    )
    direction_gradient = project_back(ops.reshape(gradient, (*batch, rows, n)))
    return value, tangent_part(unit, direction_gradient), reciprocal


def projected_value_and_tangent(
    matrix: Tensor, projections: Tensor, potential: Potential
) -> tuple[Tensor, Tensor, Tensor]:
    """The mean energy of the neurons under constant projections, and its gradient.

    Args:
        matrix: tensor of shape `(d, n)` or `(groups, d, n)`.
        projections: tensor of shape `(count, p, d)`.
        potential: energy of a pair of projected neurons.
    """
    count, p, d = projections.shape
    rows = ops.reshape(projections, (count * p, d))
    return value_and_tangent_through(
        matrix,
        functools.partial(matmul, rows),
        functools.partial(_transposed_product, rows),
        count,
        potential,
    )
