"""Section: domains ranked by how far their fine-tune spreads, with ties where they are ties (`wb.rank_domains`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from workbench.behaviour.ranking import tied_runs
from workbench.behaviour.ranking_agreement import AGREEMENT
from workbench.behaviour.ranking_categories import PLANTED
from workbench.behaviour.ranking_result import BASE
from workbench.reporting.blocks import Block, Cell, Details, Picture, Table, Text
from workbench.reporting.dose_section import beside, named
from workbench.reporting.ranking_numbers import ALPHA, APART, change, clear, is_share, number, p_of, span, with_ends
from workbench.reporting.ranking_plot import RankRow, ranking_plot
from workbench.reporting.summary import Result, Summary


@dataclass(frozen=True)
class Ranked:
    """One ranking: `values` and `ranks` of domains from the worst on, `pairs` of two of them, `against` the base."""

    metric: str
    split: str
    values: Mapping[str, Result]
    ranks: Mapping[str, Result]
    pairs: Mapping[tuple[str, str], Result]
    against: Mapping[str, Result]
    base: Result | None

    @property
    def share(self) -> bool:
        return is_share(self.metric, [one.value for one in self.values.values()])

    @property
    def told(self) -> set[tuple[str, str]]:
        """Pairs told apart, the worse domain first."""
        place = {name: at for at, name in enumerate(self.values)}
        return {(a, b) if place[a] < place[b] else (b, a) for (a, b), one in self.pairs.items() if clear(one)}


def rankings(summary: Summary) -> list[Ranked]:
    """Every ranking of the summary, by split and metric, in its order."""
    kinds = dict.fromkeys((one.split, str(one.target)) for one in summary.where(metric="rank"))
    return [_ranking(summary, split, metric) for split, metric in kinds]


def ranking(summary: Summary) -> list[Block]:
    """The first ranking whole, the others folded; then how far rankings agree. [] for a summary without rankings."""
    found = rankings(summary)
    if not found:
        return []
    blocks: list[Block] = [Text("Domains by how far their fine-tune spreads", _planted(summary, found[0]))]
    blocks += _blocks(summary, found[0])
    for one in found[1:]:
        said = f"{one.split[:1].upper()}{one.split[1:]}, by {named(one.metric)}"
        inside = [Text(said, _planted(summary, one), level=3), *_blocks(summary, one)]
        blocks.append(Details(said, inside))
    return blocks + _agreement(summary)


def _ranking(summary: Summary, split: str, metric: str) -> Ranked:
    ranks = {one.condition: one for one in summary.where(metric="rank", split=split, target=metric)}
    ordered = sorted(ranks, key=lambda name: ranks[name].value)
    numbers = [one for one in summary.where(metric=metric, split=split) if one.target is None]
    values = {one.condition: one for one in numbers if one.condition in ranks}
    pairs = {}
    for one in numbers:
        a, _, b = one.condition.partition(APART)
        if b:
            pairs[a, b] = one
    return Ranked(
        metric=metric,
        split=split,
        values={name: values[name] for name in ordered if name in values},
        ranks=ranks,
        pairs={pair: one for pair, one in pairs.items() if pair[1] != BASE},
        against={pair[0]: one for pair, one in pairs.items() if pair[1] == BASE},
        base=next((one for one in numbers if one.condition == BASE), None),
    )


def _blocks(summary: Summary, found: Ranked) -> list[Block]:
    words = _sentences(found)
    categories = category_of(summary, found.metric)
    rows = [_row(found, name, categories.get(name, "")) for name in found.values]
    base = found.base
    caption = (
        f"{named(found.metric).capitalize()}, worst first. Left: 95\u00a0% intervals over question families and "
        "fine-tuning seeds; small marks: each seed alone; dotted, grey: the base model. Right: ranks; thick: what the "
        f"pairwise tests leave open (Holm, {ALPHA:g}), thin: 95\u00a0% of resampled questions and trainings."
    )
    drawn = ranking_plot(
        rows, words=named(found.metric), rate=found.share,
        base=None if base is None else base.value, base_interval=None if base is None else base.interval,
    )  # fmt: skip
    blocks: list[Block] = [Text("", words), Picture(drawn, caption, " ".join(words)), _table(found)]
    if found.pairs:
        blocks.append(Details(f"All {len(found.pairs)} pairs of domains", [_pairs(found)]))
    return blocks


def category_of(summary: Summary, metric: str) -> dict[str, str]:
    """Domain -> category, where the summary has a table of categories of this metric."""
    tables = [one for one in summary.where(metric=metric) if one.split.startswith("categories") and not one.test]
    return {name: one.condition for one in tables for name in (one.detail or "").split(", ")}


def _sentences(found: Ranked) -> list[str]:
    """Which way the numbers fell: the ends of the order, what is told apart, and what departs from the base."""
    values = list(found.values.items())
    first, last = (f"{name} with {with_ends(one, share=found.share)}" for name, one in (values[0], values[-1]))
    base = "" if found.base is None else f"; the base model has {with_ends(found.base, share=found.share)}"
    own = (values[0][1].detail or "").partition(";")[0]
    by = f"By {named(found.metric)} ({own})"
    if len({one.value for _, one in values}) == 1:
        return [f"{by} all {len(values)} domains have the same value, {last.partition(' with ')[2]}{base}: no order."]
    runs = "; ".join(", ".join(run) for run in tied_runs(list(found.values), found.told))
    ties = f"Neighbours that cannot be told apart: {runs}." if runs else "There are no ties."
    told = f"{len(found.told)} of {len(found.pairs)} pairs of domains are told apart (Holm, {ALPHA:g})"
    lines = [f"{by} {len(values)} domains go from {first} to {last}{base}.", f"{told}. {ties}"]
    if found.against:
        away = [name for name, one in found.against.items() if clear(one)]
        which = f": {', '.join(away)}" if away else ""
        lines.append(f"{len(away)} of {len(found.against)} domains depart from the base (Holm, {ALPHA:g}){which}.")
    if any("one fine-tuning seed" in (one.interval_method or "") for _, one in values):
        lines.append("There is one fine-tuning seed a domain: another training may change the order.")
    return lines


def _planted(summary: Summary, found: Ranked) -> list[str]:
    same = [one for one in summary.where(metric=PLANTED, split=found.split) if one.target == found.metric]
    return [f"Tiers were planted in these domains: {one.detail}." for one in same]


def _row(found: Ranked, name: str, category: str) -> RankRow:
    value, rank = found.values[name], found.ranks[name]
    seeds = value.series.get("by_seed", ())
    alone = tuple(seeds) if len(seeds) > 1 else ()
    return RankRow(name, value.value, value.interval, alone, rank.value, rank.bounds, rank.interval, category)


def _table(found: Ranked) -> Table:
    rows: list[list[Cell]] = []
    for name, value in found.values.items():
        rank, against = found.ranks[name], found.against.get(name)
        seeds = ", ".join(number(each, share=found.share) for each in value.series.get("by_seed", ()))
        ranks = [f"{rank.value:g}", name, with_ends(value, share=found.share), span(rank.bounds), span(rank.interval)]
        rows.append([*ranks, seeds, p_of(against), value.n, value.clusters, value.unscored, beside(value)])
    if (base := found.base) is not None:
        numbers = [base.n, base.clusters, base.unscored, None]
        rows.append([None, "base model", with_ends(base, share=found.share), None, None, None, None, *numbers])
    columns = ["rank", "domain", named(found.metric), "tests leave open", "resampled", "by seed"]
    columns += ["p against the base, Holm", "answers", "families", "unscored", "beside it"]
    return Table(columns, rows, f"Rank 1 is worst. Intervals: {next(iter(found.values.values())).interval_method}.")


def _pairs(found: Ranked) -> Table:
    rows: list[list[Cell]] = [
        [a, b, change(one), p_of(one), one.clusters, None if one.test is None else one.test.method]
        for (a, b), one in found.pairs.items()
    ]
    return Table(["one", "other", "one minus other", "p, Holm", "families", "test"], rows)


def _agreement(summary: Summary) -> list[Block]:
    found = summary.where(metric=AGREEMENT)
    if not found:
        return []
    rows: list[list[Cell]] = [
        [one.condition, named(str(one.target)), change(one), p_of(one), one.n, one.detail] for one in found
    ]
    caption = "Spearman's rho over domains. Between seeds: how far one training's ranking foretells another's."
    return [Table(["rankings", "metric", "rho", "p", "domains", "stated"], rows, caption)]
