"""Values of the papers' released programs, and their table in docs/papers.md."""

import os
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from papers import cases_of, differences

guides = Path(__file__).parents[1] / "docs"

# Limits of the differences in value, norm of the gradient and product of gradient and probe. The
# second row is for MGD, which factorizes a nearly singular matrix.
LIMITS = [[1e-3, 1e-2, 1e-2], [5e-3, 1e-2, 1e-2]]

# Rows of the table of differences, each with a function that selects its cases.
_CASES = {
    "`MHE`, Euclidean": ("mhe", lambda case: case["power"][0] != "a"),
    "`MHE`, angular": ("mhe", lambda case: case["power"][0] == "a"),
    "`MHS`": ("uniformity", lambda case: case["kind"] == "mhs"),
    "`MGD`": ("uniformity", lambda case: case["kind"] == "mgd"),
    "`RMHP`": ("uniformity", lambda case: case["kind"] == "r_mhp"),
    "`MHP`": ("uniformity", lambda case: case["kind"] == "mhp"),
    "`MHC`": ("uniformity", lambda case: case["kind"] == "mhc"),
    "`CoMHE`, random": ("comhe", lambda case: case["kind"] == "random"),
    "`CoMHE`, angle": ("comhe", lambda case: case["kind"] == "angle"),
    "`CoMHE`, adversarial": ("comhe", lambda case: case["kind"] == "adversarial"),
}


def shown_differences():
    """Returns the table of the page, as cases and figures by row, and its total number of cases."""
    page = (guides / "papers.md").read_text("utf-8")
    [table] = [part for part in page.split("\n\n") if part.startswith("| | cases |")]
    rows = [[cell.strip() for cell in r.strip("|").split("|")] for r in table.splitlines()[2:]]
    shown = {label: (int(cases), np.array(figures, float)) for label, cases, *figures in rows}
    return shown, int(re.search(r"all (\d+) of", page)[1])


@pytest.mark.parametrize("label", _CASES)
def test_values_and_gradients_match_the_papers(label):
    """Compares the last case of each kind. A slow test below compares all cases."""
    paper, selects = _CASES[label]
    *_, case = filter(selects, cases_of(paper))
    found = differences(case)
    assert np.all(np.array(found) <= LIMITS[label == "`MGD`"]), found


@pytest.mark.slow
@pytest.mark.skipif(
    "optimization_level=0" in os.environ["XLA_FLAGS"],
    reason="the page shows values of programs as users compile them: XLA_FLAGS= pytest -m slow",
)
@pytest.mark.parametrize("label", _CASES)
def test_page_on_the_papers_shows_the_largest_differences(label):
    paper, selects = _CASES[label]
    found = [differences(case) for case in cases_of(paper) if selects(case)]
    cases, figures = shown_differences()[0][label]
    assert len(found) == cases
    largest = np.max(found, axis=0)
    assert np.all(largest <= LIMITS[label == "`MGD`"]), largest
    if keras.backend.backend() == "torch":
        return  # the page shows TensorFlow and JAX
    assert np.all(figures >= largest), largest
    # Figures are rounded up, and at least the rounding error of float32.
    assert np.all(figures <= np.maximum(2.5 * largest, 2e-6)), largest
    assert np.all(figures <= LIMITS[label == "`MGD`"])


def test_page_on_the_papers_covers_every_case():
    shown, cases = shown_differences()
    assert list(shown) == list(_CASES)
    everything = [case for paper in ("mhe", "uniformity", "comhe") for case in cases_of(paper)]
    assert cases == sum(shown[label][0] for label in shown) == len(everything)
