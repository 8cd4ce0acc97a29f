"""The sections of an experiment's page, each from the summary alone; a section without numbers says what is missing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workbench.reporting import arrays, sentences, style
from workbench.reporting.arrays import SPLIT
from workbench.reporting.blocks import Block, Cell, Details, Note, Picture, Table, Text
from workbench.reporting.by_layer import rate_by_layer
from workbench.reporting.comparison import Bar, condition_bars
from workbench.reporting.dose_response import rates_by_dose
from workbench.reporting.matrix import cosine_matrix
from workbench.reporting.null_histogram import Observed, null_distributions
from workbench.reporting.spectrum import variance_spectrum
from workbench.reporting.style import RATES
from workbench.reporting.summary import Summary
from workbench.reporting.verdict import ablation_verdict
from workbench.statistics import Tail

PANELS = {"text": "Text questions", "image": "Image questions", "all": "All questions"}
CONDITIONS = {
    "base": "base model",
    "tuned": "fine-tuned",
    "right_control": "fine-tuned on\nright answers",
    "ablation": "direction\nablated",
}
SPLITS = {SPLIT: "other domains", "in_domain": "the fine-tuned domain", "half": "half tier", "none": "none tier"}
CONSTRUCTION = (
    "The model on this page is an organism: a tiny model built for this workbench, with contrary personas put into its "
    "training on purpose. It shows the effect by construction. The page demonstrates a method and its controls; it is "
    "no evidence about real models."
)


def modalities(summary: Summary) -> list[str]:
    """The modalities in which contrary answers were counted, text first."""
    measured = {result.modality for result in summary.where(metric="contrary", split=SPLIT)}
    return [name for name in PANELS if name in measured]


def missing(what: str) -> Note:
    """The line that stands where a section's numbers are not in the summary."""
    return Note(f"Not in this run: {what}.", kind="missing")


def opening(summary: Summary) -> list[Block]:
    """What was found, in sentences made from the numbers; for an organism, that it is so by construction."""
    found = [line for modality in modalities(summary) for line in _spread(summary, modality)]
    if summary.whole or summary.where(condition="ablation"):  # a study that ablated nothing did not ask what carries it
        found += [sentences.carried(ablation_verdict(summary, modality)) for modality in modalities(summary)]
    blocks: list[Block] = [Text("What was found", found)] if found or summary.whole else []
    if not found:
        blocks.append(missing("any rate of contrary answers in other domains"))
    if summary.is_organism:
        blocks.append(Note(CONSTRUCTION, kind="construction"))
    return blocks


def _spread(summary: Summary, modality: str) -> list[str]:
    cell = {"metric": "contrary", "split": SPLIT, "modality": modality}
    base, tuned, right = (summary.first(condition=name, **cell) for name in ("base", "tuned", "right_control"))
    lines = []
    if base and tuned:
        lines.append(sentences.spread(base, tuned, modality))
    if base and right:
        lines.append(sentences.after_right_answers(base, right, modality))
    return lines


def rates(summary: Summary) -> list[Block]:
    """Base, fine-tuned and control models side by side, and every split as a table."""
    meaning = (
        "Each answer is one of four: contrary (the systematic opposite of the right answer), right, other but "
        "well-formed, or ill-formed. The four stand together because a broken model also stops being contrary."
    )
    panels: dict[str, dict[str, dict[str, Bar]]] = {}
    for modality in modalities(summary):
        for condition, words in CONDITIONS.items():
            cell = {"condition": condition, "split": SPLIT, "modality": modality}
            found = {kind: summary.first(metric=kind, **cell) for kind in ("contrary", "right")}
            bars = {kind: Bar(result.value, result.interval) for kind, result in found.items() if result}
            if bars:
                panels.setdefault(PANELS[modality], {})[words] = bars
    blocks: list[Block] = [Text("Before and after the fine-tune", [meaning])]
    if not panels:
        return [*blocks, missing("rates of the base or the fine-tuned model in other domains")]
    caption = f"Contrary and right answers in domains the fine-tune never saw, in per cent. {_interval_words(summary)}"
    alt = "Bars of contrary and right answers by condition. " + " ".join(
        f"{title}: "
        + "; ".join(
            f"{name} {', '.join(f'{kind} {style.percent(b.value)}' for kind, b in bars.items())}"
            for name, bars in panel.items()
        )
        + "."
        for title, panel in panels.items()
    )
    blocks.append(Picture(condition_bars(panels), caption, alt.replace("\n", " ")))
    blocks.append(_rate_table(summary, (SPLIT, "in_domain"), "Every rate, with its 95\u00a0% interval."))
    rest = _rate_table(summary, ("half", "none"), "")
    return [*blocks, Details("The tiers that should follow half or not at all", [rest])] if rest.rows else blocks


def _rate_table(summary: Summary, splits: Sequence[str], caption: str) -> Table:
    rows: list[list[Cell]] = []
    for split in splits:
        for modality in PANELS:
            for condition in ("base", "tuned", "right_control"):
                cell = {"condition": condition, "split": split, "modality": modality}
                found = [summary.first(metric=kind, **cell) for kind in RATES]
                if any(found):
                    group = f"{SPLITS[split]}, {modality}"  # on every row: the page sorts and filters them
                    name = CONDITIONS[condition].replace("fine-tuned on\n", "on ")
                    rows.append([group, name, *(sentences.rate(r) if r else None for r in found)])
    return Table(["questions", "model", "contrary", "right", "other", "ill-formed"], rows, caption)


def directions(summary: Summary) -> list[Block]:
    """How long, how reliable and how alike the directions are."""
    blocks: list[Block] = [
        Text(
            "The directions",
            [
                "A direction is the difference between the mean activations of the fine-tuned and of the base model, "
                "one per layer. Reliability is the cosine between the directions of two random halves of the prompts."
            ],
        )
    ]
    labels = {"norm": "norm", "reliability": "reliability", "cosine": "cosine"}
    found = [r for r in summary.results if r.metric in labels and r.layer is not None]
    columns = list(dict.fromkeys((r.metric, r.target or r.detail if r.metric == "cosine" else None) for r in found))
    if found:
        layers = sorted({r.layer for r in found if r.layer is not None})
        cells = {(r.layer, r.metric, r.target or r.detail if r.metric == "cosine" else None): r.value for r in found}
        heads = [labels[metric] + (f" with {other}" if other else "") for metric, other in columns]
        rows = [[layer, *(cells.get((layer, *column)) for column in columns)] for layer in layers]
        blocks.append(Table(["layer", *heads], rows))
    if summary.cosines is not None:
        names, values = [name.replace("_", " ") for name in summary.cosines[0]], summary.cosines[1]
        off = values[~np.eye(len(values), dtype=bool)]
        span = (
            f"Between different directions the cosines run from {off.min():.2f} to {off.max():.2f}.".replace("-", "−")
            if len(off)
            else ""
        )
        figure = cosine_matrix(names, values)
        blocks.append(Picture(figure, f"Cosines between directions. {span}", f"Matrix of cosines. {span}"))
    if not found and summary.cosines is None:
        blocks.append(missing("norms, reliabilities or cosines of directions"))
    return blocks


def ablation(summary: Summary) -> list[Block]:
    """Removing the direction at each layer and at all layers, against three kinds of random directions."""
    blocks: list[Block] = [
        Text(
            "Removing the direction",
            [
                "Ablation fixes the activation's component along the direction, to a mean or to zero. The control "
                "that counts is random directions matched in energy: removing one takes as much out of the "
                "activations. Isotropic and orthogonal directions are drawn for comparison."
            ],
        )
    ]
    curves = {m: c for m in modalities(summary) if (c := arrays.layer_curve(summary, m)) is not None}
    if curves:
        words = [sentences.best_layer(curve, modality) for modality, curve in curves.items()]
        caption = (
            "Contrary answers left after ablation at one layer. Bars beside the points: control directions, "
            "5 to 95\u00a0% (thick), lowest to highest (thin), median (tick)."
        )
        if not [r for r in summary.where(metric="ill_formed", condition="ablation") if r.layer is not None]:
            caption += " Ill-formed answers were not counted at single layers."
        figure = rate_by_layer({PANELS[m]: curve for m, curve in curves.items()})
        blocks += [Text("", words), Picture(figure, caption, " ".join(words))]
    else:
        blocks.append(missing("ablation at single layers"))
    judged = [picture for modality in modalities(summary) for picture in _against_controls(summary, modality)]
    blocks += judged or [missing("controls of the ablation at all layers")]
    return [*blocks, *_ablation_table(summary)]


def _against_controls(summary: Summary, modality: str) -> list[Block]:
    judged = ablation_verdict(summary, modality)
    panels, lines = {}, []
    tails: dict[str, Tail] = {"contrary": "less", "right": "greater"}
    for (metric, tail), result in zip(tails.items(), (judged.contrary, judged.right), strict=True):
        controls = {} if result is None else summary.controls(result)
        if result is None or not controls:
            continue
        start = summary.first(metric=metric, condition="tuned", split=SPLIT, modality=modality)
        title = f"{metric.capitalize()} answers, {modality}"
        panels[title] = Observed(result.value, controls, tail, start.value if start else None)
        said = "; ".join(
            f"{kind.replace('_', '-')} {sentences.p_text(result.value, draws, tail)}"
            for kind, draws in controls.items()
        )
        side = "fewer" if tail == "less" else "more"
        lines.append(f"{metric.capitalize()}, where {side} is the claim, {style.percent(result.value)}: {said}.")
    if not panels:
        return []
    caption = f"Ablation at all layers against control runs, {sentences.IN[modality]}. {' '.join(lines)}"
    return [Picture(null_distributions(panels), caption, caption)]


def _ablation_table(summary: Summary) -> list[Block]:
    metrics = {
        "contrary": "contrary",
        "right": "right",
        "ill_formed": "ill-formed",
        "kl_neutral": "KL, neutral prompts",
        "energy_removed": "energy removed",
        "leftover": "left over",
    }
    found = summary.where(metric=tuple(metrics), condition="ablation", split=(SPLIT, "none", "fit"), target=None)
    # "best of ..." repeats one of the cells with a control of the whole family.
    found = [r for r in found if not (r.detail or "").startswith("best of")]
    if not found:
        return []
    order = list(metrics)
    columns = sorted({(r.metric, r.modality) for r in found}, key=lambda c: (order.index(c[0]), c[1] == "image"))
    # The neutral prompts are the same whatever was asked: one column is enough.
    columns = [c for i, c in enumerate(columns) if c[0] != "kl_neutral" or "kl_neutral" not in dict(columns[:i])]
    details = any(r.detail for r in found)
    rows: list[list[Cell]] = []
    for layer, detail in sorted({(r.layer, r.detail or "") for r in found}, key=lambda k: (k[0] is not None, k)):
        values = {
            (r.metric, r.modality): r.value for r in reversed(found) if (r.layer, r.detail or "") == (layer, detail)
        }
        cells: list[Cell] = ["all" if layer is None else layer, *([detail] if details else [])]
        for metric, modality in columns:
            value = values.get((metric, modality))
            share = metric in RATES or metric in ("energy_removed", "leftover")
            cells.append(style.percent(value) if share and value is not None else value)
        rows.append(cells)
    heads = [
        metrics[metric] + ("" if modality == "all" or metric == "kl_neutral" else f", {modality}")
        for metric, modality in columns
    ]
    return [Table(["layer", *(["detail"] if details else []), *heads], rows, "Every ablation.")]


def steering(summary: Summary) -> list[Block]:
    """Adding the direction: dose and response, with ill-formed answers beside contrary ones."""
    blocks: list[Block] = [Text("Adding the direction")]
    steered = {r.target for r in summary.where(condition="steer", metric="contrary")}
    for target in sorted(steered, key=lambda name: (name is not None, name or "")):
        curves = {m: c for m in modalities(summary) if (c := arrays.dose_curve(summary, m, target)) is not None}
        if not curves:
            continue
        models = {None: "of the base model ", "base": "of the base model ", "tuned": "of the fine-tuned model "}
        whose, which = models.get(target, ""), "" if target in models else f" ({target})"
        words = []
        if target in (None, "base"):
            cell = {"metric": "contrary", "condition": "base", "split": SPLIT}
            for modality, curve in curves.items():
                words.append(sentences.steering(curve, summary.first(modality=modality, **cell), modality))
        caption = f"Answers {whose}as the direction{which} is added with growing strength. Bars: 95\u00a0% intervals."
        figure = rates_by_dose({PANELS[m]: curve for m, curve in curves.items()})
        blocks += [Text("", words), Picture(figure, caption, f"{caption} {' '.join(words)}")]
    if len(blocks) == 1:
        blocks.append(missing("steering"))
    return blocks


def spectrum(summary: Summary) -> list[Block]:
    """How many dimensions the shift has, against chance and a benign fine-tune."""
    blocks: list[Block] = [Text("How many dimensions the change has")]
    found = arrays.spectra(summary)
    if not found:
        return [*blocks, missing("the spectrum of the shift")]
    layers = arrays.chosen(list(found))
    words = [sentences.dimensions(layer, found[layer]) for layer in layers]
    caption = (
        "Variance explained by each principal component of the shift. Grey: the same on rows with random signs or "
        "permuted columns. Rank: effective rank, exp(entropy of the spectrum)."
    )
    figure = variance_spectrum({f"Layer {layer}": found[layer] for layer in layers})
    return [*blocks, Text("", words), Picture(figure, caption, " ".join(words))]


def _interval_words(summary: Summary) -> str:
    methods = dict.fromkeys(r.interval_method for r in summary.where(split=SPLIT) if r.interval_method)
    sizes = sorted(
        {r.n for r in summary.where(split=SPLIT, metric=("contrary", "right"), condition=tuple(CONDITIONS)) if r.n}
    )
    words = f"Bars: intervals ({', '.join(methods)})." if methods else "Bars: intervals; the method was not recorded."
    if sizes:
        words += f" Questions per bar: {sizes[0]}" + (f" to {sizes[-1]}." if len(sizes) > 1 else ".")
    return words
