"""Frequent directions against the exact scatter: the counted bound holds, and is worth having."""

import pytest
import torch

from hooks.sketch import Sketch

D = 60
SPECTRA = {
    "slow": torch.exp(-torch.arange(D) / 20.0),
    "flat": torch.ones(D),
    "outlier": torch.cat([torch.tensor([400.0]), torch.exp(-torch.arange(D - 1) / 10.0)]),
}


def rows_of(spectrum, n=3000, seed=0):
    """Rows whose covariance has this spectrum in a random basis."""
    maker = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(D, D, generator=maker, dtype=torch.float64))
    return torch.randn(n, D, generator=maker, dtype=torch.float64) * SPECTRA[spectrum] @ basis.T


def errors(rows, sketch):
    """Smallest and largest eigenvalue of AᵀA - BᵀB."""
    off = torch.linalg.eigvalsh(rows.T @ rows - sketch.rows.T @ sketch.rows)
    return float(off[0]), float(off[-1])


@pytest.mark.parametrize("rank", [4, 16, 40])
@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("order", ["random", "by length", "one at a time"])
def test_the_counted_bound_holds_and_is_tight(spectrum, rank, order):
    rows = rows_of(spectrum, n=600 if order == "one at a time" else 3000)
    rows = rows[rows.norm(dim=1).argsort()] if order == "by length" else rows
    sketch = Sketch(rank, D)
    for part in rows.split(1 if order == "one at a time" else 700):
        sketch.add(part)
    low, high = errors(rows, sketch)
    rounding = 1e-9 * float(rows.square().sum())
    slack = float(sketch.slack)
    assert low >= -rounding and high <= slack + rounding
    # A bound much above the error would be of little use; four rows for a flat spectrum are of no use anyhow.
    assert rank < 16 or high >= 0.4 * slack
    # Ghashami et al., for every k at once, with one row more than they count.
    exact = torch.linalg.eigvalsh(rows.T @ rows).flip(0)
    assert all(slack <= float(exact[k:].sum()) / (rank + 1 - k) + rounding for k in range(rank + 1))
    assert len(sketch.rows) <= 2 * rank


def test_leading_directions_are_found_at_four_times_their_number():
    rows = rows_of("slow")
    sketch = Sketch(32, D).add(rows)
    _, exact = torch.linalg.eigh(rows.T @ rows)
    _, found = torch.linalg.eigh(sketch.rows.T @ sketch.rows)
    assert torch.linalg.svdvals(exact[:, -8:].T @ found[:, -8:]).min() > 0.97
    assert float(sketch.slack) < 0.1 * float(torch.linalg.eigvalsh(rows.T @ rows)[-1])


def test_few_rows_or_low_rank_are_exact():
    few = rows_of("slow", n=31)
    sketch = Sketch(16, D).add(few)
    assert float(sketch.slack) == 0 and torch.equal(sketch.rows, few)
    flat = rows_of("slow")[:, :5] @ rows_of("flat")[:5]
    sketch = Sketch(16, D).add(flat)
    low, high = errors(flat, sketch)
    scale = float(flat.square().sum())
    assert float(sketch.slack) < 1e-9 * scale and abs(low) < 1e-9 * scale and abs(high) < 1e-9 * scale


def test_sketches_merge_with_the_sum_of_their_bounds():
    rows, parts = rows_of("slow"), []
    for part in rows.split(900):
        parts.append(Sketch(12, D).add(part))
    alone = sum(float(one.slack) for one in parts)
    whole = parts[0]
    for part in parts[1:]:
        whole.merge(part)
    low, high = errors(rows, whole)
    assert low >= -1e-6 and high <= float(whole.slack) + 1e-6
    assert float(whole.slack) >= alone
    assert float(whole.slack) <= float(torch.linalg.eigvalsh(rows.T @ rows).flip(0)[6:].sum()) / 7


def test_a_sketch_goes_on_where_it_stopped_to_the_bit():
    rows = rows_of("slow", n=200)
    whole, first = Sketch(8, D).add(rows), Sketch(8, D).add(rows[:77])
    later = Sketch(8, D).restore(first.rows.clone(), float(first.slack)).add(rows[77:])
    assert torch.equal(whole.rows, later.rows) and torch.equal(whole.slack, later.slack)


def test_a_sketch_without_rows_is_refused():
    with pytest.raises(ValueError, match="at least 1 row"):
        Sketch(0, D)
