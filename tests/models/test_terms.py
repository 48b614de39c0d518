"""A new regularizer replaces the terms of its own kind, and keeps all others."""

import functools

import keras
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_mhe import MHE, HalfSpaceMHE
from keras_mhe.models._terms import merge_terms, short_form, sum_of_terms
from keras_mhe.regularizers import AttentionEnergy
from keras_mhe.regularizers._base import RegularizerSum, terms_of

pytestmark = pytest.mark.once

L1, L2, L1L2 = keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2
FACTORS = st.sampled_from([0.0, 0.25, 0.5, 1.0])
NORMS = st.one_of(st.builds(L1, FACTORS), st.builds(L2, FACTORS), st.builds(L1L2, FACTORS, FACTORS))


def cube(kernel, factor=1.0):
    return factor * keras.ops.sum(kernel**3)


def sine(kernel):
    return keras.ops.sum(keras.ops.sin(kernel))


class Own(keras.Regularizer):
    def __init__(self, factor):
        self.factor = factor

    def __call__(self, kernel):
        return self.factor * keras.ops.sum(kernel)


def merged(old, new):
    terms = merge_terms(terms_of(old), terms_of(new))
    return [*terms.added, *terms.unchanged, *terms.kept], terms.replaced


def factors(terms):
    """The factors of both norms in a list of norms."""
    return tuple(sum(float(getattr(term, name, 0)) for term in terms) for name in ("l1", "l2"))


@given(NORMS, NORMS)
def test_each_norm_has_the_factor_of_the_last_regularizer_that_contains_it(old, new):
    after, _ = merged(old, new)
    expected = (
        factors([old])[0] if type(new) is L2 else factors([new])[0],
        factors([old])[1] if type(new) is L1 else factors([new])[1],
    )
    assert factors(after) == expected
    assert factors([sum_of_terms(after)]) == expected


@given(st.lists(NORMS, min_size=1, max_size=3))
def test_an_equal_regularizer_changes_nothing(terms):
    own = sum_of_terms([*terms, MHE(2.0)])
    after, replaced = merged(own, sum_of_terms(terms))
    assert factors(after) == pytest.approx(factors(terms))
    assert len([term for term in after if isinstance(term, MHE)]) == 1
    after, replaced = merged(sum_of_terms(terms), sum_of_terms(terms))
    assert replaced == []


@pytest.mark.parametrize(
    ("old", "new", "replaced"),
    [
        (L2(1e-4), L2(1e-3), ["L2(0.0001)"]),
        (L1L2(0.5, 0.25), L2(1.0), ["L2(0.25)"]),
        (L1L2(0.5, 0.25), L1L2(1.0), ["L1L2(0.5, 0.25)"]),
        (RegularizerSum([MHE(2.0), L1(0.5)]), L2(0.5), []),
        (RegularizerSum([MHE(2.0), L1(0.5)]), HalfSpaceMHE(3.0), ["MHE(2)"]),
        (AttentionEnergy(MHE(2.0), [(2, 3)]), MHE(1.0), ["MHE(2)"]),
        (keras.regularizers.OrthogonalRegularizer(0.5), L2(0.5), []),
        (
            keras.regularizers.OrthogonalRegularizer(0.5),
            keras.regularizers.OrthogonalRegularizer(0.1),
            ["OrthogonalRegularizer"],
        ),
        (Own(1.0), Own(2.0), ["Own"]),
        (cube, sine, []),
        (functools.partial(cube, factor=2.0), functools.partial(cube, factor=3.0), ["cube"]),
        (functools.partial(cube, factor=2.0), sine, []),
        (cube, cube, []),
    ],
)
def test_terms_of_one_kind_are_replaced_and_others_stay(old, new, replaced):
    after, before = merged(old, new)
    assert list(map(short_form, before)) == replaced
    assert all(term in after for term in terms_of(new))
    # The L1 of an L1L2 is a new object.
    assert len(after) == len({*map(short_form, after)})


def test_an_equal_term_stays_the_same_object():
    decay, own = L2(0.5), Own(1.0)
    after, _ = merged(RegularizerSum([decay, own]), RegularizerSum([L2(0.5), MHE(), own]))
    assert [term is decay for term in after].count(True) == 1
    assert [term is own for term in after].count(True) == 1
    assert len(after) == 3


def test_short_form_says_what_the_factor_means():
    assert short_form(MHE(10.0)) == "MHE(10)"
    assert short_form(MHE(1.0, scale="position")) == 'MHE(1, scale="position")'
    assert short_form(keras.regularizers.L1L2(1e-3, 1e-4)) == "L1L2(0.001, 0.0001)"
