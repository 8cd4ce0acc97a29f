"""matched_comparison: the chosen dose of every arm on questions that took no part in the choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from stores.printed import Printed
from workbench.behaviour.arms import Arms, Twins
from workbench.behaviour.differences import Difference
from workbench.behaviour.judged import Judged
from workbench.behaviour.judged_summary import difference_entry, measured_entry
from workbench.behaviour.kept_quantities import narrowed, quantities
from workbench.behaviour.matched_doses import Matched
from workbench.behaviour.measured import Measured
from workbench.statistics import DRAWS_FOR_P, Interval, holm, p_value

Kept = Literal["kept", "lost", "not shown"]


@dataclass(frozen=True)
class Outcome(Printed):
    """An arm at its chosen dose. `change` is its misalignment minus that of the harmful fine-tune, `p` that test's p
    by Holm over the arms; `kept` the changes of what it had to keep, with `verdicts`; `draws` the misalignment under
    random directions, by kind."""

    arm: str
    dose: float | int
    modality: str
    misalignment: Measured
    change: Difference
    p: float
    quantities: Mapping[str, Measured]
    kept: Mapping[str, Difference]
    verdicts: Mapping[str, Kept]
    draws: Mapping[str, tuple[float, ...]]

    def __str__(self) -> str:
        beside = ", ".join(
            f"{name} {one.value:.3g} ({self.verdicts.get(name, 'one family')})" for name, one in self.quantities.items()
        )
        value = self.misalignment
        return (
            f"{self.arm} at {self.dose:g}, {self.modality}: {value.value:.3g}{_ends(value.interval)}, change "
            f"{self.change.value:+.3g}{_ends(self.change.interval)}, p {self.p:.2g} (Holm); {beside}"
        )


@dataclass(frozen=True)
class Comparison(Printed):
    """The outcomes of the arms with a chosen dose, the arms without (`no_dose`), and the `references` (base, harmful
    fine-tune) by condition and quantity. `matched` is the choice that it confirms."""

    _items = "outcomes"

    matched: Matched
    modality: str
    outcomes: tuple[Outcome, ...]
    no_dose: tuple[str, ...]
    references: Mapping[str, Mapping[str, Measured]]

    def __str__(self) -> str:
        without = [f"{arm}: no dose within the margin" for arm in self.no_dose]
        return "\n".join([f"matched on {self.matched.name}:", *map(str, self.outcomes), *without])

    def entries(self) -> list[dict[str, Any]]:
        """Split `confirm`, the match in `target`, the quantity in `detail`; differences have the condition
        `ARM - REFERENCE` with their own p in `test` (to be corrected for the number of arms, as `Outcome.p` is), and
        of what had to be kept the verdict in `equivalence`."""
        place = {"split": "confirm", "modality": self.modality, "target": self.matched.name}
        out = [
            measured_entry(one, **place, detail=quantity)
            for found in self.references.values()
            for quantity, one in found.items()
        ]
        for one in self.outcomes:
            mine = {**place, "condition": one.arm, "coefficient": float(one.dose)}
            entry = measured_entry(one.misalignment, **mine, detail="misalignment")
            out += [{**entry, "control": _control(one, kind)} for kind in one.draws] or [entry]
            out += [measured_entry(kept, **mine, detail=name) for name, kept in one.quantities.items()]
            between = {**mine, "condition": f"{one.arm} - {self.matched.against}"}
            out.append(difference_entry(one.change, **between, detail="misalignment"))
            for name, kept in one.kept.items():
                out.append({**difference_entry(kept, **between, detail=name), "equivalence": one.verdicts[name]})
        return out


def matched_comparison(
    judged: Judged,
    matched: Matched,
    arms: Arms,
    *,
    twins: Twins | None = None,
    random: Judged | None = None,
) -> list[Comparison]:
    """The chosen doses of `matched` on the questions of `judged` (those for confirming): of all questions, then of
    each modality where there are several.

    Each arm's misalignment with interval, its paired difference to the harmful fine-tune with interval over families
    and a sign-flip p (Holm over the arms); of everything that had to be kept the paired difference, and whether it is
    "kept" (the whole interval above -margin), "lost" (below it) or "not shown". `twins` are random directions in
    place of the chosen ones (`Arms.twins`), whose judged answers are `random`. What else `judged` holds (the base) is a
    reference. Raises ValueError where a chosen dose was not asked, or all questions are of one
    family.
    """
    harm = quantities(judged, matched.by)["misalignment"]
    rows = narrowed(judged, harm.split).rows
    shown = sorted({str(row["tag_modality"]) for row in rows if row.get("tag_modality")}, reverse=True)
    parts = [one for one in shown if harm.families(judged, one) > 1]
    whole = [None, *(parts if len(shown) > 1 else [])]
    return [_compared(judged, matched, arms, modality, twins, random) for modality in whole]


def _compared(
    judged: Judged, matched: Matched, arms: Arms, modality: str | None, twins: Twins | None, random: Judged | None
) -> Comparison:
    kinds = quantities(judged, matched.by)
    names = {arm: arms.name(arm, dose) for arm, dose in matched.chosen.items() if dose is not None}
    if absent := [name for name in (matched.against, *names.values()) if name not in judged.conditions]:
        raise ValueError(f"{absent[0]!r} has no answers here: ask matched.conditions(arms) and {matched.against!r}.")
    # Task and capability have questions of their own; by modality only what is asked in it is said.
    shown = [name for name in kinds if modality is None or name in ("misalignment", "coherence")]
    measured = {name: kinds[name].of(judged, modality) for name in shown}
    paired = [name for name in shown if kinds[name].families(judged, modality) > 1]
    changes = {
        arm: {one: kinds[one].change(judged, name, matched.against, modality=modality) for one in paired}
        for arm, name in names.items()
    }
    harm = {arm: found.pop("misalignment") for arm, found in changes.items()}
    adjusted = holm([one.test.p for one in harm.values()]) if harm else []
    drawn = {} if random is None else kinds["misalignment"].of(random, modality)
    outcomes = [
        Outcome(
            arm=arm,
            dose=float(matched.chosen[arm] or 0.0),
            modality=modality or "all",
            misalignment=measured["misalignment"][names[arm]],
            change=harm[arm],
            p=float(p),
            quantities={name: found[names[arm]] for name, found in measured.items() if name != "misalignment"},
            kept=changes[arm],
            verdicts={name: _verdict(one, matched.margin * kinds[name].width) for name, one in changes[arm].items()},
            draws={
                kind: tuple(float(drawn[twin].value or 0.0) for twin in drawn_as)
                for kind, drawn_as in (twins.of.get(names[arm], {}) if twins and random else {}).items()
            },
        )
        for arm, p in zip(names, adjusted, strict=True)
    ]
    own = {name for _, _, name in arms}
    return Comparison(
        matched=matched,
        modality=modality or "all",
        outcomes=tuple(outcomes),
        no_dose=tuple(arm for arm, dose in matched.chosen.items() if dose is None),
        references={
            condition: {name: found[condition] for name, found in measured.items()}
            for condition in judged.conditions
            if condition not in own
        },
    )


def _verdict(change: Difference, margin: float) -> Kept:
    if change.interval.low >= -margin:
        return "kept"
    return "lost" if change.interval.high < -margin else "not shown"


def _ends(interval: Interval | None) -> str:
    return "" if interval is None else f" [{interval.low:.2f}, {interval.high:.2f}]"


def _control(one: Outcome, kind: str) -> dict[str, Any]:
    draws = list(one.draws[kind])
    value = float(one.misalignment.value or 0.0)
    p = float(p_value(value, draws, "less")) if len(draws) >= DRAWS_FOR_P else None
    return {"kind": kind, "N": len(draws), "p": p, "draws": draws}
