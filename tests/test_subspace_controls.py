"""Random frames: orthonormal, of the energy of the subspace, orthogonal to it, the same by seed and across sites."""

from __future__ import annotations

import numpy as np
import pytest

from hooks.site import Site
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.basis import Subspace
from workbench.subspace.controls import energy_share
from workbench.subspace.overlap import mean_overlap
from workbench.subspace.pca import pca
from workbench.subspace.subspace_controls import (
    FRAME_KINDS,
    energy_matched_frames,
    frames,
    isotropic_frames,
    orthogonal_frames,
)

D, N, K = 48, 120, 4
SITES = (Site(0), Site(1))


@pytest.fixture(scope="module")
def rows() -> ArrayRows:
    """Rows with a steep spectrum and a large mean, as residual streams have."""
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.standard_normal((D, D)))[0]
    shared = rng.standard_normal((N, D)) / np.arange(1, D + 1) @ turn
    return ArrayRows({SITES[0]: shared + 30.0, SITES[1]: 3 * shared + 0.1 * rng.standard_normal((N, D)) - 8.0})


def subspace_of(k: int = K, seed: int = 1, **more) -> Subspace:
    """A random subspace at both sites, with an origin that is not the rows' mean."""
    rng = np.random.default_rng(seed)
    basis = np.stack([np.linalg.qr(rng.standard_normal((D, k)))[0].T for _ in SITES])
    ones, origin = np.ones((2, k)), np.stack([np.full(D, 29.5), np.full(D, -8.0)])
    facts = {"n": 9, "origin": origin, "model": "toy", "scope": "all"} | more
    return Subspace(SITES, basis, ones, origin, ones.sum(1), **facts)


def energy(basis: np.ndarray, values: np.ndarray) -> float:
    """Sum of squared coordinates, by hand."""
    return float(sum(((values @ axis) ** 2).sum() for axis in basis))


@pytest.mark.parametrize("kind", FRAME_KINDS)
def test_frames_are_orthonormal_of_the_same_dimension_sites_and_model(kind, rows):
    subspace = subspace_of()
    found = frames(subspace, kind, 5, 3, rows)
    for draw, frame in enumerate(found):
        assert (frame.k, frame.sites, frame.model, frame.scope) == (K, SITES, "toy", "all")
        np.testing.assert_allclose(frame.basis @ frame.basis.swapaxes(1, 2), [np.eye(K)] * 2, atol=1e-10)
        np.testing.assert_array_equal(frame.origin, subspace.origin)
        assert frame.null is None and not frame.variance.any()
        assert frame.null_kind == f"none: {kind.replace('_', ' ')} control {draw}"
    again, other = frames(subspace, kind, 5, 3, rows), frames(subspace, kind, 5, 4, rows)
    assert all(np.array_equal(a.basis, b.basis) for a, b in zip(found, again, strict=True))
    assert not np.allclose(found[0].basis, other[0].basis) and not np.allclose(found[0].basis, found[1].basis)


@pytest.mark.parametrize("held", ["little", "some", "much", "all that k can", "the least that k can"])
@pytest.mark.parametrize("k", [1, 4, 30])
def test_pitfall_37_energy_matched_frames_hold_exactly_the_energy_of_the_subspace(held, k, rows):
    """To 1e-6, by hand, whether the subspace holds less than an isotropic frame or as much as k dimensions can. (30 is
    more than half of d_model.)"""
    subspace = subspace_of(k)
    centred = [rows.values(s, np.float64) - o for s, o in zip(SITES, subspace.origin, strict=True)]
    axes = [np.linalg.svd(each)[2] for each in centred]
    low, high = [each[-k:] for each in axes], [each[:k] for each in axes]
    bases = {
        "little": [np.linalg.qr((a + 0.1 * b).T)[0].T for a, b in zip(low, subspace.basis, strict=True)],
        "some": list(subspace.basis),
        "much": [each[1 : k + 1] for each in axes],
        "all that k can": high,
        "the least that k can": low,
    }
    subspace = subspace.replace(basis=np.stack(bases[held]))
    for frame in energy_matched_frames(subspace, rows, 3, seed=2):
        for index, values in enumerate(centred):
            expected = energy(subspace.basis[index], values)
            assert energy(frame.basis[index], values) == pytest.approx(expected, rel=1e-6)
        np.testing.assert_allclose(energy_share(frame, rows), energy_share(subspace, rows), rtol=1e-6)


def test_an_isotropic_frame_does_not_hold_it(rows):
    """The meta-test, and the reason: for the second to fifth component isotropic frames hold a tenth or less."""
    top = pca(rows, 5, null=None)
    top = top.replace(basis=top.basis[:, 1:])
    isotropic = np.mean([energy_share(frame, rows) for frame in isotropic_frames(top, 20)], axis=0)
    assert (isotropic < 0.3 * energy_share(top, rows)).all()


def test_matched_frames_are_random_and_come_near_only_where_they_must(rows):
    some, everything = subspace_of(), pca(rows, K, null=None)
    free = [mean_overlap(frame, some)[SITES[0]].value for frame in energy_matched_frames(some, rows, 8)]
    forced = [mean_overlap(frame, everything)[SITES[0]].value for frame in energy_matched_frames(everything, rows, 3)]
    assert np.mean(free) < 0.3 and min(forced) > 0.99
    one, other = energy_matched_frames(some, rows, 2)
    assert mean_overlap(one, other)[SITES[0]].value < 0.6


def test_position_0_is_left_out():
    rng = np.random.default_rng(4)
    values = rng.standard_normal((60, 16)) * np.linspace(3, 0.3, 16)
    position = np.tile(np.arange(6), 10)
    sink = values + 1000.0 * (position == 0)[:, None]
    held = ArrayRows({Site(0): sink}, [f"p{i // 6}" for i in range(60)], positions=position.tolist())
    basis = np.linalg.qr(rng.standard_normal((16, 3)))[0].T[None]
    subspace = Subspace((Site(0),), basis, np.ones((1, 3)), np.zeros((1, 16)), np.ones(1), n=2)
    kept = values[position > 0] - values[position > 0].mean(0)
    for frame in energy_matched_frames(subspace, held, 3):
        assert energy(frame.basis[0], kept) == pytest.approx(energy(basis[0], kept), rel=1e-6)


def test_orthogonal_frames_are_orthogonal_to_the_subspace():
    subspace = subspace_of(20)
    for frame in orthogonal_frames(subspace, 4):
        assert np.abs(frame.basis @ subspace.basis.swapaxes(1, 2)).max() < 1e-10
    with pytest.raises(ValueError, match="do not fit into d_model 48"):
        orthogonal_frames(subspace_of(25), 1)


def test_isotropic_frames_are_uniform_and_nested_over_k():
    """The mean projector of many is k/d times the identity; the frame of a smaller k is inside that of a larger one."""
    found = isotropic_frames(subspace_of(K), 400, seed=5)
    mean = np.mean([frame.basis[0].T @ frame.basis[0] for frame in found], axis=0)
    np.testing.assert_allclose(np.diag(mean), K / D, rtol=0.35)
    assert np.abs(mean - np.diag(np.diag(mean))).max() < 0.03
    np.testing.assert_array_equal(found[0].basis[0], found[0].basis[1])
    small = isotropic_frames(subspace_of(2), 1, seed=5)[0]
    np.testing.assert_allclose(np.linalg.norm(small.basis[0] @ found[0].basis[0].T, axis=1), 1.0)


def test_controls_that_cannot_be_are_refused(rows):
    subspace = subspace_of()
    with pytest.raises(ValueError, match="combinations of captured activations"):
        frames(subspace, "energy_matched", 2, 0, None)
    with pytest.raises(ValueError, match="'shuffled' is unknown: expected among isotropic"):
        frames(subspace, "shuffled", 2, 0, rows)
    with pytest.raises(ValueError, match="expected at least 1"):
        isotropic_frames(subspace, 0)
    with pytest.raises(ValueError, match="need rows that vary"):
        energy_matched_frames(subspace.replace(origin=None), ArrayRows({site: np.zeros((5, D)) for site in SITES}), 1)
    with pytest.raises(ValueError, match="the rows 8 at"):
        energy_matched_frames(subspace, ArrayRows({site: np.ones((5, 8)) for site in SITES}), 1)
