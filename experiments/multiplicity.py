"""Tests of many differences at once: p values and Holm's correction."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from keras_mhe.cli._paired import Estimate

LEVEL = 0.05


def p_value(difference: Estimate, pairs: int) -> float:
    """Returns the two-sided p value of Student's t for a mean of `pairs` differences.

    It is below 0.05 exactly where the 95 % interval excludes zero.
    """
    if difference.standard_error == 0:
        return 1.0 if difference.mean == 0 else 0.0
    t = abs(difference.mean) / difference.standard_error
    return float(2 * stats.t.sf(t, pairs - 1))


def holm(p_values: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Returns which hypotheses Holm's method rejects.

    The k-th smallest of m p values is compared with `level / (m - k + 1)`, and the method stops at
    the first that is larger. The probability of any false rejection is at most `level`, also for
    correlated tests. (Holm, 1979, "A simple sequentially rejective multiple test procedure".)
    """
    order = np.argsort(p_values, kind="stable")
    limits = level / np.arange(len(order), 0, -1)
    passed = np.cumprod(np.asarray(p_values, "float64")[order] <= limits)
    rejected = np.zeros(len(order), bool)
    rejected[order] = passed == 1
    return rejected.tolist()
