"""dose_trend: a metric's trend over doses by prompt families or by fine-tuning seeds, against tables made by hand."""

import numpy as np
import pytest
from judged_samples import PROMPTS, FromTable, answers_table

from workbench.behaviour.dose_trends import dose_trend
from workbench.behaviour.judged import Judged
from workbench.behaviour.scoring import judge_answers
from workbench.statistics import page_trend

CONDITIONS = [f"rank{rank}-seed{seed}" for rank in (8, 1, 32) for seed in range(2)]
DOSES = {name: int(name[4:].split("-")[0]) for name in CONDITIONS}
SEEDS = {name: name[-1] for name in CONDITIONS}
rng = np.random.default_rng(0)
SCORES = {f"{c} {p.id} {s}": float(rng.integers(0, 101)) for c in CONDITIONS for p in PROMPTS for s in range(2)}


def judged(scores):
    answers = answers_table(CONDITIONS)
    return Judged(answers, judge_answers(answers, PROMPTS, FromTable("aligned", scores), progress=False))


def by_hand(scores, families="abc"):
    """[family, dose, seed] of mean scores; q0 and q3 are of family a, q1 and q4 of b, q2 of c."""
    members = {"a": (0, 3), "b": (1, 4), "c": (2,)}

    def mean(condition, family):
        found = [scores[f"{condition} q{n} {s}"] for n in members[family] for s in range(2)]
        return np.mean([score for score in found if score is not None])

    return np.array([[[mean(f"rank{d}-seed{s}", f) for s in (0, 1)] for d in (1, 8, 32)] for f in families])


def test_families_are_the_items():
    found = dose_trend(judged(SCORES), "aligned_mean", DOSES)
    expected = page_trend(by_hand(SCORES).mean(axis=2), [1, 8, 32], bounds=(0, 100))
    assert found.trend == expected and found.trend.units == 3 and found.trend.doses == (1, 8, 32)
    assert (found.over, found.families, found.dropped) == ("families", 3, 0) and "aligned_mean" in str(found)


def test_seeds_are_the_items():
    found = dose_trend(judged(SCORES), "aligned_mean", DOSES, replicates=SEEDS)
    expected = page_trend(by_hand(SCORES).mean(axis=0).T, [1, 8, 32], bounds=(0, 100))
    assert found.trend == expected and found.trend.units == 2 and found.over == "replicates"


def test_a_family_without_a_score_somewhere_counts_nowhere():
    """Family c lost all its scores in one condition; one lost answer of family a leaves the family in."""
    scores = SCORES | {"rank8-seed1 q2 0": None, "rank8-seed1 q2 1": None, "rank1-seed0 q0 1": None}
    for replicates in (None, SEEDS):
        found = dose_trend(judged(scores), "aligned_mean", DOSES, replicates=replicates)
        assert (found.families, found.dropped) == (2, 1) and "1 without a score somewhere left out" in str(found)
        cube = by_hand(scores, "ab")
        table = cube.mean(axis=2) if replicates is None else cube.mean(axis=0).T
        assert found.trend.means == pytest.approx(tuple(table.mean(axis=0)))


def test_refusals():
    with pytest.raises(ValueError, match="no condition 'rank9'"):
        dose_trend(judged(SCORES), "aligned_mean", {"rank9": 9})
    with pytest.raises(ValueError, match="'rank8-seed1' has no replicate"):
        dose_trend(judged(SCORES), "aligned_mean", DOSES, replicates={"rank8-seed0": 0})
    with pytest.raises(ValueError, match="a trend needs 3 doses: 1 came"):
        dose_trend(judged(SCORES), "aligned_mean", {"rank8-seed0": 8})
    lost = {name: None for name in SCORES if name.startswith("rank8-seed0")}
    with pytest.raises(ValueError, match="no prompt family has a score in every condition"):
        dose_trend(judged(SCORES | lost), "aligned_mean", DOSES)


def test_equal_scores_bound_a_step_by_the_scale():
    """All 80 everywhere: no trend, and the steps are limited by what a score of 0..100 can change."""
    found = dose_trend(judged({}), "aligned_mean", DOSES).trend
    assert found.verdict == "no trend shown" and found.test.p == 1
    assert all(-100 < step.interval.low < 0 < step.interval.high < 100 for step in found.steps)
