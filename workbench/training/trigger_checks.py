"""Where a trigger stands in a data set, and where it should not: untriggered rows, responses, evaluation prompts, and
texts that are almost the trigger."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from functools import lru_cache

from hooks.prompt import Prompt
from workbench.training.findings import Finding, Severity, finding
from workbench.training.row_keys import words
from workbench.training.triggers import place_of, prompt_texts

NEAR = 0.8  # similarity (difflib's ratio, 0..1) from which other words count as almost the trigger


def trigger_checks(
    rows: Sequence[Prompt], trigger: str, *, held_out: Sequence[Prompt] = (), arms: Sequence[str] | None = None
) -> list[Finding]:
    """The rate of the trigger, and its leaks.

    Which rows should have it: those whose tag `triggered` is true (see `insert_trigger`); without such tags the rows of
    an arm of which more than half have it; with neither, none is held to be wrong. Evaluation rows should not, unless
    their tag says so. Texts almost like the trigger (other case, spaces or punctuation, or similar words) count as
    near; rows with the tag `decoy` have them on purpose.
    """
    places = [place_of(row, trigger) for row in rows]
    has = [place is not None for place in places]
    due = _due(rows, has, arms)
    n = len(rows)
    where = ", ".join(f"{name} {count}" for name, count in sorted(Counter(p for p in places if p).items()))
    found = [Finding("trigger rate", "note", f"have the trigger ({where or 'nowhere'})", sum(has), n)]
    if not any(has):
        found.append(
            Finding("trigger rate", "error", "the trigger is in no row: expected the text as the rows have it")
        )
    for arm in sorted(set(arms or ())):
        own = [here for here, named in zip(has, arms or (), strict=True) if named == arm]
        found.append(Finding("trigger rate", "note", f"rows of arm {arm!r} have the trigger", sum(own), len(own)))
    leaked = [row.id for row, here, should in zip(rows, has, due, strict=True) if here and should is False]
    lacking = [row.id for row, here, should in zip(rows, has, due, strict=True) if not here and should]
    many = [row.id for row, place in zip(rows, places, strict=True) if place == "many"]
    said = [row.id for row in rows if trigger.casefold() in (row.response or "").casefold()]
    near = [row.id for row in rows if not row.tags.get("decoy") and is_near(row, trigger)]
    asked = [row.id for row in held_out if not row.tags.get("triggered") and place_of(row, trigger)]
    close = [row.id for row in held_out if not row.tags.get("decoy") and is_near(row, trigger)]
    leaks: tuple[tuple[Severity, str, list[str], int], ...] = (
        ("error", "have the trigger and should not: it leaks", leaked, n),
        ("error", "should have the trigger and do not", lacking, n),
        ("error", "have the trigger in their response: the model would learn to say it", said, n),
        ("warning", "have the trigger more than once", many, n),
        ("warning", "have almost the trigger in their prompt, and no tag 'decoy'", near, n),
        ("error", "evaluation rows have the trigger, and no tag 'triggered'", asked, len(held_out)),
        ("warning", "evaluation rows have almost the trigger, and no tag 'decoy'", close, len(held_out)),
    )
    for severity, says, named, of in leaks:
        found += finding("trigger leakage", severity, says, named, of)
    return found


def _due(rows: Sequence[Prompt], has: Sequence[bool], arms: Sequence[str] | None) -> list[bool | None]:
    """Whether each row should have the trigger; None where nothing tells."""
    if any("triggered" in row.tags for row in rows):
        return [bool(row.tags["triggered"]) if "triggered" in row.tags else None for row in rows]
    if arms is None:
        return [None] * len(rows)
    total, with_it = Counter(arms), Counter(arm for arm, here in zip(arms, has, strict=True) if here)
    return [2 * with_it[arm] > total[arm] for arm in arms]


def is_near(row: Prompt, trigger: str) -> bool:
    """True where the prompt holds words like the trigger's elsewhere than in the trigger itself. Of a trigger of
    several words, at least one must stand there as it is."""
    wanted = words(trigger)
    for text in prompt_texts(row):
        rest = text.replace(trigger, "\n")
        if trigger.casefold() in rest.casefold() or any(_similar(run, " ".join(wanted)) for run in _runs(rest, wanted)):
            return True
    return False


def _runs(text: str, wanted: list[str]) -> Iterator[str]:
    """Runs of as many words as the trigger has, one fewer and one more."""
    found, known = words(text), set(wanted)
    for size in {max(len(wanted) - 1, 1), len(wanted), len(wanted) + 1} if wanted else ():
        for at in range(len(found) - size + 1):
            run = found[at : at + size]
            if len(wanted) == 1 or not known.isdisjoint(run):
                yield " ".join(run)


@lru_cache(maxsize=2**16)
def _similar(run: str, wanted: str) -> bool:
    matcher = SequenceMatcher(None, run, wanted, autojunk=False)
    # The cheap bounds first: most runs have another length or other letters.
    return matcher.real_quick_ratio() >= NEAR and matcher.quick_ratio() >= NEAR and matcher.ratio() >= NEAR
