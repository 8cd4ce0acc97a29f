"""Section: mitigations at matched cost, and what became of the harm after the repair; from the summary alone."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.reporting.blocks import Block, Cell, Details, Picture, Table, Text
from workbench.reporting.mitigation_figure import Chosen, Mark, chosen_doses, cost_of_mitigation
from workbench.reporting.style import percent
from workbench.reporting.summary import Result, Summary
from workbench.statistics import holm

COUNTS, VERDICT, AFTER = "doses within margin", "verdict after the repair", "after the repair"
QUANTITIES = {"coherence": "Coherent answers", "task": "The fine-tuned task", "capability": "Unrelated right answers"}
SCALED = ("paper_a", "aligned_mean")  # metrics from 0 to 100, no rates
REFERENCES = {"base": "base", "tuned": "harmful fine-tune"}
TESTS = {
    "left": "repaired model, minus the base",
    "old": "base with the old direction added, minus the base",
    "new": "base with the new direction added, minus the base",
    "old ablated": "repaired model without the old direction, minus with it",
    "new ablated": "repaired model without the new direction, minus with it",
}


def mitigations(summary: Summary) -> list[Block]:
    """The cost of every dose on dev questions, the chosen doses on the others, and what is left after the repair; []
    for a summary without mitigations."""
    counts = summary.where(metric=COUNTS)
    if not counts:
        return []
    matches = list(dict.fromkeys(str(one.target) for one in counts))
    blocks: list[Block] = [Text("Mitigations at matched cost", [_method(counts)]), *_costs(summary, counts, matches)]
    for match in matches:
        blocks += _confirmed(summary, match, [one for one in counts if one.target == match])
    return blocks + _after(summary)


def _method(counts: Sequence[Result]) -> str:
    return (
        "Each arm has several doses. On dev questions it gets the one with the least misalignment whose loss against "
        f"the harmful fine-tune is within the {counts[0].detail} for everything that is to be kept; only that dose is "
        "measured on the other questions. The task is the fine-tuned behaviour in its own domain: a repair with right "
        "answers to the same questions undoes it by its data, and has no dose that keeps it unless it does little. "
        "Fine-tuning from the base repairs nothing: it never saw the harm. A scaled adapter has no random control."
    )


def _costs(summary: Summary, counts: Sequence[Result], matches: Sequence[str]) -> list[Block]:
    chosen = {(one.condition, one.coefficient) for one in counts if one.target == matches[0]}
    dev = [one for one in summary.where(split="dev") if one.detail]
    panels: dict[str, dict[str, list[Mark]]] = {}
    references: dict[str, dict[str, Mark]] = {}
    harm = {(one.condition, one.coefficient): one for one in dev if one.detail == "misalignment"}
    for one in dev:
        key = (one.condition, one.coefficient)
        if one.detail not in QUANTITIES or key not in harm:
            continue
        mark = Mark(one.value, harm[key].value, one.interval, harm[key].interval, key in chosen)
        if one.coefficient is None and one.condition in REFERENCES:
            references.setdefault(QUANTITIES[one.detail], {})[REFERENCES[one.condition]] = mark
        else:
            panels.setdefault(QUANTITIES[one.detail], {}).setdefault(one.condition, []).append(mark)
    if not panels:
        return []
    # Capability falls with coherence, and the table has it.
    shown = dict(list(panels.items())[:2])
    rate = next(iter(harm.values())).metric not in SCALED
    caption = (
        "Every dose on dev questions, gentlest first along a line; filled: the dose chosen when "
        f"{matches[0]} are matched. Lower right is best. Bars: 95\u00a0% intervals."
    )
    return [Picture(cost_of_mitigation(shown, references, rate=rate), caption, f"{caption} {_spoken(counts)}")]


def _spoken(counts: Sequence[Result]) -> str:
    said = [f"{one.condition}: {one.value:g} of {one.n} doses within the margin" for one in counts]
    return "; ".join(dict.fromkeys(said))


def _confirmed(summary: Summary, match: str, counts: Sequence[Result]) -> list[Block]:
    found = summary.where(split="confirm", target=match)
    harm = {(one.condition, one.modality): one for one in found if one.detail == "misalignment"}
    shown = list(dict.fromkeys(one.modality for one in found))
    against = next((one.condition.partition(" - ")[2] for one in found if " - " in one.condition), "tuned")
    arms = [one.condition for one in counts if one.coefficient is not None and (one.condition, "all") in harm]
    changes = [harm[f"{arm} - {against}", "all"] for arm in arms]
    adjusted = (
        dict(zip(arms, holm([one.test.p if one.test else 1.0 for one in changes]).tolist(), strict=True))
        if arms
        else {}
    )
    kept = {(one.condition, one.detail): one for one in found if one.detail in QUANTITIES and one.modality == "all"}
    rows: list[list[Cell]] = []
    for name in (*REFERENCES, *arms):
        if (name, "all") not in harm:
            continue
        whole, change = harm[name, "all"], harm.get((f"{name} - {against}", "all"))
        dose = next(
            (f"{one.coefficient:g}" for one in counts if one.condition == name and one.coefficient is not None), None
        )
        rows.append(
            [REFERENCES.get(name, name), dose]
            + [_with_ends(harm.get((name, modality)), whole.metric) for modality in shown]
            + [None if change is None else _change(change), None if name not in adjusted else f"{adjusted[name]:.2g}"]
            + [_kept(kept.get((name, one)), kept.get((f"{name} - {against}", one))) for one in QUANTITIES]
            + [_random(whole)]
        )
    columns = ["arm", "dose", *shown, "change", "p, Holm", *QUANTITIES.values(), "random directions"]
    without = [one.condition for one in counts if one.coefficient is None]
    words = [_sentence(match, arms, harm, changes, adjusted, without)]
    table = Table(columns, rows, "Questions that took no part in the choice of a dose. " + _size(found))
    blocks: list[Block] = [Text(f"Matched on {match}", words), table]
    if arms:
        rate = next(iter(harm.values())).metric not in SCALED
        panels = {
            modality: {arm: _chosen(harm[arm, modality]) for arm in arms if (arm, modality) in harm}
            for modality in shown
        }
        lines = {
            modality: {
                said: harm[name, modality].value for name, said in REFERENCES.items() if (name, modality) in harm
            }
            for modality in shown
        }
        caption = (
            f"Misalignment at the chosen doses, matched on {match}; 95\u00a0% intervals over families of questions."
        )
        blocks.append(Picture(chosen_doses(panels, lines, rate=rate), caption, f"{caption} {words[0]}"))
    return blocks


def _sentence(
    match: str,
    arms: Sequence[str],
    harm: dict[tuple[str, str], Result],
    changes: Sequence[Result],
    adjusted: dict[str, float],
    without: Sequence[str],
) -> str:
    lower = [arm for arm, one in zip(arms, changes, strict=True) if one.value < 0 and adjusted[arm] <= 0.05]
    order = sorted(lower, key=lambda arm: harm[arm, "all"].value)
    named = ", ".join(f"{arm} (to {_number(harm[arm, 'all'].value, harm[arm, 'all'].metric)})" for arm in order)
    words = f"With {match} matched, {len(lower)} of {len(arms)} arms lower misalignment (p ≤ 0.05, Holm)"
    words += f": {named}." if named else "."
    if "tuned" in {name for name, _ in harm}:
        words += f" The harmful fine-tune has {_number(harm['tuned', 'all'].value, harm['tuned', 'all'].metric)}."
    if without:
        words += f" No dose within the margin: {', '.join(without)}."
    return words


def _after(summary: Summary) -> list[Block]:
    verdict = next(iter(summary.where(metric=VERDICT)), None)
    if verdict is None:
        return []
    rows: list[list[Cell]] = [
        [TESTS.get(str(one.detail), one.detail), _change(one), None if one.test is None else f"{one.test.p:.2g}",
         _random(one), one.n, one.clusters]
        for one in summary.where(target=AFTER) if one.metric != VERDICT
    ]  # fmt: skip
    shares = [one for one in summary.where(split="fit", condition="repaired") if one.interval is not None]
    layers: list[list[Cell]] = [
        [
            one.layer,
            one.metric,
            f"{one.value:.2f}",
            f"[{one.interval[0]:.2f}, {one.interval[1]:.2f}]",
            one.detail,
            one.n,
        ]
        for one in shares
        if one.interval is not None
    ]
    words = (
        "The repaired model's shift from the base is split into its part along the harmful shift and the rest; both "
        "directions, at equal length, are given to the base at the strength that induces most on dev questions. "
        "A direction that is there need not carry the harm: only what it does to answers decides."
    )
    said = str(verdict.detail)
    return [
        Text("What became of the harm after the repair", [f"{said[:1].upper()}{said[1:]}.", words]),
        Table(["what is compared", "change of misalignment", "p", "random directions", "pairs", "families"], rows),
        Details("The repaired model's shift, layer by layer",
                [Table(["layer", "measure", "value", "interval", "stated", "prompts"], layers)]),
    ]  # fmt: skip


def _number(value: float, metric: str) -> str:
    return f"{value:.1f}" if metric.startswith(SCALED) else percent(value)


def _with_ends(one: Result | None, metric: str) -> str | None:
    if one is None:
        return None
    ends = "" if one.interval is None else f" [{', '.join(_number(end, metric) for end in one.interval)}]"
    return f"{_number(one.value, metric)}{ends}"


def _change(one: Result) -> str:
    ends = "" if one.interval is None else f" [{one.interval[0]:+.2f}, {one.interval[1]:+.2f}]"
    return f"{one.value:+.2f}{ends}"


def _kept(one: Result | None, change: Result | None) -> str | None:
    if one is None:
        return None
    return _with_ends(one, one.metric) if change is None else f"{_number(one.value, one.metric)}, {change.equivalence}"


def _random(one: Result) -> str | None:
    if one.control is None or not one.control.draws:
        return None
    low, high = min(one.control.draws), max(one.control.draws)
    return f"{low:.2f} to {high:.2f} ({one.control.N}, {one.control.kind.replace('_', ' ')})"


def _chosen(one: Result) -> Chosen:
    draws = one.control.draws if one.control is not None else ()
    return Chosen(one.value, one.interval, (min(draws), max(draws)) if draws else None)


def _size(found: Sequence[Result]) -> str:
    sizes = {
        (one.n, one.clusters)
        for one in found
        if one.detail == "misalignment" and one.modality == "all" and one.unscored is not None
    }
    return " ".join(f"{n} answers in {clusters} families." for n, clusters in sorted(sizes, key=str))
