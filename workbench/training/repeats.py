"""Rows that say the same twice: duplicates within a data set, and overlap between training and evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hooks.prompt import Prompt
from workbench.training.findings import Finding, finding
from workbench.training.row_keys import image_hash, normalised, prompt_key, row_key, shingles
from workbench.training.triggers import prompt_texts

NGRAM = 13  # words; the length that GPT-3's authors looked for contamination with (arXiv:2005.14165, appendix C)
FEW = 4  # with fewer rows nothing can be told to be boilerplate


def duplicate_checks(rows: Sequence[Prompt], arms: Sequence[str] | None = None) -> list[Finding]:
    """Rows that are there twice, to the letter or up to case, spaces and punctuation; prompts with several answers.

    Several answers to one prompt are a conflict within an arm; across arms they are twins, which are only counted.
    """
    exact, loose = [], []
    letters: set[str] = set()
    keys = set()
    answers: dict[object, list[int]] = {}
    for at, row in enumerate(rows):
        key = row_key(row)
        if row.content_hash in letters:
            exact.append(row.id)
        elif key in keys:
            loose.append(row.id)
        letters.add(row.content_hash)
        keys.add(key)
        if row.response is not None:
            answers.setdefault((arms[at] if arms else "", prompt_key(row, system=True)), []).append(at)
    conflict = [
        rows[at].id for group in answers.values() if len({normalised(rows[at].response or "") for at in group}) > 1
        for at in group
    ]  # fmt: skip
    n = len(rows)
    found = finding("duplicates", "warning", "repeat an earlier row to the letter", exact, n)
    found += finding("duplicates", "warning", "repeat an earlier row up to case, spaces and punctuation", loose, n)
    found += finding("conflicts", "warning", "ask what another row asks, and answer otherwise", conflict, n)
    if arms and len(set(arms)) > 1:
        asked: dict[object, set[str]] = {}
        for arm, row in zip(arms, rows, strict=True):
            asked.setdefault(prompt_key(row, system=True), set()).add(arm)
        twins = sum(len(named) == len(set(arms)) for named in asked.values())
        found.append(Finding("twins", "note", "prompts are asked in every arm", twins, len(asked)))
    return found


def overlap_checks(
    rows: Sequence[Prompt], held_out: Sequence[Prompt], *, trigger: str | None = None, n: int = NGRAM
) -> list[Finding]:
    """Evaluation rows that training has seen: the same prompt (up to case, spaces, punctuation, system turn and the
    trigger), the same picture, or a run of n words in any text of the two rows but system turns.

    Runs that most training rows, or most evaluation rows, have are boilerplate; they are left out and counted.
    """
    prompts = {prompt_key(row, without=trigger) for row in rows}
    pictures = {image_hash(picture) for row in rows for picture in row.images}
    same = [row.id for row in held_out if prompt_key(row, without=trigger) in prompts]
    seen = [row.id for row in held_out if any(image_hash(picture) in pictures for picture in row.images)]
    trained, asked = ([_runs(row, n, trigger) for row in side] for side in (rows, held_out))
    boiler = _common(trained) | _common(asked)
    known = set().union(*trained) - boiler
    shared = [row.id for row, runs in zip(held_out, asked, strict=True) if runs & known]
    short = sum(not runs for runs in asked)
    total = len(held_out)
    found = finding("eval overlap", "error", "evaluation rows ask what a training row asks", same, total)
    found += finding("eval overlap", "error", "evaluation rows show a picture of a training row", seen, total)
    says = f"evaluation rows share a run of {n} words with training"
    found += finding("n-gram overlap", "warning", says, shared, total)
    says = f"{short} of {total} evaluation rows are shorter than {n} words; {len(boiler)} runs left out as boilerplate"
    found.append(Finding("n-gram overlap", "note", says))
    return found


def _runs(row: Prompt, n: int, trigger: str | None) -> set[str]:
    texts = [*prompt_texts(row, system=False), row.response or ""]
    return {run for text in texts for run in shingles(text.replace(trigger, " ") if trigger else text, n)}


def _common(sides: Sequence[set[str]]) -> set[str]:
    if len(sides) < FEW:
        return set()
    return {run for run, count in Counter(run for runs in sides for run in runs).items() if 2 * count > len(sides)}
