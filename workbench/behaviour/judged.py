"""Judged: answers and their scores joined, by condition, prompt, sample and the text itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stores import ResultTable
from stores.frames import data_frame
from workbench.behaviour.scoring import Key, complete_rows, key_of, text_hash

if TYPE_CHECKING:
    import pandas

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

    def __repr__(self) -> str:
        measured = ", ".join(f"{quantity} by {judge}" for quantity, judge in self._found) or "nothing"
        conditions = self.conditions
        names = f"{', '.join(conditions[:6])}{' ...' if len(conditions) > 6 else ''}"
        return f"Judged({len(self.rows)} answers of {len(conditions)} conditions ({names}); {measured})"

    def to_pandas(self) -> pandas.DataFrame:
        """One line an answer: its row, and each judge's score under the name of what it measured, with the judge's
        where several measured it. Raises ImportError, with the install command, where pandas is missing."""
        several = {quantity for quantity in self.quantities() if len(self.judges_of(quantity)) > 1}
        lines = [dict(row) for row in self.rows]
        for (quantity, judge), found in self._found.items():
            name = f"{quantity} ({judge})" if quantity in several else quantity
            for line in lines:
                line[name] = found[key_of(line)].get("score")
        return data_frame(lines)

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

    def pooled(self, groups: Mapping[str, Sequence[str]]) -> Judged:
        """The same answers with several conditions as one: {"rank8": ["rank8-seed0", "rank8-seed1"]}.

        Each prompt counts once for every member ("x#0", "x#1"), in its own family, so that intervals over families stay
        honest and pairs stay within a member's place. Conditions of no group are paired with every place. ValueError
        for conditions that are not there, and for groups of several sizes.
        """
        listed = [name for members in groups.values() for name in members]
        if strange := [name for name in listed if name not in self.conditions]:
            raise ValueError(f"there is no condition {strange[0]!r}: expected some of {', '.join(self.conditions)}.")
        sizes = {len(members) for members in groups.values()}
        if len(sizes) != 1 or len(set(listed)) < len(listed):
            raise ValueError(f"groups of {sorted(sizes)} conditions: expected equal sizes, and each condition once.")
        places = {name: [(group, k)] for group, members in groups.items() for k, name in enumerate(members)}
        (size,) = sizes
        for name in self.conditions:
            places.setdefault(name, [(name, k) for k in range(size)])
        out = object.__new__(Judged)
        out.rows = [moved for row in self.rows for moved in _moved({**_family(row), **row}, places)]
        out._text = {key_of(row): text_hash(row["text"]) for row in out.rows}
        out._found = defaultdict(dict)
        for source, found in self._found.items():
            moved = (one for row in found.values() for one in _moved(row, places))
            out._found[source] = {key_of(row): row for row in moved}
        return out

    @property
    def conditions(self) -> list[str]:
        return list(dict.fromkeys(str(row["condition"]) for row in self.rows))

    def quantities(self, kind: str | None = None) -> list[str]:
        """What was measured, by judges of this kind (all kinds without one)."""
        found = [(q, next(iter(rows.values()), {}).get("kind")) for (q, _), rows in self._found.items()]
        return list(dict.fromkeys(q for q, by in found if kind in (None, by)))

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


def _moved(row: Mapping[str, Any], places: Mapping[str, Sequence[tuple[str, int]]]) -> list[dict[str, Any]]:
    return [{**row, "condition": name, "prompt": f"{row['prompt']}#{k}"} for name, k in places[str(row["condition"])]]


def _family(row: Mapping[str, Any]) -> dict[str, str]:
    """The family of a row whose prompt has no other: the prompt itself, whatever it is called from now on."""
    named = row.get("tag_family") is not None or row.get("tag_question") is not None
    return {} if named else {"tag_family": str(row["prompt"])}
