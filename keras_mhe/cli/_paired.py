"""Statistics of paired runs: mean, standard error, 95 % interval and verdict."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy import stats


class Estimate(NamedTuple):
    """A mean over seeds, its standard error, and the 95 % interval of Student's t.

    `str(estimate)` is the mean with its standard error: `"60.72 ± 0.71"`.

    Attributes:
        mean: NaN without values.
        standard_error: infinite for fewer than two values.
        low: lower end of the interval.
        high: upper end of the interval.
    """

    mean: float
    standard_error: float
    low: float
    high: float

    def __str__(self) -> str:
        error = "" if np.isinf(self.standard_error) else f" ± {self.standard_error:.2f}"
        return f"{self.mean:.2f}{error}"

    @property
    def verdict(self) -> str:
        """What the mean of paired differences shows.

        `"higher"` or `"lower"` where the interval excludes zero, `"unclear"` where it contains
        zero, `"one pair"` or `"no pairs"` where there is no interval.
        """
        if np.isinf(self.standard_error):
            return "no pairs" if np.isnan(self.mean) else "one pair"
        return "higher" if self.low > 0 else "lower" if self.high < 0 else "unclear"

    @property
    def difference(self) -> str:
        """A mean of paired differences as text: sign, interval and verdict."""
        if self.verdict == "no pairs":
            return self.verdict
        if self.verdict == "one pair":
            return f"{self.mean:+.2f}, {self.verdict}"
        return f"{self.mean:+.2f} ({self.low:+.2f} to {self.high:+.2f}), {self.verdict}"


def estimate(values: Iterable[float]) -> Estimate:
    """Estimates a mean from one value per seed, or from one difference per pair of runs."""
    array = np.array(list(values), "float64")
    mean = float(array.mean()) if len(array) else np.nan
    if len(array) < 2:
        return Estimate(mean, np.inf, -np.inf, np.inf)
    error = float(stats.sem(array))
    reach = float(stats.t.ppf(0.975, len(array) - 1)) * error
    return Estimate(mean, error, mean - reach, mean + reach)
