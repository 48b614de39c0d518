"""Values of the papers' released programs, and what docs/papers.md says of them."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from official import differences, rows_of

guides = Path(__file__).parents[1] / "docs"

# How far value, norm of the gradient and its product with a probe may be; of MGD, which
# factorizes a nearly singular matrix, the value may be farther.
LIMITS = [[1e-3, 1e-2, 1e-2], [5e-3, 1e-2, 1e-2]]

# Rows of the table of differences, and how to tell the cases that they are about.
_CASES = {
    "`MHE`, Euclidean": ("mhe", lambda row: row["power"][0] != "a"),
    "`MHE`, angular": ("mhe", lambda row: row["power"][0] == "a"),
    "`MHS`": ("uniformity", lambda row: row["kind"] == "mhs"),
    "`MGD`": ("uniformity", lambda row: row["kind"] == "mgd"),
    "`RMHP`": ("uniformity", lambda row: row["kind"] == "r_mhp"),
    "`MHP`": ("uniformity", lambda row: row["kind"] == "mhp"),
    "`MHC`": ("uniformity", lambda row: row["kind"] == "mhc"),
    "`CoMHE`, random": ("comhe", lambda row: row["kind"] == "random"),
    "`CoMHE`, angle": ("comhe", lambda row: row["kind"] == "angle"),
    "`CoMHE`, adversarial": ("comhe", lambda row: row["kind"] == "adversarial"),
}


def shown_differences():
    """The table of the page: cases and figures by row, and how many cases the page speaks of."""
    page = (guides / "papers.md").read_text("utf-8")
    [table] = [part for part in page.split("\n\n") if part.startswith("| | cases |")]
    rows = [[cell.strip() for cell in r.strip("|").split("|")] for r in table.splitlines()[2:]]
    shown = {label: (int(cases), np.array(figures, float)) for label, cases, *figures in rows}
    return shown, int(re.search(r"all (\d+) of", page)[1])


@pytest.mark.parametrize("label", _CASES)
def test_values_and_gradients_are_those_of_the_papers(label):
    """The last case of each kind: all of them are compared below."""
    paper, is_one = _CASES[label]
    *_, row = filter(is_one, rows_of(paper))
    found = differences(row)
    assert np.all(np.array(found) <= LIMITS[label == "`MGD`"]), found


@pytest.mark.slow
@pytest.mark.skipif(
    "optimization_level=0" in os.environ["XLA_FLAGS"],
    reason="the page speaks of programs as users run them: XLA_FLAGS= pytest -m slow",
)
@pytest.mark.parametrize("label", _CASES)
def test_the_page_on_the_papers_says_how_near_their_values_are(label):
    paper, is_one = _CASES[label]
    found = [differences(row) for row in rows_of(paper) if is_one(row)]
    cases, figures = shown_differences()[0][label]
    assert len(found) == cases
    largest = np.max(found, axis=0)
    assert np.all(figures >= largest), largest
    # Rounded up; what is smaller than the rounding of float32 stands as this.
    assert np.all(figures <= np.maximum(2.5 * largest, 2e-6)), largest
    assert np.all(figures <= LIMITS[label == "`MGD`"])


def test_the_page_on_the_papers_leaves_no_case_out():
    shown, cases = shown_differences()
    assert list(shown) == list(_CASES)
    everything = [row for paper in ("mhe", "uniformity", "comhe") for row in rows_of(paper)]
    assert cases == sum(shown[label][0] for label in shown) == len(everything)
