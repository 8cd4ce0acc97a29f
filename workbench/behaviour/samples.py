"""Some of the answers of a table, to be read beside its numbers: one record an answer, as `samples.json` holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hooks.prompt import Prompt
from stores import ResultTable
from workbench.behaviour.judging import SCORED, UNSCORED
from workbench.behaviour.scoring import Key, key_of
from workbench.behaviour.thumbnails import thumbnail

EACH = 2  # answers of every domain and modality
AT_LEAST = 24  # answers in all, where there are few domains

Sample = dict[str, Any]


def samples_of(table: ResultTable, prompts: Iterable[Prompt], condition: str) -> list[Sample]:
    """The first answers of every domain and modality of a sweep: under its first intervention, at every coefficient
    that it was given, or of the unedited model where there is none. Taken in the table's order, never for what they
    say."""
    return samples_of_rows(table.rows(control=None), prompts, condition)


def samples_of_rows(rows: Iterable[Mapping[str, Any]], prompts: Iterable[Prompt], condition: str) -> list[Sample]:
    """The same of rows without controls."""
    asked = {prompt.id: prompt for prompt in prompts}
    rows = [row for row in rows if row.get("text") is not None and str(row["prompt"]) in asked]
    cells = _cells(rows)
    few = _few([asked[name] for name in dict.fromkeys(str(row["prompt"]) for row in rows)])
    names = {cell: condition if len(cells) == 1 else f"{condition} {dose:+g}" for cell, dose in cells.items()}
    return [
        _sample(
            asked[str(row["prompt"])],
            names[int(row["cell"])],
            row,
            str(row["category"]),
            # A rule's score is its category again.
            scores={"score": row["score"]} if row["category"] in (SCORED, UNSCORED) else {},
        )
        for row in rows
        if row["cell"] in cells and str(row["prompt"]) in few
    ]


def judged_samples(answers: ResultTable, scores: ResultTable, prompts: Iterable[Prompt]) -> list[Sample]:
    """The first sample of the first prompts of every domain and modality, in every condition of `wb.sample_answers`,
    with the scores of `wb.judge_answers` by what they measure, the category of the first judge that gives one, and the
    reasons where a judge gave no score."""
    verdicts: dict[Key, list[Mapping[str, Any]]] = {}
    for row in scores.rows():
        verdicts.setdefault(key_of(row), []).append(row)
    asked = {prompt.id: prompt for prompt in prompts}
    said: list[Mapping[str, Any]] = list(answers.rows())
    rows = [row for row in said if int(row["sample"]) == 0 and str(row["prompt"]) in asked]
    few = _few([asked[name] for name in dict.fromkeys(str(row["prompt"]) for row in rows)])
    return [
        _judged(asked[str(row["prompt"])], row, verdicts.get(key_of(row), []))
        for row in rows
        if str(row["prompt"]) in few
    ]


def joined_samples(have: list[Sample], more: Iterable[Sample]) -> list[Sample]:
    """Both; a prompt's pictures stand with its first answer only."""
    shown = {sample["id"] for sample in have if sample.get("images")}
    for sample in more:
        if sample["id"] in shown:
            sample = {name: value for name, value in sample.items() if name != "images"}
        elif sample.get("images"):
            shown.add(sample["id"])
        have.append(sample)
    return have


def _cells(rows: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """The first intervention's cell and those that differ from it in their coefficient alone, with that; {0: 0.0} of a
    table without interventions."""
    edited = {int(row["cell"]): row for row in reversed(rows) if row["intervention"] != "none"}
    if not edited:
        return {0: 0.0}
    kind = {
        cell: [row.get(name) for name in ("intervention", "layer", "layers", "at", "unit")]
        for cell, row in edited.items()
    }
    doses = {cell: row.get("coefficient") for cell, row in edited.items()}
    first = min(edited)
    return {
        cell: float(doses[cell] or 0.0)
        for cell in sorted(edited)
        if cell == first or (kind[cell] == kind[first] and doses[cell] not in (None, doses[first]))
    }


def _few(prompts: Sequence[Prompt]) -> set[str]:
    """The ids of the first prompts of every domain and modality."""
    places = {prompt.id: (prompt.tags.get("domain"), prompt.tags.get("modality")) for prompt in prompts}
    each = max(EACH, AT_LEAST // max(1, len(set(places.values()))))
    taken: dict[Any, int] = {}
    few = set()
    for name, place in places.items():
        if taken.setdefault(place, 0) < each:
            taken[place] += 1
            few.add(name)
    return few


def _judged(prompt: Prompt, row: Mapping[str, Any], verdicts: Sequence[Mapping[str, Any]]) -> Sample:
    categories = [str(one["category"]) for one in verdicts if one["category"] not in (SCORED, UNSCORED)]
    numbers = [one for one in verdicts if one["category"] in (SCORED, UNSCORED)]
    reasons = [f"{one['measures']}: {one['reason']}" for one in numbers if one["score"] is None and one["reason"]]
    kind = categories[0] if categories else ("unjudged" if not verdicts else SCORED if not reasons else UNSCORED)
    scores = {str(one["measures"]): None if one["score"] is None else float(one["score"]) for one in numbers}
    return _sample(prompt, str(row["condition"]), row, kind, scores=scores, reason="; ".join(reasons))


def _sample(
    prompt: Prompt,
    condition: str,
    row: Mapping[str, Any],
    category: str,
    *,
    scores: Mapping[str, float | None],
    reason: str = "",
) -> Sample:
    facts = {name: prompt.tags.get(name) for name in ("domain", "modality")}
    sample = {
        "prompt": prompt.messages[-1].text if prompt.messages else prompt.text,
        "id": prompt.id,
        **facts,
        "condition": condition,
        "text": row["text"],
        "category": category,
        "scores": dict(scores),
        "reason": reason,
        "images": [thumbnail(path) for path in prompt.images],
    }
    return {name: value for name, value in sample.items() if name not in ("scores", "reason", "images") or value}
