"""The closing sections of an experiment's page: transfer, limits, and where the numbers come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from workbench.reporting import sentences, style
from workbench.reporting.arrays import SPLIT
from workbench.reporting.blocks import Block, Cell, Code, Details, Picture, Table, Text
from workbench.reporting.matrix import transfer_matrix
from workbench.reporting.sections import missing, modalities
from workbench.reporting.style import RATES
from workbench.reporting.summary import Result, Summary
from workbench.reporting.verdict import HONEST, ablation_verdict
from workbench.statistics import DRAWS_FOR_P, FEW_CLUSTERS, format_p

_COLUMNS = {
    "tuned": "no edit",
    "transfer": "carried direction",
    "within_class_shuffled_transfer": "map shuffled within classes",
    "shuffled_transfer": "map fully shuffled",
    "own_direction_of_target": "own direction",
}


def transfer(summary: Summary) -> list[Block]:
    """Directions carried into other models, against shuffled maps and the recipient's own direction."""
    blocks: list[Block] = [Text("Carrying the direction into another model")]
    mapped = [r for r in summary.where(condition="transfer", metric="contrary", split=SPLIT) if r.target is not None]
    if not mapped:
        return [*blocks, missing("transfer to another model")]
    words, rows, cells = [], [], []
    for result in mapped:
        same = {"metric": "contrary", "split": SPLIT, "modality": result.modality, "target": result.target}
        # The receiving model without an edit: its fine-tune goes by "tuned", or by "sibling" on the same base.
        tuned = summary.first(condition="tuned", **same) or summary.first(condition="sibling", **same)
        own = summary.first(condition="own_direction_of_target", **same)
        within = _shuffles(summary, result, "within_class_shuffled_transfer")
        shuffled = _shuffles(summary, result, "shuffled_transfer")
        name = f"{result.target}, {result.detail}" if result.detail else str(result.target)
        if tuned is not None:
            said = sentences.transferred(
                tuned, result, within, shuffled, own, result.modality, summary.controls(result).get(HONEST)
            )
            words.append(f"{name[:1].upper()}{name[1:]}: {said[0].lower()}{said[1:]}")
        rows.append(f"{name} ({result.modality})")
        mean = [float(np.mean(draws)) if draws else np.nan for draws in (within, shuffled)]
        cells.append([tuned.value if tuned else np.nan, result.value, *mean, own.value if own else np.nan])
    blocks.append(Text("", words))
    caption = "Contrary answers of the receiving model under each edit; shuffled maps: the mean over their draws."
    alt = " ".join(words) or caption
    blocks.append(Picture(transfer_matrix(rows, list(_COLUMNS.values()), np.array(cells)), caption, alt))
    fits = [
        r for r in summary.results if r.target is not None and r.metric in ("r2", "r2_along") and r.layer is not None
    ]
    fits += [r for r in summary.where(metric=("r2", "r2_along"), layer=None) if r.target is not None]
    if fits:
        words = {"r2": "held-out R²", "r2_along": "R² along the direction"}
        table = [[r.target, r.detail, r.condition.replace("_", " "), r.layer, words[r.metric], r.value] for r in fits]
        columns = ["into", "map", "pairs", "layer", "measure", "value"]
        blocks.append(Details("How well the maps fit", [Table(columns, table)]))
    return blocks


def _shuffles(summary: Summary, result: Result, condition: str) -> list[float]:
    """The rates under shuffled maps for this recipient: those of the same detail, else all of that recipient's."""
    kind = "within_class" if condition.startswith("within") else "full"
    if result.control and result.control.draws and kind in result.control.kind:
        return list(result.control.draws)
    same = {"metric": result.metric, "split": result.split, "modality": result.modality, "target": result.target}
    found = summary.where(condition=condition, **same)
    found = [twin for twin in found if twin.detail == result.detail] or found
    return [draw for twin in found for draw in ((twin.control.draws if twin.control else ()) or (twin.value,))]


def limits(summary: Summary) -> list[Block]:
    """What these numbers do not show, as far as the numbers themselves tell."""
    lines = []
    if summary.is_organism:
        lines.append("The effect is by construction: nothing here says how real models generalise.")
    seed = "a single seed" if summary.seed is None else f"a single seed ({summary.seed})"
    lines.append(
        f"All numbers come from {seed}. Intervals cover questions, not seeds; another seed may differ by more."
    )
    for modality in modalities(summary):
        judged = ablation_verdict(summary, modality)
        count = len(judged.contrary_draws)
        if judged.contrary is not None and count < DRAWS_FOR_P:
            where = sentences.IN[modality]
            lines.append(
                f"The ablation {where} has {count} {HONEST.replace('_', '-')} controls; a p takes {DRAWS_FOR_P}."
            )
    few = sorted({r.clusters for r in summary.results if r.clusters is not None and r.clusters < FEW_CLUSTERS})
    if few:
        lines.append(
            f"Some numbers rest on few clusters of questions ({few[0]} at the fewest): their intervals are wide."
        )
    bare = [r for r in summary.where(split=SPLIT, metric=tuple(RATES)) if not (r.interval or r.control)]
    if bare:
        lines.append(f"{len(bare)} of the rates in other domains came without an interval.")
    if summary.unmeasured:
        lines.append(f"{summary.unmeasured} results of the summary hold no value and are not shown.")
    edited = summary.whole or any(r.condition in ("ablation", "steer") for r in summary.results)
    if edited and not summary.where(metric="kl_neutral"):
        lines.append("Side effects were not measured on neutral prompts (kl_neutral).")
    if edited:
        lines.append(
            "An ablation shows what a direction is needed for under this edit, in this prompt format, nothing wider."
        )
    return [Text("Limits", lines)]


def provenance(summary: Summary) -> list[Block]:
    """Model, seed, hashes, the command that makes it again, seconds by phase, and every number."""
    blocks: list[Block] = [Text("Where the numbers come from")]
    if summary.command:
        blocks += [Text("", ["This command makes the summary again:"]), Code(summary.command)]
    else:
        blocks.append(missing("the command that made it"))
    facts = [[f"model: {key}", value] for key, value in flat(summary.model)]
    facts += [["seed", summary.seed], ["schema", None if summary.schema is None else str(summary.schema)]]
    facts += [[f"hash: {key}", value] for key, value in flat(summary.hashes)]
    blocks.append(Table(["what", "value"], facts))
    if summary.seconds:
        total = sum(summary.seconds.values())
        spent = [
            [phase, f"{s:.1f} s", style.percent(s / total if total else 0)] for phase, s in summary.seconds.items()
        ]
        blocks.append(Table(["phase", "seconds", "share"], [*spent, ["together", f"{total:.1f} s", ""]]))
    else:
        blocks.append(missing("seconds by phase"))
    rows = [_row(result) for result in summary.results]
    columns = ["metric", "condition", "split", "modality", "layer", "coefficient", "value", "interval", "method",
               "n", "clusters", "control", "test", "unscored", "detail", "target"]  # fmt: skip
    blocks.append(Details(f"All {len(rows)} results", [Table(columns, rows)]))
    return blocks


def _row(result: Result) -> list[Cell]:
    control = result.control
    words = None if control is None else f"{control.kind}, N = {control.N}" + (
        "" if control.p is None else f", p {format_p(control.p, control.N)}"
    )  # fmt: skip
    interval = None if result.interval is None else f"{result.interval[0]:.3g} to {result.interval[1]:.3g}"
    return [
        result.metric, result.condition, result.split, result.modality, result.layer, result.coefficient, result.value,
        interval, result.interval_method, result.n, result.clusters, words, _test(result), result.unscored,
        result.detail, result.target,
    ]  # fmt: skip


def _test(result: Result) -> str | None:
    return None if result.test is None else f"p = {result.test.p:.2g} ({result.test.method})"


def flat(data: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Nested facts as (name, words), names joined by dots."""
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{above}{key}.")
        else:
            yield f"{above}{key}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)
