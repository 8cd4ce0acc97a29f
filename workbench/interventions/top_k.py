"""Cells of a sweep over the dimensions of a subspace: take the first k out, or keep nothing else, each with controls.

How much variance the first k components explain does not say what the model does with them. These cells ask it: which k
must go before the behaviour goes, and which k carry it when all else is gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from hooks.positions import Scope, scope_name
from stores.printed import Printed
from workbench.interventions.ablate import Ablate, KeepOnly
from workbench.interventions.cells import Intervention
from workbench.interventions.placement import Layers
from workbench.subspace.basis import Subspace
from workbench.subspace.rows import RowSource
from workbench.subspace.subspace_controls import frames

Mode = Literal["ablate_top_k", "keep_top_k", "ablate_rest"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, eq=False)
class AblateDimensions(Ablate):
    """Ablate of a subspace that states the curve it is a point of: its mode, and `k`, also as the coefficient."""

    mode: Mode = "ablate_top_k"
    k: int = 0

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"intervention": self.mode, "k": self.k, "coefficient": float(self.k)}


@dataclass(frozen=True, eq=False)
class KeepDimensions(KeepOnly):
    """KeepOnly that states the same; k = 0 keeps nothing but the mean."""

    mode: Mode = "keep_top_k"
    k: int = 0

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"intervention": self.mode, "k": self.k, "coefficient": float(self.k)}


@dataclass(frozen=True, eq=False)
class DimensionCells(Printed):
    """What `top_k` made: `wb.sweep(model, prompts, found.cells, twins=found.twins, ...)`."""

    cells: tuple[Intervention, ...]
    twins: Mapping[str, tuple[Intervention, ...]]


def top_k(
    subspace: Subspace,
    ks: Sequence[int] | None = None,
    *,
    layer: Layers,
    modes: Sequence[Mode] = ("ablate_top_k", "keep_top_k"),
    at: Scope = "all",
    to: Literal["mean", "zero"] = "mean",
    source: int | None = None,
    controls: int = 20,
    kinds: Sequence[str] = ("energy_matched",),
    rows: RowSource | None = None,
    seed: int = 0,
) -> DimensionCells:
    """Interventions on the first k components of `subspace` for each of `ks` (default 1 to all), and their twins.

    `ablate_top_k` takes the first k out: k dimensions are enough to hold the behaviour *away* when it goes.
    `keep_top_k` keeps only these and puts the mean everywhere else, contents included: few behaviours survive that.
    `ablate_rest` takes components k + 1 to K out and leaves all else alone: of the K dimensions, do the first k do? Its
    twins take as much out elsewhere; where that is little they leave the behaviour as well, and are no contrast.
    k = 0 is the unedited model under `ablate_top_k` (no cell) and K is under `ablate_rest`; `keep_top_k` takes 0.

    Each cell gets `controls` twins of each kind (`workbench.subspace.subspace_controls`): random frames of as many
    dimensions as the cell's own, energy-matched ones holding as much of the energy of `rows` as that does. Draw j
    starts from the same numbers at every k, so that a maximum over k has a null. `rows` are activations of the model
    that is edited, at the positions that are. To go back to the mean (`to="mean"`, and keep_top_k) the subspace needs
    an origin, a point of the stream: of a `wb.shift_pca(...).subspace` it is the base model's mean.

    Raises ValueError for a k beyond the subspace, for rows captured at another scope, or a subspace of differences
    without an origin.
    """
    chosen = list(range(1, subspace.k + 1)) if ks is None else [int(k) for k in ks]
    _refuse(subspace, chosen, modes, at, to, rows, kinds if controls else ())
    cells: list[Intervention] = []
    twins: dict[str, list[Intervention]] = {kind: [] for kind in kinds if controls}
    for mode in modes:
        for k in chosen:
            own = _dimensions(subspace, mode, k)
            if own is None:
                continue
            make = _maker(mode, k, layer, at, to, source)
            cells.append(make(own))
            for kind, listed in twins.items():
                # Nothing kept is the same whatever frame it is: no control to draw.
                listed += [make(twin) for twin in frames(own, kind, controls, seed, rows)] if own.k else []
    if not cells:
        raise ValueError(
            f"top_k(ks={chosen}, modes={list(modes)}) leaves the model as it is in every cell: expected a k "
            "of at least 1 to ablate, or below the rank to keep."
        )
    return DimensionCells(tuple(cells), {kind: tuple(listed) for kind, listed in twins.items()})


def _dimensions(subspace: Subspace, mode: Mode, k: int) -> Subspace | None:
    """The dimensions that the cell acts with; None for the model as it is."""
    span = slice(k, subspace.k) if mode == "ablate_rest" else slice(0, k)
    basis = subspace.basis[:, span]
    if not basis.shape[1] and mode != "keep_top_k":
        return None
    return subspace.replace(basis=basis, null=None, null_p=None, null_kind="none", draws=0)


def _maker(mode: Mode, k: int, layer: Layers, at: Scope, to: Any, source: int | None) -> Any:
    if mode == "keep_top_k":
        return lambda found: KeepDimensions(found, layer, at, source, mode, k)
    return lambda found: AblateDimensions(found, layer, to, at, source, mode, k)


def _refuse(
    subspace: Subspace,
    ks: Sequence[int],
    modes: Sequence[str],
    at: Scope,
    to: str,
    rows: RowSource | None,
    kinds: Sequence[str],
) -> None:
    wrong = [k for k in ks if not 0 <= k <= subspace.k]
    if wrong or not ks or len(set(ks)) != len(ks):
        raise ValueError(
            f"ks={list(ks)}: expected different numbers from 0 to {subspace.k}, the components of this subspace; "
            "decompose again with a larger k for more."
        )
    if unknown := [mode for mode in modes if mode not in MODES]:
        raise ValueError(f"mode {unknown[0]!r} is unknown: expected among {', '.join(MODES)}.")
    if subspace.origin is None and (to == "mean" or "keep_top_k" in modes):
        raise ValueError(
            "this subspace has no origin, the point of the stream to go back to (one of differences has none): use "
            "wb.shift_pca(...).subspace, subspace.replace(origin=...), or to='zero' without keep_top_k."
        )
    scope = None if rows is None else rows.info.get("scope")
    if "energy_matched" in kinds and scope and scope != scope_name(at):
        raise ValueError(
            f"energy-matched frames need activations of the positions that are edited, {scope_name(at)!r}; these were "
            f"captured at {scope!r}: capture(..., at={scope_name(at)!r})."
        )
