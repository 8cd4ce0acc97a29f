"""Scales against direct formulas and scikit-learn; read-outs are typed, and the covariance leads to write vectors."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.covariance import ledoit_wolf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from hooks.site import Site
from workbench.interventions.ablate import Ablate
from workbench.interventions.steer import Steer
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.directions import Directions
from workbench.subspace.shift import SHIFT_VARIANTS, shift_pca
from workbench.subspace.shift_scale import shrunk_covariance, write_from_read

SITE = Site(1)
N, D = 90, 12


def correlated(n: int = N, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).standard_normal((D, D)) * np.linspace(0.2, 3, D)[:, None]
    return rng.standard_normal((n, D)) @ mix + 5.0


def rows_of(values: np.ndarray, **more) -> ArrayRows:
    return ArrayRows({SITE: values}, [f"p{i}" for i in range(len(values))], **more)


@pytest.fixture(scope="module")
def both() -> tuple[np.ndarray, np.ndarray]:
    base = correlated()
    return base, base + 0.4 * correlated(seed=3)


@pytest.mark.parametrize("variant", SHIFT_VARIANTS)
def test_standardised_spectra_by_hand(variant, both):
    base, tuned = both
    reference = np.vstack([base, tuned]) if variant == "between_class" else base
    sigma = reference.std(axis=0, ddof=1)
    found = shift_pca(rows_of(base), rows_of(tuned), variant, 3, scale="std", null=None)
    plain = shift_pca(rows_of(base / sigma), rows_of(tuned / sigma), variant, 3, null=None)
    np.testing.assert_allclose(found.spectrum.variance, plain.spectrum.variance, rtol=1e-9)
    np.testing.assert_allclose(found.reads[0], plain.spectrum.basis[0] / sigma, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("shrinkage", [None, 0.0, 0.3])
def test_whitened_spectra_by_hand(shrinkage, both):
    base, tuned = both
    found = shift_pca(rows_of(base), rows_of(tuned), k=3, scale="whiten", shrinkage=shrinkage, null=None)
    covariance, _ = shrunk_covariance(base, shrinkage)
    # Any root will do for the spectrum: the Cholesky factor is not the symmetric one.
    shift = (tuned - base) - (tuned - base).mean(0)
    scatter = shift.T @ shift / (N - 1)
    expected = np.sort(np.linalg.eigvals(np.linalg.inv(covariance) @ scatter).real)[::-1]
    np.testing.assert_allclose(found.spectrum.variance[0], expected, rtol=1e-8)
    # The generalised eigenvectors are the read-outs: (Σ⁻¹ S) r = λ r.
    for value, read in zip(expected, found.reads[0], strict=False):
        np.testing.assert_allclose(np.linalg.inv(covariance) @ scatter @ read, value * read, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("n", [8, 90])
def test_the_covariance_is_shrunk_as_by_ledoit_and_wolf(n):
    values = correlated(n)
    ours, weight = shrunk_covariance(values)
    theirs, their_weight = ledoit_wolf(values)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    assert weight == pytest.approx(their_weight) and weight > 0
    np.testing.assert_allclose(shrunk_covariance(values, 0)[0], np.cov(values.T, bias=True), rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="expected 0"):
        shrunk_covariance(values, 1.5)


def test_between_class_under_whitening_is_the_linear_discriminant(both):
    base, tuned = both
    found = shift_pca(rows_of(base), rows_of(tuned + 1), "between_class", 1, scale="whiten", shrinkage=0, null=None)
    lda = (
        LinearDiscriminantAnalysis(solver="eigen")
        .fit(np.vstack([base, tuned + 1]), np.repeat([0, 1], N))
        .scalings_[:, 0]
    )
    read = found.reads[0, 0]
    assert abs(read @ lda) / np.linalg.norm(read) / np.linalg.norm(lda) == pytest.approx(1, abs=1e-6)


def test_a_scaled_component_is_a_read_out_and_never_a_write_vector(both, llama):
    base, tuned = both
    found = shift_pca(rows_of(base, info={"model": "toy"}), rows_of(tuned), k=2, scale="std", null=None)
    read = found.read_out(0)
    assert read.role == "read" and read.model == "toy" and "scale std" in read.kind
    with pytest.raises(ValueError, match="expected a write vector"):
        Steer(read, 1)
    with pytest.raises(ValueError, match="are read-outs, and no subspace to edit"):
        _ = found.subspace
    with pytest.raises(ValueError, match="are read-outs"):
        found.overlap(found)
    wide = shift_pca(*(rows_of(np.tile(values, 3)[:, : llama.d_model]) for values in both), k=2, scale="std", null=None)
    with pytest.raises(ValueError, match="of no model's stream"):
        Ablate(wide.spectrum, layer=1, to="zero").edits(llama)
    assert found.write(0).role == "write"
    with pytest.raises(ValueError, match=r"expected 0\.\.1"):
        found.read_out(2)
    plain = shift_pca(rows_of(base), rows_of(tuned), k=2, null=None)
    np.testing.assert_allclose(plain.write(1).unit, plain.subspace.component(1).unit)
    assert plain.read_out(1).role == "read"


@pytest.mark.parametrize("scale", ["std", "whiten"])
def test_the_write_vector_is_the_covariance_times_the_read_out(scale, both):
    base, tuned = both
    found = shift_pca(rows_of(base), rows_of(tuned), k=3, scale=scale, shrinkage=0, null=None)
    covariance = np.cov(base.T, bias=scale == "whiten")
    for index in range(3):
        read, write = found.read_out(index).vector(SITE), found.write(index).vector(SITE)
        deviation = np.sqrt(read @ covariance @ read)
        np.testing.assert_allclose(write, covariance @ read / deviation, rtol=1e-6, atol=1e-9)
        assert read @ write == pytest.approx(deviation), "it moves the read-out by one standard deviation"
        by_rows = write_from_read(found.read_out(index), rows_of(base)).vector(SITE)
        np.testing.assert_allclose(by_rows, write * (1 if scale == "std" else np.sqrt(N / (N - 1))), rtol=1e-6)
    if scale == "whiten":  # Σ^(1/2) u, for u the component itself
        values, vectors = np.linalg.eigh(covariance)
        np.testing.assert_allclose(
            found.writes[0], found.spectrum.basis[0] @ (vectors * np.sqrt(values)) @ vectors.T, rtol=1e-6, atol=1e-9
        )


def test_the_write_vector_is_where_a_planted_source_writes():
    """A source writes along w into noise that is strong on another axis: the best read-out is not w, and the covariance
    leads from it back to w."""
    rng = np.random.default_rng(0)
    w, strong = np.eye(D)[0], (np.eye(D)[0] + np.eye(D)[1]) / np.sqrt(2)
    source = rng.standard_normal(4000)
    values = (
        2 * source[:, None] * w + 6 * rng.standard_normal((4000, 1)) * strong + 0.3 * rng.standard_normal((4000, D))
    )
    read = np.linalg.lstsq(values - values.mean(0), source, rcond=None)[0]
    found = write_from_read(Directions.of([SITE], read, role="read"), rows_of(values))
    assert abs(read @ w) / np.linalg.norm(read) < 0.8 and abs(found.unit[0] @ w) > 0.99
    with pytest.raises(ValueError, match="given a write vector"):
        write_from_read(Directions.of([SITE], read), rows_of(values))
    with pytest.raises(ValueError, match="do not vary"):
        write_from_read(Directions.of([SITE], read, role="read"), rows_of(np.ones((9, D))))


def test_what_cannot_be_scaled_is_refused(both):
    base, tuned = both
    dead = base.copy()
    dead[:, 4] = 1.0
    with pytest.raises(ValueError, match=r"1 coordinates \(first: 4\) are constant"):
        shift_pca(rows_of(dead), rows_of(tuned), scale="std", null=None)
    still = tuned.copy()
    still[:, 4] = 1.0
    found = shift_pca(rows_of(dead), rows_of(still), "harmful_only", 2, scale="std", null=None)
    assert found.reads[0, 0, 4] == 0
    few = [rows_of(values[:6]) for values in both]
    with pytest.raises(ValueError, match="cannot be inverted at shrinkage=0"):
        shift_pca(*few, k=2, scale="whiten", shrinkage=0, null=None)
    assert shift_pca(*few, k=2, scale="whiten", null=None).shrinkage[0] > 0


def test_one_loud_channel_rules_the_plain_spectrum_and_not_the_standardised():
    rng = np.random.default_rng(0)
    base, shift = rng.standard_normal((N, D)), rng.standard_normal((N, 1)) * np.ones(D) / np.sqrt(D)
    base[:, 5] *= 500
    shift = shift + rng.standard_normal((N, D)) * 0.1 * base.std(0)
    found = {s: shift_pca(rows_of(base), rows_of(base + shift), k=1, scale=s, null=None) for s in ("none", "std")}
    assert found["none"].component_channels(1)[0, 0] > 0.99
    assert np.abs(found["std"].spectrum.basis[0, 0]).argmax() != 5
