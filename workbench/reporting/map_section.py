"""Section: maps between two models side by side (`wb.compare_maps`), from the summary alone."""

from __future__ import annotations

from workbench.reporting.blocks import Block, Cell, Details, Table, Text
from workbench.reporting.summary import Result, Summary

CARRIES, TRANSFER, FIT = "map_carries", "transfer", "fit"
KINDS = {"r2": "R²", "r2_along": "along the direction", "r2_toward_own": "along the recipient's own"}
REFITS = {"least_p_full": "p, fully shuffled", "least_p_within_class": "p, shuffled within classes"}
MEANING = (
    "A map is fitted on rows of both base models to the same prompts, and judged on prompts that it was not fitted on. "
    "R² in total says little of one direction: a map may be blind to it. So R² also stands along the direction that is "
    "carried (what its own part explains) and along the recipient's own, on the map's own held-out prompts and on the "
    "other set. What the mapped direction rests on is decided by its cosine with the recipient's own direction, beside "
    "refits on shuffled pairs: fully, and within the classes of the prompts."
)


def maps(summary: Summary) -> list[Block]:
    """One line a map, and its scores by layer folded; [] without a comparison."""
    told = summary.where(metric=CARRIES)
    if not told:
        return []
    lines = [f"{one.target}: {one.detail}." for one in told]
    columns = ["map", "best cosine with the recipient's own", *REFITS.values(), "prompts held out", "carries"]
    rows: list[list[Cell]] = [
        [one.target, f"{one.value:.2f}", *(_p(one, name) for name in REFITS), one.n, one.detail] for one in told
    ]
    return [Text("Maps between the two models", [MEANING, *lines]), Table(columns, rows), _by_layer(summary, told)]


def _by_layer(summary: Summary, told: list[Result]) -> Block:
    """R² of each map, layer and set of prompts that it was judged on."""
    names = [one.target for one in told]
    found: dict[tuple[str | None, str, int | None], dict[str, Result]] = {}
    for metric in KINDS:
        for one in summary.where(metric=metric, condition=TRANSFER):
            if one.target in names:
                found.setdefault((one.target, one.split, one.layer), {})[metric] = one
    columns = ["map", "judged on", "layer", *KINDS.values(), "n"]
    rows: list[list[Cell]] = []
    for (name, split, layer), scores in found.items():
        judged = "its own, held out" if split == FIT else split
        cells = [_ends(scores.get(metric)) for metric in KINDS]
        rows.append([name, judged, layer, *cells, next(iter(scores.values())).n])
    return Details(f"R² of {len(names)} maps by layer", [Table(columns, rows)])


def _p(one: Result, name: str) -> str | None:
    p = one.companions.get(name)
    return None if p is None else f"{p:.2g}"


def _ends(one: Result | None) -> str | None:
    if one is None:
        return None
    inside = "" if one.interval is None else f" ({one.interval[0]:.2f} to {one.interval[1]:.2f})"
    return f"{one.value:.2f}{inside}".replace("-", "−")
