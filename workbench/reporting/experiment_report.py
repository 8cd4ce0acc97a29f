"""The page of one experiment: `summary.json` in, a report that is read from top to bottom out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench.reporting import (
    answers_section,
    category_section,
    convergence_section,
    difference_section,
    dimension_section,
    diversity_section,
    domain_matrix_section,
    dose_section,
    drift_section,
    forecast_section,
    gating_section,
    heat_section,
    ledger,
    map_section,
    mitigation,
    population_section,
    predictor_section,
    probe_section,
    ranking_section,
    routing_section,
    sections,
    shift_section,
    transfer_section,
    trend_section,
    trigger_section,
    unmeasurable_section,
)
from workbench.reporting.blocks import Block, Details, Note, Picture, Text
from workbench.reporting.page import write_page
from workbench.reporting.summary import Summary, read_summary
from workbench.reporting.table_report import samples_of_table, summary_of_table

WHOLE = "What a narrow fine-tune changed, and whether one direction carries it"
# In reading order. A section is a function Summary -> blocks, [] when the summary has none of its numbers.
SECTIONS: tuple[Callable[[Summary], list[Block]], ...] = (
    sections.opening,
    unmeasurable_section.unmeasurable,
    population_section.populations,
    ranking_section.ranking,
    trigger_section.triggers,
    category_section.categories,
    domain_matrix_section.domain_matrices,
    probe_section.probes,
    transfer_section.transfers,
    map_section.maps,
    predictor_section.membership_predictors,
    diversity_section.diversities,
    convergence_section.convergences,
    forecast_section.domain_forecasts,
    gating_section.gating,
    sections.rates,
    mitigation.mitigations,
    dose_section.doses,
    trend_section.trends,
    difference_section.differences,
    sections.directions,
    sections.ablation,
    sections.steering,
    sections.spectrum,
    routing_section.routing,
    drift_section.drift,
    dimension_section.dimensions,
    shift_section.shifts,
    ledger.transfer,
    answers_section.answers,
    heat_section.heats,
    ledger.limits,
    ledger.provenance,
)
TABLE_FILE = "store.json"  # what tells the folder of a table from that of a whole study


def report(
    run: str | Path | Mapping[str, Any],
    to: str | Path | None = None,
    *,
    samples: Sequence[Mapping[str, Any]] = (),
    projections: Sequence[Mapping[str, Any]] = (),
    figures: str | Path | None = None,
) -> Path:
    """Writes the report of a run folder, the folder of one sweep, a `summary.json`, or the same data as a dict; returns
    the page's path.

    `to`: the page; left out, `report.html` in the run's folder (in the current folder for a dict). `figures`: a folder
    that also gets every figure as PNG. `samples` and `projections`: answers, and the `record()`s of
    `wb.token_projections`, where the folder has none of its own. Sections that the summary lacks are one line that says
    so. The sentences are made from the numbers (`sentences.py`); the claim that a direction carries the effect is
    decided in `verdict.py`.
    Raises what `read_summary` and `write_page` raise, and TypeError for several runs (`wb.joined_report`).
    """
    if not isinstance(run, str | Path | Mapping):
        raise TypeError(
            f"report({type(run).__name__}): expected one run, its folder, its summary.json or the same as a dict. "
            "Several runs go on one page by wb.joined_report([folder, folder], to=PAGE)."
        )
    if isinstance(run, str | Path) and (Path(run) / TABLE_FILE).is_file():
        samples = samples or samples_of_table(Path(run))
        summary = read_summary(summary_of_table(Path(run)), samples, projections)
    else:
        summary = read_summary(run, samples, projections)
    if to is None:
        folder = Path() if isinstance(run, Mapping) else Path(run) if Path(run).is_dir() else Path(run).parent
        to = folder / "report.html"
    blocks = experiment_blocks(summary)
    title = WHOLE if summary.whole or not summary.question else summary.question
    name = str(summary.model.get("name") or "a model")
    subtitle = [name, "" if summary.seed is None else f"seed {summary.seed}", f"{len(summary.results)} results"]
    written = write_page(title, blocks, to, subtitle=" · ".join(filter(None, subtitle)))
    if figures is not None:
        # After the page: a layout settles a little more on each drawing, and the page must not depend on `figures`.
        _save_figures(blocks, Path(figures))
    return written


def experiment_blocks(summary: Summary) -> list[Block]:
    """The report's blocks in reading order: findings, evidence, samples, limits, provenance. A study's page has the
    sections that it has numbers for; the whole path's page (`Summary.whole`) also says which ones have none."""
    shown = [section(summary) for section in SECTIONS]
    return [block for blocks in shown for block in (blocks if summary.whole else measured(blocks))]


def measured(blocks: Sequence[Block]) -> Sequence[Block]:
    """A section without its lines about what was not measured; nothing, where only a heading and words are left."""
    left = [block for block in blocks if not (isinstance(block, Note) and block.kind == "missing")]
    if len(left) < len(blocks) and all(isinstance(block, Text) for block in left):
        return []
    return left


def _save_figures(blocks: Sequence[Block], folder: Path) -> None:
    from workbench.reporting.page import anchor
    from workbench.reporting.style import save_png

    names = {"Before and after the fine-tune": "comparison", "The directions": "cosines",
             "Removing the direction": "ablation", "Adding the direction": "steering",
             "How many dimensions the change has": "spectrum",
             "Carrying the direction into another model": "transfer"}  # fmt: skip
    name, drawn = "figure", {}
    for block in blocks:
        if isinstance(block, Text) and block.heading:
            name = names.get(block.heading) or anchor(block.heading)
        elif isinstance(block, Picture):
            drawn[name] = drawn.get(name, 0) + 1
            save_png(block.figure, folder / f"{name}{'' if drawn[name] == 1 else f'_{drawn[name]}'}.png")
        elif isinstance(block, Details):
            _save_figures(block.content, folder)
