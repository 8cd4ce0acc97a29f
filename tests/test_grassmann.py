"""Measures of frames against scipy and by hand, and their nulls."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from planted_domains import SITE, D, stream

import workbench as wb
from workbench.subspace.basis import Subspace
from workbench.subspace.grassmann import frame_measures, random_frames, stream_rows
from workbench.subspace.pca import pca


def frame(k: int, seed: int) -> np.ndarray:
    return random_frames(D, k, 1, seed=seed)[0]


def test_measures_are_those_of_the_principal_angles():
    a, b = frame(3, 0), frame(5, 1)
    angles = scipy.linalg.subspace_angles(a.T, b.T)
    found = frame_measures(a, b)
    assert found["mean_cos2"] == pytest.approx(np.mean(np.cos(angles) ** 2))
    assert found["mean_cos"] == pytest.approx(np.mean(np.cos(angles)))
    assert found["chordal"] == pytest.approx(np.linalg.norm(np.sin(angles)))
    assert found["geodesic"] == pytest.approx(np.linalg.norm(angles))
    assert found["binet_cauchy"] == pytest.approx(np.prod(np.cos(angles) ** 2))


def test_a_turned_frame_has_the_angle_it_was_turned_by():
    axes = np.eye(D)
    turned = np.stack([np.cos(0.3) * axes[0] + np.sin(0.3) * axes[2], axes[1]])
    found = frame_measures(axes[:2], turned)
    assert found["geodesic"] == pytest.approx(0.3) and found["chordal"] == pytest.approx(np.sin(0.3))


@pytest.mark.parametrize("k", [1, 4])
def test_uniform_frames_overlap_by_k_over_d(k):
    found = wb.frame_overlap(frame(k, 0), frame(k, 1), draws=499)
    assert found.null["mean_cos2"][0] < k / D < found.null["mean_cos2"][1] and found.p["mean_cos2"] > 0.01
    same = wb.frame_overlap(frame(k, 0), frame(k, 0), draws=99)
    assert set(same.p.values()) == {0.01} and same.value["geodesic"] == pytest.approx(0, abs=1e-6)


def test_frames_of_the_stream_share_its_loud_axes():
    rows = stream_rows(stream(loud=3, times=10.0), SITE)
    a, b = random_frames(D, 3, 2, seed=7, rows=rows)
    assert np.abs(a @ a.T - np.eye(3)).max() < 1e-12
    assert wb.frame_overlap(a, b, draws=99).p["mean_cos2"] == 0.01
    assert wb.frame_overlap(a, b, rows=rows, draws=99).p["mean_cos2"] > 0.05
    with pytest.raises(ValueError, match="span fewer"):
        random_frames(D, 4, 1, rows=rows[:3])
    with pytest.raises(ValueError, match="different spaces"):
        wb.frame_overlap(a, b[:, :9])


def space(basis: np.ndarray) -> Subspace:
    """A subspace with this basis, of no particular variance."""
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((40, len(basis))) * np.arange(len(basis), 0, -1) @ basis
    values = type(stream())({SITE: rows - rows.mean(axis=0)})
    return pca(values, k=len(basis), null=None)


def test_the_matrix_is_the_mean_over_fine_tunings():
    own = {"a": [space(frame(2, 0)), space(frame(2, 1))], "b": [space(frame(2, 2))], "c": [space(frame(2, 0))]}
    found = wb.frame_matrix(own, stream(), draws=99)[SITE]
    overlap = {
        pair: frame_measures(frame(2, pair[0]), frame(2, pair[1]))["mean_cos2"] for pair in ((0, 1), (0, 2), (1, 2))
    }
    expected = np.array([
        [overlap[0, 1], (overlap[0, 2] + overlap[1, 2]) / 2, (1 + overlap[0, 1]) / 2],
        [(overlap[0, 2] + overlap[1, 2]) / 2, np.nan, overlap[0, 2]],
        [(1 + overlap[0, 1]) / 2, overlap[0, 2], np.nan],
    ])  # fmt: skip
    assert found.overlap == pytest.approx(expected, nan_ok=True, abs=1e-6)
    assert found.mean == pytest.approx(expected[np.triu_indices(3, 1)].mean(), abs=1e-6)
    assert found.within == pytest.approx(overlap[0, 1], abs=1e-6) and found.chance == 2 / D
    assert found.measures["mean_cos2"] == pytest.approx(found.mean)
    assert list(found.p) == ["isotropic", "of the stream"] and found.p["isotropic"] == 0.01
    assert wb.frame_matrix(own, k=1, draws=9)[SITE].k == 1
    with pytest.raises(ValueError, match="expected 2 and 1"):
        wb.frame_matrix({"a": own["a"]})


def test_its_null_is_the_mean_overlap_of_random_frames():
    own = {name: [space(frame(2, i))] for i, name in enumerate("abcd")}
    found = wb.frame_matrix(own, draws=199)[SITE]
    assert found.null["isotropic"][0] < 2 / D < found.null["isotropic"][1] and found.p["isotropic"] > 0.01
