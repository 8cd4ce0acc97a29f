"""Prompts become token ids once: chat template, images, spans; then batches, padded right for `run`, left for
`generate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.encoded import Encoded
from hooks.pictures import CROSS, TOKEN_TYPES, Processed, check_placeholders, joined_images, joined_tokens, processed
from hooks.positions import OPEN_END, Tokens
from hooks.prompt import Message, Prompt, PromptError

MARK = "\ue000"  # a private-use character: put behind a turn's content, it shows what the chat template writes after it


@dataclass(frozen=True)
class Batch:
    """Prompts that pass the model together, with the inputs of its forward and the place of every token."""

    encoded: tuple[Encoded, ...]
    inputs: dict[str, Tensor]
    tokens: Tokens
    image_rows: tuple[int, ...]  # the row that each image belongs to
    encoder: Encoder
    side: str = "right"

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(one.id for one in self.encoded)

    def __len__(self) -> int:
        return len(self.encoded)

    def __repr__(self) -> str:
        return f"Batch([row, pos] {list(self.inputs['input_ids'].shape)}, padded {self.side}; ids {self.ids[:3]} ...)"

    @property
    def last_index(self) -> Int[Tensor, " row"]:
        """The column of each row's last real token."""
        return self.tokens.position.argmax(dim=1)

    def padded(self, side: str) -> Batch:
        """The same rows, padded on the other side."""
        return self if side == self.side else self.encoder.collate(self.encoded, side)

    def rows(self, index: Sequence[int]) -> Batch:
        """The chosen rows, in this order; a row may be taken many times (one for each cell of a grid)."""
        if not self.image_rows and {len(self.encoded[row]) for row in index} >= {self.inputs["input_ids"].shape[1]}:
            chosen = torch.tensor(list(index))
            inputs = {name: value[chosen] for name, value in self.inputs.items()}
            tokens = self.tokens.rows(chosen)
            return replace(self, encoded=tuple(self.encoded[row] for row in index), inputs=inputs, tokens=tokens)
        return self.encoder.collate([self.encoded[row] for row in index], self.side)


class Encoder:
    """Turns prompts into ids with a model's own tokenizer, chat template and image processor.

    `image_token_id` is the config's (a processor's own attribute of that name may be another token). Raises PromptError
    on what would silently change the input: a second BOS, a system turn that the template drops, images for a text
    model, placeholders without an image.
    """

    def __init__(self, tokenizer: Any, processor: Any = None, image_token_id: int | None = None) -> None:
        self.tokenizer = tokenizer
        self.processor = processor
        names = getattr(processor, "model_input_names", ())
        # Pictures that enter by cross-attention are no positions of the stream; their placeholder is one token of text.
        self.crosses = CROSS in names
        self.placeholder_id = image_token_id
        self.image_token_id = None if self.crosses else image_token_id
        # A model that reads per-token types wants them for text rows as well (Gemma3 refuses to train without).
        self.per_token_names = [name for name in TOKEN_TYPES if name in names]
        self.why_no_pictures: str | None = None  # what the check-up found against them
        self.pad_id = next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)

    def __call__(self, prompts: Sequence[Prompt], side: str = "right") -> Batch:
        return self.collate([self.encode(prompt) for prompt in prompts], side)

    def encode(self, prompt: Prompt, *, closed: bool = False) -> Encoded:
        """One prompt's ids and spans. `closed` puts what the template writes after an answer (end of turn) behind the
        response, for training; captures and statistics leave it out."""
        rendered = self.rendered(prompt)
        read = self._read(prompt, rendered)
        ids = read.ids
        if len(ids) == 0:
            raise PromptError(f"prompt {prompt.id!r} has no tokens: expected text in it, or a template that adds some.")
        if self._twice_bos(ids):
            raise PromptError(
                f"prompt {prompt.id!r} begins with two BOS tokens: expected one. The chat template and the text both "
                "write it; take it out of the text."
            )
        instruction_end = self._instruction_end(prompt, rendered, ids)
        p = len(ids)
        response = [] if prompt.response is None else self.continuation_ids(prompt.response)
        tail = self.continuation_ids(self.end_of_turn(prompt, rendered)) if closed else []
        one = Encoded(
            prompt.id, ids, p, instruction_end, 0, read.per_token, read.images, len(prompt.images), read.continued
        )
        return replace(one.extended(response + tail), response_length=len(response))

    def rendered(self, prompt: Prompt) -> str:
        """The prompt as text, chat template applied once, image placeholders not yet expanded."""
        if prompt.images and (self.processor is None or self.why_no_pictures):
            why = self.why_no_pictures or "the model reads text only"
            raise PromptError(f"prompt {prompt.id!r} has images, but {why}: expected an image-text model.")
        if prompt.text is not None:
            placeholder = getattr(self.processor, "image_token", None) or ""
            in_front = "" if placeholder in prompt.text else placeholder * len(prompt.pictures)
            return in_front + prompt.text + (prompt.prefill or "")
        if not self._template_of().chat_template:
            raise PromptError(
                f"prompt {prompt.id!r} is a conversation, but the tokenizer has no chat template: expected an "
                "instruct model, or prompts with 'text' instead of 'messages'."
            )
        rendered = self._apply(prompt.messages, add_generation_prompt=True)
        self._refuse_dropped_system(prompt)
        return rendered + (prompt.prefill or "")

    def _refuse_dropped_system(self, prompt: Prompt) -> None:
        # A mark is looked for, since a system text may stand in the user's turn as well.
        systems = [turn for turn in prompt.messages if turn.role == "system"]
        if not systems:
            return
        marked = [Message(t.role, (*t.parts, MARK)) if t.role == "system" else t for t in prompt.messages]
        if self._apply(marked, add_generation_prompt=True).count(MARK) < len(systems):
            raise PromptError(
                f"prompt {prompt.id!r}: the chat template drops the system turn {systems[0].text[:60]!r}. Expected "
                "one that keeps it; put its text into the user's turn, or give the tokenizer another template."
            )

    def _template_of(self) -> Any:
        return self.processor if getattr(self.processor, "chat_template", None) else self.tokenizer

    def _apply(self, messages: Sequence[Message], **options: Any) -> str:
        def content(message: Message) -> str | list[dict[str, str]]:
            if self.processor is None:
                return message.text
            return [
                {"type": "image"} if isinstance(part, Path) else {"type": "text", "text": part}
                for part in message.parts
            ]

        chat = [{"role": message.role, "content": content(message)} for message in messages]
        return self._template_of().apply_chat_template(chat, tokenize=False, **options)

    def end_of_turn(self, prompt: Prompt, rendered: str) -> str:
        """What the chat template writes after an answer: found by rendering one, never assumed."""
        eos = self.tokenizer.eos_token or ""
        if prompt.text is not None or prompt.response is None:
            return eos
        # The answer itself may occur in the tail ("end" in "<end>"), so a mark is looked for, not the answer.
        answer = Message("assistant", ((prompt.prefill or "") + prompt.response + MARK,))
        _, found, tail = self._apply([*prompt.messages, answer], add_generation_prompt=False).rpartition(MARK)
        return (tail.rstrip() if found else "") or eos

    def _ids(self, text: str, *, special: bool) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=special)["input_ids"])

    def continuation_ids(self, text: str) -> list[int]:
        """The ids of text that follows other text. Some tokenizers put a space before the first word of any text;
        behind a newline they do not, so the text is read behind one, and the newline's ids are taken off."""
        anchor, anchored = self._ids("\n", special=False), self._ids("\n" + text, special=False)
        return anchored[len(anchor) :] if anchored[: len(anchor)] == anchor else self._ids(text, special=False)

    def _read(self, prompt: Prompt, rendered: str) -> Processed:
        special = prompt.text is not None
        if self.processor is None:
            return Processed(torch.tensor(self._ids(rendered, special=special), dtype=torch.long), {}, {}, {})
        check_placeholders(self.processor, prompt, rendered)
        if special and not prompt.images and self._needs_images:
            read = Processed(torch.tensor(self._ids(rendered, special=True), dtype=torch.long), {}, {}, {})
        else:
            read = processed(self.processor, prompt, rendered, self.image_token_id, special)
        if special and self._twice_bos(read.ids) and self.tokenizer.bos_token not in rendered:
            # Tokenizer and processor both put it there (Mllama).
            read = processed(self.processor, prompt, rendered, self.image_token_id, False)
        for name in self.per_token_names:
            if name not in read.per_token:
                read.per_token[name] = torch.zeros_like(read.ids)
                read.continued[name] = torch.full_like(read.ids[0], int(self._prefixes))
        return read

    @cached_property
    def _prefixes(self) -> bool:
        """True where a prompt is a prefix that is read both ways, and what comes behind it has type 1 (PaliGemma): such
        a processor types the whole of a prompt with a picture 0, the picture too."""
        from PIL import Image

        if not self._needs_images:
            return False
        text = f"{getattr(self.processor, 'image_token', '')}a"
        out = self.processor(text=[text], images=[[Image.new("RGB", (64, 64))]], return_tensors="pt")
        return "token_type_ids" in out and not bool(out["token_type_ids"].any())

    @cached_property
    def _needs_images(self) -> bool:
        """True for a processor that reads no text without pictures (PaliGemma): such text is read by the tokenizer."""
        try:
            self.processor(text=["a"], return_tensors="pt")
        except ValueError:
            return True
        return False

    def _twice_bos(self, ids: Int[Tensor, " pos"]) -> bool:
        bos = self.tokenizer.bos_token_id
        return bos is not None and len(ids) > 1 and bool(ids[0] == ids[1] == bos)

    def _instruction_end(self, prompt: Prompt, rendered: str, ids: Int[Tensor, " pos"]) -> int:
        # Counted from the end: image placeholders expand before the user's text ends, template tokens after it do not.
        p, turns = len(ids), list(prompt.messages)
        asked = next((i for i in reversed(range(len(turns))) if turns[i].role == "user"), None)
        if asked is None:
            return p
        turns[asked] = Message("user", (*turns[asked].parts, MARK))
        _, found, tail = self._apply(turns, add_generation_prompt=True).rpartition(MARK)
        tail += prompt.prefill or ""
        if not found or not rendered.endswith(tail):
            return p
        after = self._tokens_after(rendered, len(rendered) - len(tail))
        last_image = (ids == self.image_token_id).nonzero() if self.image_token_id is not None else ids[:0]
        return max(p - after, int(last_image[-1]) + 1 if len(last_image) else 0)

    def _tokens_after(self, text: str, place: int) -> int:
        """How many tokens of the text begin at or after this character."""
        if getattr(self.tokenizer, "is_fast", False):
            offsets = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
            return sum(first >= place for first, _ in offsets)
        # A tokenizer in Python has no offsets: count what the text before and the text after have in common with it.
        whole, head, tail = (self._ids(part, special=False) for part in (text, text[:place], text[place:]))
        if whole[: len(head)] == head:
            return len(whole) - len(head)
        pairs = zip(reversed(whole), reversed(tail), strict=False)
        return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(whole), len(tail)))

    def batch_kind(self, prompt: Prompt | Encoded) -> int:
        """Prompts of one kind may share a batch. All are of one kind, but where pictures enter by cross-attention:
        there the text before a picture reads every picture slot of the batch, the empty ones of other rows included, so
        only rows with the same number of images read what they read alone."""
        if not self.crosses:
            return 0
        return prompt.n_images if isinstance(prompt, Encoded) else len(prompt.images)

    def collate(self, encoded: Sequence[Encoded], side: str = "right") -> Batch:
        """Rows of one batch, padded on `side`. Pads are never real: their position is -1. Raises PromptError for rows
        that cannot share a batch (see `batch_kind`)."""
        if len(kinds := {self.batch_kind(one) for one in encoded}) > 1:
            raise PromptError(
                f"one batch has prompts with {' and '.join(map(str, sorted(kinds)))} images: expected the same number "
                "in every row, since this model's text reads pictures by cross-attention, the fill of other rows "
                "included. Sort prompts by encoder.batch_kind(prompt) and run each kind by itself."
            )
        width, n = max(len(one) for one in encoded), len(encoded)
        input_ids = torch.full((n, width), self.pad_id, dtype=torch.long)
        position = torch.full((n, width), -1, dtype=torch.long)
        places = [slice(width - len(one), width) if side == "left" else slice(0, len(one)) for one in encoded]
        for row, (one, columns) in enumerate(zip(encoded, places, strict=True)):
            input_ids[row, columns] = one.input_ids
            position[row, columns] = torch.arange(len(one))
        per_token = {
            name: joined_tokens([one.per_token.get(name) for one in encoded], places, width)
            for name in sorted({name for one in encoded for name in one.per_token})
        }
        real = position >= 0
        holds = torch.zeros_like(real) if self.placeholder_id is None else real & (input_ids == self.placeholder_id)
        is_image = torch.zeros_like(real) if self.image_token_id is None else holds
        tokens = Tokens(
            input_ids=input_ids,
            position=position,
            prompt_length=torch.tensor([one.prompt_length for one in encoded]),
            instruction_end=torch.tensor([one.instruction_end for one in encoded]),
            end=torch.tensor(
                [one.prompt_length + one.response_length if one.response_length else OPEN_END for one in encoded]
            ),
            is_image=is_image,
            image_end=torch.where(holds, position + 1, 0).amax(dim=1),
            text_of=lambda token: self.tokenizer.decode([token]),
        )
        images = joined_images([one.images for one in encoded])
        rows = tuple(row for row, one in enumerate(encoded) for _ in range(one.n_images))
        inputs = {"input_ids": input_ids, "attention_mask": real.long(), **per_token, **images}
        return Batch(tuple(encoded), inputs, tokens, rows, self, side)


def next_token_index(batch: Batch) -> tuple[Int[Tensor, " k"], Int[Tensor, " row"]]:
    """The columns whose logits are wanted (each once), and which of them belongs to each row."""
    return torch.unique(batch.last_index, return_inverse=True)


def last_rows(logits: Float[Tensor, "row k vocab"], of_row: Int[Tensor, " row"]) -> Float[Tensor, "row vocab"]:
    """Each row's own column of the logits that `next_token_index` asked for."""
    return logits[torch.arange(len(of_row), device=logits.device), of_row.to(logits.device)]
