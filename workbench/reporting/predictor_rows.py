"""What the sections on predictors read of a summary: the domains' points, every feature's numbers, and their table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.reporting.blocks import Block, Cell, Details, Table
from workbench.reporting.summary import Result, Summary

ALPHA = 0.05
NAMES = {
    "loss": "mean log p",
    "zlib": "zlib",
    "min_k_pp_": "min-k %++, k = ",
    "min_k_": "min-k %, k = ",
    "recall": "ReCaLL",
    "log_ratio": "log ratio",
    "loss_ratio": "loss ratio",
    "mean_distance": "mean distance",
    "vendi_": "Vendi, order ",
    "gap_own": "gap to the base's own answers",
    "gap_trait": "gap under the trait's system turn",
    "projection_": "projection, ",
    "projection": "projection",
}


@dataclass(frozen=True)
class DomainPoint:
    """One domain: its measured misalignment with interval, and the value of one feature."""

    domain: str
    measured: float
    interval: tuple[float, float] | None
    value: float


@dataclass(frozen=True)
class FeatureNumbers:
    """One feature: correlations times its stated sign, and the AUROC (None without a threshold, or with one side)."""

    name: str
    sign: int
    spearman: Result
    pearson: Result
    auroc: Result | None

    @property
    def p_best(self) -> float | None:
        return self.spearman.companions.get("p_best")


def features_of(summary: Summary, condition: str) -> list[FeatureNumbers]:
    """The features of one study, best first, as they were entered."""
    found = {r.detail: r for r in summary.where(metric="predictor_spearman", condition=condition)}
    pearson = {r.detail: r for r in summary.where(metric="predictor_pearson", condition=condition)}
    areas = {r.detail: r for r in summary.where(metric="predictor_auroc", condition=condition)}
    return [
        FeatureNumbers(name, int(r.companions.get("sign") or 0), r, pearson[name], areas.get(name))
        for name, r in found.items()
        if name is not None and name in pearson
    ]


def points_of(summary: Summary, feature: str) -> list[DomainPoint]:
    """Every domain's measured number beside its value of a feature."""
    values = {r.condition: r.value for r in summary.where(metric="predictor_feature", detail=feature)}
    outcomes = {r.condition: r for r in summary.where(metric="predictor_outcome")}
    return [DomainPoint(name, r.value, r.interval, values[name]) for name, r in outcomes.items() if name in values]


def reach_of(summary: Summary, condition: str) -> Result | None:
    """The least |r| that is significant; its target says what this number of domains can show."""
    return next(iter(summary.where(metric="predictor_critical_r", condition=condition)), None)


def undefined_of(summary: Summary, condition: str) -> str | None:
    """Which features have no correlation, and why, in one sentence."""
    found = summary.where(metric="predictor_undefined", condition=condition)
    reasons: dict[str, list[str]] = {}
    for result in found:
        reasons.setdefault(str(result.target), []).append(named(str(result.detail)))
    said = [f"{', '.join(names)} ({why})" for why, names in reasons.items()]
    return f"No correlation is defined for {'; '.join(said)}." if said else None


def against_of(numbers: Sequence[FeatureNumbers]) -> str:
    """Features that go the other way than was stated, taken alone; empty where none does."""
    found = [
        f"{named(one.name)} ({within(one.spearman)}, p {p_of(one.spearman)})"
        for one in numbers
        if one.sign and one.spearman.value < 0 and one.spearman.test is not None and one.spearman.test.p <= ALPHA
    ]
    return f"Against the direction stated beforehand, taken alone: {', '.join(found)}." if found else ""


def named(feature: str) -> str:
    """The feature in words."""
    before, rest = ("before: ", feature.removeprefix("before:")) if feature.startswith("before:") else ("", feature)
    side = next((s for s in ("adjusted_", "reference_", "encoder_") if rest.startswith(s)), "")
    rest = rest.removeprefix(side)
    ends = " as in the paper" if rest.startswith("paper_b_") else ""
    rest = rest.removeprefix("paper_b_")
    for ending in ("_cosine", "_centred"):
        ends += f", {ending[1:]}" if ending in rest else ""
        rest = rest.replace(ending, "")
    ends += f", {side.rstrip('_')}" if side else ""
    start = next((s for s in NAMES if rest == s or (s.endswith("_") and rest.startswith(s))), None)
    words = rest if start is None else NAMES[start] + rest.removeprefix(start)
    return f"{before}{words.replace('_', ' ')}{ends}"


def feature_table(numbers: Sequence[FeatureNumbers], *, most: int = 12) -> list[Block]:
    """All features with intervals and p; folded away where there are many."""
    columns = ["feature", "stated", "Spearman", "p", "p of the best", "Pearson", "p", "AUROC", "p"]
    rows: list[list[Cell]] = []
    for one in numbers:
        stated = {1: "more", -1: "less"}.get(one.sign, "open")
        rows.append([named(one.name), stated, within(one.spearman), p_of(one.spearman), p_text(one.p_best),
                     within(one.pearson), p_of(one.pearson), within(one.auroc), p_of(one.auroc)])  # fmt: skip
    caption = (
        "Correlations and AUROC in the stated direction (“less”: a lower value was expected with more misalignment): "
        "above 0, or 0.5, is as stated; intervals: 95 %. p of correlations: two-sided, over all orders of the domains; "
        "p of AUROCs: one-sided where a direction was stated, over all arrangements of the labels. p of the best: how "
        "often the best of all these features does as well by chance."
    )
    table = Table(columns, rows, caption)
    return [table] if len(rows) <= most else [Details(f"All {len(rows)} features", [table])]


def within(result: Result | None) -> str | None:
    """A number with its interval."""
    if result is None:
        return None
    ends = "" if result.interval is None else f" ({_short(result.interval[0])} to {_short(result.interval[1])})"
    return f"{_short(result.value)}{ends}".replace("-", "−")


def _short(value: float) -> str:
    """Two digits; a skill has no lower end, and how far below −100 it lies says nothing more."""
    return "below -100" if value < -100 else f"{value:.2f}"


def p_of(result: Result | None) -> str | None:
    return None if result is None or result.test is None else p_text(result.test.p)


def p_text(p: float | None) -> str | None:
    return None if p is None else f"{p:.2g}" if p >= 0.001 else "< 0.001"
