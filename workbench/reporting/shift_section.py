"""The section on the geometry of a shift: spectra by place and variant, their ranks, channels, and overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from workbench.reporting.blocks import Block, Cell, Details, Note, Picture, Table, Text
from workbench.reporting.dimension_section import HEADING as CAUSAL
from workbench.reporting.spectrum import Spectrum, variance_spectrum
from workbench.reporting.style import percent
from workbench.reporting.summary import Result, Summary

HEADING = "How many dimensions the shift has"
FIRST = ("paired_shift_raw", "paired_shift_centered")  # the two that the sentences and the first figures are of
SHOWN = (*FIRST, "harmful_only", "text_minus_base_text")
TOWER = "vision tower"
Place = tuple[str, str]  # (split, condition)


class _Index:
    """The numbers of shifts by metric and place: there are thousands, and every cell of a table looks one up."""

    def __init__(self, summary: Summary) -> None:
        self.by_metric: dict[str, list[Result]] = {}
        self.cells: dict[tuple[Any, ...], Result] = {}
        for r in summary.results:
            if r.metric.startswith("shift_"):
                self.by_metric.setdefault(r.metric, []).append(r)
                self.cells.setdefault((r.metric, r.split, r.condition, r.detail, r.layer), r)

    def one(self, metric: str, place: str, condition: str, variant: str, layer: int) -> Result | None:
        return self.cells.get((metric, place, condition, variant, layer))

    def where(self, *, metric: str, **conditions: Any) -> list[Result]:
        listed = self.by_metric.get(metric, [])
        return [r for r in listed if all(getattr(r, name) == value for name, value in conditions.items())]


def shifts(summary: Summary) -> list[Block]:
    """Spectra with null and benign fine-tune, one table of every decomposition, what did not move, and overlaps."""
    index = _Index(summary)
    places = _places(index)
    if not places:
        return []
    blocks: list[Block] = [
        Text(
            HEADING,
            [
                "The shift is decomposed in several senses, which give different numbers of components. Each is "
                "compared with data whose coordinates share nothing (its null), and with a benign fine-tune at equal "
                f"n: a spectrum that both have says nothing about harm. What the dimensions do is under “{CAUSAL}”.",
                *(said for place in places if (said := held(index, *place))),
            ],
        )
    ]
    blocks += [Note(said) for said in _unmoved(index)]
    first = places[0]
    for variant in FIRST:
        blocks += _picture(index, first, variant)
    pictures = [block for place in places for block in _every_variant(index, place)]
    blocks.append(Details("Every place, at the middle layer", pictures))
    blocks.append(_ranks(index, places, middle=True))
    if any(len(_layers(index, place)) > 1 for place in places):
        blocks.append(Details("The same at every layer", [_ranks(index, places, middle=False)]))
    return [*blocks, *_channels(index, places), *_overlaps(index)]


def held(index: _Index, place: str, condition: str) -> str:
    """How much of the variance the first components hold at the middle layer, by the decomposition with the mean and
    by the one without, beside null and benign fine-tune."""
    layer = _middle(_layers(index, (place, condition)))
    said = []
    for variant in FIRST:
        own = index.one("shift_variance", place, condition, variant, layer)
        if own is None:
            continue
        benign = index.one("shift_variance", place, f"{condition}_benign", variant, layer)
        words = f"{percent(own.value)} ({variant}"
        if high := own.series.get("null_together"):
            words += f"; its null at most {percent(high[1])} in 95 of 100"
        said.append(words + ("" if benign is None else f"; benign fine-tune {percent(benign.value)}") + ")")
    if not said:
        return ""
    own = next(r for r in index.where(metric="shift_variance", split=place, condition=condition))
    k = int(own.coefficient or 0)
    return f"{_named(place, condition)}, layer {layer}: {k} components hold {' and '.join(said)}."


def _places(index: _Index) -> list[Place]:
    found = [
        (r.split, r.condition) for r in index.where(metric="shift_variance") if not r.condition.endswith("_benign")
    ]
    return list(dict.fromkeys(found))


def _variants(index: _Index, place: Place) -> list[str]:
    found = index.where(metric="shift_variance", split=place[0], condition=place[1])
    return list(dict.fromkeys(str(r.detail) for r in found))


def _layers(index: _Index, place: Place) -> list[int]:
    found = index.where(metric="shift_variance", split=place[0], condition=place[1])
    return sorted({r.layer for r in found if r.layer is not None})


def _middle(layers: Sequence[int]) -> int:
    return layers[len(layers) // 2]


def _named(place: str, condition: str) -> str:
    name, benign = condition.removesuffix("_benign"), condition.endswith("_benign")
    tower = {"tuned": "", "tower": ", adapter that trains the tower too"}.get(name, f", {name}")
    tower += ", benign fine-tune" if benign else ""
    return f"{place[:1].upper()}{place[1:]}{tower}"


def _unmoved(index: _Index) -> list[str]:
    out = []
    frozen = index.where(metric="shift_unchanged")
    for place, condition in dict.fromkeys((r.split, r.condition) for r in frozen):
        layers = sorted(
            {r.layer for r in frozen if (r.split, r.condition) == (place, condition) and r.layer is not None}
        )
        n = next(r.n for r in frozen if (r.split, r.condition) == (place, condition))
        out.append(
            f"{_named(place, condition)}: unchanged at layer{'s' if len(layers) > 1 else ''} "
            f"{', '.join(map(str, layers))}: every one of {n} rows is exactly what it was in the base. There is no "
            "shift to decompose."
        )
    skipped = index.where(metric="shift_skipped")
    lost = dict.fromkeys(f"{r.split}, {r.condition}, {r.detail}, layer {r.layer}: {r.target}" for r in skipped)
    return out + ([f"Not decomposed: {'; '.join(lost)}."] if lost else [])


def _picture(index: _Index, place: Place, variant: str) -> list[Block]:
    """One decomposition at up to three layers."""
    layers = _layers(index, place)
    shown = dict.fromkeys(layers[round(at)] for at in np.linspace(0, len(layers) - 1, min(3, len(layers))))
    return _drawn(index, place, {f"Layer {layer}": (variant, layer) for layer in shown}, variant)


def _every_variant(index: _Index, place: Place) -> list[Block]:
    """Every decomposition at the middle layer, three a figure; one of a single component has no curve."""
    layer = _middle(_layers(index, place))
    found = [(variant, index.one("shift_variance", *place, variant, layer)) for variant in _variants(index, place)]
    several = [variant for variant, one in found if one is not None and len(one.series["share"]) > 1]
    if place != _places(index)[0] and place[0] != TOWER:  # a figure each is enough; the tables have them all
        several = [variant for variant in several if variant in SHOWN]
    chunks = [several[start : start + 3] for start in range(0, len(several), 3)]
    return [
        block
        for chunk in chunks
        for block in _drawn(index, place, {_short(one): (one, layer) for one in chunk}, f"layer {layer}")
    ]


def _short(variant: str) -> str:
    return variant.replace("paired_shift_", "").replace("centered, ", "").replace("_", " ")


def _drawn(index: _Index, place: Place, wanted: dict[str, tuple[str, int]], what: str) -> list[Block]:
    panels, said, sizes = {}, [], set()
    for title, (variant, layer) in wanted.items():
        own = index.one("shift_variance", *place, variant, layer)
        if own is None:
            continue
        both = (place[1], f"{place[1]}_benign")
        benign = index.one("shift_variance", place[0], both[1], variant, layer)
        ranks = [index.one("shift_effective_rank", place[0], who, variant, layer) for who in both]
        low, high = (own.series.get(f"null_{end}") for end in ("low", "high"))
        panels[title] = Spectrum(
            np.array(own.series["share"]),
            np.column_stack([low, high]) if low and high else None,
            None if benign is None else np.array(benign.series["share"]),
            *(None if rank is None else rank.value for rank in ranks),
        )
        sizes.add(own.n or 0)
        if above := index.one("shift_above_null", *place, variant, layer):
            said.append(f"{title}: {above.value:.0f} leading components above the null")
    if not panels:
        return []
    rows = " to ".join(map(str, dict.fromkeys((min(sizes), max(sizes)))))
    caption = (
        f"{_named(*place)}, {what}, n = {rows}: variance explained by each component; rank: effective rank. "
        f"{'; '.join(said)}{'.' if said else ''}"
    )
    return [Picture(variance_spectrum(panels), caption, caption)]


def _ranks(index: _Index, places: Sequence[Place], *, middle: bool) -> Table:
    rows: list[list[Cell]] = []
    for place, condition in places:
        layers = _layers(index, (place, condition))
        for variant in _variants(index, (place, condition)):
            for layer in [_middle(layers)] if middle else layers:
                for who in (condition, f"{condition}_benign"):
                    own = index.one("shift_variance", place, who, variant, layer)
                    if own is None:
                        continue
                    one = {name: index.one(f"shift_{name}", place, who, variant, layer)
                           for name in ("participation_ratio", "effective_rank", "k_90", "above_null")}  # fmt: skip
                    ks = one["k_90"].series.get("k", ()) if one["k_90"] else ()
                    p = None if own.control is None else own.control.p
                    rows.append(
                        [f"{place}, {variant}", who.replace("_", " "), layer, percent(own.value),
                         None if p is None else f"{p:.2g}",
                         _said(one["participation_ratio"], ".1f"), _said(one["effective_rank"], ".1f"),
                         " ".join(f"{k:.0f}" for k in ks), _said(one["above_null"], ".0f"), own.n]
                    )  # fmt: skip
    heads = ["decomposed", "fine-tune", "layer", "first k hold", "p", "participation ratio", "effective rank"]
    heads += ["k for 50 80 90 95 %", "above null", "n"]
    k = next((int(r.coefficient or 0) for r in index.where(metric="shift_variance")), 0)
    where = "at the middle layer of those captured" if middle else "at every layer"
    return Table(heads, rows, f"Decompositions {where}; k = {k}, p against the null of all k together.")


def _channels(index: _Index, places: Sequence[Place]) -> list[Block]:
    rows: list[list[Cell]] = []
    for place, condition in places:
        layers = _layers(index, (place, condition))
        for variant in _variants(index, (place, condition)):
            for metric, words in (("shift_mean_top_10", "mean shift"), ("shift_top_10", "component 1")):
                one = index.one(metric, place, condition, variant, _middle(layers))
                if one is None or (variant not in FIRST and "scale" not in variant):
                    continue
                turned = index.one("shift_read_write", place, condition, variant, _middle(layers))
                chance = one.series.get("null_10")
                rows.append(
                    [f"{_named(place, condition)}, {variant}", words, _middle(layers), percent(one.series["top_1"][0]),
                     percent(one.value), None if not chance else f"{percent(chance[0])} to {percent(chance[1])}",
                     _said(turned, ".2f")]
                )  # fmt: skip
    if not rows:
        return []
    heads = ["what", "vector", "layer", "largest coordinate", "ten largest", "ten of a random vector", "read · write"]
    note = (
        "Share of squared norm in the largest coordinates. Scaled components are read-outs; “read · write” is the "
        "cosine with the vector that must be added to raise them, which a read-out is not."
    )
    return [Table(heads, rows, note)]


def _said(result: Result | None, digits: str) -> str | None:
    return None if result is None else f"{result.value:{digits}}".replace("-", "−")


def _overlaps(index: _Index) -> list[Block]:
    rows: list[list[Cell]] = []
    for r in index.where(metric="shift_overlap"):
        same = {"condition": r.condition, "layer": r.layer, "detail": r.detail}
        cosine = next(iter(index.where(metric="shift_cosine", **same)), None)
        low, high = r.series["null"]
        rows.append(
            [r.condition.replace("_", " "), r.layer, _said(r, ".2f"), f"{low:.2f} to {high:.2f}",
             None if r.control is None or r.control.p is None else f"{r.control.p:.2g}",
             _said(cosine, ".2f"),
             None if cosine is None else f"± {cosine.series['null'][1]:.2f}", r.n]
        )  # fmt: skip
    if not rows:
        return []
    detail = next(str(r.detail) for r in index.where(metric="shift_overlap"))
    words = (
        f"Within the language model, {detail}: mean cos² of the principal angles between the two subspaces, and the "
        "cosine of the two mean shifts, beside random subspaces and directions. The vision tower has a space of its "
        "own: no angle between it and the language model means anything, and none is given."
    )
    heads = ["fine-tune", "layer", "overlap", "random", "p", "cosine of means", "random ", "n"]
    return [Text("", [words]), Table(heads, rows, "The null is isotropic; the benign fine-tune is the fairer chance.")]
