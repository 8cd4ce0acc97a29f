"""Layers matched by what their rows say: planted permutations of layers, and CKA against its n x n definition."""

from __future__ import annotations

import numpy as np
import pytest
from planted_maps import frame, normal, rows_of

from hooks.site import Site
from workbench.interventions.linear_maps import Reduced, fitted
from workbench.interventions.maps_folds import cuts, folded_r2, folds_of, unbiased_cka
from workbench.interventions.transfer import fit_transfer, fit_transfers

FEEDS = {0: 3, 1: 0, 2: 4, 3: 1}  # target layer -> the source layer it is a rotation of; never the one of equal depth


def permuted(n: int = 90):
    """Five source layers that share nothing, and four target layers, each a turned copy of one of them."""
    x = {Site(layer): normal(n, 6, layer) for layer in range(5)}
    rng = np.random.default_rng(9)
    y = {
        Site(there): x[Site(here)] @ frame(6, 9, 20 + there) + 0.5 * rng.standard_normal((n, 9))
        for there, here in FEEDS.items()
    }
    return rows_of(x), rows_of(y)


@pytest.mark.parametrize("method", ["procrustes", "ridge", "low_rank"])
@pytest.mark.parametrize("rule", ["cka", "r2"])
def test_layers_are_matched_by_what_they_say_and_not_by_their_number(rule, method):
    source, target = permuted()
    found = fit_transfer(source, target, method=method, layers=rule)
    assert {there.layer: here.layer for there, here in found.layer_of.items()} == FEEDS
    assert min(found.r2.values()) > 0.8 and found.layers == rule
    for there, row in found.layer_scores.items():
        assert len(row) == 5 and max(row, key=row.get) == found.layer_of[there]
        others = [value for here, value in row.items() if here != found.layer_of[there]]
        assert row[found.layer_of[there]] > 0.8 and max(others) < 0.3
    deep = fit_transfer(source, target, method=method)
    assert max(deep.r2.values()) < 0.2 and deep.layers == "depth" and deep.layer_scores == {}


def test_a_told_pairing_says_so():
    source, target = permuted()
    told = fit_transfer(source, target, layers=FEEDS)
    assert told.layers == "given" and told.layer_of == fit_transfer(source, target, layers="cka").layer_of


def test_the_identity_is_matched_by_r2_without_a_fit():
    rng = np.random.default_rng(0)
    x = {Site(layer): normal(60, 6, layer) for layer in range(3)}
    y = {Site(there): x[Site(here)] + 0.1 * rng.standard_normal((60, 6)) for there, here in {0: 2, 1: 1, 2: 0}.items()}
    found = fit_transfer(rows_of(x), rows_of(y), method="identity", layers="r2")
    assert {there.layer: here.layer for there, here in found.layer_of.items()} == {0: 2, 1: 1, 2: 0}
    several = fit_transfers(rows_of(x), rows_of(y), layers="r2")
    assert all(one.layer_of == found.layer_of for one in several.values()) and len(several) == 4


def test_r2_is_of_the_method_that_is_fitted_and_cka_of_none():
    """One source layer is the target turned, one is it stretched, one is it as it is under noise."""
    rng = np.random.default_rng(0)
    y = rng.standard_normal((90, 6))
    noise = rng.standard_normal((90, 6))
    x = {Site(0): y @ frame(6, 6, 1) + 0.3 * noise, Site(1): y * [3, 1, 1, 1, 1, 1 / 3], Site(2): y + 0.6 * noise}
    source, target = rows_of(x), rows_of({Site(1): y})
    best = {
        method: fit_transfer(source, target, method=method, layers="r2").layer_of[Site(1)].layer
        for method in ("procrustes", "ridge", "identity")
    }
    assert best == {"procrustes": 0, "ridge": 1, "identity": 2}
    assert fit_transfer(source, target, method="identity", layers="cka").layer_of[Site(1)] == Site(0)


def test_equal_scores_go_to_the_nearest_depth():
    x = normal(60, 6, 0)
    source = rows_of({Site(layer): x for layer in range(5)})
    target = rows_of({Site(layer): x @ frame(6, 6, 1) for layer in range(5)})
    for rule in ("cka", "r2"):
        found = fit_transfer(source, target, layers=rule)
        assert all(there == here for there, here in found.layer_of.items()), rule


def test_layers_that_do_not_vary_are_left_out_of_the_choice():
    source, target = permuted()
    x = {Site(layer): source.values(Site(layer)) for layer in range(5)} | {Site(3): np.ones((90, 6))}
    y = {Site(layer): target.values(Site(layer)) for layer in range(4)} | {Site(2): np.ones((90, 9))}
    for rule in ("cka", "r2"):
        found = fit_transfer(rows_of(x), rows_of(y), layers=rule)
        assert Site(3) not in found.layer_scores[Site(0)] and "do not vary" in found.skipped[Site(2)]
        assert found.layer_of[Site(1)] == Site(0)


def naive_cka(x: np.ndarray, y: np.ndarray) -> float:
    """The unbiased estimate as it is written: n x n kernels without their diagonals (Song et al. 2012, eq. 5)."""

    def hsic(k: np.ndarray, other: np.ndarray) -> float:
        n, one = len(k), np.ones(len(k))
        k, other = k - np.diag(np.diag(k)), other - np.diag(np.diag(other))
        mass = (one @ k @ one) * (one @ other @ one) / ((n - 1) * (n - 2))
        return (np.trace(k @ other) + mass - 2 / (n - 2) * (one @ k @ other @ one)) / (n * (n - 3))

    k, other = x @ x.T, y @ y.T
    return hsic(k, other) / np.sqrt(hsic(k, k) * hsic(other, other))


@pytest.mark.parametrize(("n", "d", "e"), [(40, 5, 7), (11, 30, 6), (5, 3, 50)])
def test_cka_without_kernels_equals_its_definition(n, d, e):
    """On rows far from their mean too: the definition does not centre, and need not."""
    x, y = normal(n, d, 0), normal(n, e, 1)
    y[:, :3] += x[:, :3]
    ours = unbiased_cka(Reduced.of(x), Reduced.of(y))
    centred = naive_cka(x - x.mean(axis=0), y - y.mean(axis=0))
    assert ours == pytest.approx(centred, abs=1e-9) and centred == pytest.approx(naive_cka(x, y), abs=1e-5)


def test_cka_of_unrelated_wide_rows_is_about_zero_and_of_rotated_ones_is_one():
    """The ordinary estimate is above 0.9 here, for rows that share nothing."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 30, 400))
    a, b = (rows - rows.mean(axis=0) for rows in (x, y))
    plain = np.linalg.norm(a.T @ b) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    assert plain > 0.9 and abs(unbiased_cka(Reduced.of(x), Reduced.of(y))) < 0.05
    assert unbiased_cka(Reduced.of(x), Reduced.of(3 * x @ frame(400, 400, 1) + 5)) == pytest.approx(1)
    assert np.isnan(unbiased_cka(Reduced.of(x[:3]), Reduced.of(y[:3])))


@pytest.mark.parametrize("method", ["procrustes", "ridge", "low_rank"])
def test_r2_over_folds_is_that_of_whole_fits(method):
    """In the coordinates of the training rows, against fits in the full space of each fold's rows."""
    x = normal(50, 70, 0)
    y = x @ frame(70, 80, 1) + normal(50, 80, 2)
    splits = cuts(np.arange(50))
    source, target = Reduced.of(x), Reduced.of(y)
    ours = folded_r2(folds_of(source, splits), source, target, method, ridge=0.01, rank=4)
    off = total = 0.0
    for train, asked in splits:
        fit, _ = fitted(Reduced.of(x[train]), Reduced.of(y[train]), method, ridge=0.01, scaled=False, rank=4)
        off += ((y[asked] - fit.point(x[asked])) ** 2).sum()
        total += ((y[asked] - y[train].mean(axis=0)) ** 2).sum()
    assert ours == pytest.approx(1 - off / total, abs=1e-9)
