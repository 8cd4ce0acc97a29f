"""judge_answers: the verdicts of judges on sampled answers, one table beside the answers, joined by what was judged."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hooks.prompt import Prompt, as_prompts
from stores import ResultTable, content_key, provenance
from workbench.behaviour.judging import UNSCORED, Answer, Judge, Verdict
from workbench.progress import Progress

SCORES_VERSION = 1
UNIT = 64  # answers that are judged, and kept, together: what a kill loses at most

Row = Mapping[str, Any]
Key = tuple[str, str, int]  # condition, prompt, sample


class ScoresMissing(RuntimeError):
    """A judge did not give all scores, and may another time; those that came are kept."""


def judge_answers(
    answers: ResultTable,
    prompts: str | Path | Sequence[Prompt],
    judges: Judge | Sequence[Judge],
    *,
    base: str = "base",
    to: str | Path | None = None,
    accept_missing: bool = False,
    progress: bool = True,
) -> ResultTable:
    """One row for every judge and answer: `score` (None with its `reason`), `category`, the judge's name and revision,
    what it `measures`, the hash of the text that it judged, and its `facts` as JSON.

    A judge that compares gets the answer of the condition `base` to the same prompt with the same seed; an answer of
    the base itself is compared with the base's next sample, which is the floor of such a score. Raises ValueError for
    answers that are not complete, prompts that are missing, or judges that say the same of themselves. A run that was
    stopped goes on in `to`; what an endpoint was paid for is kept in its own cache as well. Where a judge could not be
    reached, or its spend cap was, ScoresMissing is raised at the end: another run asks for what is missing, and
    `accept_missing` keeps it as unscored instead.
    """
    asked = {prompt.id: prompt for prompt in as_prompts(prompts)}
    judging = [judges] if isinstance(judges, Judge) else list(judges)
    rows = complete_rows(answers)
    _refuse_strangers(rows, asked, judging)
    bases = {(str(row["prompt"]), int(row["sample"])): str(row["text"]) for row in rows if row["condition"] == base}
    parts = [rows[at : at + UNIT] for at in range(0, len(rows), UNIT)]
    spec = {
        "table": "scores",
        "version": SCORES_VERSION,
        "answers": content_key([[*key_of(row), text_hash(row["text"])] for row in rows]),
        "judges": [[one.name, one.revision, one.measures] for one in judging],
        "base": base,
    }
    plan = [f"judge{j}.answers{p}" for j in range(len(judging)) for p in range(len(parts))]
    table = ResultTable.create(to, spec=spec, plan=plan, provenance=provenance.collect())
    missing, waiting = set(table.missing()), Counter()
    with Progress("judged", len(plan), done=len(plan) - len(missing), show=progress) as bar:
        for j, judge in enumerate(judging):
            for p, part in enumerate(parts):
                if (key := f"judge{j}.answers{p}") not in missing:
                    continue
                verdicts = _verdicts(judge, part, asked, bases, base)
                late = [] if accept_missing else [one.reason for one in verdicts if one.facts.get("temporary")]
                waiting.update(late)
                if not late:
                    rows_of_part = zip(part, verdicts, strict=True)
                    table.commit(key, [_row(judge, row, verdict) for row, verdict in rows_of_part])
                bar.update()
    if waiting:
        (reason, _), total = waiting.most_common(1)[0], sum(waiting.values())
        raise ScoresMissing(
            f"{total} answers have no score that another run may give them (most often: {reason}): call judge_answers "
            "again with the same arguments; what was scored is kept, and paid for once. accept_missing=True keeps "
            "them as unscored."
        )
    return table


def complete_rows(answers: ResultTable) -> list[dict[str, Any]]:
    """All rows of a table; raises ValueError while some of them are not written yet."""
    if missing := answers.missing():
        raise ValueError(
            f"{len(missing)} batches of the answers are not written yet: expected a whole table. Call sample_answers "
            "again with the same arguments; it goes on where it stopped."
        )
    return answers.rows()


def key_of(row: Row) -> Key:
    """What rows of answers and of scores are joined by."""
    return str(row["condition"]), str(row["prompt"]), int(row["sample"])


def text_hash(text: Any) -> str:
    """16 hex digits of an answer's text, so that a score is never joined with another text."""
    return hashlib.sha256(str(text).encode()).hexdigest()[:16]


def _verdicts(
    judge: Judge, rows: Sequence[Row], asked: Mapping[str, Prompt], bases: Mapping[tuple[str, int], str], base: str
) -> list[Verdict]:
    compares = bool(getattr(judge, "compares", False))
    pairs = [_compared(row, bases, base) if compares else None for row in rows]
    can = [i for i in range(len(rows)) if not compares or pairs[i] is not None]
    given = [
        Answer(asked[str(rows[i]["prompt"])], str(rows[i]["text"]), bool(rows[i]["finished"]), pairs[i]) for i in can
    ]
    verdicts = judge.score_all(given)
    if len(verdicts) != len(given):
        raise RuntimeError(
            f"judge {judge.name} gave {len(verdicts)} verdicts on {len(given)} answers: expected one each."
        )
    found = dict(zip(can, verdicts, strict=True))
    alone = Verdict(UNSCORED, None, "no answer of the base model to compare with")
    return [found.get(i, alone) for i in range(len(rows))]


def _compared(row: Row, bases: Mapping[tuple[str, int], str], base: str) -> str | None:
    prompt, sample = str(row["prompt"]), int(row["sample"])
    if row["condition"] != base:
        return bases.get((prompt, sample))
    samples = sorted(n for name, n in bases if name == prompt)
    other = samples[(samples.index(sample) + 1) % len(samples)]
    return None if other == sample else bases[prompt, other]


def _row(judge: Judge, row: Row, verdict: Verdict) -> dict[str, Any]:
    low, high = judge.scale
    if verdict.score is not None and not low <= verdict.score <= high:
        raise RuntimeError(
            f"judge {judge.name} scored {verdict.score} where its scale is {low:g} to {high:g}: expected a score on "
            "it, or None with a reason."
        )
    condition, prompt, sample = key_of(row)
    return {
        "condition": condition,
        "prompt": prompt,
        "sample": sample,
        "text_hash": text_hash(row["text"]),
        "judge": judge.name,
        "judge_revision": judge.revision,
        "kind": judge.kind,
        "measures": judge.measures,
        "score": None if verdict.score is None else float(verdict.score),
        "category": verdict.category,
        "reason": verdict.reason,
        "facts": json.dumps(dict(verdict.facts), ensure_ascii=False, sort_keys=True, default=str),
    }


def _refuse_strangers(rows: Iterable[Row], asked: Mapping[str, Prompt], judges: Sequence[Judge]) -> None:
    if strangers := sorted({str(row["prompt"]) for row in rows} - set(asked)):
        raise ValueError(
            f"{len(strangers)} answered prompts are not among those given, the first {strangers[0]!r}: expected the "
            "prompts that sample_answers was given."
        )
    if not judges:
        raise ValueError("no judges: expected at least one, such as wb.judge('rule:refusal').")
    for one in judges:
        if not one.name or not one.revision:
            raise ValueError(f"{type(one).__name__} does not say which judge it is: expected a name and a revision.")
    names = [(one.name, one.revision, one.measures) for one in judges]
    if len(set(names)) < len(names):
        raise ValueError("two of the judges are the same: expected each once.")
