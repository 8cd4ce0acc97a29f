"""The permutation null of an AUROC on rows that share families: what the labels would give if they meant nothing."""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

from workbench.statistics.clusters import cluster_index
from workbench.statistics.values import midranks
from workbench.subspace.probe_rows import LabelledRows

Design = Literal["within", "families"]
Permute = Literal["auto", "within", "families"]


def design_of(rows: LabelledRows, permute: Permute = "auto") -> Design:
    """What may be exchanged: rows within each family where labels vary there ("within"), else whole families.

    A row's label may depend on its family (a question that draws out misbehaviour), and so may its activations; rows
    exchanged across families would break that tie too, and call it a finding. Where every family has one label, its
    rows are no replication: the families' labels are exchanged. Raises ValueError for what the labels do not allow.
    """
    if permute not in get_args(Permute):
        raise ValueError(f"permute={permute!r} is unknown: expected one of {', '.join(get_args(Permute))}.")
    by_family: dict[str, set[bool]] = {}
    for family, one in zip(rows.families, rows.positive.tolist(), strict=True):
        by_family.setdefault(family, set()).add(one)
    mixed = sum(len(labels) > 1 for labels in by_family.values())
    if permute == "within" and not mixed:
        raise ValueError(
            f"the label is constant within each of the {len(by_family)} families of {rows.name!r}, so there is nothing "
            f"to exchange within them, and n is {len(by_family)}, not {len(rows.families)}: use permute='families'."
        )
    if permute == "families" and mixed:
        raise ValueError(
            f"the label varies within {mixed} of the {len(by_family)} families of {rows.name!r}, so no family has one "
            "label to exchange: use permute='within'."
        )
    return "within" if mixed else "families"


def permuted_labels(rows: LabelledRows, design: Design, draws: int, seed: int) -> Bool[np.ndarray, "draw row"]:
    """Labels exchanged as the design allows. Models with the same rows and labels get the same draws of one seed."""
    rng, index = np.random.default_rng(seed), cluster_index(rows.families, len(rows.families))
    if design == "families":
        _, first = np.unique(index, return_index=True)
        return rng.permuted(np.tile(rows.positive[first], (draws, 1)), axis=1)[:, index]
    out = np.tile(rows.positive, (draws, 1))
    for family in range(int(index.max()) + 1):
        here = np.flatnonzero(index == family)
        if len(set(rows.positive[here].tolist())) > 1:
            out[:, here] = rng.permuted(out[:, here], axis=1)
    return out


def least_p(rows: LabelledRows, design: Design, draws: int) -> float:
    """The least p that so many draws can give, or that so few patterns of labels can give on average."""
    index = cluster_index(rows.families, len(rows.families))
    if design == "families":
        _, first = np.unique(index, return_index=True)
        sizes = [(len(first), int(rows.positive[first].sum()))]
    else:
        counts, yes = np.bincount(index), np.bincount(index, weights=rows.positive)
        sizes = [(int(n), int(m)) for n, m in zip(counts, yes, strict=True)]
    patterns = math.prod(math.comb(n, m) for n, m in sizes)
    return max(1 / (1 + draws), 1 / patterns)


def permuted_aurocs(
    scores: Float[np.ndarray, "cell row"], labels: Bool[np.ndarray, "draw row"]
) -> Float[np.ndarray, "draw cell"]:
    """The AUROC of every row of scores under every draw of the labels, ties counted half."""
    ranks = np.stack([midranks(one) for one in scores])
    positives = labels.sum(axis=1)[:, None].astype(np.float64)
    sums = labels.astype(np.float64) @ ranks.T
    return (sums - positives * (positives + 1) / 2) / (positives * (scores.shape[1] - positives))
