"""LEACE against the published formula and its promises: equal means, blind probes, least change; and as an edit."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import chat
from own_hooks import everything
from sklearn.linear_model import LogisticRegression
from workbench_samples import posts

from hooks.site import Site
from workbench.interventions.erase_edit import Erase
from workbench.statistics import auroc
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.erase import leace, leace_of
from workbench.subspace.probe import PROBE_METHODS, ProbeSettings, read_out_vector

D = 10


def classes(n: int = 400, d: int = D, kinds: int = 2, seed: int = 0) -> list[np.ndarray]:
    """Classes of rows with correlated noise, moved along directions of their own; the sizes differ."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((d, d)) * np.linspace(0.3, 3, d)[:, None]
    label = rng.choice(kinds, size=n, p=np.arange(1, kinds + 1) / np.arange(1, kinds + 1).sum())
    rows = rng.standard_normal((n, d)) @ mix + 8 + 1.5 * rng.standard_normal((kinds, d))[label]
    return [rows[label == kind] for kind in range(kinds)]


def applied(eraser, rows):
    return rows - ((rows - eraser.mean) @ eraser.read.T) @ eraser.write


def published(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """P = W⁺ U Uᵀ W with W = Σ^(-1/2) and U the left singular vectors of W Σ_xz, as the paper writes it; and the
    mean."""
    rows, z = np.concatenate(parts), np.repeat(np.eye(len(parts)), list(map(len, parts)), axis=0)
    centred = rows - rows.mean(0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(rows))
    whiten, colour = (vectors * values**-0.5) @ vectors.T, (vectors * values**0.5) @ vectors.T
    left, sizes, _ = np.linalg.svd(whiten @ (centred.T @ (z - z.mean(0)) / len(rows)), full_matrices=False)
    left = left[:, sizes > 1e-8]
    return colour @ left @ left.T @ whiten, rows.mean(0)


@pytest.mark.parametrize("kinds", [2, 3, 4])
def test_it_is_the_published_formula(kinds):
    parts = classes(kinds=kinds)
    eraser = leace_of(parts, 0)
    projection, mean = published(parts)
    assert len(eraser.read) == kinds - 1
    np.testing.assert_allclose(eraser.write.T @ eraser.read, projection, atol=1e-9)
    np.testing.assert_allclose(eraser.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(eraser.read @ eraser.write.T, np.eye(kinds - 1), atol=1e-10)
    if kinds == 2:
        along = parts[0].mean(0) - parts[1].mean(0)
        assert abs(along @ eraser.write[0]) == pytest.approx(np.linalg.norm(along) * np.linalg.norm(eraser.write[0]))
        assert abs(along @ eraser.read[0]) < 0.9 * np.linalg.norm(along), "read is not write"


@pytest.mark.parametrize(("n", "d"), [(400, D), (60, 300), (150, 2560)])
@pytest.mark.parametrize("shrinkage", [None, 0, 0.4])
def test_class_means_are_equal_afterwards(n, d, shrinkage):
    """At float64's rounding, whatever the shrinkage, and with fewer rows than dimensions."""
    parts = classes(n, d, kinds=3)
    eraser = leace_of(parts, shrinkage)
    means = np.stack([applied(eraser, one).mean(0) for one in parts])
    length = np.sqrt(np.mean([(one**2).sum(1).mean() for one in parts]))
    assert np.abs(means - means[0]).max() < 1e-12 * length
    before = np.stack([one.mean(0) for one in parts])
    assert np.abs(before - before[0]).max() > 0.01 * length, "the meta-test"
    np.testing.assert_allclose(np.concatenate([applied(eraser, one) for one in parts]).mean(0), eraser.mean, atol=1e-9)


@pytest.mark.parametrize("method", PROBE_METHODS)
def test_no_probe_fitted_on_erased_rows_reads_anything(method):
    parts = classes()
    rows, positive = np.concatenate(parts), np.repeat([True, False], list(map(len, parts)))
    eraser = leace_of(parts)
    found = read_out_vector(applied(eraser, rows), positive, ProbeSettings(method))
    assert not found.vector.any(), "the class means are equal, and a constant is the best linear probe"
    before = read_out_vector(rows, positive, ProbeSettings(method))
    assert auroc(rows[positive] @ before.vector, rows[~positive] @ before.vector) > 0.7, "the meta-test"


def test_scikit_learns_logistic_regression_is_at_chance_on_erased_rows():
    """Without a penalty, and with its own intercept: the loss is that of a constant."""
    parts = classes()
    rows, label = np.concatenate(parts), np.repeat([1, 0], list(map(len, parts)))
    eraser = leace_of(parts)
    losses = []
    for given in (rows, applied(eraser, rows)):
        scaled = (given - given.mean(0)) / given.std()
        p = LogisticRegression(C=np.inf, tol=1e-10, max_iter=5000).fit(scaled, label).predict_proba(scaled)[:, 1]
        losses.append(-np.log(np.where(label == 1, p, 1 - p)).mean())
    share = label.mean()
    constant = -share * np.log(share) - (1 - share) * np.log(1 - share)
    assert losses[1] == pytest.approx(constant, abs=1e-6) and losses[0] < 0.9 * constant


def left_on_fresh_rows(n: int, d: int) -> tuple[float, float]:
    """(AUROC of a probe on rows that neither it nor the eraser has seen, the same after erasure)."""
    rng = np.random.default_rng(0)
    positive = np.arange(2 * n) % 2 == 0
    rows = rng.standard_normal((2 * n, d)) + 3.0 * positive[:, None] * np.eye(d)[0]
    fit, fresh = (rows[:n], positive[:n]), (rows[n:], positive[n:])
    probe = read_out_vector(*fit, ProbeSettings("lda"))
    eraser = leace_of([fit[0][fit[1]], fit[0][~fit[1]]])
    return tuple(auroc(one[fresh[1]] @ probe.vector, one[~fresh[1]] @ probe.vector)
                 for one in (fresh[0], applied(eraser, fresh[0])))  # fmt: skip


def test_on_fresh_rows_something_stays_and_with_few_rows_most():
    """The promise is for the rows fitted on (docstring of `leace`): 200 rows for each dimension are near chance, one
    row for three dimensions is not."""
    before, after = left_on_fresh_rows(2000, 10)
    assert before > 0.95 and abs(after - 0.5) < 0.04
    before, after = left_on_fresh_rows(100, 300)
    assert before > 0.85 and 0.6 < after < before


def test_it_changes_rows_less_than_any_other_map_that_equalises_the_means():
    """Of all projections that take out the difference of means (any read-out a with a·difference = 1), this one moves
    the rows least; the orthogonal one is among them."""
    parts = classes()
    rows, difference = np.concatenate(parts), parts[0].mean(0) - parts[1].mean(0)
    centred = rows - rows.mean(0)
    eraser = leace_of(parts, 0)
    least = ((applied(eraser, rows) - rows) ** 2).sum(1).mean()

    def moved(read):
        return ((centred @ read / (read @ difference)) ** 2).mean() * (difference @ difference)

    orthogonal = moved(difference)
    assert moved(eraser.read[0]) == pytest.approx(least) and least < 0.8 * orthogonal
    rng = np.random.default_rng(1)
    others = [moved(eraser.read[0] + 0.05 * rng.standard_normal(D)) for _ in range(200)]
    assert min(others) > least
    assert ((applied(leace_of(parts, 0.5), rows) - rows) ** 2).sum(1).mean() > least


def rows_of(parts: list[np.ndarray], site: Site, frozen: Site | None = None) -> list[ArrayRows]:
    extra = {} if frozen is None else {frozen: 2.0}
    return [
        ArrayRows(
            {site: one, **{at: np.full_like(one, value) for at, value in extra.items()}},
            [f"c{kind}.{i}" for i in range(len(one))],
            info={"model": "", "scope": "last"},
        )
        for kind, one in enumerate(parts)
    ]


def test_erasers_of_rows_by_site():
    views = rows_of(classes(kinds=3), Site(1), frozen=Site(2))
    eraser = leace(*views)
    assert eraser.rank.tolist() == [2, 0] and eraser.n == tuple(map(len, views)) and "rank 0..2" in repr(eraser)
    erased = [eraser.erased(one) for one in views]
    assert erased[1].prompt_ids == views[1].prompt_ids
    means = np.stack([one.values(Site(1), np.float64).mean(0) for one in erased])
    assert np.abs(means - means[0]).max() < 1e-10
    np.testing.assert_array_equal(erased[0].values(Site(2)), views[0].values(Site(2)))
    again = leace(*erased)
    assert again.rank.tolist() == [0, 0], "nothing is left to erase"
    assert (eraser.read_out().role, eraser.written(1).role) == ("read", "write")
    with pytest.raises(ValueError, match="two classes or more"):
        leace(views[0])
    with pytest.raises(ValueError, match="expected rows, of 10"):
        leace(views[0], ArrayRows({Site(1): np.ones((3, 4)), Site(2): np.ones((3, 4))}))
    with pytest.raises(ValueError, match="the eraser has width 10 and the rows 3"):
        eraser.apply(np.ones((2, 3)), 1)


# As an edit of the stream.


@pytest.mark.parametrize("kinds", [2, 3])
def test_the_edit_is_the_map(llama, kinds):
    site = Site(1)
    eraser = leace(*rows_of(classes(200, llama.d_model, kinds), site, frozen=Site(0)))
    batch = llama.encode([chat("a", "hi"), chat("b", "what is this"), chat("c", "a somewhat longer question")])
    real = batch.tokens.position >= 0
    edits = Erase(eraser).edits(llama) if set(posts(llama)) <= set(eraser.sites) else Erase(eraser, 1).edits(llama)
    assert list(edits) == [site], "where nothing is to erase nothing is done"
    before = llama.run(batch, {site: everything}).kept[site][real].double().numpy()
    out = llama.run(batch, {site: everything}, edits)
    after = out.kept[site][real].double().numpy()
    expected = eraser.apply(before, site)
    # float32 sums over the width; read and write swapped would be off by the size of the change.
    scale = np.abs(expected - before).max()
    assert np.abs(after - expected).max() < 1e-5 * max(scale, np.abs(before).max()) < scale
    (tally,) = out.tallies[site]
    assert float(tally.leftover.max()) < 1e-5 and float(tally.removed.min()) > 0
    (edit,) = edits[site]
    assert edit.carry.tolist() == [1] and (edit.gain == -1).all()
    assert not np.allclose(edit.read.numpy(), edit.write.numpy())


def test_the_edit_refuses_what_it_cannot_do(llama, gemma3):
    eraser = leace(*rows_of(classes(100, llama.d_model), Site(1), frozen=Site(0)))
    assert Erase(eraser, 1, at="response").describe()["intervention"] == "erase"
    with pytest.raises(ValueError, match="there is no eraser at resid_post:2"):
        Erase(eraser, 2).edits(llama)
    with pytest.raises(ValueError, match="nothing to act with"):
        Erase(eraser, 0).edits(llama)
    other = leace(*rows_of(classes(100, llama.d_model + 1), Site(1)))
    with pytest.raises(ValueError, match="Erase has vectors of width"):
        Erase(other, 1).edits(llama)
