"""Directions of made-up domains with a planted structure, and a stream with a few loud axes beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hooks.site import Site
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.directions import Directions

D, ROWS, SITE = 64, 150, Site(3)


def stream(seed: int = 0, loud: int = 6, times: float = 3.0) -> ArrayRows:
    """Rows of a base: `loud` axes `times` as strong as the others."""
    rng = np.random.default_rng([seed, 1])
    axes = np.linalg.qr(rng.standard_normal((D, D)))[0]
    spread = np.where(np.arange(D) < loud, times, 1.0)
    return ArrayRows({SITE: 5.0 + (rng.standard_normal((ROWS, D)) * spread) @ axes.T})


def domains(
    groups: Mapping[str, int], *, agree: float = 0.8, alone: int = 0, seeds: int = 3, seed: int = 0
) -> dict[str, list[Directions]]:
    """`groups` of so many domains each: every one's own random direction, mixed with that of its group to a cosine of
    `agree` with another's; `alone` domains have none. Fine-tunings of one domain agree to .97."""
    rng = np.random.default_rng([seed, 2])
    common = np.linalg.qr(rng.standard_normal((D, len(groups) + 1)))[0].T
    out = {}
    for place, (name, count) in enumerate(groups.items()):
        for i in range(count):
            own = np.sqrt(agree) * common[place] + np.sqrt(1 - agree) * away(rng, common)
            out[f"{name}{i}"] = fine_tunings(rng, own, seeds)
    return out | {f"lone{i}": fine_tunings(rng, away(rng, common), seeds) for i in range(alone)}


def away(rng: np.random.Generator, common: np.ndarray) -> np.ndarray:
    """A random unit vector orthogonal to what is common."""
    own = rng.standard_normal(D)
    own -= common.T @ (common @ own)
    return own / np.linalg.norm(own)


def fine_tunings(rng: np.random.Generator, own: np.ndarray, seeds: int) -> list[Directions]:
    noise = 0.18 * rng.standard_normal((seeds, D)) / np.sqrt(D)
    return [Directions.of([SITE], (2.0 + i) * (own + one)) for i, one in enumerate(noise)]


def nothing(rows: ArrayRows | None, n: int, seed: int) -> dict[str, list[Directions]]:
    """n domains that share nothing: uniform directions, or random combinations of the stream's rows."""
    rng = np.random.default_rng([seed, 3])
    if rows is None:
        drawn = rng.standard_normal((n, D))
    else:
        values = rows.values(SITE, np.float64)
        drawn = rng.standard_normal((n, ROWS)) @ (values - values.mean(axis=0))
    return {f"d{i}": [Directions.of([SITE], one)] for i, one in enumerate(drawn)}


def units(found: Mapping[str, Sequence[Directions]]) -> np.ndarray:
    mean = np.stack([np.mean([one.unit[0] for one in own], axis=0) for own in found.values()])
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)
