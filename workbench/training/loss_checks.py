"""What a model would be given and trained on: tokens under the loss, system turns that are sent, rows that are cut."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from hooks.encode import Encoder
from hooks.prompt import Message, Prompt, PromptError
from workbench.training.datasets import NO_LOSS, with_labels
from workbench.training.findings import Finding, finding
from workbench.training.loss_mask import refuse_lost_mask
from workbench.training.triggers import prompt_texts


def loss_checks(
    rows: Sequence[Prompt], encoder: Encoder, max_length: int | None = None
) -> tuple[list[Finding], dict[str, Any]]:
    """Findings about what the model would be given and trained on, and the counts of tokens: in all, under the loss,
    the longest row. Rows without a response count as prompts."""
    refused: dict[str, list[str]] = {}
    dropped, unlabelled, endless, cut, gone, lengths, under = [], [], [], [], [], [], []
    for row in rows:
        if drops_system(row, encoder):
            dropped.append(row.id)
            continue
        try:
            one = encoder.encode(row, closed=row.response is not None)
        except Exception as error:  # whatever a chat template or a processor raises concerns this row
            refused.setdefault(_kind(error), []).append(row.id)
            continue
        inputs = with_labels(encoder.collate([one]))
        refuse_lost_mask(inputs, [one], encoder.image_token_id)
        lengths.append(len(one))
        under.append(int((inputs["labels"] != NO_LOSS).sum()))
        if row.response is not None and not under[-1]:
            unlabelled.append(row.id)
        elif row.response is not None and under[-1] == one.response_length:
            endless.append(row.id)
        if max_length is not None and len(one) > max_length:
            (gone if one.prompt_length >= max_length else cut).append(row.id)
    n = len(rows)
    written = special_tokens(encoder)
    special = [row.id for row in rows if _holds_any(row, written, encoder)]
    found = finding("system sent", "error", "have a system turn that the chat template drops", dropped, n)
    for reason, where in refused.items():
        found += finding("encoding", "error", f"cannot be encoded: {reason}", where, n)
    found += finding("loss mask", "error", "have no token under the loss", unlabelled, n)
    found += finding(
        "loss mask", "warning", "end without an end of turn: what ends an answer is not learnt", endless, n
    )
    found += finding("special tokens", "warning", "have the tokenizer's special tokens in their text", special, n)
    found += finding("truncation", "error", f"are over max_length={max_length}: the answer's end is cut", cut, n)
    found += finding("truncation", "error", f"have a prompt of max_length={max_length} or more: no answer", gone, n)
    tokens = {"tokens": sum(lengths), "under loss": sum(under), "longest row": max(lengths, default=0)}
    if lengths:
        says = f"tokens receive loss; in a row {min(under)} to {max(under)}, median {median(under):g}"
        found.append(Finding("loss mask", "note", says, sum(under), sum(lengths)))
    return found, tokens


def drops_system(row: Prompt, encoder: Encoder) -> bool:
    """True when the chat template leaves the row's system turn out. Asked with a text that occurs nowhere else, since a
    system text may stand in the user's turn as well."""
    if all(message.role != "system" for message in row.messages):
        return False
    mark = f"mark{uuid.uuid4().hex}"
    turns = tuple(Message("system", (mark,)) if turn.role == "system" else turn for turn in row.messages)
    rest = tuple(turn for turn in row.messages if turn.role != "system")
    try:
        return mark not in encoder.rendered(replace(row, messages=turns))
    except Exception:
        # The encoder refuses such rows, and some templates do: it is the system turn if the rest can be rendered.
        try:
            return bool(rest) and bool(encoder.rendered(replace(row, messages=rest)))
        except Exception:
            return False


def special_tokens(encoder: Encoder) -> set[str]:
    """The texts that the tokenizer reads as one special token wherever they stand (turn and image tokens, ...)."""
    added = getattr(encoder.tokenizer, "added_tokens_decoder", {}).values()
    return {str(token) for token in added if token.special} | set(encoder.tokenizer.all_special_tokens)


def _holds_any(row: Prompt, tokens: set[str], encoder: Encoder) -> bool:
    written = "\n".join([*prompt_texts(row), row.response or ""])
    # The placeholder of a picture in raw text is how such rows are written.
    allowed = {getattr(encoder.processor, "image_token", None)} if row.pictures else set()
    return any(token in written for token in tokens - allowed)


def _kind(error: Exception) -> str:
    """The kind of the fault without the row's own text."""
    said = str(error).partition(":")[2] or str(error)
    return f"{type(error).__name__}, {said.strip()[:80]}" if isinstance(error, PromptError) else type(error).__name__
