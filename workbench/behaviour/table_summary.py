"""The rows of a sweep or an evaluation as summary entries: rates and means with intervals, twins with their p."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from stores import ResultTable
from workbench.statistics import DRAWS_FOR_P, Interval, cluster_interval, p_value, wilson
from workbench.subspace import controls

RATES = ("contrary", "right", "other", "ill_formed")
MEANS = ("logit_difference", "p_contrary", "kl_neutral", "energy_removed", "leftover")

Row = Mapping[str, Any]
Cell = tuple[Any, ...]  # (intervention, layer, coefficient, control, draw), as a table's rows state them
Place = tuple[str, str]  # (split, modality)


def split_of(row: Row) -> str:
    """Which part of the evaluation a row belongs to: `in_domain` (what was fine-tuned), else `half` or `none` by the
    tag `tier`, else `other_domains`."""
    if row.get("in_domain"):
        return "in_domain"
    tier = row.get("tier")
    return tier if tier in ("half", "none") else "other_domains"


def table_entries(
    table: ResultTable | Iterable[Row],
    *,
    condition: str,
    tails: Mapping[str, str] | None = None,
    baseline: str | None = None,
    **facts: Any,
) -> list[dict[str, Any]]:
    """One entry for each metric, split, modality and cell of a table, as `summary.json` holds them.

    Rates are of the judge's category (of the decided token where no judge was asked), with Wilson's interval; means are
    averaged over the clusters, which are the prompts' domains, with an interval over them. A cell with twins is
    followed by one entry for each kind (condition `random`, or the kind's own name where the user made the twins): its
    mean, its draws, and from 99 draws on p, one-sided by `tails` (metric -> "less" or "greater"). The unedited model's
    rows become condition `baseline`, or are left out. `facts` (target, detail) go into every entry. Raises ValueError
    for two cells of the same layer and coefficient, whose entries could not be told apart.
    """
    listed = table.rows() if isinstance(table, ResultTable) else list(table)
    _refuse_lookalikes(listed)
    cells: dict[Cell, dict[Place, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in listed:
        cell = (row["intervention"], row.get("layer"), row.get("coefficient"), row["control"], row["draw"])
        cells[cell][split_of(row), str(row.get("modality") or "all")].append(row)
    values = {cell: {place: metric_values(rows) for place, rows in places.items()} for cell, places in cells.items()}
    twins: dict[Cell, dict[str, list[Cell]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        if cell[3] is not None:
            twins[cell[:3]][cell[3]].append(cell)
    out: list[dict[str, Any]] = []
    for cell, places in cells.items():
        if cell[3] is not None or (cell[0] == "none" and baseline is None):
            continue
        name = baseline if cell[0] == "none" else condition
        for place, rows in places.items():
            same = {"split": place[0], "modality": place[1], "layer": cell[1], "coefficient": cell[2], **facts}
            same |= {"clusters": len({row.get("domain") for row in rows})}
            for metric, value in values[cell][place].items():
                interval = metric_interval(metric, value, rows)
                stated = (
                    {"interval": [interval.low, interval.high], "interval_method": interval.method} if interval else {}
                )
                out.append(plain_entry(metric, value, len(rows), {**same, **stated, "condition": name}))
                for kind, drawn in twins[cell[:3]].items():
                    stated_by = [values[twin].get(place, {}) for twin in drawn]
                    draws = [each[metric] for each in stated_by if metric in each]
                    if not draws:  # twins of another kind need not measure all that the cell does
                        continue
                    tail = (tails or {}).get(metric)
                    control = {"kind": kind, "N": len(draws), "p": _p(value, draws, tail), "draws": draws}
                    kinship = {"condition": "random", "detail": kind} if kind in controls.KINDS else {"condition": kind}
                    out.append(
                        plain_entry(metric, float(np.mean(draws)), len(rows), {**same, **kinship, "control": control})
                    )
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
        p = _p(best["value"], extreme.tolist(), tails[metric])
        control = {"kind": kind, "N": len(extreme), "p": p, "draws": extreme.tolist()}
        detail = f"best of {len(pairs)} cells, against the best of each control run"
        out.append({**best, "condition": condition, "detail": detail, "control": control})
    return out


def _refuse_lookalikes(rows: Iterable[Row]) -> None:
    numbers: dict[Cell, set[Any]] = defaultdict(set)
    for row in rows:
        if row["intervention"] != "none" and row["control"] is None:
            numbers[row.get("layer"), row.get("coefficient")].add(row.get("cell"))
    for (layer, coefficient), same in numbers.items():
        if len(same) > 1:
            raise ValueError(
                f"cells {sorted(same)} of this table have the same layer ({layer}) and coefficient ({coefficient}), so "
                "their numbers would be mixed: sweep them one by one, and say in `detail` what they differ in."
            )


def _cell_key(entry: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(entry[name] for name in ("metric", "split", "modality", "layer", "coefficient", "target"))


def metric_values(rows: Sequence[Row]) -> dict[str, float]:
    """Every metric that the rows hold: shares of the categories, and means over domains of the other numbers."""
    verdict = _verdict(rows)
    values = {} if verdict is None else {rate: _share(rate, verdict, rows) for rate in RATES}
    if verdict == "choice":
        del values["ill_formed"]  # one token is never ill formed
    for metric in MEANS:
        by_domain = _by_domain(metric, rows)
        if by_domain:
            values[metric] = float(np.mean([np.mean(each) for each in by_domain.values()]))
    return values


def metric_interval(metric: str, value: float, rows: Sequence[Row]) -> Interval | None:
    """The interval of one of them; None where one number serves a whole cell, or there is one domain only."""
    if metric in RATES:
        return wilson(round(value * len(rows)), len(rows))
    by_domain = _by_domain(metric, rows)
    if metric == "kl_neutral" or len(by_domain) < 2:
        return None
    domains = [domain for domain, values in by_domain.items() for _ in values]
    return cluster_interval([value for values in by_domain.values() for value in values], domains)


def plain_entry(metric: str, value: float | None, n: int, facts: Mapping[str, Any]) -> dict[str, Any]:
    """One entry of `summary.json`; what `facts` do not state is None."""
    return {"metric": metric, "value": value, "n": n, **_UNSTATED, **facts}


_UNSTATED: dict[str, Any] = dict.fromkeys(
    ("coefficient", "interval", "interval_method", "clusters", "control", "detail", "target")
)


def _verdict(rows: Sequence[Row]) -> str | None:
    return next((name for name in ("category", "choice") if rows[0].get(name) is not None), None)


def _share(rate: str, verdict: str, rows: Sequence[Row]) -> float:
    return sum(row[verdict] == rate for row in rows) / len(rows)


def _by_domain(metric: str, rows: Sequence[Row]) -> dict[str, list[float]]:
    out: dict[str, list[float]] = {}
    for row in rows:
        if row.get(metric) is not None:
            out.setdefault(str(row.get("domain")), []).append(float(row[metric]))
    return out


def _p(value: float, draws: Sequence[float], tail: str | None) -> float | None:
    """Permutation p; None without a tail, or with too few draws for a printed p."""
    return p_value(value, draws, tail) if tail and len(draws) >= DRAWS_FOR_P else None  # type: ignore[arg-type]
