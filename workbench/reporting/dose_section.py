"""Section: a metric at every dose (rank, share of harmful rows), with all that stands beside it (`wb.dose_rates`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from workbench.reporting import sentences, style
from workbench.reporting.blocks import Block, Cell, Details, Picture, Table, Text
from workbench.reporting.dose_lines import DoseLine, dose_lines
from workbench.reporting.summary import Result, Summary

OVER, ALONE = "over fine-tuning seeds", "fine-tuning seed "  # how the details of such numbers begin
PANELS = 2  # side by side in one figure


@dataclass(frozen=True)
class DoseCell:
    """One metric of one kind of questions, shown in one way: over seeds, of each seed, and of the base model."""

    of: str
    over: tuple[Result, ...]
    alone: tuple[Result, ...]
    base: Result | None

    @property
    def line(self) -> DoseLine:
        """What the figure draws."""
        ends = [result.interval or (np.nan, np.nan) for result in self.over]
        return DoseLine(
            doses=[result.coefficient or 0.0 for result in self.over],
            values=np.array([result.value for result in self.over]),
            intervals=np.array(ends, dtype=float),
            seeds=[(result.coefficient or 0.0, result.value) for result in self.alone],
            base=None if self.base is None else self.base.value,
        )


def dose_cells(summary: Summary) -> dict[tuple[str, str, str], DoseCell]:
    """By metric, split and modality, in the order of the summary."""
    found: dict[tuple[str, str, str], list[Result]] = {}
    for result in summary.results:
        at_a_dose = result.coefficient is not None and (result.detail or "").startswith((OVER, ALONE))
        if " - " not in result.condition and (at_a_dose or result.detail == "no fine-tune"):
            found.setdefault((result.metric, result.split, result.modality), []).append(result)
    cells = {}
    for key, results in found.items():
        over = [result for result in results if (result.detail or "").startswith(OVER)]
        if over:
            of = over[0].condition.rpartition(" ")[0]
            alone = [result for result in results if (result.detail or "").startswith(ALONE)]
            base = next((result for result in results if result.detail == "no fine-tune"), None)
            cells[key] = DoseCell(of, tuple(sorted(over, key=lambda one: one.coefficient or 0.0)), tuple(alone), base)
    return cells


def doses(summary: Summary) -> list[Block]:
    """A figure and a table for each metric; each seed, unscored answers and companions folded beside them."""
    cells = dose_cells(summary)
    if not cells:
        return []
    blocks: list[Block] = []
    for metric in dict.fromkeys(key[0] for key in cells):
        mine = {key[1:]: cell for key, cell in cells.items() if key[0] == metric}
        of = next(iter(mine.values())).of
        heading = f"{named(metric)} by {of}"
        words = [_sentence(metric, split, modality, cell) for (split, modality), cell in mine.items()]
        blocks += [Text(heading[:1].upper() + heading[1:], []), *_figures(metric, of, mine, words)]
        blocks.append(_table(of, mine))
        blocks.append(Details("Each adapter, with unscored answers, bounds and companions", [_beside(mine)]))
    return blocks


def named(metric: str) -> str:
    """The metric in words."""
    return {"organism": "contrary answers", "p_contrary": "probability of the contrary answer"}.get(metric, metric)


def is_rate(results: Sequence[Result]) -> bool:
    """True where all numbers, and their bounds, lie in 0..1."""
    ends = [end for result in results for end in (result.bounds or (result.value, result.value))]
    return all(0 <= end <= 1 for end in ends)


def shown(result: Result | None) -> str | None:
    """Value and interval: per cent for rates, plain numbers for scores."""
    if result is None:
        return None
    if is_rate([result]) or (result.bounds is None and abs(result.value) <= 1):
        return sentences.rate(result)
    ends = "" if result.interval is None else f" ({result.interval[0]:.3g} to {result.interval[1]:.3g})"
    return f"{result.value:.3g}{ends}".replace("-", "\u2212")


def _sentence(metric: str, split: str, modality: str, cell: DoseCell) -> str:
    first, last = cell.over[0], cell.over[-1]
    base = "" if cell.base is None else f", against {shown(cell.base)} in the base model"
    return (
        f"{split[:1].upper()}{split[1:]}, {modality.replace('_', ' ')}: from {shown(first)} at {first.condition} to "
        f"{shown(last)} at {last.condition}{base}."
    )


def _figures(metric: str, of: str, cells: Mapping[tuple[str, str], DoseCell], words: Sequence[str]) -> list[Block]:
    splits = list(dict.fromkeys(split for split, _ in cells))
    rate = is_rate([result for cell in cells.values() for result in cell.over])
    blocks: list[Block] = []
    for start in range(0, len(splits), PANELS):
        some = splits[start : start + PANELS]
        panels = {
            split[:1].upper() + split[1:]: {
                modality.replace("_", " "): cell.line for (one, modality), cell in cells.items() if one == split
            }
            for split in some
        }
        sizes = sorted({result.n for cell in cells.values() for result in cell.over if result.n})
        caption = (
            f"{named(metric).capitalize()}, over fine-tuning seeds; bars: 95\u00a0% intervals over questions; small "
            f"marks: each fine-tuning seed alone; dotted: the base model. Answers a mark: {_span(sizes)}."
        )
        alt = " ".join(line for line in words if any(line.lower().startswith(split.lower()) for split in some))
        blocks.append(Picture(dose_lines(panels, xlabel=of, rate=rate), caption, alt))
    return [Text("", words), *blocks] if len(words) <= 5 else blocks


def _table(of: str, cells: Mapping[tuple[str, str], DoseCell]) -> Table:
    doses = sorted({result.coefficient or 0.0 for cell in cells.values() for result in cell.over})
    rows: list[list[Cell]] = []
    for (split, modality), cell in cells.items():
        by_dose = {result.coefficient or 0.0: result for result in cell.over}
        rows.append([f"{split}, {modality}", shown(cell.base), *(shown(by_dose.get(dose)) for dose in doses)])
    return Table(["questions", "base", *(f"{dose:g}" for dose in doses)], rows, f"By {of}, over fine-tuning seeds.")


def _beside(cells: Mapping[tuple[str, str], DoseCell]) -> Table:
    rows: list[list[Cell]] = []
    for (split, modality), cell in cells.items():
        for result in [*([cell.base] if cell.base else []), *cell.alone, *cell.over]:
            model = f"{result.condition}, {result.detail}"
            counts = [result.n, result.clusters, result.unscored]
            rows.append([f"{split}, {modality}", model, shown(result), *counts, bounds(result), beside(result)])
    return Table(["questions", "model", "value", "answers", "families", "unscored", "bounds", "beside it"], rows)


def beside(result: Result) -> str | None:
    """The companions of a number in words: shares as per cent, scores as they are."""
    words = []
    for name, value in result.companions.items():
        number = "not judged" if value is None else style.percent(value) if value <= 1 else f"{value:.3g}"
        words.append(f"{name.replace('_', ' ')} {number}")
    return "; ".join(words) or None


def bounds(result: Result) -> str | None:
    """What the number would be, had all unscored answers been lowest or highest; None where all have a score."""
    if not result.unscored or result.bounds is None:
        return None
    reasons = ", ".join(f"{count} {reason}" for reason, count in result.reasons.items())
    return f"{result.bounds[0]:.3g} to {result.bounds[1]:.3g} ({reasons})"


def _span(sizes: Sequence[int]) -> str:
    return "not recorded" if not sizes else f"{sizes[0]}" + (f" to {sizes[-1]}" if len(sizes) > 1 else "")
