"""by_modality: judged answers in which each modality of a condition is a condition of its own, joined by prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stores import ResultTable
from workbench.behaviour.judged import Judged
from workbench.behaviour.scoring import complete_rows


def by_modality(answers: ResultTable, scores: ResultTable | Sequence[ResultTable]) -> Judged:
    """Answers to the prompts of `in_modalities` with their scores, their conditions named "tuned/text_only" and their
    prompts by the ids that they had before: so `misalignment` says a number for each model and modality, and
    `difference(judged, "paper_a", "tuned/multimodal", "tuned/text_only")` compares the same prompts in both.

    The samples of a prompt have other seeds in each modality. Raises ValueError for answers to other prompts.
    """
    rows = complete_rows(answers)
    if lacking := [row["prompt"] for row in rows if not row.get("tag_shown_as")]:
        raise ValueError(
            f"{len(lacking)} answers are to prompts without a modality, the first {lacking[0]!r}: expected answers to "
            "the prompts of in_modalities."
        )
    place = {str(row["prompt"]): (str(row["tag_shown_as"]), str(row["tag_shown_of"])) for row in rows}
    listed = [scores] if isinstance(scores, ResultTable) else list(scores)
    return Judged(_renamed(answers, place), [_renamed(table, place) for table in listed])


def _renamed(table: ResultTable, place: Mapping[str, tuple[str, str]]) -> ResultTable:
    out = ResultTable.create(None, spec=table.spec, plan=["all"], provenance=table.provenance)
    rows = []
    for row in complete_rows(table):
        shown_as, shown_of = place[str(row["prompt"])]
        rows.append({**row, "condition": f"{row['condition']}/{shown_as}", "prompt": shown_of})
    out.commit("all", rows)
    return out
