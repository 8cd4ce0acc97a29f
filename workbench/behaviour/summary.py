"""summarise: tables, directions, subspaces and maps as numbers with interval, n, clusters and controls."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from stores import ResultTable
from workbench.interventions.maps import TransferMap
from workbench.interventions.sweep import CONTROL_KINDS
from workbench.statistics import DRAWS_FOR_P, Interval, cluster_interval, p_value, wilson
from workbench.subspace.basis import Subspace
from workbench.subspace.directions import Directions

RATES = ("contrary", "right", "other", "ill_formed")
MEANS = ("logit_difference", "p_contrary", "kl_neutral", "energy_removed", "leftover")

Row = Mapping[str, Any]


def split_of(row: Row) -> str:
    """Which part of the evaluation a row belongs to: `in_domain` (what was fine-tuned), else `half` or `none` by the
    tag `tier`, else `other_domains`."""
    if row.get("in_domain"):
        return "in_domain"
    tier = row.get("tier")
    return tier if tier in ("half", "none") else "other_domains"


def summarise(found: Any, *, condition: str, **facts: Any) -> list[dict[str, Any]]:
    """What was found, one entry a number, as `summary.json` holds them: of a table (see `table_entries`), of Directions
    (norm and reliability by layer), of a Subspace (explained variance by component with its null, effective rank) or of
    a TransferMap (held-out R²). `facts` go into every entry."""
    match found:
        case Directions():
            return direction_entries(found, condition=condition, **facts)
        case Subspace():
            return spectrum_entries(found, condition=condition, **facts)
        case TransferMap():
            return map_entries(found, condition=condition, **facts)
        case _:
            return table_entries(found, condition=condition, **facts)


def direction_entries(v: Directions, *, condition: str, **facts: Any) -> list[dict[str, Any]]:
    """Norm and split-half reliability of a direction, layer by layer."""
    out = []
    for i, site in enumerate(v.sites):
        same = {
            "condition": condition,
            "split": "fit",
            "modality": "all",
            "layer": site.layer,
            "detail": str(site),
            **facts,
        }
        out.append(_plain("norm", float(v.norm[i]), v.n_positive, same))
        if v.reliability is not None:
            out.append(_plain("reliability", float(v.reliability[i]), v.n_positive, same))
    return out


def spectrum_entries(subspace: Subspace, *, condition: str, **facts: Any) -> list[dict[str, Any]]:
    """Share of variance of every kept component (numbered from 1 by `coefficient`), its null band under condition
    `CONDITION_null`, and the effective rank, layer by layer."""
    out = []
    for i, site in enumerate(subspace.sites):
        same = {
            "condition": condition,
            "split": "fit",
            "modality": "all",
            "layer": site.layer,
            "detail": str(site),
            **facts,
        }
        for j in range(subspace.k):
            out.append(
                _plain(
                    "explained_variance", float(subspace.explained[i, j]), subspace.n, {**same, "coefficient": j + 1}
                )
            )
            if subspace.null is not None:
                low, high = (float(end) for end in subspace.null[i, j])
                null = {**same, "condition": f"{condition}_null", "coefficient": j + 1, "interval": [low, high]}
                method = f"5 % to 95 % of {subspace.draws} draws, {subspace.null_kind}"
                out.append(
                    {**_plain("explained_variance", (low + high) / 2, subspace.n, null), "interval_method": method}
                )
        out.append(_plain("effective_rank", float(subspace.effective_rank[i]), subspace.n, same))
    return out


def map_entries(
    found: TransferMap, *, condition: str, along: Directions | None = None, **facts: Any
) -> list[dict[str, Any]]:
    """Held-out R² of a map between models, layer by layer of the target, and R² along the image of a direction."""
    measured = {"r2": found.r2, "r2_along": {} if along is None else found.r2_along(along)}
    return [
        _plain(
            metric,
            float(value),
            found.n_held_out,
            {"condition": condition, "split": "fit", "modality": "all", "layer": site.layer, **facts},
        )
        for metric, values in measured.items()
        for site, value in values.items()
    ]


def _plain(metric: str, value: float, n: int, facts: Mapping[str, Any]) -> dict[str, Any]:
    return {"metric": metric, "value": value, "n": n, **_UNSTATED, **facts}


_UNSTATED: dict[str, Any] = dict.fromkeys(
    ("coefficient", "interval", "interval_method", "clusters", "control", "detail", "target")
)


def table_entries(
    table: ResultTable | Iterable[Row],
    *,
    condition: str,
    tails: Mapping[str, str] | None = None,
    baseline: str | None = None,
    **facts: Any,
) -> list[dict[str, Any]]:
    """One entry for each metric, split, modality and cell of a table, as `summary.json` holds them.

    Rates are of the judge's category (of the decided token where no judge was asked), with Wilson's interval; means
    have are averaged over the clusters, which are the prompts' domains, with an interval over them. A cell with twins
    is followed by one entry for each kind (condition `random`, or the kind's own name where the user made the twins):
    its mean, its draws, and from 99 draws on p, one-sided by `tails` (metric -> "less" or "greater").
    The unedited model's rows become condition `baseline`, or are left out. `facts` (target, detail) go into every
    entry.
    """
    rows = table.rows() if isinstance(table, ResultTable) else table
    cells: dict[tuple[Any, ...], dict[tuple[str, str], list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        place = (split_of(row), row.get("modality") or "all")
        cells[row["intervention"], row.get("layer"), row.get("coefficient"), row["control"], row["draw"]][place].append(
            row
        )
    twins: dict[tuple[Any, ...], dict[str, list[tuple[Any, ...]]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        if cell[3] is not None:
            twins[cell[:3]][cell[3]].append(cell)
    out: list[dict[str, Any]] = []
    for cell, places in cells.items():
        if cell[3] is not None or (cell[0] == "none" and baseline is None):
            continue
        name = baseline if cell[0] == "none" else condition
        for (split, modality), found in places.items():
            base = {"split": split, "modality": modality, "layer": cell[1], "coefficient": cell[2], **facts}
            for metric, (value, interval) in _metrics(found).items():
                entry = _entry(metric, value, interval, found, {**base, "condition": name})
                out.append(entry)
                for kind, draws in twins[cell[:3]].items():
                    values = [_metrics(cells[draw][split, modality])[metric][0] for draw in draws]
                    tail = (tails or {}).get(metric)
                    p = p_value(value, values, tail) if tail and len(values) >= DRAWS_FOR_P else None
                    control = {"kind": kind, "N": len(values), "p": p, "draws": values}
                    drawn = kind in CONTROL_KINDS
                    twin = {
                        **base,
                        "condition": "random" if drawn else kind,
                        "detail": kind if drawn else facts.get("detail"),
                    }
                    out.append({**_entry(metric, float(np.mean(values)), None, found, twin), "control": control})
    return out + best_entries(out, condition=condition, tails=tails or {})


def best_entries(
    entries: Sequence[Mapping[str, Any]], *, condition: str, tails: Mapping[str, str]
) -> list[dict[str, Any]]:
    """For several cells with the same control draws, the best cell of each metric, split and modality, with a p that
    pays for the choice: against the best cell of every control run (maximum statistic)."""
    grids: dict[tuple[Any, ...], list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = defaultdict(list)
    own = {_cell_key(entry): entry for entry in entries if entry["control"] is None}
    for entry in entries:
        if entry["control"] is not None and entry["metric"] in tails and _cell_key(entry) in own:
            key = (entry["metric"], entry["split"], entry["modality"], entry["control"]["kind"])
            grids[key].append((own[_cell_key(entry)], entry))
    out = []
    for (metric, _, _, kind), pairs in grids.items():
        if len(pairs) < 2 or len({twin["control"]["N"] for _, twin in pairs}) > 1:
            continue
        sign = -1.0 if tails[metric] == "less" else 1.0
        best = max((entry for entry, _ in pairs), key=lambda entry: sign * entry["value"])
        runs = np.array([twin["control"]["draws"] for _, twin in pairs]).T  # [run, cell]
        extreme = sign * (sign * runs).max(axis=1)
        p = p_value(best["value"], extreme, tails[metric]) if len(extreme) >= DRAWS_FOR_P else None
        control = {"kind": kind, "N": len(extreme), "p": p, "draws": extreme.tolist()}
        detail = f"best of {len(pairs)} cells, against the best of each control run"
        out.append({**best, "condition": condition, "detail": detail, "control": control})
    return out


def _cell_key(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(entry[name] for name in ("metric", "split", "modality", "layer", "coefficient", "target"))


def _entry(
    metric: str, value: float, interval: Interval | None, rows: Sequence[Row], facts: Mapping[str, Any]
) -> dict[str, Any]:
    stated = {
        "interval": None if interval is None else [interval.low, interval.high],
        "interval_method": None if interval is None else interval.method,
        "clusters": len({row.get("domain") for row in rows}),
    }
    return _plain(metric, value, len(rows), {**stated, **facts})


def _metrics(rows: Sequence[Row]) -> dict[str, tuple[float, Interval | None]]:
    """Every metric that the rows hold: value and interval."""
    verdict = "category" if rows[0].get("category") is not None else "choice"
    out: dict[str, tuple[float, Interval | None]] = {}
    for rate in RATES if rows[0].get(verdict) is not None else ():
        if verdict == "choice" and rate == "ill_formed":
            continue
        hits = sum(row[verdict] == rate for row in rows)
        out[rate] = (hits / len(rows), wilson(hits, len(rows)))
    for mean in MEANS:
        values = [float(row[mean]) for row in rows if row.get(mean) is not None]
        if not values:
            continue
        clusters = [str(row.get("domain")) for row in rows if row.get(mean) is not None]
        pooled = (
            mean == "kl_neutral" or len(set(clusters)) < 2
        )  # one number for the whole cell, or nothing to cluster by
        macro = np.mean(
            [np.mean([v for v, c in zip(values, clusters, strict=True) if c == each]) for each in set(clusters)]
        )
        out[mean] = (float(macro), None if pooled else cluster_interval(values, clusters))
    return out
