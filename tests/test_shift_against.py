"""A fine-tune beside a benign one: equal n, the same keys, both spectra."""

from __future__ import annotations

import numpy as np
import pytest

from hooks.site import Site
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.shift import shift_pca
from workbench.subspace.shift_against import shift_against

SITE, TOWER = Site(2), Site(0, tower="vision")
N, D = 50, 16
IDS = [f"p{i}" for i in range(N)]


def rows_of(values: np.ndarray, ids=None) -> ArrayRows:
    return ArrayRows({SITE: values}, ids or IDS[: len(values)])


@pytest.fixture
def base() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((N, D)) + 4


def moved(base: np.ndarray, rank: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return base + 3 * rng.standard_normal((N, rank)) @ np.linalg.qr(rng.standard_normal((D, rank)))[0].T


@pytest.mark.parametrize("variant", ["paired_shift_centered", "stacked", "harmful_only", "text_minus_base_text"])
def test_both_have_as_many_rows(variant, base):
    tuned, benign = moved(base, 2, 1), moved(base, 6, 2)[:30]
    found = shift_against(rows_of(base), rows_of(tuned), rows_of(benign), variant, 4, null=None)
    assert found.n == found.tuned.n == found.benign.n == (60 if variant == "stacked" else 30)
    assert (found.tuned.left_out, found.benign.left_out) == (20, 0) and "20 left out for equal n" in repr(found.tuned)
    again = shift_against(rows_of(base), rows_of(tuned[::-1], IDS[::-1]), rows_of(benign), variant, 4, null=None)
    np.testing.assert_allclose(again.tuned.spectrum.variance, found.tuned.spectrum.variance, rtol=1e-9)
    other = shift_against(rows_of(base), rows_of(tuned), rows_of(benign), variant, 4, null=None, seed=1)
    assert not np.allclose(other.tuned.spectrum.variance, found.tuned.spectrum.variance, rtol=1e-6)


def test_the_rows_drawn_are_rows_of_the_data(base):
    tuned = moved(base, 3, 1)
    found = shift_pca(rows_of(base), rows_of(tuned), "paired_shift_raw", 2, at_most=1 + 1, null=None)
    energies = ((tuned - base) ** 2).sum(axis=1)
    sums = energies[:, None] + energies[None]
    assert np.abs(sums / 2 - found.spectrum.total[0]).min() < 1e-9 and found.left_out == N - 2


def test_equal_draws_are_nested_and_the_same_for_both(base):
    """The same base, the same keys: a fine-tune against itself is the same result, to the last bit."""
    tuned = moved(base, 3, 1)
    found = shift_against(rows_of(base[:20], IDS[:20]), rows_of(tuned), rows_of(tuned[::-1], IDS[::-1]), null=None, k=3)
    assert np.array_equal(found.tuned.spectrum.variance, found.benign.spectrum.variance)


def test_spectra_side_by_side(base):
    found = shift_against(rows_of(base), rows_of(moved(base, 1, 1)), rows_of(moved(base, 5, 2)), k=5)
    first, second, *_ = found.spectra(SITE)
    assert first["tuned_share"] == pytest.approx(1.0) and first["benign_share"] < 0.6
    assert second["tuned_variance"] == pytest.approx(0, abs=1e-9) and second["component"] == 2
    assert [(row["fine_tune"], row["k_95"]) for row in found.rows()] == [("tuned", 1), ("benign", 5)]
    assert found.overlap[SITE].chance == 5 / D
    assert (
        shift_against(
            rows_of(base), rows_of(moved(base, 1, 1)), rows_of(moved(base, 5, 2)), scale="std", null=None
        ).overlap
        is None
    )


def test_a_site_that_one_of_them_left_alone_is_no_fault(base):
    still = np.random.default_rng(5).standard_normal((N, D))
    before = ArrayRows({SITE: base, TOWER: still}, IDS)
    trained = ArrayRows({SITE: moved(base, 2, 1), TOWER: still + moved(base, 1, 4)}, IDS)
    frozen = ArrayRows({SITE: moved(base, 2, 2), TOWER: still}, IDS)
    for sites in (None, [SITE, TOWER]):
        found = shift_against(before, trained, frozen, k=1, null=None, sites=sites)
        assert found.sites == (SITE,) and found.benign.unchanged == (TOWER,) and not found.tuned.unchanged
        assert [row["state"][:9] for row in found.rows() if row["site"] == str(TOWER)] == ["decompose", "unchanged"]
    assert shift_against(before, trained, frozen, k=1, null=None, sites=[TOWER]).overlap is None
