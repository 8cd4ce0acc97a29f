"""Frames and their chance: how near two subspaces are, in every usual measure, against random frames of two kinds.

`isotropic` frames are uniform on the Grassmannian; frames of the stream are spans of random combinations of its own
rows, so that they share its loud axes as anything that is written into it does. The second is the harder null.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from stores.printed import Printed
from workbench.statistics import p_value
from workbench.subspace.directions import mean_of
from workbench.subspace.rows import RowSource, chosen_sites, narrowed

MEASURES = ("mean_cos2", "mean_cos", "chordal", "geodesic", "binet_cauchy")
NEARER = {name: "less" if name in ("chordal", "geodesic") else "greater" for name in MEASURES}
EDGES = (0.05, 0.95)
ISOTROPIC, STREAM = "isotropic", "of the stream"  # kinds of null


@dataclass(frozen=True, eq=False)
class FrameOverlap(Printed):
    """Two frames: every measure of `MEASURES` by name, its 5 % and 95 % quantile over random frames (`null`), and the p
    of two random frames being as near (`p`). `kind` says which frames were drawn, `draws` how many."""

    value: Mapping[str, float]
    null: Mapping[str, tuple[float, float]]
    p: Mapping[str, float]
    kind: str
    draws: int
    k: tuple[int, int]


def frame_measures(a: Float[np.ndarray, "k_a d_model"], b: Float[np.ndarray, "k_b d_model"]) -> dict[str, float]:
    """The measures of two orthonormal frames (rows): the mean cos² and mean cos of their principal angles, chordal
    ‖sin θ‖ and geodesic ‖θ‖ distance, Binet-Cauchy Πcos². As many angles as the smaller frame has rows.

    Source: Hamm & Lee 2008, doi:10.1145/1390156.1390204 (distances); Edelman, Arias & Smith 1998.
    """
    cosines = np.clip(np.linalg.svd(a @ b.T, compute_uv=False), 0.0, 1.0)
    angles = np.arccos(cosines)
    return {
        "mean_cos2": float(np.mean(cosines**2)),
        "mean_cos": float(np.mean(cosines)),
        "chordal": float(np.linalg.norm(np.sin(angles))),
        "geodesic": float(np.linalg.norm(angles)),
        "binet_cauchy": float(np.prod(cosines**2)),
    }


def random_frames(
    d_model: int, k: int, n: int, *, seed: int = 0, rows: Float[np.ndarray, "row d_model"] | None = None
) -> Float[np.ndarray, "n k d_model"]:
    """n random orthonormal frames of k dimensions: uniform, or, with centred `rows`, spans of random combinations of
    them (Gaussian weights: directions with the rows' own second moment). ValueError when the rows span less than k."""
    rng = np.random.default_rng(seed)
    if rows is None:
        gaussian = rng.standard_normal((n, k, d_model))
    else:
        if np.linalg.matrix_rank(rows) < k:
            raise ValueError(f"frames of {k} dimensions: these {len(rows)} rows span fewer. Capture more prompts.")
        gaussian = rng.standard_normal((n, k, len(rows))) @ rows
    return np.linalg.qr(gaussian.transpose(0, 2, 1))[0].transpose(0, 2, 1)


def frame_overlap(
    a: Float[np.ndarray, "k_a d_model"],
    b: Float[np.ndarray, "k_b _"],
    *,
    rows: Float[np.ndarray, "row d_model"] | None = None,
    draws: int = 999,
    seed: int = 0,
) -> FrameOverlap:
    """How near two frames of one space are, beside pairs of random frames of as many dimensions (both are drawn: a
    frame of the stream is no uniform one). ValueError when the widths differ."""
    if a.shape[1] != b.shape[1]:
        raise ValueError(
            f"frames of widths {a.shape[1]} and {b.shape[1]} lie in different spaces: expected "
            "frames of one model's stream."
        )
    value = frame_measures(a, b)
    first, second = (
        random_frames(a.shape[1], len(one), draws, seed=seed + i, rows=rows) for i, one in enumerate((a, b))
    )
    drawn = [frame_measures(*pair) for pair in zip(first, second, strict=True)]
    null = {name: np.array([one[name] for one in drawn]) for name in MEASURES}
    return FrameOverlap(
        value,
        {name: (float(np.quantile(null[name], EDGES[0])), float(np.quantile(null[name], EDGES[1]))) for name in null},
        {name: p_value(value[name], null[name], NEARER[name]) for name in null},  # type: ignore[arg-type]
        ISOTROPIC if rows is None else STREAM,
        draws,
        (len(a), len(b)),
    )


def stream_rows(rows: RowSource, site: object) -> Float[np.ndarray, "row d_model"]:
    """The captured rows of one site around their mean, float64: what frames of the stream are combinations of."""
    (where,) = chosen_sites(rows, [site])  # type: ignore[list-item]
    mine = narrowed(rows, [where])
    return np.asarray(mine.values(where, np.float64)) - mean_of(mine, where)
