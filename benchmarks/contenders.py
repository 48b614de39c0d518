"""What is compared: this package, the papers' formula, Keras's regularizer, one product."""

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

import keras_mhe
from keras_mhe._backend import matmul, on_cpu

# For more neurons, the 2N x 2N matrices of the papers' formula need tens of gigabytes.
PAPERS_LIMIT = 8000
# For more neurons, the product is computed by panels, and matrices of all pairs are left out.
LARGEST_PRODUCT, _PRODUCT_PANEL = 20000, 4000


def compiled(function: Callable[[Any], Any], shape: tuple[int, ...]) -> Callable[[Any], Any]:
    """Compiles a function of kernels of one shape with XLA. PyTorch runs it as it is."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    if keras.backend.backend() == "torch":
        return function
    import tensorflow as tf

    program = tf.function(function, jit_compile=True, autograph=False)
    return program.get_concrete_function(tf.TensorSpec(shape, "float32"))


def value_and_gradient(
    function: Callable[[Any], Any], shape: tuple[int, ...]
) -> Callable[[Any], Any]:
    """Compiles value and gradient of a function as one program for kernels of one shape."""
    if keras.backend.backend() == "jax":
        import jax

        return compiled(jax.value_and_grad(function), shape)
    if keras.backend.backend() == "torch":

        def program(kernel: Any) -> Any:
            kernel = kernel.detach().requires_grad_()
            value = function(kernel)
            value.backward()
            return value.detach(), kernel.grad

        return program
    import tensorflow as tf

    def program(kernel: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            value = function(kernel)
        return value, tape.gradient(value, kernel)

    return compiled(program, shape)


def product(kernel: Any) -> Any:
    """Minimum work for all cosines: the product of the kernel with itself, in full precision."""
    d, n = kernel.shape
    if n <= LARGEST_PRODUCT:
        return matmul(ops.transpose(kernel), kernel)
    # The matrix of all cosines would not fit into memory. The maximum keeps every cosine in use.
    width = next(w for w in range(_PRODUCT_PANEL, 0, -1) if n % w == 0)

    def panel(i: Any, largest: Any) -> Any:
        columns = ops.slice(kernel, (i * 0, i * width), (d, width))
        return ops.maximum(largest, ops.max(matmul(ops.transpose(kernel), columns), axis=0))

    return ops.fori_loop(0, n // width, panel, ops.zeros((width,)))


def _product_of_keras(kernel: Any) -> Any:
    return ops.matmul(ops.transpose(kernel), kernel)


def papers_formula(kernel: Any, s: float = 2.0, half_space: bool = True) -> Any:
    """Computes the energy as the papers' programs do: full matrices and automatic gradients.

    Norms are `sqrt(|w|^2 + 1e-4)`. The diagonal is set to ones before the power. The result is the
    mean of the upper triangle.
    """
    kernel = ops.reshape(kernel, (-1, kernel.shape[-1]))
    if half_space:
        kernel = ops.concatenate([kernel, -kernel], axis=1)
    points = kernel.shape[1]
    norms = ops.sqrt(ops.sum(ops.square(kernel), axis=0, keepdims=True) + 1e-4)
    cosines = ops.matmul(ops.transpose(kernel), kernel) / ops.matmul(ops.transpose(norms), norms)
    square = 2.0 - 2.0 * cosines + ops.eye(points)
    energies = -ops.log(square) if s == 0 else ops.power(square, -s / 2)
    pairs = ops.triu(energies, k=1)
    return ops.sum(pairs) / (points * (points - 1) / 2)


def contenders(shape: tuple[int, int], few: bool) -> dict[str, Callable[[Any], Any]]:
    """Returns programs by name; `product` is the reference of the ratios.

    `keras product` is the product in the precision that the backend uses by default. On a GPU it
    may round the factors, and so do `papers` and `orthogonal`.

    Args:
        shape: coordinates and neurons.
        few: whether to leave out all powers other than 2.
    """
    powers = [(2, "euclidean"), (2, "angular")]
    if not few:
        powers += [(0, "euclidean"), (1, "euclidean")]
    functions = {}
    for s, distance in powers:
        for half_space in (True, False):
            name = f"{distance[0]}{s} {'half' if half_space else 'full'}"
            functions[name] = functools.partial(
                keras_mhe.hyperspherical_energy, s=s, distance=distance, half_space=half_space
            )
    if shape[1] <= PAPERS_LIMIT:
        functions["papers"] = papers_formula
    if shape[1] <= LARGEST_PRODUCT:
        functions["orthogonal"] = keras.regularizers.OrthogonalRegularizer(mode="columns")
    programs = {name: value_and_gradient(function, shape) for name, function in functions.items()}
    if shape[1] <= LARGEST_PRODUCT and not on_cpu():
        programs["keras product"] = compiled(_product_of_keras, shape)
    return {"product": compiled(product, shape), **programs}
