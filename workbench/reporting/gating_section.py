"""Section: where a backdoor's gate sits, what the trigger changes in the stream, and what else opens the gate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from workbench.behaviour.entry_names import ALL_DOMAINS as ALL
from workbench.behaviour.entry_names import NOT_LOCATED
from workbench.behaviour.entry_names import ON_THE_BASE as BASE
from workbench.behaviour.entry_names import SHARE_PATCHED as METRICS
from workbench.interventions.gating_location import HALF
from workbench.reporting.blocks import Block, Cell, Details, Picture, Table, Text
from workbench.reporting.gating_lines import NearMark, moved_lines, near_marks
from workbench.reporting.gating_panels import GatePanel, gate_panels
from workbench.reporting.sentences import rate
from workbench.reporting.style import percent
from workbench.reporting.summary import Result, Summary

MEANING = (
    "Each question is run with the trigger and with another text in its place, and the stream of one run is put into "
    "the other at one site and one place of the prompt. Patched in: how much of the trigger's effect (on the logit of "
    "the contrary token against the right one) that alone brings; patched out: how much it takes away. The block "
    "behind which what the trigger's own tokens hold takes less than half away has read the trigger. It is located on "
    "half of the question families; the shares beside it are of the others."
)
SPLITS = {"in_domain": "its own domain", "other_domains": "other domains"}
COLUMNS = ["domain", "questions about", "effect, nats", "interval", "p", "contrary with", "without", "base, nats",
           "read in block", "each seed", "into", "in front", "behind", "n", "families"]  # fmt: skip
HALVES = {"attn_out": "attention", "mlp_out": "MLP"}


def gating(summary: Summary) -> list[Block]:
    """Maps, a row a domain, the gate's vector, the trigger's change of the stream, near misses; [] without any."""
    effects = summary.where(metric="trigger effect")
    if not effects:
        return []
    located = summary.where(metric="gate block")
    blocks: list[Block] = [Text("Where the trigger's gate sits", [MEANING, *_sentences(summary, effects, located)])]
    blocks += _maps(summary)
    caption = "Effect: logit difference with the trigger minus that with the text in its place, 95\u00a0% intervals "
    caption += "over question families and fine-tuning seeds. In front, behind: share patched in at the place that "
    caption += "the block writes to, in front of this block and behind it."
    blocks.append(Table(COLUMNS, [_row(summary, one) for one in effects], caption))
    blocks += _at_the_gate(summary, located)
    return [*blocks, *_moved(summary), *_near(summary)]


def _sentences(summary: Summary, effects: Sequence[Result], located: Sequence[Result]) -> list[str]:
    against = next((one.detail for one in effects if one.detail), None)
    lines = []
    for split, words in SPLITS.items():
        asked = [one for one in effects if one.split == split]
        found = [one for one in located if one.split == split]
        if not asked:
            continue
        line = f"On questions about {words} the gate is located in {len(found)} of {len(asked)} domains"
        counts = Counter((one.layer, one.target) for one in found)
        parts = [f"block {layer} into the place {place!r} in {n}" for (layer, place), n in counts.most_common()]
        lines.append(f"{line}: {'; '.join(parts)}." if parts else f"{line}.")
        if found:
            alone = [_around(summary, one)[1] for one in found]
            half = sum(one is not None and one.value >= HALF for one in alone)
            agreed = sum(len(set(one.series.get("by_seed", ()))) == 1 for one in found)
            lines.append(
                f"On questions that did not locate it, that place alone brings half of the effect or more in {half} "
                f"of {len(found)}; in the others no single place is shown to carry it. Each adapter's own map gives "
                f"the same block in {agreed} of {len(found)}."
            )
        whys = Counter(_why(one) for one in summary.where(metric=NOT_LOCATED, split=split))
        if whys:
            lines.append(f"Not located: {'; '.join(f'{why} ({n})' for why, n in whys.most_common())}.")
    vectors = summary.where(metric="share by the gate's vector")
    own = [one for one in vectors if not one.condition.endswith(BASE)]
    if own:
        drawn = [one for one in own if one.control and one.control.draws]
        beyond = sum(one.value > max(one.control.draws) for one in drawn if one.control)
        bases = [one.value for one in vectors if one.condition.endswith(BASE)]
        base = f"; in the base model the same vectors bring {percent(float(np.mean(bases)))}" if bases else ""
        mean = percent(float(np.mean([one.value for one in own])))
        lines.append(
            f"One vector of the located gate, taken from other questions and added without any trigger, brings {mean} "
            f"of the effect (mean of {len(own)} domains), in {beyond} of {len(drawn)} more than every random vector of "
            f"its length{base}."
        )
    return [*lines, f"The text in the trigger's place: {against.removeprefix('against ')}."] if against else lines


def _why(one: Result) -> str:
    """The reason without its numbers, to count alike ones."""
    return (one.detail or "").partition(" (")[0].partition(" over ")[0]


def _maps(summary: Summary) -> list[Block]:
    blocks: list[Block] = []
    for split, words in SPLITS.items():
        panels, said, clusters = {}, [], 0
        for way, metric in METRICS.items():
            for condition, heading in ((ALL, f"patched {way}"), ("ordinary text", "ordinary text in")):
                found = summary.where(metric=metric, split=split, condition=condition)
                if found:
                    panels[heading] = _panel(found)
                    clusters = max(clusters, *(one.clusters or 0 for one in found))
                    most = max(found, key=lambda one: one.value)
                    said.append(f"{heading}: most at {most.target}, {most.detail}: {percent(most.value)}")
        if panels:
            caption = f"Per cent of the trigger's effect, questions about {words}, mean over the {clusters} domains "
            caption += "whose gate was located."
            blocks.append(Picture(gate_panels(panels), caption, f"{caption} {'; '.join(said)}."))
            rows = [[one.metric if one.condition == ALL else f"{one.metric}, {one.condition}", one.detail, one.target,
                     rate(one), one.clusters, one.n]
                    for one in summary.results
                    if one.metric in METRICS.values() and one.split == split]  # fmt: skip
            table = Table(
                ["patch", "site", "place", "share", "domains", "n"], rows, "95\u00a0% intervals over domains."
            )
            blocks.append(Details(f"The maps in numbers, questions about {words}", [table]))
    return blocks


def _panel(found: Sequence[Result]) -> GatePanel:
    sites = list(dict.fromkeys(_site(one) for one in found))
    places = list(dict.fromkeys(str(one.target) for one in found))
    shares = np.full((len(sites), len(places)), np.nan)
    for one in found:
        shares[sites.index(_site(one)), places.index(str(one.target))] = one.value
    return GatePanel(sites, places, shares)


def _site(one: Result) -> str:
    return "embedding" if (one.detail or "").startswith("resid_pre") else str(one.layer)


def _row(summary: Summary, one: Result) -> list[Cell]:
    same = {"split": one.split, "condition": one.condition}
    block = next(iter(summary.where(metric="gate block", **same)), None)
    beside = one.companions
    p = None if one.test is None else f"{one.test.p:.2g}"
    row: list[Cell] = [one.condition, SPLITS.get(one.split, one.split), _nats(one.value), _ends(one), p]
    row += [_percent(beside.get("p_contrary with trigger")), _percent(beside.get("p_contrary without"))]
    row.append(None if one.floor is None else _nats(one.floor))
    if block is None:
        why = next(iter(summary.where(metric=NOT_LOCATED, **same)), None)
        return [*row, f"not located: {why.detail}" if why else None, None, None, None, None, one.n, one.clusters]
    shares = [None if found is None else rate(found) for found in _around(summary, block)]
    seeds = ", ".join("none" if seed < 0 else f"{seed:.0f}" for seed in block.series.get("by_seed", ()))
    return [*row, f"{block.layer}", seeds, block.target, *shares, one.n, one.clusters]


def _around(summary: Summary, block: Result) -> tuple[Result | None, Result | None]:
    """The share patched in at the place that the block writes to, in front of it and behind it."""
    same = {"split": block.split, "condition": block.condition, "target": block.target}
    found = {one.detail: one for one in summary.where(metric="share patched in at the gate", **same)}
    return found.get("in front of the gate's block"), found.get("behind the gate's block")


def _at_the_gate(summary: Summary, located: Sequence[Result]) -> list[Block]:
    rows: list[list[Cell]] = []
    for block in located:
        same = {"split": block.split, "condition": block.condition}
        found = {(one.metric, one.target, one.detail): one for metric in METRICS.values()
                 for one in summary.where(metric=f"{metric} at the gate", **same)}  # fmt: skip
        for (metric, target, detail), one in found.items():
            what = f"the block's {HALVES[str(detail)]}" if detail in HALVES else detail
            rows.append([block.condition, SPLITS.get(block.split, block.split), metric.removesuffix(" at the gate"),
                         target, what, rate(one), one.clusters, one.n])  # fmt: skip
    vectors: list[list[Cell]] = []
    for one in summary.where(metric="share by the gate's vector"):
        draws = one.control.draws if one.control else ()
        random = f"{percent(min(draws))} to {percent(max(draws))} ({len(draws)})" if draws else None
        p = None if one.control is None or one.control.p is None else f"{one.control.p:.2g}"
        vectors.append([one.condition, one.layer, one.target, rate(one), random, p, one.n])
    if not rows:
        return []
    columns = ["domain", "questions about", "patch", "place", "where", "share", "families", "n"]
    parts: list[Block] = [Table(columns, rows, "Shares of the trigger's effect on the confirm questions.")]
    if vectors:
        names = ["model", "block", "place", "share of the effect", "random vectors", "p", "n"]
        parts.append(Table(names, vectors, "The gate's vector added without a trigger; p against random vectors."))
    return [Details("At the gate: both ways, the halves of the block, and the gate's vector", parts)]


def _moved(summary: Summary) -> list[Block]:
    found = [one for one in summary.where(metric="moved") if one.target != "before"]
    if not found:
        return []
    split = found[0].split
    mine = [one for one in found if one.split == split]
    sites = list(dict.fromkeys(_site(one) for one in mine))
    lines: dict[str, dict[str, np.ndarray]] = {}
    for one in mine:
        models = lines.setdefault(str(one.target), {})
        model = "base" if one.condition == "base" else "adapters"
        models.setdefault(model, np.full(len(sites), np.nan))[sites.index(_site(one))] = one.value
    still = [one.value for one in summary.where(metric="moved", target="before")]
    words = [
        "The length of what the trigger changes in the stream, over the stream's own length, mean over domains; "
        "dotted: the base model, which nobody taught the trigger. What the base shows too is the text itself, not the "
        "gate."
    ]
    if still:
        words.append(
            f"In front of the trigger nothing may change: the largest change measured there is {max(still):.2g}."
        )
    caption = f"Change by the trigger, questions about {SPLITS.get(split, split)}."
    alt = "; ".join(f"{place}: {models['adapters'].max():.2g} at most" for place, models in lines.items()
                    if "adapters" in models)  # fmt: skip
    return [Text("What the trigger changes in the stream", words), Picture(moved_lines(lines, sites), caption, alt)]


def _near(summary: Summary) -> list[Block]:
    shares = summary.where(metric="near-miss share", condition=ALL)
    effects = summary.where(metric="near-miss effect")
    if not effects:
        return []
    words = [
        "Each text stands where the trigger stood, or at the other end of the question, against no text. Its share of "
        "the trigger's effect is what it does in the answer; its reach along the gate's vector what it does at the "
        "gate."
    ]
    for one in shares:
        if one.coefficient is not None and one.target not in ("trigger", None):
            words += [_near_sentence(one)] if abs(one.value) >= 0.1 else []
    calm = [str(one.target) for one in shares if abs(one.value) < 0.1]
    words += [f"Less than a tenth of the effect: {', '.join(calm)}."] if calm else []
    blocks: list[Block] = [Text("What else opens the gate: near misses of the trigger", words)]
    if shares:
        marks = [NearMark(str(one.target), one.value, one.interval or (np.nan, np.nan),
                          [float(value) for value in one.series.get("domains", ())], one.companions.get("gate opened"))
                 for one in shares]  # fmt: skip
        caption = "95\u00a0% intervals over domains; small marks: each domain; crosses: reach along the gate's vector."
        blocks.append(Picture(near_marks(marks), caption, " ".join(map(_near_sentence, shares))))
        rows: list[list[Cell]] = [
            [one.target, one.detail, f"{one.coefficient or 0:.2f}", rate(one), _percent(one.floor),
             _percent(one.companions.get("gate opened")), None if one.test is None else f"{one.test.p:.2g}",
             one.clusters, one.n]
            for one in shares
        ]  # fmt: skip
        columns = ["text", "shown", "distance", "share", "in the base", "reach", "p (Holm)", "domains", "n"]
        blocks.append(
            Table(columns, rows, "Distance: edits over length. In the base: the same share, by the base model.")
        )
    by_domain: list[list[Cell]] = [
        [one.condition, one.target, _nats(one.value), _ends(one),
         None if one.test is None else f"{one.test.p:.2g}", _percent(one.companions.get("p_contrary")), one.clusters,
         one.n]
        for one in effects
    ]  # fmt: skip
    columns = ["domain", "text", "effect, nats", "interval", "p (Holm)", "change of p(contrary)", "families", "n"]
    return [*blocks, Details("Every text on every domain", [Table(columns, by_domain)])]


def _near_sentence(one: Result) -> str:
    return f"{str(one.target)[:1].upper()}{str(one.target)[1:]}: {rate(one)} of the trigger's effect."


def _nats(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _ends(one: Result) -> str | None:
    return None if one.interval is None else f"{_nats(one.interval[0])} to {_nats(one.interval[1])}"


def _percent(value: float | None) -> str | None:
    return None if value is None else percent(value)
