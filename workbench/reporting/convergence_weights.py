"""Blocks: what the adapters' weights say, and the bridge from them to the activations."""

from __future__ import annotations

import numpy as np

from workbench.reporting.blocks import Block, Cell, Details, Picture, Table, Text
from workbench.reporting.convergence_figure import AgreementLine, agreement_by_layer
from workbench.reporting.summary import Result, Summary
from workbench.statistics import format_p

HEADING = "From weights to activations"


def weights(summary: Summary) -> list[Block]:
    """Cosines of weight changes, the bridge by layer, and folded: where adapters write, and their gates."""
    said = [line for line in (_alike(summary), _writing(summary), _bridged(summary)) if line]
    if not said:
        return []
    folded = [*_gates(summary), *_bridge_table(summary)]
    blocks: list[Block] = [Text(HEADING, said, level=3), *_bridge_figure(summary)]
    return [*blocks, Details("Gates of the modules, and every adapter's prediction", folded)] if folded else blocks


def _alike(summary: Summary) -> str | None:
    found = {one.condition: one for one in summary.where(metric="convergence_weights")}
    between, within = found.get("between domains"), found.get("between seeds")
    if between is None:
        return None
    null = between.series.get("null", ())
    chance = f" (scrambled outputs {_two(null[0])} to {_two(null[1])})" if null else ""
    p = between.test and f"; domains exchanged among adapters: p {format_p(between.test.p, between.control.N)}" if (
        between.control
    ) else ""  # fmt: skip
    own = "" if within is None else f", those of one domain {_two(within.value)}{p or ''}"
    return f"Weight changes of {between.n} adapters: mean cosine of two domains' {_two(between.value)}{chance}{own}."


def _writing(summary: Summary) -> str | None:
    found = summary.where(metric="convergence_writes")
    if not found:
        return (
            "No adapted module adds to the residual stream (or none at the sites of the directions): where the weights "
            "write is not told by their factors."
        )
    shares = [one.value for one in found]
    chance = found[0].series.get("chance", (None,))[0]
    return (
        f"Of what modules that add to the stream write, {_two(min(shares))} to {_two(max(shares))} lies along their "
        f"domain's direction ({len(found)} adapters; a random direction: {'?' if chance is None else f'{chance:.3f}'})."
    )


def _bridged(summary: Summary) -> str | None:
    found = summary.where(metric="convergence_bridge_gap")
    if not found:
        return None
    layer = next((one.layer for one in summary.where(metric="convergence_cosine", detail="plain")), found[-1].layer)
    shown = next((one for one in found if one.layer == layer), found[-1])
    control = shown.control
    p = "" if control is None or control.p is None else f", p {format_p(control.p, control.N)}"
    return (
        "Each adapted module adding a constant, B·A times the mean of what it reads in the base, predicts the measured "
        f"shift with a mean cosine of {_two(float(shown.series['own'][0]))} at layer {shown.layer}, against "
        f"{_two(float(shown.series['others'][0]))} for other domains' adapters (gap {_two(shown.value)}"
        f"{_ends(shown)}{p}; {shown.n} adapters). What is left is what depends on the prompt."
    )


def _bridge_figure(summary: Summary) -> list[Block]:
    found = summary.where(metric="convergence_bridge_gap")
    if not found:
        return []
    layers = [one.layer or 0 for one in found]
    lines = {
        "own weights": AgreementLine(layers, np.array([float(one.series["own"][0]) for one in found])),
        "other domains' weights": AgreementLine(layers, np.array([float(one.series["others"][0]) for one in found])),
    }
    what = "Cosine of the measured shift with what B·A predicts from mean inputs"
    caption = f"{what}, mean of {found[0].n} adapters, by layer."
    return [Picture(agreement_by_layer({"Predicted and measured shift": lines}), caption, caption)]


def _bridge_table(summary: Summary) -> list[Block]:
    found = summary.where(metric="convergence_bridge")
    if not found:
        return []
    layers = sorted({one.layer or 0 for one in found})
    shown = [one.layer for one in summary.where(metric="convergence_cosine", detail="plain")]
    middle = shown[0] if shown and shown[0] in layers else layers[len(layers) // 2]
    rows: list[list[Cell]] = []
    for one in found:
        if one.layer == middle:
            beside = [float(one.series[name][0]) for name in ("others", "ratio", "explained")]
            rows.append([one.condition, one.layer, _two(one.value), *map(_two, beside)])
    heads = ["adapter", "layer", "cosine", "others' prediction", "length, predicted / measured", "explained"]
    return [Table(heads, rows, "explained: 1 − ‖measured − predicted‖² / ‖measured‖², below 0 where none is better.")]


def _gates(summary: Summary) -> list[Block]:
    """Module by module over the adapters: there are as many gates as modules and adapters."""
    by_module: dict[tuple[str, str], list[Result]] = {}
    for one in summary.where(metric="convergence_gate"):
        name = (one.target or "").rpartition(".")[2]
        by_module.setdefault((str(one.layer), name), []).append(one)
    rows: list[list[Cell]] = []
    for (layer, name), own in by_module.items():
        told = [float(one.series["auroc"][0]) for one in own if "auroc" in one.series]
        first = [float(one.series["first"][0]) for one in own]
        constant = [one.value for one in own]
        clear = sum(_clear(one.series["auroc"]) for one in own if "auroc" in one.series)
        rows.append([layer, name, len(own), _range(constant), _range(first), _range(told) if told else None,
                     f"{clear} of {len(told)}" if told else None])  # fmt: skip
    if not rows:
        return []
    heads = [
        "layer",
        "module",
        "adapters",
        "constant share",
        "first component",
        "AUROC own / other prompts",
        "told apart",
    ]
    note = (
        "ΔW·x over prompts, x read in the base: the share of its squared length that is the same for all prompts, and "
        "that of its first singular component; whether its length tells the own domain's prompts from others (told "
        "apart: adapters whose 95 % interval leaves out .5, families as clusters). Least to most of the adapters."
    )
    return [Table(heads, rows, note)]


def _clear(auroc: object) -> bool:
    ends = list(auroc)[1:]  # type: ignore[call-overload]
    return len(ends) == 2 and not ends[0] <= 0.5 <= ends[1]


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return _two(low) if _two(low) == _two(high) else f"{_two(low)} to {_two(high)}"


def _ends(one: Result) -> str:
    return "" if one.interval is None else f", 95 % over domains {_two(one.interval[0])} to {_two(one.interval[1])}"


def _two(value: float) -> str:
    return f"{value + 0.0:.2f}".replace("-0.00", "0.00").replace("-", "−")
