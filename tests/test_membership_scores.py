"""Membership scores of a text by hand, and their guards."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest

from workbench.behaviour import membership_scores as scores

P = np.array([-0.5, -4.0, -1.0, -2.5, -0.1, -3.0, -0.2])  # seven tokens: no k of ten divides them
MEAN, SD = np.array([-1.0, -2, -3, -1, -0.5, -2, -1]), np.array([0.5, 1, 2, 1.5, 0.25, 4, 1])
TEXT = "the answer is thé ánswer is"


def test_loss_by_token_character_and_text():
    assert scores.loss(P) == pytest.approx(-11.3 / 7)
    assert scores.loss(P, len(TEXT)) == pytest.approx(-11.3 / 27)
    assert scores.loss(P, 1) == pytest.approx(-11.3)


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        (0.1, -4.0),  # a share of one seventh of a token is one token
        (20, -4.0),  # 1.4 tokens are one
        (30, (-4.0 - 3.0) / 2),
        (50, (-4.0 - 3.0 - 2.5) / 3),
        (99.9, (P.sum() + 0.1) / 6),
        (100, P.mean()),  # all of them, where an index too far would raise
    ],
)
def test_min_k_takes_the_lowest(k, expected):
    before = P.copy()
    assert scores.min_k(P, k) == pytest.approx(expected)
    assert scores.paper_b_min_k(P, k) == pytest.approx(-expected)
    assert (before == P).all()


@pytest.mark.parametrize("n", range(1, 40))
def test_every_length_and_share_takes_floor_of_it_and_at_least_one(n):
    values = np.random.default_rng(n).normal(size=n)
    for k in (*range(5, 101, 5), 29, 57, 58):  # 0.29 · 100 is 28.999999999999996 in floats
        count = max(1, n * k // 100)
        assert sorted(scores.lowest(values, k)) == sorted(values)[:count]


@pytest.mark.parametrize("k", [0, -5, 100.1, [], [20, 0], math.nan])
def test_a_share_outside_the_text_is_refused(k):
    with pytest.raises(ValueError, match=r"above 0 and at most 100, such as k=20"):
        scores.checked_k(k)
    if not isinstance(k, list):
        with pytest.raises(ValueError, match="no share of the tokens"):
            scores.lowest(P, k)


def test_shares_are_sorted_and_each_is_there_once():
    assert scores.checked_k([50, 20, 50.0]) == (20.0, 50.0) and scores.checked_k(20) == (20.0,)


def test_a_text_without_tokens_has_no_min_k():
    with pytest.raises(ValueError, match="without scored tokens"):
        scores.min_k(np.zeros(0), 20)


def test_min_k_plus_plus_standardises_each_token_by_its_own_distribution():
    z = sorted((P - MEAN) / SD)
    assert scores.min_k_plus_plus(P, MEAN, SD, 30) == pytest.approx((z[0] + z[1]) / 2)
    assert scores.min_k_plus_plus(P, MEAN, SD, 100) == pytest.approx(sum(z) / 7)


def test_a_certain_next_token_divides_by_no_zero():
    still = scores.min_k_plus_plus(np.zeros(2), np.zeros(2), np.zeros(2), 100)
    assert still == 0.0
    assert np.isfinite(scores.min_k_plus_plus(np.array([-100.0]), np.zeros(1), np.zeros(1), 100))


def test_zlib_counts_the_compressed_bytes():
    raw = TEXT.encode()
    assert len(raw) == 29
    assert scores.zlib_score(P, TEXT) == pytest.approx(-11.3 / 7 / len(zlib.compress(raw)))
    mixed = "".join(map(chr, range(48, 112)))
    assert scores.zlib_score(P, "aaaa" * 50) < scores.zlib_score(P, mixed), "a redundant text should be likelier"


def test_paper_b_zlib_is_perplexity_over_bits_a_byte():
    bits = 8 * len(zlib.compress(TEXT.encode(), 9)) / 29
    assert scores.paper_b_zlib(P, TEXT) == pytest.approx(math.exp(11.3 / 7) / bits)


def test_recall_is_the_log_likelihood_behind_the_prefix_over_that_alone():
    behind = P * 1.5
    assert scores.recall(behind, P) == pytest.approx(1.5)
    assert scores.recall(behind, P) > scores.recall(P * 0.9, P), "a member loses more by the prefix"
    assert scores.recall(behind, np.zeros(7)) is None


def test_higher_speaks_for_a_member_but_in_paper_b():
    """A likelier text scores higher everywhere, and lower in the two of paper B."""
    likelier = P / 2
    for name, score in {
        "loss": scores.loss,
        "zlib": lambda p: scores.zlib_score(p, TEXT),
        "min_k_20": lambda p: scores.min_k(p, 20),
        "min_k_pp_20": lambda p: scores.min_k_plus_plus(p, MEAN, SD, 20),
        "paper_b_min_k_20": lambda p: scores.paper_b_min_k(p, 20),
        "paper_b_zlib": lambda p: scores.paper_b_zlib(p, TEXT),
    }.items():
        assert (score(likelier) - score(P)) * scores.orientation(name) > 0, name
