"""Judged: answers and their scores joined, by condition, prompt, sample and the text itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from stores import ResultTable
from workbench.behaviour.scoring import Key, complete_rows, key_of, text_hash

Rows = Mapping[Key, Mapping[str, Any]]


class Judged:
    """Answers joined with their scores. Refuses what would mix numbers that do not belong together."""

    def __init__(self, answers: ResultTable, scores: ResultTable | Sequence[ResultTable]) -> None:
        """Raises ValueError for scores without a judge's identity, scores of other texts, and answers that a judge was
        not asked about."""
        self.rows = complete_rows(answers)
        self._text = {key_of(row): text_hash(row["text"]) for row in self.rows}
        self._found: dict[tuple[str, str], dict[Key, Mapping[str, Any]]] = defaultdict(dict)  # by quantity and judge
        for table in [scores] if isinstance(scores, ResultTable) else scores:
            for row in complete_rows(table):
                self._take(row)
        for (quantity, judge), found in self._found.items():
            if lost := len(self._text.keys() - found.keys()):
                raise ValueError(
                    f"{lost} of {len(self._text)} answers have no row of {judge} ({quantity}): expected the scores of "
                    "these answers, whole."
                )

    def _take(self, row: Mapping[str, Any]) -> None:
        key = key_of(row)
        if not row.get("judge") or not row.get("judge_revision"):
            raise ValueError(
                f"the score of {key} does not say which judge gave it: expected scores of judge_answers. A number "
                "that nobody measured is not correlated with anything here."
            )
        if self._text.get(key) != row["text_hash"]:
            raise ValueError(
                f"a score of {row['judge']} is of another text than the answer {key}: expected the scores of these "
                "answers."
            )
        self._found[str(row["measures"]), f"{row['judge']}@{row['judge_revision']}"][key] = row

    @property
    def conditions(self) -> list[str]:
        return list(dict.fromkeys(str(row["condition"]) for row in self.rows))

    def judges_of(self, quantity: str) -> list[str]:
        """The judges that measured a quantity, as NAME@REVISION."""
        return [judge for measured, judge in self._found if measured == quantity]

    def scores_of(self, quantity: str, judge: str | None = None) -> tuple[str, Rows]:
        """A quantity's rows and the judge that gave them; ValueError where none or several did."""
        judges = [one for one in self.judges_of(quantity) if judge is None or one.startswith(judge)]
        if len(judges) != 1:
            have = ", ".join(f"{q} by {j}" for q, j in self._found) or "nothing"
            raise ValueError(
                f"{len(judges)} judges measured {quantity!r}{'' if judge is None else f' (asked: {judge})'}: expected "
                f"one (judge=... chooses). There is {have}."
            )
        return judges[0], self._found[quantity, judges[0]]
