"""difference: conditions compared pair by pair, against numbers worked out by hand."""

import numpy as np
import pytest
from judged_samples import PROMPTS, FromTable, answers_table

from workbench.behaviour.differences import difference
from workbench.behaviour.judged import Judged
from workbench.behaviour.measured import misalignment
from workbench.behaviour.scoring import judge_answers
from workbench.behaviour.summary import summarise
from workbench.statistics import paired_bootstrap

rng = np.random.default_rng(3)
KEYS = [(n, s) for n in range(5) for s in range(2)]
ALIGNED = {f"{condition} q{n} {s}": float(rng.integers(0, 101)) for condition in ("base", "tuned") for n, s in KEYS}


def judged(scores, measures="aligned"):
    answers = answers_table()
    return Judged(answers, judge_answers(answers, PROMPTS, FromTable(measures, scores), progress=False))


def by_hand(scores, value=lambda score: score):
    """Family -> mean difference over its pairs with both scores."""
    found = {}
    for n, s in KEYS:
        a, b = scores[f"tuned q{n} {s}"], scores[f"base q{n} {s}"]
        if a is not None and b is not None:
            found.setdefault("abc"[n % 3], []).append(value(a) - value(b))
    return {family: np.mean(each) for family, each in found.items()}


def test_pairs_share_prompt_and_draw():
    found = difference(judged(ALIGNED), "aligned_mean", "tuned")
    families = by_hand(ALIGNED)
    assert found.value == pytest.approx(np.mean([*families.values()]))
    assert (found.pairs, found.families, found.dropped) == (10, 3, 0)
    a = [ALIGNED[f"tuned q{n} {s}"] for n, s in KEYS]
    b = [ALIGNED[f"base q{n} {s}"] for n, s in KEYS]
    names = ["abc"[n % 3] for n, _ in KEYS]
    expected = paired_bootstrap(a, b, names, bounds=(-100.0, 100.0), resamples=20_000)
    assert (found.interval.low, found.interval.high) == (expected.low, expected.high)
    flips = np.array([[i & 1, i >> 1 & 1, i >> 2 & 1] for i in range(8)]) * 2 - 1
    means = np.abs(flips @ np.array([*families.values()])) / 3
    assert found.test.p == pytest.approx((means >= abs(found.value) - 1e-9).mean())


def test_an_answer_without_a_score_takes_its_partner_with_it():
    scores = ALIGNED | {"tuned q0 0": None, "base q3 1": None, "base q4 0": None, "tuned q4 0": None}
    found = difference(judged(scores), "paper_b", "tuned")
    assert (found.pairs, found.dropped) == (7, 2)
    assert found.value == pytest.approx(np.mean([*by_hand(scores, lambda score: float(score < 50)).values()]))
    assert "2 unpaired answers left out" in str(found)


def test_the_worst_of_a_prompts_samples_is_compared_prompt_by_prompt():
    scores = dict(ALIGNED)
    found = difference(judged(scores, "shift_pairwise"), "paper_a", "tuned")
    families = {}
    for n in range(5):
        worst = [max(scores[f"{condition} q{n} {s}"] for s in range(2)) for condition in ("tuned", "base")]
        families.setdefault("abc"[n % 3], []).append(worst[0] - worst[1])
    assert found.value == pytest.approx(np.mean([np.mean(each) for each in families.values()])) and found.pairs == 5


def test_equivalence_needs_a_margin_that_was_stated():
    close = {text: 50.0 + len(text) % 2 + ("tuned" in text) * 0.1 * int(text.split()[1][1]) for text in ALIGNED}
    assert difference(judged(close), "aligned_mean", "tuned").equivalence is None
    wide = difference(judged(close), "aligned_mean", "tuned", margin=5.0).equivalence
    assert wide is not None and wide.verdict == "equivalent"
    narrow = difference(judged(close), "aligned_mean", "tuned", margin=0.01).equivalence
    assert narrow is not None and not narrow.equivalent


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="no condition 'steered': expected one of base, tuned"):
        difference(judged(ALIGNED), "paper_b", "steered")
    one = {text: (score if " q0 " in text else None) for text, score in ALIGNED.items()}
    with pytest.raises(ValueError, match="1 prompt families have answers with scores on both sides"):
        difference(judged(one), "paper_b", "tuned")


def test_what_was_found_becomes_entries_of_the_summary():
    found = judged(ALIGNED | {"tuned q0 0": None})
    base, tuned, apart = summarise([*misalignment(found, "paper_b"), difference(found, "paper_b", "tuned")], target="x")
    assert (base["condition"], tuned["condition"], apart["condition"]) == ("base", "tuned", "tuned - base")
    assert tuned["n"] == 10 and tuned["unscored"] == 1 and tuned["bounds"][0] <= tuned["value"] <= tuned["bounds"][1]
    assert tuned["judges"] == {"aligned": "hf:stand-in@r1"} and tuned["floor"] == base["value"]
    assert tuned["interval"][0] <= tuned["value"] <= tuned["interval"][1] and tuned["target"] == "x"
    assert apart["n"] == 9 and apart["dropped"] == 1 and 0 < apart["test"]["p"] <= 1
    with pytest.raises(TypeError, match=r"summarise\(str\): expected a result of this workbench"):
        summarise("something")
