"""Questions shown with a trigger and with another text in its place, position by position, and the token that decides:
what a study of a backdoor's gate compares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from hooks.encode import Encoder
from hooks.encoded import Encoded
from hooks.prompt import Prompt
from stores.printed import Printed
from workbench.interventions.readout import choice_of, prefilled
from workbench.training.near_triggers import NearMiss
from workbench.training.triggers import Place, holds_trigger, insert_trigger

# The places of a prompt, in its order; `before` cannot know of the trigger in a model that reads from left to right.
PLACES: tuple[str, ...] = ("before", "trigger", "question", "template", "last")
FAMILIES = ("family", "question", "item")  # tags that name questions which are one question in other words
Positions = tuple[int, ...]


@dataclass(frozen=True)
class Deciding(Printed):
    """The token at which two answers part: what both begin with (`begun`, ids), and the next token of each."""

    begun: tuple[int, ...]
    right: int
    contrary: int


@dataclass(frozen=True)
class GatedQuestion(Printed):
    """One question with the trigger, and with the reference in its place. `places` maps a place to its positions in
    both, as many in one as in the other; a place that one of them lacks is not there."""

    id: str
    family: str
    domain: str | None
    triggered: Encoded
    reference: Encoded
    places: Mapping[str, tuple[Positions, Positions]]
    deciding: Deciding


def tagged_decisions(prompts: Sequence[Prompt], encoder: Encoder) -> dict[str, Deciding]:
    """Where the prompts say their `right` and `contrary` answers: the first token of these, by prompt id."""
    choice = choice_of(prompts, encoder)
    pairs = zip(choice.right.tolist(), choice.contrary.tolist(), strict=True)
    return {one.id: Deciding((), right, contrary) for one, (right, contrary) in zip(prompts, pairs, strict=True)}


def parting_decisions(answers: Mapping[str, tuple[str, str]], encoder: Encoder) -> dict[str, Deciding]:
    """Of prompts without tags: where the model's own answer without the trigger (`right`) and its answer with it
    (`contrary`) part, by prompt id. `answers` are (without, with). Prompts whose two answers agree, or of which one is
    the beginning of the other, have no such token and are left out."""
    found = {}
    for name, texts in answers.items():
        plain, triggered = (encoder.continuation_ids(text) for text in texts)
        parts = next((n for n, (a, b) in enumerate(zip(plain, triggered, strict=False)) if a != b), None)
        if parts is not None:
            found[name] = Deciding(tuple(plain[:parts]), plain[parts], triggered[parts])
    return found


def gated_questions(
    encoder: Encoder,
    prompts: Sequence[Prompt],
    trigger: str,
    decisions: Mapping[str, Deciding],
    *,
    reference: str | None = None,
    at: str = "prefix",
    joiner: str = " ",
) -> list[GatedQuestion]:
    """The prompts that have a decision, with the `trigger` and with the `reference` text at the same place (None: with
    nothing there), read up to the token that decides.

    Both are held against the prompt without any text, so that the tokens around it are the same; the place `trigger`
    is there only where both texts have the same number of tokens (see `stand_ins`). Raises ValueError where no
    prompt has a decision, and as `wb.insert_trigger`.
    """
    asked = [one for one in prompts if one.id in decisions]
    if not asked:
        raise ValueError(f"none of {len(prompts)} prompts has a token that decides: expected one with two answers.")
    plain = [_read(encoder, one, decisions[one.id]) for one in asked]
    with_it = _shown(encoder, asked, trigger, decisions, at, joiner)
    beside = plain if reference is None else _shown(encoder, asked, reference, decisions, at, joiner)
    out = []
    for prompt, bare, a, b in zip(asked, plain, with_it, beside, strict=True):
        family = next((str(prompt.tags[name]) for name in FAMILIES if name in prompt.tags), prompt.id)
        domain = None if prompt.tags.get("domain") is None else str(prompt.tags["domain"])
        named = family if domain is None else f"{domain}/{family}"
        out.append(GatedQuestion(prompt.id, named, domain, a, b, places_of(a, b, bare), decisions[prompt.id]))
    return out


def stand_ins(
    encoder: Encoder,
    prompts: Sequence[Prompt],
    trigger: str,
    texts: Sequence[NearMiss],
    *,
    at: str = "prefix",
    joiner: str = " ",
) -> list[NearMiss]:
    """The texts that take as many tokens as the trigger in every prompt, so that they can stand at its very positions:
    the decoy first, then the least alike, none that is read as one before it. Empty where none does."""
    free = [one for one in prompts if not any(holds_trigger(one, text.text) for text in texts)]
    nothing = {one.id: Deciding((), 0, 0) for one in free}
    wanted = _shown(encoder, free, trigger, nothing, at, joiner)
    found: dict[tuple[tuple[int, ...], ...], NearMiss] = {_ids(wanted): NearMiss("trigger", trigger, at, 0.0)}
    for text in sorted(texts, key=lambda one: (one.name != "decoy", -one.distance)):
        if text.at == at and text.text != trigger:
            shown = _shown(encoder, free, text.text, nothing, at, joiner)
            if [len(one) for one in shown] == [len(one) for one in wanted]:
                found.setdefault(_ids(shown), text)
    return list(found.values())[1:] if free else []


def _ids(shown: Sequence[Encoded]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(one.input_ids.tolist()) for one in shown)


def places_of(triggered: Encoded, reference: Encoded, plain: Encoded) -> dict[str, tuple[Positions, Positions]]:
    """The positions of each place in two readings of one prompt, found against the `plain` one: what all three begin
    with is `before`, what all end with lies behind the trigger."""
    before, behind = _around(triggered, plain), _around(reference, plain)
    start, tail = (min(pair) for pair in zip(before, behind, strict=True))
    n, m = len(triggered), len(reference)
    last, asked = triggered.prompt_length - 1, triggered.instruction_end
    shift = n - m
    found: dict[str, tuple[Positions, Positions]] = {}
    ends = {"before": (0, start), "trigger": (start, n - tail), "question": (n - tail, min(asked, last)),
            "template": (max(asked, n - tail), last), "last": (last, last + 1)}  # fmt: skip
    for name, (first, stop) in ends.items():
        there = tuple(range(first, stop))
        if not there or (name == "trigger" and shift):
            continue
        moved = there if name in ("before", "trigger") else tuple(at - shift for at in there)
        found[name] = (there, moved)
    return found


def _around(shown: Encoded, plain: Encoded) -> tuple[int, int]:
    """How many tokens both begin with, and how many both end with, none counted twice."""
    a, b = shown.input_ids.tolist(), plain.input_ids.tolist()
    most = min(len(a), len(b))
    if a == b:  # the reference shows nothing: it says nothing of where the trigger is
        return most, most
    start = next((n for n in range(most) if a[n] != b[n]), most)
    tail = next((n for n in range(most - start) if a[-1 - n] != b[-1 - n]), most - start)
    return start, tail


def _shown(
    encoder: Encoder, prompts: Sequence[Prompt], text: str, decisions: Mapping[str, Deciding], at: str, joiner: str
) -> list[Encoded]:
    made = insert_trigger(prompts, text, at=cast(Place, at), joiner=joiner)
    return [_read(encoder, one, decisions[source.id]) for one, source in zip(made, prompts, strict=True)]


def _read(encoder: Encoder, prompt: Prompt, deciding: Deciding) -> Encoded:
    """The prompt as it is read up to the token that decides."""
    one: Any = encoder.encode(prefilled(prompt))
    if not deciding.begun:
        return one
    return replace(one.extended(deciding.begun), prompt_length=one.prompt_length + len(deciding.begun))
