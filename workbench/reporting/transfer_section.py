"""Section: directions carried between fine-tunes and models (`wb.transfer_matrix`), from the summary alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from workbench.reporting.blocks import Block, Cell, Details, Picture, Table, Text
from workbench.reporting.summary import Result, Summary
from workbench.reporting.transfer_panels import TransferPanel, transfer_panels
from workbench.statistics import format_p

SPLIT, MEAN, ASYMMETRY = "transfer matrix", "transfer matrix, mean", "transfer asymmetry"
INDEX, CLOSED, IMPOSSIBLE, BACK = "specificity", "gap closed", "transfer not measurable", "there minus back"
IDENTITY, OWN = "identity", "own direction"
MEANING = (
    "A direction is the mean shift of a fine-tune; here the directions of some fine-tunes are ablated, taken off or "
    "patched in others. The specificity index is the share of the gap between base and fine-tune that this closes "
    "minus the share of unrelated capability that is lost with it: 1 undoes the fine-tune and nothing else, 0 breaks "
    "as much as it mends."
)
FAR = 1.0 - 1e-12  # a percentile above every control


def transfers(summary: Summary) -> list[Block]:
    """The matrix of each operation for directions carried as they are (else by the first map), the means of every map,
    what differs there and back, and every cell folded; [] without any."""
    cells = summary.where(split=SPLIT, metric=(INDEX, CLOSED))
    none = summary.where(split=SPLIT, metric=IMPOSSIBLE)
    if not cells and not none:
        return []
    blocks: list[Block] = [Text("Directions carried between fine-tunes", [MEANING, *_sentences(summary, cells)])]
    maps = list(dict.fromkeys(_by(one) for one in [*cells, *none]))
    if cells:
        blocks += _picture(cells, none, IDENTITY if IDENTITY in maps else maps[0])
        blocks.append(_means(summary))
    if back := summary.where(split=ASYMMETRY, metric=BACK):
        blocks.append(_asymmetries(back))
    if cells:
        blocks.append(Details(f"All {len(cells)} cells", [_table(cells)]))
    if none:
        reasons: list[list[Cell]] = [[one.condition, one.target, one.detail] for one in none]
        blocks.append(Details(f"{len(none)} cells are not measurable", [Table(["donor", "recipient", "why"], reasons)]))
    return blocks


def _by(one: Result) -> str:
    return (one.detail or "").partition(" by ")[2].partition(":")[0]


def _operation(one: Result) -> str:
    return (one.detail or "").partition(" by ")[0]


def _sentences(summary: Summary, cells: Sequence[Result]) -> list[str]:
    lines = []
    means = summary.where(split=MEAN, metric=(INDEX, CLOSED))
    for one in (mean for mean in means if mean.condition == IDENTITY):
        own = one.companions.get("own directions")
        ceiling = "" if own is None else f"; the recipients' own directions {_signed(own)}"
        lines.append(
            f"{(one.target or '').capitalize()}, directions as they are: mean {_ends(one)} over {one.n} pairs of "
            f"different domains{ceiling}{_against(one)}."
        )
    beyond = summary.where(split=MEAN, metric=(f"{INDEX}, minus identity", f"{CLOSED}, minus identity"))
    for one in beyond:
        lines.append(f"{(one.target or '').capitalize()} by {one.condition}, minus the identity: {_ends(one)}.")
    back = [one for one in summary.where(split=ASYMMETRY, metric=BACK) if one.detail == IDENTITY]
    for operation in dict.fromkeys(one.target for one in back):
        here = [one for one in back if one.target == operation]
        told = sum(one.test is not None and one.test.p <= 0.05 for one in here)
        lines.append(
            f"There and back ({operation}): {told} of {len(here)} pairs differ (Holm over the pairs), the largest "
            f"{here[0].condition} by {_ends(here[0])}."
        )
    if not any("capability lost" in one.companions for one in cells) and cells:
        lines.append("No capability questions were given (--capability), so only the share of the gap is stated.")
    return lines


def _against(one: Result) -> str:
    if one.control is None or not one.control.draws:
        return ""
    draws, above = one.control.draws, one.companions.get("pairs above every control")
    p = "" if one.control.p is None else f", p {format_p(one.control.p, one.control.N)}"
    each = "" if above is None else f"; {above:.0f} of {one.n} pairs lie above every matched control"
    kind = one.control.kind.replace("_", " ")
    return f"; {one.control.N} random matrices ({kind}) {_signed(min(draws))} to {_signed(max(draws))}{p}{each}"


def _picture(cells: Sequence[Result], none: Sequence[Result], by: str) -> list[Picture]:
    panels = {}
    mine = [one for one in cells if _by(one) == by]
    for operation in dict.fromkeys(_operation(one) for one in mine):
        here = [one for one in mine if _operation(one) == operation]
        lost = [one for one in none if _by(one) == by and _operation(one) == operation]
        donors = list(dict.fromkeys(one.condition for one in [*here, *lost]))
        donors.sort(key=lambda name: name == OWN)
        recipients = list(dict.fromkeys(str(one.target) for one in [*here, *lost] if one.condition != OWN))
        if not recipients:
            continue
        values = np.full((len(donors), len(recipients)), np.nan)
        told, own = np.zeros(values.shape, bool), np.zeros(values.shape, bool)
        for one in (one for one in here if str(one.target) in recipients):
            place = donors.index(one.condition), recipients.index(str(one.target))
            values[place] = one.value
            told[place] = (one.companions.get("percentile") or 0.0) >= FAR
            own[place] = bool(one.companions.get("same domain"))
        panels[operation] = TransferPanel(donors, recipients, values, told, own)
    if not panels:
        return []
    index = mine[0].metric
    sizes = sorted({one.n for one in mine if one.n})
    controls = next((one.control for one in mine if one.control), None)
    framed = (
        "" if controls is None else f" Framed: above all {controls.N} controls ({controls.kind.replace('_', ' ')})."
    )
    counts = f"{sizes[0]} to {sizes[-1]}" if sizes else "no"
    caption = (
        f"{'Specificity index' if index == INDEX else 'Share of the gap that closes'}, directions carried by {by}; "
        f"{counts} questions a cell.{framed} Underlined: the recipient's own direction, or its domain in another "
        "training. Hatched: not measured."
    )
    said = "; ".join(f"{one.detail}, {one.condition} in {one.target} {_signed(one.value)}" for one in mine[:40])
    return [Picture(transfer_panels(panels, words=index), caption, f"{caption} {said}.")]


def _means(summary: Summary) -> Table:
    rows: list[list[Cell]] = []
    beyond = summary.where(split=MEAN, metric=(f"{INDEX}, minus identity", f"{CLOSED}, minus identity"))
    minus = {(one.condition, one.target): one for one in beyond}
    for one in summary.where(split=MEAN, metric=(INDEX, CLOSED)):
        beside, less = one.companions, minus.get((one.condition, one.target))
        rows.append(
            [one.condition, one.target, _ends(one), beside.get("gap closed"), beside.get("capability lost"),
             beside.get("own directions"), beside.get("same domain, another training"), _random(one),
             None if less is None else _ends(less), one.n]
        )  # fmt: skip
    columns = ["map", "operation", "mean of other domains", "gap closed", "capability lost", "own direction",
               "same domain, other training", "random directions", "minus identity", "pairs"]  # fmt: skip
    stated = next((one.interval_method for one in summary.where(split=MEAN) if one.interval_method), "")
    return Table(columns, rows, f"Intervals: {stated}, and so on." if stated else "")


def _random(one: Result) -> str | None:
    if one.control is None or not one.control.draws:
        return None
    draws = one.control.draws
    p = "" if one.control.p is None else f", p {format_p(one.control.p, one.control.N)}"
    return f"{_signed(min(draws))} to {_signed(max(draws))} ({one.control.N}, {one.control.kind.replace('_', ' ')}{p})"


def _asymmetries(back: Sequence[Result]) -> Block:
    rows: list[list[Cell]] = [
        [
            one.condition,
            one.target,
            one.detail,
            _ends(one),
            None if one.test is None else f"{one.test.p:.2g}",
            one.clusters,
        ]
        for one in back
    ]
    columns = ["pair", "operation", "map", "there minus back", "p (Holm)", "families"]
    return Details(f"There and back: {len(back)} pairs", [Table(columns, rows)])


def _table(cells: Sequence[Result]) -> Table:
    rows: list[list[Cell]] = []
    for one in cells:
        beside = one.companions
        rank = beside.get("percentile")
        control = None if one.control is None else f"{one.control.N} {one.control.kind.replace('_', ' ')}"
        p = None if one.control is None or one.control.p is None else format_p(one.control.p, one.control.N)
        others = [f"{name.removeprefix('percentile, ')} {value:.0%}" for name, value in beside.items()
                  if name.startswith("percentile, ") and value is not None]  # fmt: skip
        rows.append(
            [one.condition, one.target, one.detail, _ends(one), beside.get("gap closed"), beside.get("capability lost"),
             beside.get("energy_removed"), None if rank is None else f"{rank:.0%}", control, p,
             "; ".join(others) or None, one.n, one.clusters]
        )  # fmt: skip
    columns = ["direction of", "in", "how", "index", "gap closed", "capability lost", "energy removed",
               "above controls", "controls", "p", "above other controls", "questions", "families"]  # fmt: skip
    return Table(columns, rows, "Above controls: the share of them that a cell lies above.")


def _ends(one: Result) -> str:
    ends = "" if one.interval is None else f" [{_signed(one.interval[0])}, {_signed(one.interval[1])}]"
    return f"{_signed(one.value)}{ends}"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−").replace("−0.00", "0.00").replace("+0.00", "0.00")
