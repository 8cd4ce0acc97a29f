"""Low-rank affine maps against the textbook's reduced-rank regression, a planted rank, and brute force over ranks."""

from __future__ import annotations

import numpy as np
import pytest
from planted_maps import SITE, N, along, frame, normal, rows_of

from workbench.interventions.linear_maps import Reduced, fitted
from workbench.interventions.maps_folds import chosen_rank, cuts, folds_of
from workbench.interventions.transfer import fit_transfer


def planted(rank: int, noise: float = 1.0, n: int = 240, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    matrix = frame(rank, 14, seed + 1).T @ (3 * frame(rank, 18, seed + 2))
    x = rng.standard_normal((n, 14)) + 5.0
    return x, x @ matrix + noise * rng.standard_normal((n, 18)) - 2.0, matrix


def penalised(x: np.ndarray, y: np.ndarray, matrix: np.ndarray, ridge: float) -> float:
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    a = ridge * np.mean(np.linalg.svd(x, compute_uv=False) ** 2)
    return float(((x @ matrix - y) ** 2).sum() + a * (matrix**2).sum())


@pytest.mark.parametrize("ridge", [0.0, 0.5])
@pytest.mark.parametrize("rank", [1, 3, 7])
def test_it_is_the_best_map_of_its_rank(rank, ridge):
    """Against alternating least squares from many starts, which minimises the same objective by other means."""
    x, y = normal(60, 7, 0), normal(60, 9, 1) + normal(60, 7, 0) @ normal(7, 9, 2) / 10
    fit, _ = fitted(Reduced.of(x), Reduced.of(y), "low_rank", ridge=ridge, scaled=False, rank=rank)
    assert fit.rank == rank and np.linalg.matrix_rank(fit.matrix) == rank
    own = penalised(x, y, fit.matrix, ridge)
    rng = np.random.default_rng(3)
    cx, cy = x - x.mean(axis=0), y - y.mean(axis=0)
    a = ridge * np.mean(np.linalg.svd(cx, compute_uv=False) ** 2)
    best = np.inf
    for _ in range(3):
        axes = np.linalg.qr(rng.standard_normal((9, rank)))[0]
        for _ in range(200):
            narrow = np.linalg.solve(cx.T @ cx + a * np.eye(7), cx.T @ cy @ axes)
            u, _, v = np.linalg.svd(cy.T @ cx @ narrow, full_matrices=False)
            axes = u @ v
        best = min(best, penalised(x, y, narrow @ axes.T, ridge))
    assert own <= best * (1 + 1e-9) and own == pytest.approx(best, rel=1e-6)


def test_at_full_rank_it_is_the_ridge_map():
    x, y = normal(60, 7, 0), normal(60, 9, 1)
    low, ridge = (
        fitted(Reduced.of(x), Reduced.of(y), method, ridge=0.03, scaled=False)[0] for method in ("low_rank", "ridge")
    )
    np.testing.assert_allclose(low.matrix, ridge.matrix, atol=1e-10)


@pytest.mark.parametrize("rank", [2, 5])
def test_a_planted_rank_is_found_and_the_map_with_it(rank):
    x, y, matrix = planted(rank)
    found = fit_transfer(rows_of(x), rows_of(y), method="low_rank")
    assert found.rank[SITE] == rank and found.rank_asked is None
    full = fit_transfer(rows_of(x), rows_of(y), method="ridge")
    off = [np.linalg.norm(one.maps[SITE].matrix - matrix) for one in (found, full)]
    assert off[0] < 0.9 * off[1], "fewer axes of noise"
    assert found.r2[SITE] > full.r2[SITE]


def test_the_ranks_of_a_fold_are_those_of_fits_one_by_one():
    """All ranks from one decomposition a fold, against a fit for every rank and fold."""
    x, y, _ = planted(3, n=60)
    source, target, prompts = Reduced.of(x), Reduced.of(y), np.arange(60) // 2
    splits = cuts(prompts)
    order = np.random.default_rng(1).permutation(60)
    for one in (None, order):
        paired = target.rows if one is None else target.rows[one]
        scores = []
        for rank in range(1, 15):
            off = total = 0.0
            for train, asked in splits:
                here, there = Reduced.of(source.rows[train]), Reduced.of(paired[train])
                fit, _ = fitted(here, there, "low_rank", ridge=0.01, scaled=False, rank=rank)
                off += ((paired[asked] - fit.point(source.rows[asked])) ** 2).sum()
                total += ((paired[asked] - there.mean) ** 2).sum()
            scores.append(1 - off / total)
        rank, r2 = chosen_rank(folds_of(source, splits), source, target, ridge=0.01, order=one)
        assert rank == int(np.argmax(scores)) + 1 and r2 == pytest.approx(max(scores), abs=1e-9)


def test_folds_keep_the_rows_of_a_prompt_together():
    prompts = np.repeat(np.arange(10), 3)
    for train, asked in cuts(prompts):
        assert not set(prompts[train]) & set(prompts[asked])
        assert sorted([*train, *asked]) == list(range(30))
    asked = np.concatenate([asked for _, asked in cuts(prompts)])
    assert sorted(asked) == list(range(30)), "every row is asked once"


def test_the_choice_of_a_rank_never_sees_the_held_out_prompts():
    """Held-out target rows replaced by noise: the same rank and the same map."""
    x, y, _ = planted(4)
    found = fit_transfer(rows_of(x), rows_of(y), method="low_rank", layers="r2")
    trained = found.train_rows[1]
    spoilt = np.random.default_rng(9).standard_normal(y.shape) * 100
    spoilt[trained] = y[trained]
    again = fit_transfer(rows_of(x), rows_of(spoilt), method="low_rank", layers="r2")
    np.testing.assert_array_equal(found.maps[SITE].matrix, again.maps[SITE].matrix)
    assert found.layer_scores == again.layer_scores and found.r2[SITE] != again.r2[SITE]


def test_a_shuffled_refit_chooses_its_own_rank_unless_one_was_asked_for():
    x, y, _ = planted(6)
    free = fit_transfer(rows_of(x), rows_of(y), method="low_rank")
    assert free.rank[SITE] == 6
    assert {one.rank[SITE] for one in free.shuffled(n=8)} != {6}, "wrong pairs do not bear six axes"
    fixed = fit_transfer(rows_of(x), rows_of(y), method="low_rank", rank=6)
    assert {one.rank[SITE] for one in fixed.shuffled(n=3)} == {6}
    with pytest.raises(ValueError, match="rank=0"):
        fit_transfer(rows_of(x), rows_of(y), method="low_rank", rank=0)


def test_what_lies_outside_the_rank_maps_to_zero_for_writes_and_reads():
    x, y, matrix = planted(2, noise=0.01)
    found = fit_transfer(rows_of(x), rows_of(y), method="low_rank")
    outside = np.linalg.svd(matrix.T)[2][-1]
    assert found.map(along(outside)).norm[0] < 0.02 and found.map(along(matrix[:, 0])).norm[0] > 0.1
    inside = np.linalg.svd(matrix.T)[2][0]
    read = found.map(along(inside, role="read")).vector(0)
    held = x[: N // 2] - x.mean(axis=0)
    np.testing.assert_allclose(held @ matrix @ read, held @ inside, atol=0.05)


def test_a_scaled_map_of_low_rank_has_scale_one():
    x, y, _ = planted(3)
    loose = fit_transfer(rows_of(x), rows_of(y), method="low_rank", ridge=1.0)
    assert loose.scale[SITE] > 1.2, "ridge shrinks"
    assert fit_transfer(rows_of(x), rows_of(y), method="low_rank", ridge=1.0, scaled=True).r2[SITE] > loose.r2[SITE]
