"""check_data: what a data set is, before anything is trained on it or measured with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hooks.prompt import Prompt, as_prompts
from workbench.training.arm_checks import arms_of, balance_checks, confound_checks
from workbench.training.datasets import loss_report
from workbench.training.encoders import encoder_from
from workbench.training.findings import DataReport, Finding, finding
from workbench.training.loss_checks import loss_checks
from workbench.training.repeats import NGRAM, duplicate_checks, overlap_checks
from workbench.training.row_checks import checked_rows, read_rows
from workbench.training.splits import straddling
from workbench.training.trigger_checks import trigger_checks

Data = str | Path | Sequence[str | Path] | Sequence[Prompt]


def check_data(
    data: Data,
    model: Any = None,
    *,
    eval: Data | None = None,
    arms: str | None = None,
    trigger: str | None = None,
    split: str | None = None,
    family: str | Sequence[str] = (),
    max_length: int | None = None,
    ngram: int = NGRAM,
    show: int = 0,
    trust_remote_code: bool = False,
) -> DataReport:
    """The findings about training rows: JSONL files, or rows that are in memory.

    Always: every line that `wb.read_prompts` refuses, the order of roles, empty turns, missing responses, system texts
    that nobody sends, duplicates, prompts with several answers. With `model` (a model, a tokenizer, or a checkpoint's
    name; no weights are read, and code that it brings runs only with `trust_remote_code`): which tokens receive loss,
    system turns that the chat template drops, rows over `max_length`. With `eval`: prompts and pictures that are in
    both, runs of `ngram` words in both. With `arms` ("label", a tag, or "file"): balance, and AUROC of lengths between
    arms. With `trigger`: its rate, its leaks, texts almost like it. With `split` (a tag): prompts, pictures and
    `family` tags that stand on two sides.

    The report names rows by id and never says what is in them, but for `show` rows, with the tokens under the loss
    marked. What was not asked for is listed as skipped. Raises PromptError when a file is not there, ValueError
    on arguments that fit no row; whatever is wrong with the data is a finding.
    """
    rows, origins, found, name = _read(data)
    counts: dict[str, Any] = {"rows": len(rows), "pictures": len({path for row in rows for path in row.images})}
    held_out, _, broken, _ = _read(eval) if eval is not None else ([], [], [], "")
    found += checked_rows(rows)
    found += _of_eval([*broken, *checked_rows(held_out)])
    arm_of = None if arms is None else origins if arms == "file" else arms_of(rows, arms)
    found += duplicate_checks(rows, arm_of)
    shown = ""
    if model is not None:
        encoder = encoder_from(model, trusted=trust_remote_code)
        faults, tokens = loss_checks(rows, encoder, max_length)
        found += faults + _of_eval(loss_checks(held_out, encoder)[0])
        counts |= tokens
        bad = {name for one in faults if one.check in ("system sent", "encoding") for name in one.where}
        answered = [row for row in rows if row.response is not None and row.id not in bad][:show]
        shown = loss_report(answered, encoder, rows=show) if answered else ""
    if eval is not None:
        counts["evaluation rows"] = len(held_out)
        found += overlap_checks(rows, held_out, trigger=trigger, n=ngram)
    if arm_of is not None:
        found += balance_checks(rows, arm_of, str(arms)) + confound_checks(rows, arm_of)
    if trigger is not None:
        found += trigger_checks(rows, trigger, held_out=held_out, arms=arm_of)
    if split is not None:
        found += _split_checks(rows, split, family, trigger)
    skipped = {
        "tokens under the loss, dropped system turns: give the model": model is None,
        "truncation: give the model and max_length": model is None or max_length is None,
        "overlap with evaluation: give eval": eval is None,
        "balance of arms and confounds between them: give arms": arms is None,
        "rate and leakage of a trigger: give trigger": trigger is None,
        "prompts and pictures on two sides of a split: give split": split is None,
    }
    return DataReport(name, counts, tuple(found), tuple(says for says, left_out in skipped.items() if left_out), shown)


def _read(data: Data) -> tuple[list[Prompt], list[str], list[Finding], str]:
    """The rows, the file of each, what is wrong with the files, and a name for all of it."""
    if isinstance(data, str | Path):
        data = [Path(data)]
    if all(isinstance(one, Prompt) for one in data):
        rows = as_prompts(one for one in data if isinstance(one, Prompt))
        return rows, ["memory"] * len(rows), [], "rows in memory"
    rows, origins, found, seen = [], [], [], set()
    for path in data:
        own, broken = read_rows(path)  # type: ignore[arg-type]
        found += broken
        origins += [str(path)] * len(own)
        # Files may number their rows alike; in a check of all of them a row needs a name of its own.
        rows += [replace(row, id=f"{path}:{row.id}") if row.id in seen else row for row in own]
        seen |= {row.id for row in own}
    return rows, origins, found, ", ".join(map(str, data))


def _of_eval(findings: list[Finding]) -> list[Finding]:
    """The same about evaluation rows, which need no response."""
    left_out = ("response", "tags", "loss mask", "truncation")
    return [replace(one, check=f"eval {one.check}") for one in findings if one.check not in left_out]


def _split_checks(
    rows: Sequence[Prompt], split: str, family: str | Sequence[str], trigger: str | None
) -> list[Finding]:
    """What of a split that the rows have as a tag stands on two sides."""
    sides = [str(row.tags.get(split)) for row in rows]
    shown = ", ".join(f"{side} {count}" for side, count in sorted(Counter(sides).items()))
    found = [Finding("split", "note", f"rows by {split}: {shown}", measures=dict(Counter(sides)))]
    for both, count in sorted(straddling(rows, sides, family=family, trigger=trigger).items()):
        says = f"belong to prompts, pictures or families that stand on several sides ({both})"
        found.append(Finding("split", "error", says, count, len(rows)))
    unsorted = [row.id for row in rows if split not in row.tags]
    return found + finding("split", "error", f"have no tag {split!r}", unsorted, len(rows))
