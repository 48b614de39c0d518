"""Pictures of neurons and of their energies. Needs matplotlib.

Every function draws into the `ax` that it is given, or a new one, and returns it. Colours are told
apart with the common kinds of colour blindness too.

Examples:
    >>> from keras_mhe import MHE, plots
    >>> ax = plots.pair_curves({"MHE": MHE()})
"""

try:
    import matplotlib as _matplotlib  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        'keras_mhe.plots needs matplotlib. Install it with: pip install "keras-mhe[plots]"'
    ) from error

from keras_mhe.plots.angles import nearest_angles
from keras_mhe.plots.circle import neurons_on_circle
from keras_mhe.plots.curves import pair_curves
from keras_mhe.plots.sphere import neurons_on_sphere
from keras_mhe.plots.strip import heat_strip
from keras_mhe.plots.training import energies_over_training

__all__ = [
    "energies_over_training",
    "heat_strip",
    "nearest_angles",
    "neurons_on_circle",
    "neurons_on_sphere",
    "pair_curves",
]
