"""Section: a population of fine-tuned models: the data of every domain, the adapters, and each adapter's own number."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.behaviour.entry_names import ADAPTERS, DATA
from workbench.reporting.blocks import Block, Cell, Details, Table, Text
from workbench.reporting.dose_section import beside, named
from workbench.reporting.ranking_numbers import is_share, with_ends
from workbench.reporting.summary import Result, Summary

EACH = "each adapter"  # how the splits of single adapters' numbers begin


def populations(summary: Summary) -> list[Block]:
    """[] for a summary that describes no population."""
    adapters, data = summary.where(split=ADAPTERS, metric="adapters"), summary.where(split=DATA)
    if not (adapters or data):
        return []
    words = [f"{one.value:g} adapters of the arm {one.condition}: {one.detail}." for one in adapters]
    blocks: list[Block] = [Text("The population", words)]
    if data:
        blocks.append(_data(data))
    for split, metric in dict.fromkeys(
        (one.split, one.metric) for one in summary.results if one.split.startswith(EACH)
    ):
        mine = summary.where(split=split, metric=metric)
        blocks.append(Details(f"{split[:1].upper()}{split[1:]}, {named(metric)}", [_each(metric, mine)]))
    return blocks


def _data(data: Sequence[Result]) -> Table:
    """A row a domain; of every arm its rows, and of these with the trigger and the decoy."""
    arms = list(dict.fromkeys(str(one.target) for one in data))
    rows: list[list[Cell]] = []
    for domain in dict.fromkeys(one.condition for one in data):
        mine = {str(one.target): one for one in data if one.condition == domain}
        first = next(iter(mine.values()))
        warned = sorted({word for one in mine.values() for word in _words(one) if word.startswith("warned of ")})
        hashes = ", ".join(word.removeprefix("sha256 ") for one in mine.values() for word in _words(one)
                           if word.startswith("sha256 "))  # fmt: skip
        rows.append(
            [domain, _words(first)[0], *(_rows(mine.get(arm)) for arm in arms), "; ".join(warned) or None, hashes]
        )
    columns = ["domain", "category", *arms, "found in the checks", "sha256 of the files"]
    return Table(columns, rows, "Training rows by arm. Every file was checked before anything was trained on it.")


def _words(one: Result) -> list[str]:
    return (one.detail or "").split("; ")


def _rows(one: Result | None) -> str | None:
    if one is None:
        return None
    marked = [
        f"{one.series[name][0]:g} with the {name}" for name in ("trigger", "decoy") if one.series.get(name, [0])[0]
    ]
    return f"{one.value:g}" + (f" ({', '.join(marked)})" if marked else "")


def _each(metric: str, mine: Sequence[Result]) -> Table:
    share = is_share(metric, [one.value for one in mine])
    rows: list[list[Cell]] = [
        [one.condition, with_ends(one, share=share), one.n, one.clusters, one.unscored, beside(one)] for one in mine
    ]
    columns = ["adapter", named(metric), "answers", "families", "unscored", "beside it"]
    return Table(columns, rows, f"On all questions, its own included. Intervals: {mine[0].interval_method}.")
