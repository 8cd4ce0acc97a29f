"""What membership scores read: each prompt as token ids, under the chat template or raw, alone and behind a prefix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from hooks.encode import Encoder
from hooks.encoded import Encoded
from hooks.encoded_prompts import EncodedPrompts
from hooks.prompt import Message, Prompt, PromptError, as_prompts

OF, FORMS = ("answer", "full"), ("template", "raw")
Prefix = str | Sequence[Prompt]


class Texts:
    """The texts of one run in the form asked for. `scope` names the tokens that are scored; `lengths` counts all tokens
    of a text, those of the prefix included.

    Raises PromptError for a prompt that has nothing to score, or that the form cannot show.
    """

    def __init__(
        self,
        encoder: Encoder,
        prompts: Sequence[Prompt],
        *,
        of: str = "answer",
        form: str = "template",
        joined_by: str = "\n",
        prefix: Prefix | None = None,
        max_length: int | None = None,
    ) -> None:
        if of not in OF or form not in FORMS:
            raise ValueError(f"of={of!r}, text={form!r}: expected 'answer' or 'full', and 'template' or 'raw'.")
        self.encoder, self.of, self.joined_by, self.max_length = encoder, of, joined_by, max_length
        self.prompts = [in_form(prompt, form, joined_by) for prompt in prompts]
        if of == "answer" and (silent := [prompt.id for prompt in prompts if prompt.response is None]):
            raise PromptError(
                f"{len(silent)} prompts have no response, the first {silent[0]!r}: expected an answer to score, or "
                "of='full'."
            )
        self._plain = EncodedPrompts(encoder, self.prompts)
        self._prefix: Encoded | None = None
        self._shown: EncodedPrompts | None = None
        if prefix is not None:
            self._set_prefix(prefix)
        for i, prompt in enumerate(self.prompts):
            if self._scored(self.alone(i)) < 1:
                raise PromptError(
                    f"prompt {prompt.id!r} has no token to score ({self._plain.lengths[i]} tokens, of={of!r}, "
                    f"max_length={max_length}): nothing predicts a text's first token. Leave it out, or raise the cap."
                )
        self.lengths = [len(self.behind(i) if self.has_prefix else self.alone(i)) for i in range(len(self.prompts))]

    @property
    def has_prefix(self) -> bool:
        return self._prefix is not None or self._shown is not None

    @property
    def scope(self) -> str:
        return "response" if self.of == "answer" else "all"

    def alone(self, i: int) -> Encoded:
        """The i-th text, cut behind `max_length` tokens."""
        return cut(self._plain[i], self.max_length)

    def behind(self, i: int) -> Encoded:
        """The i-th text behind the prefix: its response are the tokens that are scored of the text alone."""
        alone = self.alone(i)
        if self._shown is not None:
            shown = self._shown[i]
            both = cut(shown, shown.prompt_length + alone.response_length)
        else:
            assert self._prefix is not None
            both = _joined(self._prefix, alone, self.encoder.tokenizer.bos_token_id, self.of)
        ids, n = alone.input_ids, both.response_length
        assert torch.equal(both.input_ids[-n:], ids[-n:]), f"{alone.id!r}: other tokens behind the prefix than alone"
        return both

    def truncated(self, i: int) -> bool:
        return len(self.alone(i)) < self._plain.lengths[i]

    def scored_text(self, i: int) -> str:
        """The characters of the scored tokens: the answer, or all of the text as the model reads it, template
        included."""
        prompt = self.prompts[i]
        if self.truncated(i):
            one = self.alone(i)
            ids = one.input_ids[one.prompt_length :] if self.of == "answer" else one.input_ids
            return self.encoder.tokenizer.decode(ids)
        answer = prompt.response or ""
        return answer if self.of == "answer" else self.encoder.rendered(prompt) + answer

    def _scored(self, one: Encoded) -> int:
        if self.of == "answer":
            return one.response_length
        image = self.encoder.image_token_id
        return len(one) - 1 - (0 if image is None else int((one.input_ids[1:] == image).sum()))

    def _set_prefix(self, prefix: Prefix) -> None:
        if isinstance(prefix, str) and not prefix.strip():
            raise PromptError("recall_prefix is empty: expected text that is no member, or None.")
        shots = prefix if isinstance(prefix, str) else as_prompts(prefix)
        raw = {prompt.text is not None for prompt in self.prompts}
        if len(raw) > 1:
            raise PromptError("recall_prefix with conversations and raw texts in one run: expected one kind.")
        if raw == {False}:
            if isinstance(shots, str) or self.of == "full":
                raise PromptError(
                    "under a chat template recall_prefix is expected as a list of Prompts with responses, which "
                    "become earlier turns, and of='answer'; for a prefix of plain text, or of='full': text='raw'."
                )
            self._shown = EncodedPrompts(self.encoder, [behind_turns(prompt, shots) for prompt in self.prompts])
            return
        if not isinstance(shots, str):
            texts = [in_form(shot, "raw", self.joined_by) for shot in shots]
            shots = self.joined_by.join(f"{one.text}{one.response or ''}" for one in texts)
        self._prefix = self.encoder.encode(Prompt("recall_prefix", text=shots + self.joined_by))


def in_form(prompt: Prompt, form: str, joined_by: str) -> Prompt:
    """The prompt as it is, or, raw, its turns without the chat template: their texts and the answer, with `joined_by`
    between them. A prompt that is raw text already stays what it is."""
    if form == "template" or prompt.text is not None:
        return prompt
    if prompt.images:
        raise PromptError(
            f"prompt {prompt.id!r} has images, and text='raw' keeps text alone: expected text='template'."
        )
    turns = [message.text for message in prompt.messages]
    follows = prompt.prefill is not None or prompt.response is not None
    text = joined_by.join([*turns, prompt.prefill or ""] if follows else turns)
    return replace(prompt, messages=(), text=text, prefill=None)


def behind_turns(prompt: Prompt, shots: Sequence[Prompt]) -> Prompt:
    """The conversation with others in front of its first turn (behind its own system turn; theirs are left out)."""
    if silent := [shot.id for shot in shots if shot.response is None or not shot.messages]:
        raise PromptError(
            f"recall_prefix: {silent[0]!r} is no conversation with a response, so it makes no turns: expected "
            "Prompts with a response."
        )
    turns = []
    for shot in shots:
        turns += [message for message in shot.messages if message.role != "system"]
        turns.append(Message("assistant", ((shot.prefill or "") + (shot.response or ""),)))
    system = [message for message in prompt.messages[:1] if message.role == "system"]
    return replace(prompt, messages=(*system, *turns, *prompt.messages[len(system) :]))


def cut(one: Encoded, most: int | None) -> Encoded:
    """The first `most` tokens of a text. Raises PromptError where a picture would be cut with them."""
    if most is None or len(one) <= most:
        return one
    if one.n_images:
        raise PromptError(f"prompt {one.id!r} has images and {len(one)} tokens, over max_length={most}: raise the cap.")
    p = min(one.prompt_length, most)
    per_token = {name: values[:most] for name, values in one.per_token.items()}
    return replace(
        one,
        input_ids=one.input_ids[:most],
        prompt_length=p,
        instruction_end=min(one.instruction_end, p),
        response_length=max(0, min(one.response_length, most - p)),
        per_token=per_token,
    )


def _joined(prefix: Encoded, one: Encoded, bos: int | None, of: str) -> Encoded:
    """A raw text behind another: one BOS, at the very beginning, and no token merged across the border."""
    own_bos = int(bos is not None and int(one.input_ids[0]) == bos)
    p = len(prefix) - own_bos + (one.prompt_length if of == "answer" else 1)
    ids = torch.cat([prefix.input_ids, one.input_ids[own_bos:]])
    per_token = {name: torch.cat([prefix.per_token[name], values[own_bos:]]) for name, values in one.per_token.items()}
    return replace(
        one, input_ids=ids, prompt_length=p, instruction_end=p, response_length=len(ids) - p, per_token=per_token
    )


def same_tokens(own: Encoder, other: Encoder, prompts: Sequence[Prompt]) -> bool:
    """True where both tokenizers read every prompt, as `own` renders it, and its answer as the same ids."""
    if own.tokenizer is other.tokenizer:
        return True

    def ids(encoder: Encoder, prompt: Prompt) -> list[int]:
        special = prompt.text is not None
        read = list(encoder.tokenizer(own.rendered(prompt), add_special_tokens=special)["input_ids"])
        return read + encoder.continuation_ids(prompt.response or "")

    return all(ids(own, prompt) == ids(other, prompt) for prompt in prompts)
