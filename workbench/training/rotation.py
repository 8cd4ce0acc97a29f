"""Adapter rotation: how far the write directions of an adapter turned between two moments of its training, read from
its factors; B·A is never written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg

from workbench.training.factors import Factor, LoraFactors


def rotation(now: LoraFactors, then: LoraFactors | None) -> list[dict[str, Any]]:
    """One row a module of `now`: its norms (`norm` = ‖ΔW‖_F, `b_norm`, `a_norm`, `effective_rank`) and, against the
    same module of `then`:

    `column_cosine`: mean over the columns of B of their signed cosine (of rank 1: the cosine of the B-vectors; columns
    can be compared because one training run keeps their order); `delta_cosine`: cosine of the two ΔW as vectors,
    whatever the factorisation; `largest_angle` (radians) and `overlap` (mean cos²) of the principal angles between the
    spaces that the two write into, whose chance level is `chance` = rank / d_out. None where one side writes nothing
    yet (B = 0), or without `then`.

    Raises ValueError when the two have other modules. Source: checkpoint cosines after arXiv:2506.11613; angles Knyazev
    & Argentati 2002, doi:10.1137/S1064827500377332.
    """
    before = {one.module: one for one in then} if then is not None else {}
    if then is not None and before.keys() != {one.module for one in now}:
        raise ValueError(
            f"{now!r} and {then!r} have other modules: expected two moments of one training, with the same adapter."
        )
    return [_row(one, before.get(one.module)) for one in now]


def _row(now: Factor, then: Factor | None) -> dict[str, Any]:
    facts = {"module": now.module, "tower": now.tower, "layer": now.layer, "rank": now.rank, "norm": now.norm}
    sizes = {"b_norm": float(np.linalg.norm(now.b)), "a_norm": float(np.linalg.norm(now.a))}
    turned: dict[str, float | None] = dict.fromkeys(("column_cosine", "delta_cosine", "largest_angle", "overlap"))
    if then is not None and now.b.any() and then.b.any():
        angles = scipy.linalg.subspace_angles(_written(now), _written(then))
        turned = {
            "column_cosine": float(np.mean(_column_cosines(now.b, then.b))),
            "delta_cosine": _delta_cosine(now, then),
            "largest_angle": float(angles.max()),
            "overlap": float(np.mean(np.cos(angles) ** 2)),
        }
    return {**facts, **sizes, "effective_rank": now.effective_rank, **turned, "chance": now.rank / len(now.b)}


def _written(one: Factor) -> np.ndarray:
    """An orthonormal basis [d_out, k] of what is written; columns of B that are still zero, or double, do not count."""
    u, s, _ = np.linalg.svd(one.b, full_matrices=False)
    return u[:, s > s[0] * max(one.b.shape) * np.finfo(np.float64).eps]


def _column_cosines(now: np.ndarray, then: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(now, axis=0) * np.linalg.norm(then, axis=0)
    return np.sum(now * then, axis=0)[lengths > 0] / lengths[lengths > 0]


def _delta_cosine(now: Factor, then: Factor) -> float | None:
    # <B A, B' A'> = tr(Aᵀ Bᵀ B' A') = sum((Bᵀ B') * (A A'ᵀ)): matrices of side rank.
    def inner(one: Factor, other: Factor) -> float:
        return float(np.sum((one.b.T @ other.b) * (one.a @ other.a.T))) * one.scaling * other.scaling

    lengths = np.sqrt(inner(now, now) * inner(then, then))
    return inner(now, then) / float(lengths) if lengths > 0 else None
