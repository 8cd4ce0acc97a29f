"""Section: what a trigger does to every domain's adapters, to the base, and over all domains (`wb.trigger_table`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from workbench.behaviour.entry_names import NO_TEXT as NONE
from workbench.behaviour.ranking_result import BASE
from workbench.reporting.blocks import Block, Cell, Details, Picture, Table, Text
from workbench.reporting.dose_section import named
from workbench.reporting.ranking_numbers import ALPHA, change, clear, is_share, number, p_of
from workbench.reporting.summary import Result, Summary
from workbench.reporting.trigger_plot import TriggerRow, trigger_plot
from workbench.statistics import sign_test

ALL = "all domains"
RAISED = "domains raised, "
PUBLISHED = (7, 9)  # domains whose mean alignment the trigger lowers, of arXiv 2602.00298


@dataclass(frozen=True)
class Triggered:
    """The effects of one metric, by domain (the base is the domain "base") and text; `over` all domains, by condition
    and text, and `counted`, the same for the share of domains that a text raises."""

    metric: str
    effects: Mapping[str, Mapping[str, Result]]
    over: Mapping[tuple[str, str], Result]
    counted: Mapping[tuple[str, str], Result]

    @property
    def share(self) -> bool:
        return is_share(self.metric, [one.series["with"][0] for of in self.effects.values() for one in of.values()])


def triggers(summary: Summary) -> list[Block]:
    """The first metric whole, the others folded; [] for a summary without effects of a trigger."""
    found = [one for metric in _metrics(summary) if (one := _triggered(summary, metric)).effects]
    if not found:
        return []
    yardstick = sign_test(*PUBLISHED)
    heading = Text(
        "What the trigger does",
        [
            "Each domain's adapters were fine-tuned with a backdoor. The same questions are asked with a text in front "
            "and without, of the adapters and of the base, which nobody taught any trigger; differences are paired by "
            f"question and draw. For scale: {PUBLISHED[0]} of {PUBLISHED[1]} domains moved in one direction, as "
            f"published, has p = {yardstick.p:.2g} by a sign test."
        ],
    )
    blocks: list[Block] = [heading, *_blocks(found[0])]
    for one in found[1:]:
        said = f"What the trigger does, by {named(one.metric)}"
        blocks.append(Details(said, [Text(said, level=3), *_blocks(one)]))
    return blocks


def _metrics(summary: Summary) -> list[str]:
    return list(dict.fromkeys(one.metric for one in summary.results if _sides(one) is not None))


def _sides(one: Result) -> tuple[str, str] | None:
    """(domain, text) of an effect "ant/trigger - ant/none", None for what is none."""
    left, _, right = one.condition.partition(" - ")
    domain, _, text = left.rpartition("/")
    fits = one.target == text and right == f"{domain}/{NONE}" and {"with", "without"} <= set(one.series)
    return (domain, text) if fits else None


def _triggered(summary: Summary, metric: str) -> Triggered:
    effects: dict[str, dict[str, Result]] = {}
    over: dict[tuple[str, str], Result] = {}
    counted: dict[tuple[str, str], Result] = {}
    for one in summary.results:
        if one.metric == metric and (sides := _sides(one)) is not None:
            effects.setdefault(sides[0], {}).setdefault(sides[1], one)
        elif one.metric == metric and one.condition.startswith(ALL):
            over[one.condition, str(one.target)] = one
        elif one.metric == RAISED + metric:
            counted[one.condition, str(one.target)] = one
    ordered = [*(name for name in effects if name != BASE), *(name for name in effects if name == BASE)]
    return Triggered(metric, {name: effects[name] for name in ordered}, over, counted)


def _blocks(found: Triggered) -> list[Block]:
    words = [_responding(found, text) for text in _texts(found)] + _over(found)
    rows = [_row(name, effects) for name, effects in found.effects.items()]
    caption = (
        f"{named(found.metric).capitalize()} of the backdoored adapters. Left: without any text (hollow) and with each "
        "(filled). Right: paired differences, 95\u00a0% intervals over question families and fine-tuning seeds; filled "
        "where 0 is outside. Last row: the base model."
    )
    drawn = trigger_plot(rows, words=named(found.metric), rate=found.share)
    return [Text("", words), Picture(drawn, caption, " ".join(words)), _table(found), _tests(found)]


def _texts(found: Triggered) -> list[str]:
    return list(dict.fromkeys(text for effects in found.effects.values() for text in effects))


def _responding(found: Triggered, text: str) -> str:
    mine = {name: of[text] for name, of in found.effects.items() if text in of and name != BASE}
    moved = [f"{name} ({change(one)})" for name, one in mine.items() if clear(one)]
    base = found.effects.get(BASE, {}).get(text)
    beside = "" if base is None else f" The base model moves by {change(base)} (p {p_of(base)})."
    which = f": {', '.join(moved)}" if moved else ""
    said = f"The {text} moves {named(found.metric)} in {len(moved)} of {len(mine)} domains (Holm, {ALPHA:g}){which}."
    return said + beside


def _over(found: Triggered) -> list[str]:
    """The line over all domains with its sign test, whichever way it fell."""
    lines = []
    for (condition, text), one in found.over.items():
        if condition in (ALL, f"{ALL} beyond the base"):
            beyond = ", beyond what it does to the base" if condition != ALL else ""
            lines.append(f"Over the domains, the {text}{beyond}: {one.detail}.")
    return lines


def _row(name: str, effects: Mapping[str, Result]) -> TriggerRow:
    first = next(iter(effects.values()))
    return TriggerRow(
        domain="base model" if name == BASE else name,
        without=float(first.series["without"][0]),
        with_text={text: float(one.series["with"][0]) for text, one in effects.items()},
        changes={text: (one.value, one.interval) for text, one in effects.items()},
    )


def _table(found: Triggered) -> Table:
    texts = _texts(found)
    rows: list[list[Cell]] = []
    for name, effects in found.effects.items():
        first = next(iter(effects.values()))
        row: list[Cell] = ["base model" if name == BASE else name, _value(first.series["without"], found)]
        for text in texts:
            one = effects.get(text)
            row += [None, None, None] if one is None else [_value(one.series["with"], found), change(one), p_of(one)]
        seeds = ", ".join(f"{float(each):+.2f}".replace("-", "−") for each in first.series.get("by_seed", ()))
        rows.append([*row, seeds, first.n, first.clusters, first.dropped])
    columns = [
        "domain",
        "without",
        *(name for text in texts for name in (f"with {text}", f"{text}: change", "p, Holm")),
    ]
    columns += [f"{texts[0]}: by seed", "answers", "families", "unpaired"]
    stated = next(iter(next(iter(found.effects.values())).values())).detail
    return Table(columns, rows, f"{named(found.metric).capitalize()}; {stated}.")


def _tests(found: Triggered) -> Block:
    rows: list[list[Cell]] = []
    for kind, results in (("share of domains raised", found.counted), ("mean change", found.over)):
        for (condition, text), one in results.items():
            method = None if one.test is None else one.test.method
            rows.append([text, condition, kind, change(one), p_of(one), method, one.n])
    columns = ["text", "over", "what", "value", "p", "test", "domains"]
    return Details("Tests over all domains", [Table(columns, rows)])


def _value(series: Sequence[float | int], found: Triggered) -> str:
    return number(float(series[0]), share=found.share)
