"""transfers_into: all that is carried into one recipient, done to it on the questions of its effect and of unrelated
capability: one planned sweep each, and one table of patches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from hooks.backends.hf import HuggingFaceModel
from hooks.prompt import Prompt
from stores.printed import Printed
from workbench.interventions.cells import Intervention
from workbench.interventions.measuring import Scorer
from workbench.interventions.placement import Layers
from workbench.interventions.specificity import Families, gap_of
from workbench.interventions.sweep import sweep
from workbench.interventions.transfer_matrix_cells import Carried, Key, acting, edits_of, twins_of
from workbench.interventions.transfer_matrix_patch import Patch, patch_table
from workbench.statistics import cluster_means
from workbench.subspace.rows import RowSource

UNEDITED = Key("", "", "none")
BESIDE = ("energy_removed", "kl_neutral", "p_right")  # what a cell's rows also state


@dataclass(frozen=True)
class Readings(Printed):
    """What was read of every cell on every question: `values` [cell, question], NaN where there is no number; `beside`
    are means of what else a cell's rows state."""

    questions: tuple[Prompt, ...]
    cells: Mapping[Key, int]
    values: Float[np.ndarray, "cell question"]
    beside: Mapping[Key, Mapping[str, float]]

    def with_facts(self, facts: Mapping[Key, Mapping[str, float]]) -> Readings:
        """The same with more beside its cells."""
        return replace(self, beside={key: {**own, **facts.get(key, {})} for key, own in self.beside.items()})

    def of(self, *cells: Key) -> Float[np.ndarray, "cell question"]:
        """The values of these cells; KeyError for one that was not read."""
        return self.values[[self.cells[key] for key in cells]]


def by_family(
    questions: Sequence[Prompt], values: Float[np.ndarray, "cell question"], without: Collection[str] = ()
) -> Families:
    """Means by question family, one row a cell, of the questions that are about none of the domains `without` and have
    a number in every cell."""
    whole = np.atleast_1d(np.isfinite(values).all(axis=0))
    chosen = [n for n, one in enumerate(questions) if whole[n] and one.tags.get("domain") not in without]
    if not chosen:
        return Families((), np.zeros((len(values), 0)))
    names = [family_of(questions[n]) for n in chosen]
    means = np.stack([cluster_means(row[chosen], names) for row in values])
    return Families(tuple(dict.fromkeys(names)), means)


@dataclass(frozen=True)
class Transfers(Printed):
    """All that was done to one recipient. `base` is what it was tuned from, on the questions of the effect; `domain`
    and `domains` say what the recipient and each donor were tuned on; `own` names donors that are the recipient
    itself; `measure` is what was read."""

    recipient: str
    domain: str | None
    base: Readings
    effect: Readings
    capability: Readings | None
    domains: Mapping[str, str | None]
    own: tuple[str, ...]
    measure: str

    @property
    def keys(self) -> list[Key]:
        """The cells themselves, without their controls."""
        return [key for key in self.effect.cells if key != UNEDITED and key.control is None]

    def draws(self, key: Key) -> dict[str, list[Key]]:
        """The control runs of a cell, by kind."""
        found: dict[str, list[Key]] = {}
        for one in self.effect.cells:
            if one.control is not None and one[:3] == key[:3]:
                found.setdefault(one.control, []).append(one)
        return found


def transfers_into(
    recipient: str,
    tuned: HuggingFaceModel,
    base: HuggingFaceModel,
    carried: Sequence[Carried],
    questions: Sequence[Prompt],
    *,
    to: str | Path,
    steer_at: Layers,
    coefficient: float | int = -1.0,
    domain: str | None = None,
    capability: Sequence[Prompt] = (),
    activations: RowSource | None = None,
    controls: int = 0,
    orthogonal: int = 0,
    least: float | int = 0.0,
    judge: Scorer | None = None,
    neutral: str | Path | Sequence[Prompt] | None = None,
    max_new_tokens: int = 16,
    max_tokens: int = 8192,
    seed: int = 0,
    progress: bool = False,
    explain: bool = False,
) -> Transfers:
    """Every direction of `carried`, ablated, added and patched in the fine-tune `tuned`, whose base is `base`.

    What is read is P(contrary) at the deciding token of questions with the tags `right` and `contrary`; other questions
    are answered, and the `judge`'s score is read. `capability` are questions of the same two tags that should stay
    answered: P(right). Each cell gets `controls` random twins: matched in energy on `activations` (the fine-tune's,
    at all positions) for what removes, of equal length for steering; and `orthogonal` ones. All of a recipient is one
    sweep for each set of questions (`explain` prints its plan) beside one table of patches; both resume in `to`.

    Raises NotMeasurable, before anything is edited, where the fine-tune has no gap to its base of at least `least`
    (outside its own `domain`); ValueError for questions without tags and no judge, and for capability without tags.
    """
    to, tags = Path(to), _tagged(questions)
    if not tags and judge is None:
        raise ValueError("the questions have no tags right and contrary: expected a judge of written answers.")
    if capability and not _tagged(capability):
        raise ValueError("the capability questions need the tags right and contrary: P(right) is read there.")
    cells = edits_of(carried, steer_at, float(coefficient))
    twins = {key: twins_of(key, one, activations, controls, orthogonal, seed) for key, (one, _) in cells.items()}
    edits: dict[Key, Intervention | Patch] = {key: edit for key, (_, edit) in cells.items()}
    for key, drawn in twins.items():
        points = cells[key][0].points
        edits |= {twin: acting(v, key.operation, points, steer_at, float(coefficient)) for twin, v in drawn.items()}
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "max_tokens": max_tokens, "seed": seed}
    read = _Reading(tuned, edits, to, options, neutral, progress, explain)
    scored = None if tags else judge
    name, measure = ("p_contrary", "P(contrary)") if tags else ("score", f"score of {getattr(judge, 'name', 'judge')}")
    before, after = (
        _readings(questions, _unedited(one, questions, scored, to / which, options), name, lambda row: UNEDITED)
        for which, one in (("base", base), ("tuned", tuned))
    )
    own = [] if domain is None else [domain]
    told = by_family(questions, np.vstack([before.of(UNEDITED), after.of(UNEDITED)]), own)
    gap_of(Families(told.names, told.values[0]), Families(told.names, told.values[1]), least)
    return Transfers(
        recipient,
        domain,
        before,
        read.of("effect", questions, name, scored).with_facts({key: one.beside for key, (one, _) in cells.items()}),
        read.of("capability", capability, "p_right", None) if capability else None,
        {one.donor: one.domain for one in carried},
        tuple(dict.fromkeys(one.donor for one in carried if one.own)),
        measure,
    )


@dataclass(frozen=True)
class _Reading:
    """One set of questions under all cells: sweep and patches as one `Readings`."""

    model: HuggingFaceModel
    edits: Mapping[Key, Intervention | Patch]
    to: Path
    options: Mapping[str, Any]
    neutral: Any
    progress: bool
    explain: bool

    def of(self, name: str, questions: Sequence[Prompt], column: str, judge: Scorer | None) -> Readings:
        swept = {key: edit for key, edit in self.edits.items() if not isinstance(edit, Patch)}
        parents = [key for key in swept if key.control is None]
        # What an ablation leaves is proved once, on the effect: elsewhere the cells go as twins, which are not proved.
        own = parents if name == "effect" else []
        # Twins of one kind of one cell share a name in the table, and their order is their draw.
        drawn: dict[str, list[Key]] = {}
        for key in swept:
            if key not in own:
                number = parents.index(key._replace(control=None, draw=None))
                drawn.setdefault(f"{key.control or 'itself'}|{number}", []).append(key)
        table = sweep(
            self.model,
            questions,
            [swept[key] for key in own],
            judge=judge,
            twins={kind: [swept[key] for key in keys] for kind, keys in drawn.items()},
            neutral=self.neutral if name == "effect" else None,
            to=self.to / name,
            progress=self.progress,
            explain=self.explain,
            **self.options,
        )
        cells = [UNEDITED, *own]

        def key_of(row: Mapping[str, Any]) -> Key:
            return cells[row["cell"]] if row["control"] is None else drawn[row["control"]][row["draw"]]

        found = _readings(questions, table.rows(), column, key_of)
        if patches := {key: edit for key, edit in self.edits.items() if isinstance(edit, Patch)}:
            to, keys = self.to / f"{name}-patches", list(patches)
            rows = patch_table(self.model, questions, list(patches.values()), judge=judge, to=to, **self.options).rows()
            more = _readings(questions, rows, column, lambda row: keys[row["cell"]])
            places = {key: len(found.cells) + n for key, n in more.cells.items()}
            values = np.vstack([found.values, more.values])
            found = Readings(found.questions, {**found.cells, **places}, values, {**found.beside, **more.beside})
        return found


def _readings(
    questions: Sequence[Prompt], rows: Iterable[Mapping[str, Any]], column: str, key_of: Callable[[Any], Key]
) -> Readings:
    listed = list(rows)
    cells = {key: n for n, key in enumerate(dict.fromkeys(key_of(row) for row in listed))}
    place = {question.id: n for n, question in enumerate(questions)}
    values = np.full((len(cells), len(questions)), np.nan)
    beside: dict[Key, dict[str, list[float]]] = {key: {} for key in cells}
    for row in listed:
        key = key_of(row)
        if row.get(column) is not None:
            values[cells[key], place[row["prompt"]]] = row[column]
        if key.control is None:
            for name in BESIDE:
                if row.get(name) is not None:
                    beside[key].setdefault(name, []).append(float(row[name]))
    means = {key: {name: float(np.mean(each)) for name, each in found.items()} for key, found in beside.items()}
    return Readings(tuple(questions), cells, values, means)


def _unedited(
    model: HuggingFaceModel, questions: Sequence[Prompt], judge: Scorer | None, to: Path, options: Mapping[str, Any]
) -> list[Any]:
    return sweep(model, questions, [], judge=judge, to=to, progress=False, **options).rows()


def family_of(question: Prompt) -> str:
    """What a question is a variation of: its tag `family` or `question`, else itself."""
    return str(next((question.tags[name] for name in ("family", "question") if name in question.tags), question.id))


def _tagged(questions: Sequence[Prompt]) -> bool:
    return bool(questions) and all({"right", "contrary"} <= set(question.tags) for question in questions)
