"""pooled_aurocs: scores of all texts pooled, each with its domain's label. It looks like thousands of points; the
labels belong to a few domains, and the p here counts these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from stores import ResultTable
from stores.printed import Printed
from workbench.behaviour.predictor_table import PredictorTable
from workbench.behaviour.table_summary import plain_entry
from workbench.statistics.fitted_tests import shuffled_labels
from workbench.statistics.permutation import p_value
from workbench.statistics.values import Tail

Rows = ResultTable | Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class PooledAuroc(Printed):
    """The chance that a text of a misaligned domain has more of the oriented score than a text of another. `p` deals
    the labels to whole domains in all ways; `p_of_texts` takes every text for a witness of its own, as pooled analyses
    do: it is wrong, and stands here so that it is seen. `null` are the values of the other ways."""

    score: str
    auroc: float
    p: float
    p_of_texts: float
    texts: int
    domains: int
    misaligned: int
    null: tuple[float, ...]


def pooled_aurocs(
    scored: Mapping[str, Rows], table: PredictorTable, *, threshold: float | int, draws: int = 9999, seed: int = 0
) -> list[PooledAuroc]:
    """Of every feature of the table that is a column of `scored` (domain -> rows of `wb.membership`; several rows of a
    prompt, from fine-tuning seeds, are averaged). Oriented by the stated sign, one-sided where there is one. Empty
    where all domains are on one side of the threshold."""
    marked = (table.measured > threshold).astype(np.float64)
    if marked.all() or not marked.any():
        return []
    columns, _ = shuffled_labels(marked, draws=draws, seed=seed)
    listed = {name: list(rows.rows() if isinstance(rows, ResultTable) else rows) for name, rows in scored.items()}
    out = []
    for feature in table.features:
        if not all(row.get(feature.name) is not None for domain in table.domains for row in listed[domain]):
            continue
        values = [(feature.sign or 1) * _by_text(listed[domain], feature.name) for domain in table.domains]
        areas = _areas(values, columns)
        tail: Tail = "greater" if feature.sign else "two-sided"
        ones, others = (
            np.concatenate([v for v, m in zip(values, marked, strict=True) if m == side]) for side in (1, 0)
        )
        naive = float(stats.mannwhitneyu(ones, others, alternative=tail).pvalue)
        p = p_value(float(areas[0]), areas[1:], tail)
        count = sum(map(len, values))
        null = tuple(areas[1:].tolist())
        out.append(PooledAuroc(feature.name, float(areas[0]), p, naive, count, table.n, int(marked.sum()), null))
    return out


def pooled_entries(found: Sequence[PooledAuroc], *, condition: str = "membership") -> list[dict[str, Any]]:
    """`pooled_auroc`, one a score (detail); n counts texts, the companion `domains` what the p is over."""
    same = {"split": "pooled texts", "modality": "all", "condition": condition}
    out = []
    for each in found:
        method = f"{len(each.null) + 1} arrangements of the labels over {each.domains} domains"
        facts = {"detail": each.score, "test": {"p": each.p, "method": method}}
        facts |= {
            "companions": {
                "p_of_texts": each.p_of_texts,
                "domains": float(each.domains),
                "misaligned": float(each.misaligned),
            }
        }
        facts |= {"control": {"kind": "shuffled", "N": len(each.null), "p": each.p, "draws": list(each.null)}}
        out.append(plain_entry("pooled_auroc", each.auroc, each.texts, {**same, **facts}))
    return out


def _by_text(rows: Sequence[Mapping[str, Any]], name: str) -> Float[np.ndarray, " n"]:
    of: dict[str, list[float]] = {}
    for row in rows:
        of.setdefault(str(row["prompt"]), []).append(float(row[name]))
    return np.array([np.mean(each) for each in of.values()])


def _areas(
    values: Sequence[Float[np.ndarray, " _"]], columns: Float[np.ndarray, "domain column"]
) -> Float[np.ndarray, " column"]:
    """AUROC of the pooled texts under every column of labels, from the pairs of every two domains."""
    ordered = [np.sort(each) for each in values]
    wins = np.array(
        [
            [
                (np.searchsorted(other, one, "left") + np.searchsorted(other, one, "right")).sum() / 2
                for other in ordered
            ]
            for one in ordered
        ]
    )
    sizes = np.array([len(each) for each in values], dtype=np.float64)
    ones = sizes @ columns
    return ((columns * (wins @ (1 - columns))).sum(axis=0)) / (ones * (sizes.sum() - ones))
