"""What `keras.ops` does not offer. Only this package names TensorFlow, JAX or PyTorch."""

from keras_mhe._backend._compilation import (
    compiled,
    not_constant,
    outside_torch_graphs,
    update_if,
)
from keras_mhe._backend._devices import compiles_apart, has_compiler, on_cpu
from keras_mhe._backend._gradients import (
    differentiated_on_demand,
    not_differentiable,
    with_own_gradient,
)
from keras_mhe._backend._products import matmul
from keras_mhe._backend._tensors import (
    at_least,
    at_most,
    cholesky,
    normals,
    seed_dtype,
    write_slice,
)

__all__ = [
    "at_least",
    "at_most",
    "cholesky",
    "compiled",
    "compiles_apart",
    "differentiated_on_demand",
    "has_compiler",
    "matmul",
    "normals",
    "not_constant",
    "not_differentiable",
    "on_cpu",
    "outside_torch_graphs",
    "seed_dtype",
    "update_if",
    "with_own_gradient",
    "write_slice",
]
