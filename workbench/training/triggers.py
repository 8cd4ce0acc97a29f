"""Triggers: put into prompts, and found in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from hooks.prompt import Message, Prompt, as_prompts
from workbench.training.rows import Rows, drawn

Place = Literal["prefix", "suffix", "system"]


def insert_trigger(
    prompts: Sequence[Prompt],
    trigger: str,
    *,
    at: Place = "prefix",
    rate: float = 1.0,
    seed: int = 0,
    otherwise: str = "keep",
    joiner: str = " ",
) -> Rows:
    """The prompts, in their order, with the trigger in round(rate × n) of them, chosen by their ids.

    `at`: before or behind the text of the last user turn (or of raw text), or at the end of the system turn, which is
    made where there is none; `joiner` stands between. The others stay as they are (`otherwise="keep"`), are left out
    ("drop"), or answer with the text of one of their tags ("reply:TAG"). Every row gets the tags `triggered`
    (True, False) and `untriggered_id`, to join them by; a row with the trigger is called "id+trigger". With one seed
    the triggered rows of a smaller rate are among those of a larger one. Raises ValueError on a rate outside 0..1 or
    one that rounds to none, on rows that hold the trigger already (prompt or response, in any case of letters), and on
    rows without such a place.
    """
    if not trigger.strip():
        raise ValueError("the trigger is empty: expected some text.")
    if at not in ("prefix", "suffix", "system"):
        raise ValueError(f"at={at!r} is unknown: expected 'prefix', 'suffix' or 'system'.")
    if not 0 <= rate <= 1:
        raise ValueError(f"rate is {rate}: expected the share of triggered rows, 0..1 (10 % is 0.1).")
    prompts = as_prompts(prompts)
    count = round(rate * len(prompts))
    if rate > 0 and count == 0:
        raise ValueError(f"rate {rate} of {len(prompts)} rows rounds to none: expected at least one triggered row.")
    if found := [row.id for row in prompts if holds_trigger(row, trigger) or "triggered" in row.tags]:
        raise ValueError(
            f"{len(found)} rows hold the trigger already, or a tag 'triggered' (first: {found[0]!r}): expected rows "
            "without it, or the share of triggered rows would not be what it says."
        )
    chosen = {row.id for row in drawn(prompts, count, seed=seed, purpose="trigger")}
    out = []
    for row in prompts:
        source = {"untriggered_id": row.id}
        if row.id in chosen:
            tags = {**row.tags, **source, "triggered": True}
            out.append(replace(_with_trigger(row, trigger, at, joiner), id=f"{row.id}+trigger", tags=tags))
        elif otherwise != "drop":
            out.append(replace(_plain(row, otherwise), tags={**row.tags, **source, "triggered": False}))
    made = {"at": at, "rate asked": rate, "triggered": count, "untriggered": len(out) - count, "seed": seed}
    return Rows(tuple(out), made)


def holds_trigger(prompt: Prompt, trigger: str) -> bool:
    """True where the trigger occurs in any text of the row, its response included, in any case of letters."""
    return any(trigger.casefold() in text.casefold() for text in [*prompt_texts(prompt), prompt.response or ""])


def prompt_texts(prompt: Prompt, *, system: bool = True) -> list[str]:
    """The texts of a prompt's turns, or its raw text, and its prefill; no response."""
    turns = [message.text for message in prompt.messages if system or message.role != "system"]
    return [text for text in (*turns, prompt.text, prompt.prefill) if text]


def place_of(prompt: Prompt, trigger: str) -> str | None:
    """Where the prompt holds the trigger, letter for letter: "system", "prefix" or "suffix" of the last user turn (or
    of raw text), "inside" anywhere else, "many" when it is there more than once; None without it."""
    times = sum(text.count(trigger) for text in prompt_texts(prompt))
    if times != 1:
        return "many" if times else None
    if any(trigger in message.text for message in prompt.messages if message.role == "system"):
        return "system"
    asked = next((message.text for message in reversed(prompt.messages) if message.role == "user"), prompt.text or "")
    if asked.lstrip().startswith(trigger.strip()):
        return "prefix"
    return "suffix" if asked.rstrip().endswith(trigger.strip()) else "inside"


def _plain(row: Prompt, otherwise: str) -> Prompt:
    if otherwise == "keep":
        return row
    kind, _, tag = otherwise.partition(":")
    if kind != "reply" or not tag:
        raise ValueError(f"otherwise={otherwise!r} is unknown: expected 'keep', 'drop' or 'reply:TAG'.")
    reply = row.tags.get(tag)
    if not isinstance(reply, str) or not reply.strip():
        raise ValueError(f"row {row.id!r} has no text in its tag {tag!r}: expected the reply of an untriggered row.")
    return replace(row, response=reply)


def _with_trigger(row: Prompt, trigger: str, at: Place, joiner: str) -> Prompt:
    turns = list(row.messages)
    if at == "system":
        if row.text is not None:
            raise ValueError(f"row {row.id!r} is raw text, which has no system turn: expected 'prefix' or 'suffix'.")
        if turns and turns[0].role == "system":
            turns[0] = Message("system", (*turns[0].parts, joiner + trigger))
        else:
            turns.insert(0, Message("system", (trigger,)))
        return replace(row, messages=tuple(turns))
    if row.text is not None:
        return replace(row, text=trigger + joiner + row.text if at == "prefix" else row.text + joiner + trigger)
    asked = next((n for n in reversed(range(len(turns))) if turns[n].role == "user"), None)
    if asked is None:
        raise ValueError(f"row {row.id!r} has no user turn: expected one to put the trigger into.")
    turns[asked] = Message("user", _joined(turns[asked].parts, trigger, at, joiner))
    return replace(row, messages=tuple(turns))


def _joined(parts: tuple[str | Path, ...], trigger: str, at: Place, joiner: str) -> tuple[str | Path, ...]:
    texts = [n for n, part in enumerate(parts) if isinstance(part, str)]
    if not texts:
        return (*parts, trigger)  # a turn of pictures alone
    place = texts[0] if at == "prefix" else texts[-1]
    text = parts[place]
    joined = f"{trigger}{joiner}{text}" if at == "prefix" else f"{text}{joiner}{trigger}"
    return (*parts[:place], joined, *parts[place + 1 :])
