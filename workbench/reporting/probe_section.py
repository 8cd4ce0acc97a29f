"""Section: probes of fine-tunes read on each other's answers, as figures, sentences and tables, from the summary."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workbench.reporting.blocks import Block, Cell, Details, Note, Picture, Table, Text
from workbench.reporting.probe_cells import probe_cells
from workbench.reporting.probe_layers import ProbeLine, probe_layers
from workbench.reporting.style import percent
from workbench.reporting.summary import Result, Summary
from workbench.subspace.probe_domains_result import CELL, DEV, LABELS, LAYER, MEAN, MINUS, SPLIT
from workbench.subspace.probe_means import KINDS, OTHER, SAME, TWIN

HEADING = "Probes of one fine-tune, read on another"
MEANING = (
    "A probe tells a model's misaligned answers from its aligned ones, by the mean residual over the answer. An AUROC "
    "of .5 is chance, but a probe that only reads which question was asked is above it, where questions differ in how "
    "often they are answered badly. Exchanged labels give what that alone is worth: answers to one question, exchanged "
    "alike in all models. Everything is from families of questions that no probe, and no choice of a layer, has seen."
)
BASE = (
    "Here one model reads the very same answers of all others. What its probes tell is in the text, not in what "
    "fine-tuning did to the model that wrote it."
)
NOTHING = "Not measurable: no model has misaligned and aligned answers in enough families to fit and test a probe."
CELLS = ["probe of", "answers of", "pair", "AUROC", "interval", "exchanged labels", "p", "p, all cells",
         "within a question", "pairs", "after LEACE", "balanced accuracy", "answers", "misaligned",
         "families"]  # fmt: skip


def probes(summary: Summary) -> list[Block]:
    """For each reader one figure and a table of methods; then the layers of all readers, cells and counts folded."""
    splits = list(dict.fromkeys(r.split for r in summary.where(metric=LABELS) if r.split.startswith(SPLIT)))
    blocks: list[Block] = [Text(HEADING, [MEANING])] if splits else []
    lines: dict[str, dict[str, ProbeLine]] = {}
    for split in splits:
        title = split.removeprefix("probes, ")
        method = chosen_method(summary, split)
        blocks.append(Text(title[:1].upper() + title[1:], _sentences(summary, split, method), level=3))
        if method is None:
            blocks.append(Note(NOTHING))
            blocks.append(_models(summary, split))
            continue
        blocks += [_picture(summary, split, method), _methods(summary, split)]
        blocks.append(Details(f"Every pair of domains, {_method(method)}", [_table(summary, split, method)]))
        blocks.append(Details("The answers of each model", [_models(summary, split)]))
        lines[f"{title[:1].upper()}{title[1:]}"] = _lines(summary, split, method)
    if drawn := {title: some for title, some in lines.items() if some}:
        caption = (
            "Mean AUROC with all probes read at one layer (the method that was chosen for each reader). Bars: "
            "95\u00a0% jackknife over domains. Thin, dotted: after LEACE of the rows that are tested."
        )
        said = [
            f"{title}, {kind}: {', '.join(f'{n} {v:.2f}' for n, v in zip(one.layers, one.values, strict=True))}"
            for title, some in drawn.items() for kind, one in some.items()
        ]  # fmt: skip
        blocks.append(Picture(probe_layers(drawn), caption, f"{caption} {'; '.join(said)}."))
    return blocks


def chosen_method(summary: Summary, split: str) -> str | None:
    """The method whose probes did best on dev families; None where nothing was measured."""
    found = [r for r in summary.where(metric=DEV, split=split) if (r.detail or "").startswith("chosen")]
    return found[0].condition if found else None


def _names(summary: Summary, split: str) -> list[str]:
    return [result.condition for result in summary.where(metric=DEV, split=split)]


def cells_of(summary: Summary, split: str, method: str) -> list[tuple[str, Result]]:
    """The cells of one method, each with its kind."""
    found = [((r.detail or "").partition("; "), r) for r in summary.where(metric=CELL, split=split)]
    return [(said[2], result) for said, result in found if said[0] == method]


def _sentences(summary: Summary, split: str, method: str | None) -> list[str]:
    models = summary.where(metric=LABELS, split=split)
    out = [r for r in models if r.detail != "used"]
    lines = [BASE] if split.endswith("reads all answers") else []
    left = "; ".join(f"{r.condition} ({percent(r.value)} of {r.n})" for r in out[:12])
    if len(out) > 12:
        left += f"; and {len(out) - 12} more"
    lines.append(
        f"{len(models) - len(out)} of {len(models)} models have misaligned and aligned answers in 2 families or more "
        f"of those fitted on and of those tested on."
        + (f" Left out, with the share of misaligned answers: {left}." if out else "")
    )
    if method is None:
        return lines
    dev = {r.condition: r.value for r in summary.where(metric=DEV, split=split)}
    others = ", ".join(f"{_method(name)} {value:.2f}" for name, value in dev.items() if name != method)
    lines.append(
        f"On dev families {_method(method)} does best (AUROC {dev[method]:.2f}" + (f"; {others})." if others else ").")
    )
    means = {r.condition: r for r in summary.where(metric=MEAN, split=split, detail=method)}
    lines += [_mean_sentence(means[kind]) for kind in KINDS if kind in means]
    lines += [_minus(result) for result in summary.where(metric=MINUS, split=split)]
    tested = [(kind, r) for kind, r in cells_of(summary, split, method) if r.test is not None]
    if tested:
        beyond = {kind: [r.test.p <= 0.05 for k, r in tested if k == kind and r.test] for kind, _ in tested}
        counts = "; ".join(f"{kind}: {sum(some)} of {len(some)}" for kind, some in beyond.items())
        if whole := sum("whole groups" in r.control.kind for _, r in tested if r.control):
            lines.append(
                f"In {whole} cells some model answers every question one way: there whole questions are exchanged."
            )
        lines.append(f"Cells above exchanged labels (p ≤ .05, corrected for all {len(tested)} cells): {counts}.")
    return lines


def _mean_sentence(result: Result) -> str:
    beside, p = result.companions, result.control.p if result.control else None
    said = f"{result.condition[:1].upper()}{result.condition[1:]}: mean AUROC {result.value:.2f}{_ends(result)}"
    if beside.get("null_mean") is not None:
        said += f", exchanged labels {beside['null_mean']:.2f}" + (f" (p {_p(p, result)})" if p is not None else "")
    if beside.get("within_auroc") is not None:
        said += f", among answers to one question {beside['within_auroc']:.2f}"
    return f"{said}, after LEACE {beside['erased_auroc']:.2f}; {result.clusters} domains, {result.n} answers."


def _minus(result: Result) -> str:
    p = result.control.p if result.control else None
    value, (low, high) = result.value, result.interval or (np.nan, np.nan)
    ends = "" if np.isnan(low) else f" [{low:+.3f}, {high:+.3f}]"
    said = f"{result.condition[:1].upper()}{result.condition[1:]}: each model's own activations minus these, "
    said += f"{_method(result.detail or '')}, {value:+.3f}{ends}"
    null = result.companions.get("null_mean")
    if p is not None and null is not None:
        said += f", exchanged labels {null:+.3f} (p {_p(p, result)})"
    return f"{said}.".replace("-0.", "\u22120.")


def _picture(summary: Summary, split: str, method: str) -> Picture:
    found = cells_of(summary, split, method)
    shown = {(r.condition, r.target or ""): r for kind, r in found if kind in (SAME, OTHER)}
    names = list(dict.fromkeys(name for pair in shown for name in pair))
    values, told = np.full((len(names), len(names)), np.nan), np.zeros((len(names), len(names)), dtype=bool)
    said = []
    for (source, target), result in shown.items():
        place = names.index(source), names.index(target)
        values[place], told[place] = result.value, result.test is not None and result.test.p <= 0.05
        said.append(f"{source} on {target} {result.value:.2f}{_ends(result)}")
    sizes = sorted({r.n for r in shown.values() if r.n})
    families = sorted({r.clusters for r in shown.values() if r.clusters})
    caption = (
        f"AUROC of {_method(method)} probes on confirm families; on the diagonal the models that they were fitted on. "
        f"Frame: above exchanged labels, p ≤ .05 corrected for all cells. Answers a cell: {_span(sizes)} in "
        f"{_span(families)} families; intervals, erasure and other fine-tunes of the domain stand in the table below."
    )
    return Picture(probe_cells(names, names, values, told), caption, f"{caption} {'; '.join(said)}.")


def _methods(summary: Summary, split: str) -> Table:
    rows: list[list[Cell]] = []
    for method in _names(summary, split):
        for result in summary.where(metric=MEAN, split=split, detail=method):
            beside, p = result.companions, result.control.p if result.control else None
            rows.append([
                _method(method), result.condition, _two(result.value), _ends(result).strip(" []") or None,
                _two(beside.get("null_mean")), None if p is None else _p(p, result), _two(beside.get("within_auroc")),
                _two(beside.get("erased_auroc")), result.clusters, result.n,
            ])  # fmt: skip
    columns = ["method", "pairs", "mean AUROC", "interval", "exchanged labels", "p", "within a question", "after LEACE",
               "domains", "answers"]  # fmt: skip
    return Table(columns, rows, "Each probe at the layer chosen on its own model's dev families. Intervals: 95\u00a0%, "
                                "jackknife over domains; p is of the mean alone.")  # fmt: skip


def _table(summary: Summary, split: str, method: str) -> Table:
    rows: list[list[Cell]] = []
    for kind, result in cells_of(summary, split, method):
        beside = result.companions
        low, high = (_two(beside.get(name)) for name in ("erased_low", "erased_high"))
        rows.append([
            result.condition, result.target, kind, _two(result.value), _ends(result).strip(" []") or None,
            _two(beside.get("null_mean")), None if result.control is None or result.control.p is None
            else _p(result.control.p, result), None if result.test is None else _p(result.test.p, result),
            _two(beside.get("within_auroc")), _whole(beside.get("within_pairs")),
            f"{_two(beside.get('erased_auroc'))} ({low} to {high})", _two(beside.get("balanced_accuracy")), result.n,
            _whole(beside.get("positive")), result.clusters,
        ])  # fmt: skip
    how = next((r.interval_method for _, r in cells_of(summary, split, method) if r.interval_method), "none")
    caption = f"Intervals: {how} (of the first). Other methods' cells stand in summary.json."
    return Table(CELLS, rows, caption)


def _models(summary: Summary, split: str) -> Table:
    rows: list[list[Cell]] = [
        [r.condition, r.n, percent(r.value), r.detail] for r in summary.where(metric=LABELS, split=split)
    ]
    return Table(["model", "labelled answers", "misaligned", "used, or why not"], rows,
                 "A model's own domain, empty answers and answers without a score are left out.")  # fmt: skip


def _lines(summary: Summary, split: str, method: str) -> dict[str, ProbeLine]:
    found = summary.where(metric=LAYER, split=split, detail=method)
    lines = {}
    for kind in (SAME, TWIN, OTHER):
        mine = sorted((r for r in found if r.condition == kind), key=lambda r: r.layer or 0)
        if mine:
            ends = np.array([r.interval or (np.nan, np.nan) for r in mine], dtype=float)
            erased = np.array([r.companions.get("erased_auroc", np.nan) for r in mine], dtype=float)
            lines[kind] = ProbeLine([r.layer or 0 for r in mine], np.array([r.value for r in mine]), ends, erased)
    return lines


def _method(name: str) -> str:
    return {"difference_of_means": "difference of means", "mass_mean": "mass-mean", "lda": "LDA"}.get(name, name)


def _ends(result: Result) -> str:
    return "" if result.interval is None else f" [{result.interval[0]:.2f}, {result.interval[1]:.2f}]"


def _p(p: float, result: Result) -> str:
    least = 1 / (result.control.N + 1) if result.control else 0.0
    return f"≤ {p:.2g}" if p <= least * (1 + 1e-9) else f"{p:.2g}"


def _two(value: float | None) -> str | None:
    return None if value is None or np.isnan(value) else f"{value:.2f}"


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _span(sizes: Sequence[int]) -> str:
    return "not recorded" if not sizes else f"{sizes[0]}" + (f" to {sizes[-1]}" if len(sizes) > 1 else "")
