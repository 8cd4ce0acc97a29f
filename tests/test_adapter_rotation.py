"""Rotation of an adapter between two moments, against the written-out ΔW and angles by hand."""

from dataclasses import replace

import numpy as np
import pytest

from workbench.training.factors import Factor, LoraFactors
from workbench.training.rotation import rotation

RNG = np.random.default_rng(0)


def factor(b, a=None, scaling=0.7, module="model.layers.1.mlp.down_proj"):
    b = np.asarray(b, np.float64)
    return Factor(module, "language", 1, scaling, RNG.normal(size=(b.shape[1], 7)) if a is None else a, b)


def one(*factors):
    return LoraFactors("it", factors)


def test_numbers_are_those_of_the_written_out_change():
    """numpy's dense matrices are the twin, for factors of odd sizes."""
    now, then = factor(RNG.normal(size=(11, 3))), factor(RNG.normal(size=(11, 3)))
    (row,) = rotation(one(now), one(then))
    delta, before = now.delta(), then.delta()
    assert row["norm"] == pytest.approx(np.linalg.norm(delta), rel=1e-12)
    cosine = np.sum(delta * before) / np.linalg.norm(delta) / np.linalg.norm(before)
    assert row["delta_cosine"] == pytest.approx(cosine, abs=1e-12)
    q, p = np.linalg.qr(delta)[0][:, :3], np.linalg.qr(before)[0][:, :3]
    cosines = np.linalg.svd(q.T @ p, compute_uv=False)
    assert row["overlap"] == pytest.approx(np.mean(cosines**2), abs=1e-12)
    assert row["largest_angle"] == pytest.approx(np.arccos(cosines.min()), abs=1e-9)
    columns = [b @ c / np.linalg.norm(b) / np.linalg.norm(c) for b, c in zip(now.b.T, then.b.T, strict=True)]
    assert row["column_cosine"] == pytest.approx(np.mean(columns), abs=1e-12)
    assert row["chance"] == 3 / 11 and row["b_norm"] == pytest.approx(np.linalg.norm(now.b))


def test_a_rank_one_vector_turned_by_a_known_angle():
    for angle in (0.0, 0.3, 2.0):
        b, c = np.zeros((5, 1)), np.zeros((5, 1))
        b[0], c[0], c[1] = 2.0, np.cos(angle), np.sin(angle)
        (row,) = rotation(one(factor(b)), one(factor(c)))
        assert row["column_cosine"] == pytest.approx(np.cos(angle), abs=1e-12)
        assert row["largest_angle"] == pytest.approx(min(angle, np.pi - angle), abs=1e-8), "a line has no sign"


def test_another_factorisation_of_the_same_change_turns_nothing():
    """B G and G⁻¹ A are the same ΔW: only the columns' cosine sees the difference."""
    now = factor(RNG.normal(size=(11, 3)))
    mixing = RNG.normal(size=(3, 3))
    same = replace(now, b=now.b @ mixing, a=np.linalg.inv(mixing) @ now.a)
    (row,) = rotation(one(now), one(same))
    assert row["delta_cosine"] == pytest.approx(1, abs=1e-9) and row["overlap"] == pytest.approx(1, abs=1e-9)
    assert row["largest_angle"] < 1e-7 and row["column_cosine"] < 0.99


def test_what_writes_nothing_yet_has_no_direction():
    now, zero = factor(RNG.normal(size=(6, 2))), factor(np.zeros((6, 2)))
    for pair in ((now, zero), (zero, now), (now, None)):
        (row,) = rotation(one(pair[0]), None if pair[1] is None else one(pair[1]))
        assert row["overlap"] is row["column_cosine"] is row["largest_angle"] is row["delta_cosine"] is None
    half = factor(np.stack([now.b[:, 0], np.zeros(6)], axis=1))
    (row,) = rotation(one(half), one(half))
    assert row["overlap"] == pytest.approx(1) and row["column_cosine"] == pytest.approx(1)


def test_other_modules_are_refused():
    now, other = factor(np.ones((6, 2))), factor(np.ones((6, 2)), module="model.layers.2.mlp.down_proj")
    with pytest.raises(ValueError, match="have other modules: expected two moments of one training"):
        rotation(one(now), one(other))
