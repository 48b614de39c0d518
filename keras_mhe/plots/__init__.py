"""Pictures of neurons and of their energies. Needs matplotlib.

Each function draws into the given `ax`, or into a new one, and returns it. The colors are also
distinguishable with the common kinds of color blindness.

Examples:
    >>> from keras_mhe import MHE, plots
    >>> ax = plots.pair_curves({"MHE": MHE()})
"""

try:
    import matplotlib as _matplotlib  # noqa: F401
except ModuleNotFoundError as error:
    from keras_mhe_command._install import install_advice

    raise ModuleNotFoundError(
        f"keras_mhe.plots needs matplotlib. {install_advice('plots')}"
    ) from error

from keras_mhe.plots._angles import nearest_angles
from keras_mhe.plots._circle import neurons_on_circle
from keras_mhe.plots._curves import pair_curves
from keras_mhe.plots._sphere import neurons_on_sphere
from keras_mhe.plots._strip import heat_strip
from keras_mhe.plots._training import energies_over_training
from keras_mhe.plots._turns import neuron_turns

__all__ = [
    "energies_over_training",
    "heat_strip",
    "nearest_angles",
    "neuron_turns",
    "neurons_on_circle",
    "neurons_on_sphere",
    "pair_curves",
]
