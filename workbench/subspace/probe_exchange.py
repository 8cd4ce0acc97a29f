"""Exchanged labels of several models at once, the same way in all of them, and what of an AUROC lies within questions.

Models that are sampled under common random numbers misbehave in the same draws more often than chance. A mean over
models then varies more than over models that have nothing in common, and so must its null: the n-th answer to a
question is exchanged with the same other answer in every model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from workbench.statistics.separation import placements
from workbench.subspace.probe_null import Design


class Keys:
    """Random numbers for each name, [draw]: of the seed and the name alone, whoever asks first."""

    def __init__(self, draws: int, seed: int) -> None:
        self.draws = draws
        self.of = cache(lambda name: self._drawn(seed, name))

    def _drawn(self, seed: int, name: str) -> Float[np.ndarray, " draw"]:
        digest = hashlib.sha256(f"{seed}\0{name}".encode()).digest()
        return np.random.default_rng(int.from_bytes(digest[:8], "big")).random(self.draws)


def design_within(positive: Bool[np.ndarray, " row"], groups: Sequence[str]) -> Design:
    """ "within" where the label varies within some group, else "families": then whole groups are exchanged."""
    seen: dict[str, bool] = {}
    mixed = any(seen.setdefault(group, one) != one for group, one in zip(groups, positive.tolist(), strict=True))
    return "within" if mixed else "families"


def exchanged(
    positive: Bool[np.ndarray, " row"], names: Sequence[str], groups: Sequence[str], keys: Keys
) -> Bool[np.ndarray, "draw row"]:
    """Labels exchanged between the rows of a group, or between groups where every group has one label. A row's `name`
    (its draw) decides with whom, so that models with the same names exchange alike."""
    places = _places(groups)
    if design_within(positive, groups) == "families":
        first = np.array([here[0] for here in places.values()])
        order = np.argsort(np.stack([keys.of(group) for group in places], axis=1), axis=1)
        moved = np.zeros((keys.draws, len(positive)), dtype=bool)
        for n, here in enumerate(places.values()):
            moved[:, here] = positive[first][order[:, n]][:, None]
        return moved
    out = np.tile(positive, (keys.draws, 1))
    for here in places.values():
        if len(set(positive[here].tolist())) > 1:
            order = np.argsort(np.stack([keys.of(names[i]) for i in here], axis=1), axis=1)
            out[:, here] = positive[here][order]
    return out


def within_groups(
    scores: Float[np.ndarray, " row"], positive: Bool[np.ndarray, " row"], groups: Sequence[str]
) -> tuple[float, int]:
    """The share of pairs of a positive and a negative row of the *same* group that the scores order rightly (ties count
    half), and how many pairs there are: the AUROC that no difference between groups can help. NaN without pairs."""
    right, pairs = 0.0, 0
    for here in _places(groups).values():
        yes, no = scores[here][positive[here]], scores[here][~positive[here]]
        if len(yes) and len(no):
            right += float(placements(yes, no).sum()) * len(no)
            pairs += len(yes) * len(no)
    return (right / pairs if pairs else float("nan")), pairs


def influence(
    scores: Float[np.ndarray, " row"],
    positive: Bool[np.ndarray, " row"],
    family: Int[np.ndarray, " row"],
    families: int,
) -> tuple[float, Float[np.ndarray, " family"]]:
    """The AUROC, and what each of `families` families moved it by (DeLong's components, summed over its rows): their
    squares add up to its variance, and those of several AUROCs on the same families are averaged before."""
    above = placements(scores[positive], scores[~positive])
    below = 1 - placements(scores[~positive], scores[positive])
    area = float(above.mean())
    moved = np.bincount(family[positive], weights=above - area, minlength=families) / len(above)
    moved += np.bincount(family[~positive], weights=below - area, minlength=families) / len(below)
    return area, moved


def _places(groups: Sequence[Any]) -> dict[str, np.ndarray]:
    found: dict[str, list[int]] = {}
    for i, group in enumerate(groups):
        found.setdefault(str(group), []).append(i)
    return {group: np.array(here) for group, here in found.items()}
