"""References for energies: the energy of random neurons, and of neurons spread as well as possible.

`position = (energy - lower_bound) / (uniform_energy - lower_bound)`: 0 is the best possible, 1 is
random, and above 1 the neurons are clustered.

Examples:
    >>> from keras_mhe import reference
    >>> energy = reference.uniform_energy(100, 32, half_space=True)
    >>> round(reference.position(energy, 100, 32, half_space=True), 6)
    1.0
"""

from keras_mhe.reference._angles import nearest_angle_density, uniform_nearest_angle
from keras_mhe.reference._attainable import attainable_energy
from keras_mhe.reference._energies import lower_bound, position, uniform_energy

__all__ = [
    "attainable_energy",
    "lower_bound",
    "nearest_angle_density",
    "position",
    "uniform_energy",
    "uniform_nearest_angle",
]
