"""Section: every domain's adapters on every domain's questions (`wb.domain_matrix`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from workbench.behaviour.ranking_result import BASE
from workbench.reporting.blocks import Block, Cell, Details, Picture, Table, Text
from workbench.reporting.domain_matrix_plot import domain_matrix_plot
from workbench.reporting.dose_section import named
from workbench.reporting.ranking_numbers import change, is_share, p_of, with_ends
from workbench.reporting.summary import Result, Summary

SPLIT = "question domains"
OWN = "own questions - others"


@dataclass(frozen=True)
class Matrix:
    """Cells by (domain of the adapters, domain of the questions), and the comparison of own questions with others."""

    metric: str
    split: str
    cells: Mapping[tuple[str, str], Result]
    own: Result | None

    @property
    def rows(self) -> list[str]:
        """The base last."""
        names = list(dict.fromkeys(domain for domain, _ in self.cells))
        return [*(name for name in names if name != BASE), *(name for name in names if name == BASE)]

    @property
    def columns(self) -> list[str]:
        """In the order of the rows, so that own questions stand on the diagonal; then what no adapter is about."""
        names = list(dict.fromkeys(asked for _, asked in self.cells))
        return [*(name for name in self.rows if name in names), *(name for name in names if name not in self.rows)]

    @property
    def values(self) -> Float[np.ndarray, "domain asked"]:
        """NaN where nothing was measured."""
        found = [[self.cells.get((row, column)) for column in self.columns] for row in self.rows]
        return np.array([[np.nan if one is None else one.value for one in row] for row in found])

    @property
    def share(self) -> bool:
        return is_share(self.metric, [one.value for one in self.cells.values()])


def domain_matrices(summary: Summary) -> list[Block]:
    """The first matrix with its figure, the others folded; [] for a summary without any."""
    kinds = dict.fromkeys((one.split, one.metric) for one in summary.results if one.split.startswith(SPLIT))
    found = [one for split, metric in kinds if (one := _matrix(summary, split, metric)).cells]
    if not found:
        return []
    blocks: list[Block] = [Text("Every domain on every domain's questions", _sentences(found[0])), *_blocks(found[0])]
    for one in found[1:]:
        said = f"{one.split[:1].upper()}{one.split[1:]}, by {named(one.metric)}"
        blocks.append(Details(said, [Text(said, _sentences(one), level=3), *_blocks(one)]))
    return blocks


def _matrix(summary: Summary, split: str, metric: str) -> Matrix:
    mine = summary.where(split=split, metric=metric)
    cells = {(one.condition, str(one.target)): one for one in mine if one.target is not None}
    return Matrix(metric, split, cells, next((one for one in mine if one.condition == OWN), None))


def _sentences(found: Matrix) -> list[str]:
    """Whether an adapter's own questions stand out, and which questions the adapters of others move most and least."""
    lines = []
    if found.own is not None:
        lines.append(
            f"By {named(found.metric)}, over {found.own.n} domains, own questions minus those of other domains: "
            f"{change(found.own)}, p {p_of(found.own)} (sign flips over domains)."
        )
    means = _of_others(found)
    if len(means) > 1:
        most, least = max(means, key=lambda name: means[name]), min(means, key=lambda name: means[name])
        digits = ".0%" if found.share else ".3g"
        lines.append(
            f"Under adapters of other domains, questions about {most} have the highest mean ({means[most]:{digits}}), "
            f"those about {least} the lowest ({means[least]:{digits}})."
        )
    return lines


def _of_others(found: Matrix) -> dict[str, float]:
    """The mean of each column over the adapters of other domains."""
    out = {}
    for column in found.columns:
        values = [
            one.value for (row, asked), one in found.cells.items() if asked == column and row not in (column, BASE)
        ]
        if values:
            out[column] = float(np.mean(values))
    return out


def _blocks(found: Matrix) -> list[Block]:
    caption = (
        f"{named(found.metric).capitalize()} of the adapters of each domain (rows) on the questions about each domain "
        "(columns), over fine-tuning seeds; framed: a domain's own questions; last row: the base model."
    )
    rows = ["base model" if name == BASE else name for name in found.rows]
    drawn = domain_matrix_plot(rows, found.columns, found.values, words=named(found.metric), rate=found.share)
    table: list[list[Cell]] = [
        ["base model" if domain == BASE else domain, asked, with_ends(one, share=found.share), one.n, one.clusters,
         one.unscored, one.detail]
        for (domain, asked), one in found.cells.items()
    ]  # fmt: skip
    columns = ["adapters of", "questions about", named(found.metric), "answers", "families", "unscored", "stated"]
    whole = Details(f"All {len(table)} cells with intervals", [Table(columns, table, _method(found))])
    return [Picture(drawn, caption, f"{caption} {' '.join(_sentences(found))}"), whole]


def _method(found: Matrix) -> str:
    stated = next((one.interval_method for one in found.cells.values() if one.interval_method), None)
    return "" if stated is None else f"Intervals: {stated}, and so on."
