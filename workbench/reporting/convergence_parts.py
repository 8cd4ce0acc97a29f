"""Tables: the general and the narrow part of each domain's direction, and what they do when they are added."""

from __future__ import annotations

from workbench.reporting.blocks import Block, Cell, Details, Table, Text
from workbench.reporting.summary import Result, Summary
from workbench.statistics import format_p

PARTS = ("own", "general", "narrow")
SIDES = ("own domain", "other domains")
SHARE = "General and narrow parts"


def general_parts(summary: Summary) -> list[Block]:
    """How much of each direction lies along what the other domains have in common, at the layer that is shown."""
    found = summary.where(metric="convergence_general")
    if not found:
        return []
    layer = next((one.layer for one in summary.where(metric="convergence_cosine", detail="plain")), found[0].layer)
    here = sorted((one for one in found if one.layer == layer), key=lambda one: -one.value)
    rows: list[list[Cell]] = [
        [one.condition, _two(one.value), None if not one.series.get("null") else _two(float(one.series["null"][1])),
         _p(one), one.n] for one in here
    ]  # fmt: skip
    first, last = here[0], here[-1]
    said = (
        f"At layer {layer} between {_two(last.value)} ({last.condition}) and {_two(first.value)} ({first.condition}) "
        "of a direction's squared length lies along the mean of the other domains' directions; the rest is narrow."
    )
    heads = ["domain", "general share", "95 % of chance", "p", "other domains"]
    return [Text(SHARE, [said], level=3), Table(heads, rows)]


def effects(summary: Summary) -> list[Block]:
    """What the whole, the general and the narrow direction change at one length, and what noise leaves of it."""
    found = summary.where(metric="convergence_effect")
    if not found:
        return []
    cells = {(str(one.target), one.condition, one.split): one for one in found}
    domains = list(dict.fromkeys(str(one.target) for one in found))
    rows: list[list[Cell]] = []
    for domain in domains:
        for side in SIDES:
            own = [cells.get((domain, part, side)) for part in PARTS]
            if any(own):
                first = next(one for one in own if one)
                rows.append([domain, side, *map(_change, own), first.n, first.clusters])
    chosen = [{part: cells.get((domain, part, "other domains")) for part in PARTS} for domain in domains]
    more = [one for one in chosen if one["general"] and one["narrow"]]
    ahead = sum(one["general"].value > one["narrow"].value for one in more)  # type: ignore[union-attr]
    what = (found[0].detail or "").removesuffix(", added to the base")
    said = (
        f"Added to the base at one length, what the *other* domains have in common moves answers about other domains "
        f"further than the narrow part does in {ahead} of {len(more)} domains, which share that direction and are no "
        f"independent cases ({what}; in brackets 95 % over families "
        "of questions that fitted no direction; p against random directions of that length)."
    )
    beside: list[list[Cell]] = []
    for one in found:
        kept = dict(zip(one.series.get("noise", ()), one.series.get("kept", ()), strict=False))
        draws = one.control.draws if one.control else ()
        chance = None if not draws else f"{_two(min(draws))} to {_two(max(draws))}"
        lasting = "; ".join(f"{noise:g}: {_two(float(share))}" for noise, share in kept.items()) or None
        kl = one.series.get("kl")
        beside.append([str(one.target), one.condition, one.split, chance, lasting, None if not kl else f"{kl[0]:.2f}"])
    heads = ["domain", "part", "questions", "random, least to most", "share left under noise", "KL on neutral prompts"]
    note = "Noise: an orthogonal vector of that many times the part's length is added as well. KL in nats."
    columns = ["domain", "questions", *PARTS, "n", "families"]
    return [
        Text("", [said]),
        Table(columns, rows),
        Details("Chance, noise and divergence", [Table(heads, beside, note)]),
    ]


def _change(one: Result | None) -> str | None:
    if one is None:
        return None
    ends = "" if one.interval is None else f" ({_two(one.interval[0])} to {_two(one.interval[1])})"
    p = _p(one)
    return f"{_two(one.value)}{ends}" + ("" if p is None else f", {p}")


def _p(one: Result) -> str | None:
    return None if one.control is None or one.control.p is None else f"p {format_p(one.control.p, one.control.N)}"


def _two(value: float) -> str:
    return f"{value + 0.0:.2f}".replace("-0.00", "0.00").replace("-", "−")
