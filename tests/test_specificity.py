"""The specificity index: shares of a gap and of capability, their intervals, and what cannot be a share of anything."""

import numpy as np
import pytest

from workbench.interventions.specificity import (
    Families,
    NotMeasurable,
    difference_interval,
    difference_p,
    gap_of,
    share_interval,
    specificity,
)

RNG = np.random.default_rng(0)
NAMES = tuple(f"item{n}" for n in range(24))
BASE, TUNED = RNG.uniform(0.0, 0.1, 24), RNG.uniform(0.8, 1.0, 24)
KEPT = ("a", "b", "c", "d", "e")
RIGHT = np.array([0.9, 0.95, 0.99, 0.97, 0.92])


def of(values, names=NAMES):
    return Families(names, np.asarray(values, float))


def index(edited, right=RIGHT, **more):
    return specificity(of(BASE), of(TUNED), of(edited), (of(RIGHT, KEPT), of(right, KEPT)), **more)


def test_the_index_is_the_share_closed_minus_the_share_lost():
    found = index(0.5 * TUNED + 0.5 * BASE, 0.8 * RIGHT)
    assert found.closed.value == pytest.approx(0.5) and found.lost.value == pytest.approx(0.2)
    assert found.index == pytest.approx(0.3) == found.value
    assert found.means == pytest.approx(
        (BASE.mean(), TUNED.mean(), (BASE + TUNED).mean() / 2, RIGHT.mean(), 0.8 * RIGHT.mean())
    )


def test_an_edit_that_undoes_the_fine_tune_has_1_one_that_breaks_the_model_0_one_that_does_nothing_0():
    assert index(BASE).value == pytest.approx(1.0)
    broken = index(np.zeros(24), np.zeros(5))
    assert broken.lost.value == pytest.approx(1.0)
    assert broken.value == pytest.approx(broken.closed.value - 1.0) and abs(broken.value) < 0.1
    assert index(TUNED).value == pytest.approx(0.0)
    assert index(TUNED + 0.1).value < 0, "an edit may widen the gap"


def test_a_ratio_of_sums_and_not_a_mean_of_ratios():
    """Families without a gap of their own must not rule the share."""
    tuned = TUNED.copy()
    tuned[0] = BASE[0] + 1e-9
    edited = np.where(np.arange(24) == 0, 1.0, BASE)
    naive = (tuned - edited).sum() / (tuned - BASE).sum()
    assert specificity(of(BASE), of(tuned), of(edited)).value == pytest.approx(naive)


def test_the_interval_covers_as_often_as_it_says():
    """Families drawn from a population whose index is known: .65 of the gap, .15 of capability."""
    rng, covered, draws = np.random.default_rng(1), 0, 400
    for _ in range(draws):
        base, tuned = rng.uniform(0, 0.2, 20), rng.beta(4, 1, 20)
        kept = rng.beta(3, 1, 20) * 0.7 / 0.75  # a mean share of .35 stays
        moved = base + (tuned - base) * 0.35 + rng.normal(0, 0.1, 20) * kept
        right = rng.uniform(0.7, 1.0, 9)
        after = right * rng.uniform(0.7, 1.0, 9)
        names, few = tuple(map(str, range(20))), tuple(map(str, range(9)))
        found = specificity(of(base, names), of(tuned, names), of(moved, names), (of(right, few), of(after, few)))
        covered += 0.65 - 0.15 in found.interval
    assert 0.92 <= covered / draws <= 0.98


def test_families_that_are_all_alike_have_no_interval_of_zero_width():
    found = specificity(of(np.zeros(24)), of(np.ones(24)), of(np.zeros(24)))
    assert found.value == 1 and found.bounds.low < 0.9 and "alike" in found.bounds.method
    both = index(BASE)
    assert both.interval.high - both.interval.low > 0.1


def test_without_capability_there_is_a_share_and_no_index():
    found = specificity(of(BASE), of(TUNED), of(BASE))
    assert found.index is None and found.lost is None and found.value == pytest.approx(1.0)
    assert found.bounds == found.closed.interval and "capability not asked" in str(found)


@pytest.mark.parametrize(
    ("tuned", "least", "why"),
    [
        (BASE, 0.0, "cannot be told from 0"),
        (BASE + RNG.normal(0, 0.2, 24), 0.0, "cannot be told from 0"),
        (BASE + 0.03 + RNG.normal(0, 0.001, 24), 0.05, "less than the 0.05"),
    ],
    ids=["none", "noise", "too small"],
)
def test_no_share_is_taken_of_a_gap_that_is_not_there(tuned, least, why):
    with pytest.raises(NotMeasurable, match=why):
        specificity(of(BASE), of(tuned), of(BASE), least=least)
    with pytest.raises(NotMeasurable, match=why):
        gap_of(of(BASE), of(tuned), least)


def test_too_few_families_and_capability_that_is_not_there_are_refused():
    with pytest.raises(NotMeasurable, match="2 question families"):
        specificity(of(BASE[:2], NAMES[:2]), of(TUNED[:2], NAMES[:2]), of(BASE[:2], NAMES[:2]))
    with pytest.raises(NotMeasurable, match="capability"):
        specificity(of(BASE), of(TUNED), of(BASE), (of(np.zeros(5), KEPT), of(np.zeros(5), KEPT)))
    with pytest.raises(ValueError, match="do not pair"):
        specificity(of(BASE), of(TUNED), of(BASE, tuple(reversed(NAMES))))


def test_a_lower_score_may_be_the_worse_one():
    """Alignment scores fall where P(contrary) rises: the share is of the gap, whatever its sign."""
    up = specificity(of(BASE), of(TUNED), of(0.75 * BASE + 0.25 * TUNED))
    down = specificity(of(100 - BASE), of(100 - TUNED), of(100 - (0.75 * BASE + 0.25 * TUNED)), least=0.05)
    assert up.value == pytest.approx(down.value) == pytest.approx(0.75)


def test_controls_are_indexes_too_and_rank_the_cell():
    strengths = np.linspace(0, 0.5, 99)
    moved = TUNED - strengths[:, None] * (TUNED - BASE)
    kept = RIGHT * (1 - 0.2 * strengths[:, None])
    controls = {"energy_matched": (of(moved), of(kept, KEPT))}
    found = index(0.25 * TUNED + 0.75 * BASE, controls=controls)
    assert found.draws["energy_matched"] == pytest.approx(tuple(0.8 * strengths))
    assert found.percentile("energy_matched") == 1 and found.p("energy_matched") == pytest.approx(0.01)
    middle = index(TUNED - 0.21 * (TUNED - BASE), controls=controls)  # loses no capability
    assert middle.percentile("energy_matched") == pytest.approx(np.mean(0.8 * strengths < 0.21))
    few = index(BASE, controls={"orthogonal": (of(moved[:20]), of(kept[:20], KEPT))})
    assert few.p("orthogonal") is None, "20 draws carry no printed p"
    with pytest.raises(ValueError, match="capability"):
        index(BASE, controls={"isotropic": (of(moved), None)})


def test_welchs_interval_and_p_are_scipys():
    from scipy import stats

    first, second = RNG.normal(0.3, 1, 15), RNG.normal(0, 2, 9)
    test = stats.ttest_ind(first, second, equal_var=False)
    ends = test.confidence_interval()
    found = difference_interval(first, second)
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))
    assert difference_p(first, second) == pytest.approx(test.pvalue)
    assert difference_p(first, np.zeros(2)) == pytest.approx(stats.ttest_1samp(first, 0).pvalue)
    one = stats.ttest_1samp(first, 0).confidence_interval()
    assert (share_interval(first).low, share_interval(first).high) == pytest.approx((one.low, one.high))
