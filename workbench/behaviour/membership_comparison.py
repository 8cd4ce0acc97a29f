"""membership_auroc: do scores tell members from others? Raw, of the reference alone, and adjusted, side by side."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from stores import ResultTable
from stores.printed import Printed
from workbench.behaviour.membership_scores import orientation
from workbench.behaviour.membership_separation import Clusters, Members, Others, gain_interval, operating_points
from workbench.statistics import Interval, auroc, auroc_interval

Rows = ResultTable | Sequence[Mapping[str, Any]]
Sides = tuple[Members, Others]
Kind = Literal["raw", "reference", "adjusted", "adjusted - raw"]

RAW = ("loss", "zlib", "min_k_", "recall", "paper_b_")  # beginnings of the names of scores
RATIOS = ("log_ratio", "loss_ratio")
TRAITS = ("domain", "modality", "label", "answer_kind")  # what members and others should have in equal shares
SHARES_APART, LENGTHS_APART = 0.1, 0.1  # total variation of the shares; AUROC of the length alone from 0.5


@dataclass(frozen=True)
class Separation:
    """One score's AUROC with its interval; the share of members found while 5 % of the others are taken for members
    (`tpr_at_5_fpr`), and of others taken for members while 95 % of the members are found (`fpr_at_95_tpr`). In the rows
    of kind "adjusted - raw" `auroc` is the difference of two AUROCs, and the shares are None."""

    score: str
    kind: Kind
    auroc: float
    interval: Interval
    tpr_at_5_fpr: float | None
    fpr_at_95_tpr: float | None
    members: int
    others: int


@dataclass(frozen=True)
class MembershipComparison(Printed):
    """Every score's Separation, and what warns of reading it as membership. `str()` is a table."""

    _items = "separations"

    separations: tuple[Separation, ...]
    warnings: tuple[str, ...]

    def of(self, score: str) -> Separation:
        """The separation of one column (`"loss"`, `"adjusted_loss"`, ...); KeyError lists what there is."""
        for one in self.separations:
            if one.score == score and one.kind != "adjusted - raw":
                return one
        raise KeyError(f"no score {score!r}: there are {', '.join(one.score for one in self.separations)}.")

    def __str__(self) -> str:
        width = max(len(one.score) for one in self.separations)
        lines = []
        for one in self.separations:
            shares = "" if one.tpr_at_5_fpr is None else f"{one.tpr_at_5_fpr:8.2f} {one.fpr_at_95_tpr:8.2f}"
            lines.append(f"{one.score:<{width}}  {one.kind:<14} {one.auroc:6.3f}  {shares:<17}  {one.interval}")
        head = f"{'score':<{width}}  {'kind':<14} {'AUROC':>6}  {'TPR@5FPR':>8} {'FPR@95TPR'}  interval of the AUROC"
        counts = f"{self.separations[0].members} members, {self.separations[0].others} others"
        return "\n".join([counts, head, *lines, *(f"WARNING: {each}" for each in self.warnings)])


def membership_auroc(
    members: Rows,
    others: Rows,
    *,
    scores: Sequence[str] | None = None,
    clusters: str | None = None,
    level: float = 0.95,
    traits: Sequence[str] = TRAITS,
) -> MembershipComparison:
    """How well each score of `wb.membership` tells members from others: AUROC with its interval, TPR at 5 % FPR, FPR at
    95 % TPR; raw, of the reference alone, and adjusted, with the difference of adjusted and raw.

    Tables, or rows of one (`table.rows(split="train")`). AUROCs are oriented: above 0.5 the score speaks for members,
    those of `paper_b_*` (lower for a member) included. `scores` are columns (default: all that every row has).
    Intervals are those of `auroc_interval`, over `clusters` where a column names them (the item that several prompts
    ask for), and of DeLong's paired difference.

    Warns (and keeps it in `warnings`) where the sides differ in `traits` (total variation of the shares above 0.1), in
    length (AUROC of the scored tokens alone outside 0.4 to 0.6), or where the reference, which has seen neither, tells
    them apart. Raises ValueError for values that are missing or no numbers, for fewer than two rows (clusters)
    on a side, and for tables scored in different ways.
    """
    _refuse_other_ways(members, others)
    sides = [_rows_of(members, "members"), _rows_of(others, "others")]
    names = list(scores) if scores is not None else _scores_of(sides)
    groups = None if clusters is None else [_clusters_of(rows, clusters) for rows in sides]
    values = {name: _sides(sides, name) for name in names}
    separations = []
    for name in names:
        separations.append(_separation(name, values[name], groups, level))
        if name.startswith("adjusted_") and (raw := name.removeprefix("adjusted_")) in values:
            gain, interval = gain_interval(values[name], values[raw], groups, level)
            counts = len(sides[0]), len(sides[1])
            separations.append(Separation(name, "adjusted - raw", gain, interval, None, None, *counts))
    found = (*_differing(sides, traits), *_telling(values, groups))
    for each in found:
        warnings.warn(each, stacklevel=2)
    return MembershipComparison(tuple(separations), found)


def membership_mean(
    rows: Rows, score: str = "loss", *, weight: str = "sample", by: str | None = None
) -> dict[str, float]:
    """The mean of one score over the texts of each group (`by` a column, such as "domain"; without it one group,
    "all"). `weight="token"`: every scored token weighs the same, so that `loss` is that of the corpus."""
    if weight not in ("sample", "token"):
        raise ValueError(f"weight={weight!r}: expected 'sample' or 'token'.")
    listed = _rows_of(rows, "rows")
    values = _values(listed, score)
    weights = np.ones(len(listed)) if weight == "sample" else _values(listed, "n_tokens")
    keys = np.array(["all" if by is None else str(row.get(by)) for row in listed])
    return {str(key): float(np.average(values[keys == key], weights=weights[keys == key])) for key in np.unique(keys)}


def _separation(name: str, values: Sides, groups: Clusters | None, level: float) -> Separation:
    kind: Kind = "reference" if name.startswith("reference_") else "raw"
    kind = "adjusted" if name.startswith("adjusted_") or name in RATIOS else kind
    interval = auroc_interval(*values, *(groups or ()), level=level)
    return Separation(name, kind, auroc(*values), interval, *operating_points(*values), len(values[0]), len(values[1]))


def _differing(sides: Sequence[Sequence[Mapping[str, Any]]], traits: Sequence[str]) -> list[str]:
    found = []
    for trait in traits:
        shares = [_shares(rows, trait) for rows in sides]
        apart = sum(abs(shares[0].get(each, 0) - shares[1].get(each, 0)) for each in {*shares[0], *shares[1]}) / 2
        if apart > SHARES_APART:
            said = " against ".join(", ".join(f"{n:.0%} {each}" for each, n in side.items()) for side in shares)
            found.append(f"members and others differ in {trait} ({said}): a score that sees it separates them too.")
    long = auroc(*(_values(rows, "n_tokens") for rows in sides))
    if abs(long - 0.5) > LENGTHS_APART:
        found.append(f"members and others differ in length: the number of scored tokens alone has AUROC {long:.2f}.")
    return found


def _shares(rows: Sequence[Mapping[str, Any]], trait: str) -> dict[str, float]:
    kinds = [str(row.get(trait)) for row in rows]
    return {kind: kinds.count(kind) / len(kinds) for kind in sorted(set(kinds))}


def _telling(values: Mapping[str, Sides], groups: Clusters | None) -> list[str]:
    """At 99 %, since there are several scores, and every one could be off by chance."""
    alone = {name.removeprefix("reference_"): both for name, both in values.items() if name.startswith("reference_")}
    telling = {
        name: auroc(*both)
        for name, both in alone.items()
        if 0.5 not in auroc_interval(*both, *(groups or ()), level=0.99)
    }
    if not telling:
        return []
    said = ", ".join(f"{name} {area:.2f}" for name, area in telling.items())
    return [f"the reference alone tells members from others (AUROC of {said}): they are not of one distribution."]


def _scores_of(sides: Sequence[Sequence[Mapping[str, Any]]]) -> list[str]:
    rows = [row for side in sides for row in side]
    plain = [name for name in rows[0] if name.startswith(RAW) and name not in RATIOS]
    ordered = [each for name in plain for each in (name, f"reference_{name}", f"adjusted_{name}")]
    return [name for name in [*ordered, *RATIOS] if all(row.get(name) is not None for row in rows)]


def _sides(sides: Sequence[Sequence[Mapping[str, Any]]], name: str) -> Sides:
    """One score on both sides, oriented: higher speaks for a member."""
    sign = orientation(name)
    return sign * _values(sides[0], name), sign * _values(sides[1], name)


def _values(rows: Sequence[Mapping[str, Any]], name: str) -> Float[np.ndarray, " n"]:
    values = [row.get(name) for row in rows]
    bad = [row.get("prompt") for row, value in zip(rows, values, strict=True) if not _is_number(value)]
    if bad:
        raise ValueError(
            f"{name} is no finite number in {len(bad)} of {len(rows)} rows, the first of prompt {bad[0]!r}: expected a "
            "column of wb.membership, with a value in every row."
        )
    return np.array(values, np.float64)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _clusters_of(rows: Sequence[Mapping[str, Any]], column: str) -> list[Any]:
    if unnamed := sum(row.get(column) is None for row in rows):
        raise ValueError(
            f"clusters={column!r}: {unnamed} of {len(rows)} rows have no such value; expected one on every row."
        )
    return [row[column] for row in rows]


def _rows_of(rows: Rows, name: str) -> list[Mapping[str, Any]]:
    listed = list(rows.rows() if isinstance(rows, ResultTable) else rows)
    if not listed:
        raise ValueError(f"{name} has no rows: expected a table of wb.membership, or some of its rows.")
    return listed


def _refuse_other_ways(members: Rows, others: Rows) -> None:
    if not (isinstance(members, ResultTable) and isinstance(others, ResultTable)):
        return
    ours, theirs = members.spec, others.spec
    differ = sorted(name for name in {*ours, *theirs} - {"prompts", "max_tokens"} if ours.get(name) != theirs.get(name))
    if differ:
        raise ValueError(
            f"members and others were scored in different ways ({', '.join(differ)} differ): expected one model, one "
            "reference and the same settings."
        )
