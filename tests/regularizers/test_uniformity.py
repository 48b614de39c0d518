"""Properties of all measures of uniformity: optimal arrangements, and errors about arguments."""

import re
from pathlib import Path

import numpy as np
import pytest
from differentiate import value_and_gradient
from helpers import normals
from uniformity import (
    points,
)

from keras_mhe import MGD, MHC, MHP, MHS, RMHP


def smallest_angles(kernel, starts, half_space):
    angles = []
    for part in np.split(kernel, starts, axis=1):
        cosine = points(part, False).T @ points(part, False)
        cosine = np.abs(cosine) if half_space else cosine
        np.fill_diagonal(cosine, -1)
        angles.append(np.degrees(np.arccos(cosine.max())))
    return angles


ICOSAHEDRON = np.degrees(np.arctan(2))  # 63.43


# Other tests compare gradients in both spaces with the definition.
@pytest.mark.once
@pytest.mark.parametrize(
    ("cls", "options", "half_space"),
    [
        (MHS, {}, True),
        pytest.param(MHS, {"all_neurons": True}, False, marks=pytest.mark.slow),
        pytest.param(MGD, {}, False, marks=pytest.mark.slow),
        pytest.param(MHP, {"pole": "worst"}, True, marks=pytest.mark.slow),
        (MHC, {"pole": "worst"}, False),
    ],
    ids=["mhs", "mhs-all_neurons", "mgd", "mhp", "mhc"],
)
def test_minimum_from_five_random_starts_is_the_icosahedron(cls, options, half_space):
    """Adam minimizes only the regularizer, for five sets of neurons, each in its own group."""
    n = 6 if half_space else 12
    starts, steps = 5, 250
    regularizer = cls(1.0, half_space=half_space, groups=starts, **options)
    kernel = normals(3, starts * n)
    mean, square = np.zeros_like(kernel), np.zeros_like(kernel)
    for step in range(steps):
        _, gradient = value_and_gradient(regularizer, kernel)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.99 * square + 0.01 * gradient**2
        rate = 0.05 * (1 + np.cos(np.pi * step / steps))
        unbiased = mean / (1 - 0.9 ** (step + 1)), square / (1 - 0.99 ** (step + 1))
        kernel = kernel - (rate * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-12)).astype("float32")
    assert max(smallest_angles(kernel, starts, half_space)) > 0.95 * ICOSAHEDRON


class TestArguments:
    @pytest.mark.parametrize("cls", [MHP, MHC])
    def test_learned_pole_without_the_wrapper_raises_an_error(self, cls):
        with pytest.raises(ValueError, match=rf"Dense\(64\), keras_mhe\.{cls.__name__}\(\)\)"):
            cls()(normals(3, 4))

    @pytest.mark.parametrize(
        ("cls", "options", "error", "message"),
        [
            (MHS, {"factor": -1}, ValueError, "factor=-1"),
            (MHS, {"all_neurons": 1}, TypeError, "all_neurons=1"),
            (MGD, {"half_space": "yes"}, TypeError, "half_space='yes'"),
            (MHP, {"pole": "best"}, ValueError, "pole='best'"),
            (MHP, {"learning_rate": -1}, ValueError, "learning_rate=-1"),
            (MHP, {"s": -1}, ValueError, "s=-1"),
            (MHC, {"gamma": 0}, ValueError, "gamma=0"),
            (MHC, {"gamma": "10"}, TypeError, "gamma='10'"),
            (RMHP, {"groups": 0}, ValueError, "groups=0"),
        ],
    )
    def test_invalid_arguments_are_named_at_construction(self, cls, options, error, message):
        with pytest.raises(error) as raised:
            cls(**options)
        assert str(raised.value).endswith(message)


@pytest.mark.slow
@pytest.mark.once
def test_example_of_the_page_on_regularizers_draws_its_figure():
    page = (Path(__file__).parents[2] / "docs" / "regularizers.md").read_text()
    names = {}
    [code] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code, names)
    assert len(names["ax"].lines) == 6
