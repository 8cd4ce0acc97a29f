"""LoRA factors of a population of fine-tunes: how alike their weight changes are, where they write, and whether their
gates tell one prompt from another."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from stores.printed import Printed
from workbench.statistics import auroc, auroc_interval, p_value
from workbench.training.factors import Factor, LoraFactors
from workbench.training.weight_shift import ModuleInputs


@dataclass(frozen=True, eq=False)
class WeightCosines(Printed):
    """Cosines of whole weight changes: `cosine[i, j]` of the adapters `names`; `null` are the 5 % and 95 % quantiles of
    cosines with the outputs of one of the two scrambled, `p[i, j]` familywise by the largest of them in size (of one
    adapter a group). `between` is the mean over pairs of different groups, `within` over pairs of one group (None where
    each has one), and `group_p` that of so large a difference when the groups' names are exchanged between adapters."""

    names: tuple[str, ...]
    cosine: Float[np.ndarray, "n n"]
    p: Float[np.ndarray, "n n"]
    null: tuple[float, float]
    between: float
    within: float | None
    group_p: float | None
    draws: int


def weight_cosines(groups: Mapping[str, Sequence[LoraFactors]], *, draws: int = 199, seed: int = 0) -> WeightCosines:
    """How alike the weight changes of several adapters are: ⟨ΔW_i, ΔW_j⟩ / ‖ΔW_i‖‖ΔW_j‖ over all modules that both
    have, from the factors (no ΔW is written out). `groups`: domain -> its adapters by fine-tuning seed.

    Null: the output coordinates of one change exchanged and their signs drawn, of one adapter a group. Raises
    ValueError for adapters of other modules. Source: arXiv 2511.02022 compares fine-tunes in weight space.
    """
    every = [one for own in groups.values() for one in own]
    owner = np.array([i for i, own in enumerate(groups.values()) for _ in own])
    if len(every) < 2 or len({tuple(f.module for f in one) for one in every}) > 1:
        raise ValueError("weight cosines need two adapters or more, of the same modules.")
    columns = list(zip(*every, strict=True))  # module by module, the factors of all adapters
    inner = sum(_products(own) for own in columns)
    length = np.sqrt(np.diag(inner))
    if not length.all():
        raise ValueError(
            f"{every[int(np.flatnonzero(length == 0)[0])]!r} changes nothing, so it has no direction. Leave it out."
        )
    upper = np.triu_indices(len(every), 1)
    cosine = np.clip(inner / np.outer(length, length), -1, 1)
    drawn = _scrambled(list(zip(*(own[0] for own in groups.values()), strict=True)), draws, seed)
    largest = np.abs(drawn).max(axis=1)
    same = (owner[:, None] == owner)[upper]
    return WeightCosines(
        tuple(one.adapter for one in every),
        cosine,
        np.array([[p_value(abs(value), largest) for value in row] for row in cosine]),
        (float(np.quantile(drawn, 0.05)), float(np.quantile(drawn, 0.95))),
        float(cosine[upper][~same].mean()) if (~same).any() else np.nan,
        float(cosine[upper][same].mean()) if same.any() else None,
        _exchanged(cosine, owner, draws, seed) if same.any() and (~same).any() else None,
        draws,
    )


def _products(own: Sequence[Factor], rng: np.random.Generator | None = None) -> Float[np.ndarray, "n n"]:
    """⟨ΔW_i, ΔW_j⟩ of one module: sum((B_iᵀ B_j) * (A_i A_jᵀ)). With `rng` the j-th are scrambled in their outputs."""
    write = np.concatenate([one.scaling * one.b for one in own], axis=1)  # [d_out, n rank]
    read = np.concatenate([one.a for one in own])  # [n rank, d_in]
    other = write
    if rng is not None:
        other = write[rng.permutation(len(write))] * rng.choice([-1.0, 1.0], size=(len(write), 1))
    ends = np.cumsum([0, *(one.rank for one in own)])[:-1]
    return np.add.reduceat(np.add.reduceat((write.T @ other) * (read @ read.T), ends, axis=0), ends, axis=1)


def _scrambled(columns: Sequence[Sequence[Factor]], draws: int, seed: int) -> Float[np.ndarray, "draw pair"]:
    """Cosines of all pairs with the outputs of one of the two scrambled, module by module; both ways round count."""
    rng = np.random.default_rng(seed)
    length = np.sqrt(np.diag(sum(_products(own) for own in columns)))
    mixed = [sum(_products(own, rng) for own in columns) / np.outer(length, length) for _ in range(draws)]
    return np.array([one[~np.eye(len(one), dtype=bool)] for one in mixed])


def _exchanged(cosine: np.ndarray, owner: np.ndarray, draws: int, seed: int) -> float:
    """p of within - between, when adapters exchange their domains."""
    upper, rng = np.triu_indices(len(owner), 1), np.random.default_rng(seed)

    def gap(names: np.ndarray) -> float:
        same = (names[:, None] == names)[upper]
        return float(cosine[upper][same].mean() - cosine[upper][~same].mean())

    return p_value(gap(owner), [gap(rng.permutation(owner)) for _ in range(max(draws, 199))])


def writes_along(factors: LoraFactors, v: Any) -> dict[str, float]:
    """Where an adapter's changes write, over all modules that add to the stream at a site of the directions `v`:
    `share` of their ‖ΔW‖²_F along v, the mean `cosine` of their top write directions with it (signs are arbitrary),
    both over modules by ‖ΔW‖²; `chance` of the share, and `modules`, how many there are. Empty where none writes."""
    rows = [row for row in factors.cosine(v) if row["side"] == "write"] if _writes(factors, v) else []
    if not rows:
        return {}
    weight = np.array([row["norm"] ** 2 for row in rows])
    if not weight.any():
        return {}

    def mean(name: str) -> float:
        return float(np.average([row[name] for row in rows], weights=weight))

    return {"share": mean("share"), "cosine": mean("cosine"), "chance": mean("chance"), "modules": len(rows)}


def _writes(factors: LoraFactors, v: Any) -> bool:
    try:
        return any(row["side"] == "write" for row in factors.cosine(v))
    except ValueError:  # none of its modules touches the stream at these sites
        return False


@dataclass(frozen=True, eq=False)
class Gate(Printed):
    """What one module's change writes on a set of prompts: ΔW·x, x being what it reads in the base.

    `constant`: share of the mean ‖ΔW·x‖² that its mean holds (1: it writes the same whatever the prompt says, a gate
    that is always open). `first`: share of the first singular component. `auroc` of ‖ΔW·x‖, own prompts against others,
    with its `interval` (.5: the gate does not tell its domain; None without prompts of both kinds)."""

    module: str
    layer: int | None
    norm: float
    constant: float
    first: float
    auroc: float | None
    interval: tuple[float, float] | None
    n: int


def lora_gates(
    factors: LoraFactors,
    inputs: ModuleInputs,
    own: Collection[str] = (),
    families: Mapping[str, str] | None = None,
) -> list[Gate]:
    """The gate of every watched module of an adapter. `own` are the ids of the prompts of its own domain; `families`
    (id -> family) are the clusters of the interval. Source: gates as scalars A·x of rank-1 adapters, arXiv 2506.11618.
    """
    mine = np.array([prompt in own for prompt in inputs.prompts])
    out = []
    for one in factors:
        if one.module not in inputs.rows or not one.norm:
            continue
        # In the basis of the singular directions ΔW·x is σ (V·x): as long, and never written out.
        written = inputs.rows[one.module] @ one.reads(len(one.singular_values)).T * one.singular_values
        energy = (written**2).sum(axis=1)
        if not energy.any():
            continue
        told = _told(np.sqrt(energy), mine, [(families or {}).get(p, p) for p in inputs.prompts])
        share, first = float((written.mean(axis=0) ** 2).sum() / energy.mean()), float((written[:, 0] ** 2).mean())
        out.append(
            Gate(one.module, one.layer, float(np.sqrt(energy.mean())), share, first / energy.mean(), *told, len(mine))
        )
    return out


def _told(
    size: Float[np.ndarray, " prompt"], mine: np.ndarray, families: Sequence[str]
) -> tuple[float | None, tuple[float, float] | None]:
    names = np.array(families)
    both = [(size[side], names[side]) for side in (mine, ~mine)]
    if min(len(set(own.tolist())) for _, own in both) < 2:
        return None, None
    found = auroc_interval(both[0][0], both[1][0], both[0][1].tolist(), both[1][1].tolist())
    return auroc(both[0][0], both[1][0]), (found.low, found.high)
