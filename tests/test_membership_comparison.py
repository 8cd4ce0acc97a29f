"""Telling members from others: adjusted scores win where items differ in difficulty and lose where they do not."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from conftest import chat
from scipy import stats
from sklearn.metrics import roc_curve

from hooks.model import Trace
from hooks.token_log_probs import TokenLogProbs
from workbench.behaviour import membership_reading
from workbench.behaviour.membership import membership
from workbench.behaviour.membership_comparison import membership_auroc, membership_mean
from workbench.behaviour.membership_separation import gain_interval, operating_points
from workbench.statistics import auroc

RAW = ("loss", "zlib", "min_k_20", "min_k_pp_20")


def synthetic(monkeypatch, llama, difficulty, texts=1201):
    """A table of texts whose tokens are −(5 + item's difficulty + noise), 0.3 likelier in the model where the text is a
    member; the reference shares the difficulty and has noise of its own."""
    rng = np.random.default_rng(8)
    hard = dict(zip(map(str, range(texts)), difficulty * rng.normal(size=texts), strict=True))

    def made(model, batch, scope, edits, *, must_edit):
        found = []
        for one in batch.encoded:
            gain = 0.3 if model is llama and int(one.id) % 2 else 0.0
            log_p = torch.tensor(-(5 + hard[one.id] - gain + rng.normal(size=one.response_length))).float()
            ids = one.input_ids[-len(log_p) :]
            found.append(TokenLogProbs(ids, log_p, torch.full_like(log_p, -6.0), torch.full_like(log_p, 2.0)))
        return found, Trace({}, None)

    monkeypatch.setattr(membership_reading, "token_log_probs", made)
    asked = [chat(str(n), "so", response="x" * (5 + n % 11)) for n in range(texts)]
    table = membership(llama, asked, reference=llama.variant("base"), progress=False)
    return table.rows(prompt=lambda p: int(p) % 2 == 1), table.rows(prompt=lambda p: int(p) % 2 == 0)


def gains(comparison):
    return {one.score: one for one in comparison.separations if one.kind == "adjusted - raw"}


def test_with_a_difficulty_that_both_models_share_the_adjusted_score_wins(monkeypatch, llama):
    found = membership_auroc(*synthetic(monkeypatch, llama, difficulty=1.5))
    for score in RAW:
        assert found.of(f"adjusted_{score}").auroc > found.of(score).auroc, score
        assert gains(found)[f"adjusted_{score}"].interval.low > 0, score
    assert found.warnings == ()


def test_without_one_it_loses(monkeypatch, llama):
    """The reference then adds nothing but noise of its own."""
    found = membership_auroc(*synthetic(monkeypatch, llama, difficulty=0.0))
    for score in RAW:
        assert found.of(f"adjusted_{score}").auroc < found.of(score).auroc, score
        assert gains(found)[f"adjusted_{score}"].interval.high < 0, score
    assert found.of("loss").auroc > 0.6


def rows_of(values, **facts):
    return [
        {"prompt": f"p{n}", "n_tokens": 9, "loss": float(value), **{k: v[n] for k, v in facts.items()}}
        for n, value in enumerate(values)
    ]


@pytest.fixture
def two_sides():
    """Odd sizes, and ties."""
    rng = np.random.default_rng(5)
    return rng.normal(0.8, 1, 37).round(1), rng.normal(0, 1, 53).round(1)


def with_noise(sides, seed=9):
    rng = np.random.default_rng(seed)
    return tuple(side + rng.normal(0, 0.5, len(side)) for side in sides)


def test_the_gain_is_delongs_paired_difference_by_loops(two_sides):
    """Every pair by itself; rows independent."""
    noisy, shares = with_noise(two_sides), []
    for a, b in (two_sides, noisy):
        wins = [[1.0 if x > y else 0.5 if x == y else 0.0 for y in b] for x in a]
        shares.append(([sum(row) / len(b) for row in wins], [sum(row[j] for row in wins) / len(a) for j in range(53)]))
    variance = 0.0
    for part in (0, 1):
        apart = [x - y for x, y in zip(shares[0][part], shares[1][part], strict=True)]
        mean = sum(apart) / len(apart)
        variance += sum((x - mean) ** 2 for x in apart) / (len(apart) - 1) / len(apart)
    expected = sum(shares[0][0]) / 37 - sum(shares[1][0]) / 37
    gain, interval = gain_interval(two_sides, noisy, None, 0.95)
    assert gain == pytest.approx(expected, abs=1e-12)
    assert gain == pytest.approx(auroc(*two_sides) - auroc(*noisy), abs=1e-12)
    half = stats.t.ppf(0.975, 36) * variance**0.5
    assert (interval.low, interval.high) == pytest.approx((expected - half, expected + half), abs=1e-12)


def test_rows_that_repeat_in_a_cluster_say_nothing_new(two_sides):
    noisy = with_noise(two_sides)
    many = [tuple(np.repeat(side, n) for side, n in zip(sides, (3, 4), strict=True)) for sides in (two_sides, noisy)]
    groups = [list(np.repeat(range(37), 3)), list(np.repeat(range(100, 153), 4))]
    once, repeated = gain_interval(two_sides, noisy, None, 0.95)[1], gain_interval(*many, groups, 0.95)[1]
    assert (once.low, once.high) == pytest.approx((repeated.low, repeated.high), abs=1e-12)
    blind = gain_interval(*many, None, 0.95)[1]
    assert blind.high - blind.low < 0.6 * (once.high - once.low), "the meta-test"


def test_a_cluster_on_both_sides_counts_its_covariance():
    """Items that are hard push members and others up together: their difference is surer than two apart."""
    rng = np.random.default_rng(4)
    hard, easy = rng.normal(size=30), [rng.normal(size=30) for _ in range(2)]
    one, other = (hard + easy[0] + 1, hard + easy[1]), tuple(rng.normal(size=30) for _ in range(2))
    shared = gain_interval(one, other, [list(range(30))] * 2, 0.95)[1]
    apart = gain_interval(one, other, [list(range(30)), list(range(30, 60))], 0.95)[1]
    assert shared.high - shared.low < 0.9 * (apart.high - apart.low)


@pytest.mark.parametrize(("clusters", "size"), [(40, 1), (12, 5)])
def test_the_interval_of_the_gain_covers(clusters, size):
    """Two binormal scores of AUROC Φ(.7) and Φ(.35), half of their variance shared; in clusters half of it is theirs.
    92 to 99 % of 600 draws were allowed before the first run."""
    rng, held = np.random.default_rng(3), 0
    truth = float(stats.norm.cdf(0.7) - stats.norm.cdf(0.35))
    groups = [list(np.repeat(range(clusters), size)), list(np.repeat(range(100, 100 + clusters), size))]

    def drawn(scale):
        return (rng.normal(size=(clusters, 1)) + rng.normal(size=(clusters, size))).ravel() * scale / np.sqrt(2)

    for _ in range(600):
        shared = [drawn(np.sqrt(0.5)) for _ in range(2)]
        scores = [tuple(part + drawn(np.sqrt(0.5)) for part in shared) for _ in range(2)]
        one, other = ((a + shift * np.sqrt(2), b) for (a, b), shift in zip(scores, (0.7, 0.35), strict=True))
        held += truth in gain_interval(one, other, groups, 0.95)[1]
    assert 0.92 <= held / 600 <= 0.99


def test_two_scores_that_order_all_alike_are_not_certain_to():
    sides = np.arange(3.0) + 9, np.arange(7.0)
    gain, interval = gain_interval(sides, (sides[0] * 2, sides[1]), None, 0.95)
    width = 1 - 3 / (3 + 1.959964**2)  # Wilson of 3 in 3
    assert gain == 0 and (interval.low, interval.high) == pytest.approx((-width, width), abs=1e-6)
    assert "no spread" in interval.method


def test_operating_points_are_those_of_the_curve(two_sides):
    a, b = two_sides
    fpr, tpr, _ = roc_curve([1] * len(a) + [0] * len(b), np.concatenate([a, b]), drop_intermediate=False)
    expected = tpr[np.where(fpr <= 0.05)[0][-1]], fpr[np.where(tpr >= 0.95)[0][0]]
    assert operating_points(a, b) == pytest.approx(expected)
    assert operating_points(np.ones(3), np.zeros(5)) == (1.0, 0.0)
    assert operating_points(np.ones(3), np.ones(5)) == (0.0, 1.0)


def test_a_score_that_is_lower_for_members_is_turned():
    found = membership_auroc(
        *([{**row, "paper_b_zlib": -row["loss"]} for row in rows_of(side)] for side in ([3.0, 2.0, 5.0], [1.0, 2.5]))
    )
    assert found.of("paper_b_zlib").auroc == found.of("loss").auroc == 5 / 6


def test_raw_reference_and_adjusted_stand_side_by_side():
    rng = np.random.default_rng(0)
    sides = []
    for shift in (0.5, 0.0):
        rows = rows_of(rng.normal(shift, 1, 20))
        sides.append([{**row, "reference_loss": 0.0, "adjusted_loss": row["loss"]} for row in rows])
    lines = str(membership_auroc(*sides)).splitlines()
    assert lines[0] == "20 members, 20 others"
    assert [line.split()[:2] for line in lines[2:5]] == [
        ["loss", "raw"], ["reference_loss", "reference"], ["adjusted_loss", "adjusted"],
    ]  # fmt: skip
    assert "adjusted - raw" in lines[5] and "0.000" in lines[5]


CALM = {"domain": ["x", "y"] * 10, "label": ["no"] * 20}


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        ({"domain": ["x"] * 20}, r"differ in domain \(100% x against 50% x, 50% y\)"),
        ({"label": ["no"] * 12 + ["yes"] * 8}, r"differ in label \(60% no, 40% yes against 100% no\)"),
        ({"n_tokens": [8] * 15 + [11] * 5}, r"differ in length: the number of scored tokens alone has AUROC 0\.25"),
        ({"reference_loss": list(range(9, 29))}, r"reference alone tells .*AUROC of loss 0\.85"),
    ],
    ids=["domain", "answer kind", "length", "reference"],
)
def test_members_that_differ_in_more_than_membership_are_warned_of(facts, named):
    values = np.random.default_rng(1).normal(size=20)
    base = {"reference_loss": list(range(20))}
    others = rows_of(values, **CALM, **base)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert membership_auroc(rows_of(values, **CALM, **base), others).warnings == ()
    with pytest.warns(UserWarning, match=named):
        found = membership_auroc(rows_of(values, **{**CALM, **base, **facts}), others)
    assert len(found.warnings) == 1 and f"WARNING: {found.warnings[0]}" in str(found)


def test_what_has_no_number_is_refused():
    good, bad = rows_of([1.0, 2.0]), [*rows_of([1.0]), {"prompt": "p9", "n_tokens": 9, "loss": None}]
    for value in (None, float("nan"), float("inf"), True):
        bad[1]["loss"] = value
        with pytest.raises(ValueError, match=r"loss is no finite number in 1 of 2 rows, the first of prompt 'p9'"):
            membership_auroc(good, bad, scores=["loss"])
    with pytest.raises(ValueError, match="others has no rows"):
        membership_auroc(good, [])
    with pytest.raises(ValueError, match="no such value"):
        membership_auroc(good, good, clusters="item")
    with pytest.raises(ValueError, match="2 independent units"):
        membership_auroc(
            [{**row, "item": "x"} for row in good], [{**row, "item": "y"} for row in good], clusters="item"
        )
    with pytest.raises(KeyError, match="no score 'zlib': there are loss"):
        membership_auroc(good, good).of("zlib")


def test_tables_of_other_settings_are_not_compared(llama):
    asked = [chat(f"{n}", "so", response="x" * (n + 2)) for n in range(3)]
    tables = [membership(llama, asked, k=k, max_tokens=m, progress=False) for k, m in ((20, 99), (20, 400), (30, 99))]
    assert membership_auroc(*tables[:2]).of("loss").auroc == 0.5
    with pytest.raises(ValueError, match=r"scored in different ways \(k differ\)"):
        membership_auroc(tables[0], tables[2])


def test_means_weigh_samples_or_tokens():
    rows = rows_of([-1.0, -3.0, -8.0], domain=["x", "x", "y"], n_tokens=[1, 3, 2])
    assert membership_mean(rows) == {"all": -4.0}
    assert membership_mean(rows, weight="token") == {"all": pytest.approx(-26 / 6)}
    assert membership_mean(rows, by="domain") == {"x": -2.0, "y": -8.0}
    assert membership_mean(rows, by="domain", weight="token") == {"x": -2.5, "y": -8.0}
    with pytest.raises(ValueError, match="expected 'sample' or 'token'"):
        membership_mean(rows, weight="word")
