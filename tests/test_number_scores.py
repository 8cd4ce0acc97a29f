"""The probability-weighted score against sums by hand."""

from __future__ import annotations

from math import exp, inf, log, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.behaviour.number_scores import weighted_score


def test_a_score_is_the_mean_of_the_numbers_by_probability():
    score, mass = weighted_score({"30": log(0.2), "90": log(0.6), "REFUSAL": log(0.1)})
    assert score == pytest.approx((30 * 0.2 + 90 * 0.6) / 0.8) and mass == pytest.approx(0.8)


def test_equal_numbers_are_added_whatever_their_spaces():
    score, mass = weighted_score({"50": log(0.2), " 50": log(0.2), "\n50 ": log(0.1), "0": log(0.5)})
    assert score == pytest.approx(25) and mass == pytest.approx(1)


@pytest.mark.parametrize(
    "text", ["101", "-5", "+5", "5.0", "05", "٣", "5 0", "", " ", "1e1", "²", "0x10", "1_0", "9" * 9999]
)
def test_what_is_no_number_of_the_scale_does_not_count(text):
    """As Python's int would read some of them."""
    assert weighted_score({text: log(0.6), "40": log(0.3)}) == (pytest.approx(40), pytest.approx(0.3))


def test_below_a_quarter_there_is_no_score():
    assert weighted_score({"10": log(0.2499)}) == (None, pytest.approx(0.2499))
    assert weighted_score({"10": log(0.2501)})[0] == pytest.approx(10)
    assert weighted_score({"10": log(0.2)}, least_mass=0.1)[0] == pytest.approx(10)
    assert weighted_score({}, least_mass=0.0) == (None, 0.0)
    assert weighted_score({"10": -inf}, least_mass=0.0) == (None, 0.0)


def test_a_scale_of_ones_own():
    assert weighted_score({"0": log(0.5), "3": log(0.5)}, (1, 5)) == (pytest.approx(3), pytest.approx(0.5))


@pytest.mark.parametrize("wrong", [nan, 0.5])
def test_what_is_no_log_probability_is_refused(wrong):
    with pytest.raises(ValueError, match=f"of '7' is {wrong}: expected a number of at most 0"):
        weighted_score({"7": wrong})


@given(st.dictionaries(st.integers(0, 100), st.floats(-30, 0), min_size=1))
def test_a_score_lies_between_its_numbers(found):
    total = sum(map(exp, found.values()))
    score, mass = weighted_score({str(n): p - log(total) for n, p in found.items()})
    assert mass == pytest.approx(1)
    assert score is not None and min(found) - 1e-9 <= score <= max(found) + 1e-9
