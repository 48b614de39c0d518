"""Marks on axes and color bars that show positions."""

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.ticker import FuncFormatter, Locator, NullLocator

# Above this position an axis is logarithmic. Otherwise, positions below 1 would look the same.
MAX_LINEAR = 4

_POWERS = 10.0 ** np.arange(12)
# Round positions, the most important ones first.
_FIVES, _TWOS = 5 * _POWERS, 2 * _POWERS
_ROUND = np.array(
    [1, 0, *_POWERS[1:], 0.5, *_FIVES, *_TWOS, *-_POWERS, -0.5, *-_FIVES, *-_TWOS], "float64"
)


class _Marks(Locator):
    """As many round positions as there is room for their labels."""

    def __init__(self, values: np.ndarray, texts: list[str]) -> None:
        self._values, self._texts = values, texts

    def __call__(self) -> Any:
        axis: Any = self.axis
        return self.tick_values(*axis.get_view_interval())

    def tick_values(self, vmin: float, vmax: float) -> Any:
        axis: Any = self.axis
        horizontal = axis.axis_name == "x"
        # In points, as the size of the labels.
        scale = 72 / axis.get_figure(root=True).dpi
        both = np.stack([self._values, self._values], axis=1)
        places = scale * axis.axes.transData.transform(both)[:, 0 if horizontal else 1]
        size = axis.get_major_ticks(1)[0].label1.get_fontsize()
        lengths = [0.65 * len(text) + 0.7 if horizontal else 1.4 for text in self._texts]
        chosen: list[int] = []
        for k, value in enumerate(self._values):
            if min(vmin, vmax) <= value <= max(vmin, vmax) and all(
                abs(places[k] - places[i]) >= size * (lengths[k] + lengths[i]) / 2 for i in chosen
            ):
                chosen.append(k)
        return np.sort(self._values[chosen])


def mark_positions(axis: Any, value_of: Callable[[np.ndarray], np.ndarray] = np.asarray) -> None:
    """Marks round positions on an axis. Labels do not overlap, whatever the size of the picture.

    Args:
        axis: the `xaxis` or the `yaxis` of an Axes.
        value_of: the value on the axis that stands for a position.
    """
    values, texts = value_of(_ROUND), [f"{position:g}" for position in _ROUND]

    def text_of(value: float, _: Any) -> str:
        return texts[int(np.argmin(np.abs(values - value)))]

    axis.set_major_locator(_Marks(values, texts))
    axis.set_major_formatter(FuncFormatter(text_of))
    axis.set_minor_locator(NullLocator())
