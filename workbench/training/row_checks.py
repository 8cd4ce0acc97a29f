"""Checks of rows by themselves: the schema of every line, ids, the order of roles, empty turns, responses, and system
texts that nothing would send."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hooks.plain_files import Refused, lines_of, parsed
from hooks.prompt import Prompt, PromptError, prompt_from, read_prompts
from workbench.training.findings import Finding, finding

_FATES = "is an address|does not exist|lies outside|is no name"
SYSTEM_KEYS = ("system", "system_prompt", "system_message")
MAY_FOLLOW = {
    "start": ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("assistant", "tool"),
}


def read_rows(path: str | Path) -> tuple[list[Prompt], list[Finding]]:
    """The rows of a file that can be read, and a finding for each kind of line that cannot, with line numbers.

    `hooks.prompt.read_prompts` is the judge: a file that it reads has no finding. Of a file that it refuses every line
    is tried by itself. A row whose id came before is kept, named "id (line n)", so that other checks see it.
    """
    path = Path(path)
    try:
        return read_prompts(path), []
    except PromptError as error:
        if not path.is_file():
            raise
        refused = str(error)
    rows: list[Prompt] = []
    broken: dict[str, list[str]] = {}
    seen: set[str] = set()
    repeated, unnamed = [], []
    try:
        lines = [(n, line) for n, line in lines_of(path) if line.strip()]
    except Refused:  # a line that nobody would read
        return [], [Finding("schema", "error", refused)]
    for number, line in lines:
        try:
            record = parsed(line)
            row = prompt_from(record, path.parent)
        except Refused as error:
            broken.setdefault(_reason(error), []).append(f"line {number}")
            continue
        if row.id in seen:
            (repeated if record.get("id") is not None else unnamed).append(f"line {number}")
            row = replace(row, id=f"{row.id} (line {number})")
        seen.add(row.id)
        rows.append(row)
    found = [one for reason, where in broken.items() for one in finding("schema", "error", reason, where, len(lines))]
    found += finding("ids", "error", "have an id that an earlier line has; ids must be unique", repeated, len(lines))
    found += finding(
        "ids", "error", "have no id and the content of an earlier line: take them out, or give ids", unnamed, len(lines)
    )
    # Should the two readings ever disagree, the reader's word stands.
    return rows, found or [Finding("schema", "error", _reason(PromptError(refused)))]


def checked_rows(rows: Sequence[Prompt]) -> list[Finding]:
    """Findings about roles, empty turns, responses and system texts; `rows` are training rows."""
    wrong: dict[str, list[str]] = {}
    for row in rows:
        if fault := _role_fault(row):
            wrong.setdefault(fault, []).append(row.id)
    empty = [row.id for row in rows if _has_empty_turn(row)]
    silent = [row.id for row in rows if row.response is None]
    dropped = [row.id for row in rows if _unsent_system(row)]
    kept = Counter(name for row in rows for name in row.tags)
    found = [one for fault, where in wrong.items() for one in finding("role order", "error", fault, where, len(rows))]
    found += finding("empty turns", "error", "have a turn or a response without text or picture", empty, len(rows))
    found += finding("response", "error", "have no response to train on", silent, len(rows))
    says = "have a system text as a key of the row, which no model is shown; expected a turn of role 'system'"
    found += finding("system sent", "error", says, dropped, len(rows))
    if kept:
        named = ", ".join(f"{name} ({count})" for name, count in sorted(kept.items()))
        found.append(Finding("tags", "note", f"keys that no model is shown, and their rows: {named}"))
    return found


def _role_fault(row: Prompt) -> str | None:
    """What is wrong with the order of the turns, in words that are the same for all rows with this fault."""
    before = "start"
    for message in row.messages:
        if message.role not in MAY_FOLLOW[before]:
            return f"have {_turn(message.role)} {'first' if before == 'start' else f'behind {_turn(before)}'}"
        before = message.role
    if before == "system" or (before == "assistant" and row.response is not None):
        return f"have {_turn(before)} before the response"
    return None


def _turn(role: str) -> str:
    return f"{'an' if role == 'assistant' else 'a'} {role} turn"


def _has_empty_turn(row: Prompt) -> bool:
    texts = [row.text, row.response]
    filled = all(message.text.strip() or any(isinstance(p, Path) for p in message.parts) for message in row.messages)
    return not filled or any(text is not None and not text.strip() for text in texts)


def _unsent_system(row: Prompt) -> bool:
    sent = "\n".join(message.text for message in row.messages if message.role == "system")
    wanted = [row.tags[key] for key in SYSTEM_KEYS if isinstance(row.tags.get(key), str)]
    return any(text.strip() and text.strip() not in sent for text in wanted)


def _reason(error: Exception) -> str:
    """Why a line cannot be read, without what it says: the reader's messages quote turns and parts."""
    said = re.sub(r"^(not a JSON object \(.*) at column \d+\)\.$", r"\1)", str(error))
    said = re.sub(r"^(not UTF-8 text \(.*\))\.$", r"\1", said)
    unquoted = re.sub(r"^(a turn|a part) is .*(?=: expected)", r"\1 is something else", said, flags=re.DOTALL)
    unquoted = re.sub(rf"(?<=^image ).*(?= (?:{_FATES}))", "path", unquoted, flags=re.DOTALL)
    return re.sub(r"(['\"])[^'\"]{25,}\1", "'...'", unquoted)
