"""Section: the domains' numbers by category, each pair of categories tested over domains (`wb.by_category`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from workbench.behaviour.ranking_result import BASE
from workbench.reporting.blocks import Block, Cell, Details, Picture, Table, Text
from workbench.reporting.category_plot import category_plot
from workbench.reporting.dose_section import named
from workbench.reporting.ranking_numbers import ALPHA, APART, change, clear, is_share, number, p_of
from workbench.reporting.summary import Result, Summary

SPLIT = "categories"


@dataclass(frozen=True)
class Categories:
    """One table: each category's mean with its domains' values, the tests between categories, and the base's value."""

    metric: str
    split: str
    means: Mapping[str, Result]
    tests: Mapping[str, Result]
    base: float | None

    @property
    def values(self) -> dict[str, dict[str, float]]:
        """Domain -> value, by category."""
        out = {}
        for name, one in self.means.items():
            domains = (one.detail or "").split(", ")
            out[name] = dict(zip(domains, map(float, one.series["domains"]), strict=True))
        return out

    @property
    def share(self) -> bool:
        return is_share(self.metric, [value for own in self.values.values() for value in own.values()])


def categories(summary: Summary) -> list[Block]:
    """The first table with its figure, the others folded; [] for a summary without categories."""
    kinds = dict.fromkeys((one.split, one.metric) for one in summary.results if one.split.startswith(SPLIT))
    found = [_table_of(summary, split, metric) for split, metric in kinds]
    if not found:
        return []
    heading = Text(
        "By category of the domain",
        [
            "A domain is one point: its number is over its questions and fine-tuning seeds, and p is of exchanging "
            f"domains between two categories, corrected for all pairs (Holm). {_sentence(found[0])}"
        ],
    )
    blocks: list[Block] = [heading, *_blocks(found[0])]
    for one in found[1:]:
        said = f"{one.split[:1].upper()}{one.split[1:]}, by {named(one.metric)}"
        blocks.append(Details(said, [Text(said, [_sentence(one)], level=3), *_blocks(one)]))
    return blocks


def _table_of(summary: Summary, split: str, metric: str) -> Categories:
    mine = summary.where(split=split, metric=metric)
    # The ranking that the categories were made of has the same split but for its beginning.
    ranked = summary.first(metric=metric, split=split.replace(SPLIT, "ranking", 1), condition=BASE)
    return Categories(
        metric=metric,
        split=split,
        means={one.condition: one for one in mine if "domains" in one.series},
        tests={one.condition: one for one in mine if APART in one.condition},
        base=None if ranked is None else ranked.value,
    )


def _sentence(found: Categories) -> str:
    if not found.tests:
        return "No two categories have two domains or more: nothing is tested."
    apart = [f"{name} ({change(one)})" for name, one in found.tests.items() if clear(one)]
    which = f": {'; '.join(apart)}" if apart else ""
    return f"{len(apart)} of {len(found.tests)} pairs of categories are told apart ({ALPHA:g}){which}."


def _blocks(found: Categories) -> list[Block]:
    values = found.values
    words = "; ".join(
        f"{name} {number(one.value, share=found.share)} ({', '.join(values[name])})"
        for name, one in found.means.items()
    )
    caption = f"{named(found.metric).capitalize()} of each domain by category; bar: mean; dotted: the base model."
    drawn = category_plot(values, words=named(found.metric), base=found.base, rate=found.share)
    rows: list[list[Cell]] = [
        [name, number(one.value, share=found.share), one.n, one.detail] for name, one in found.means.items()
    ]
    tests: list[list[Cell]] = [
        [name, change(one), p_of(one), None if one.test is None else one.test.method, one.n]
        for name, one in found.tests.items()
    ]
    blocks: list[Block] = [Picture(drawn, caption, f"{caption} {words}.")]
    blocks.append(Table(["category", "mean", "domains", "which"], rows))
    if tests:
        blocks.append(Table(["categories", "difference of means", "p, Holm", "test", "domains"], tests))
    return blocks
