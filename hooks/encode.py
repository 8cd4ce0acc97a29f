"""Prompts become token ids once: chat template, images, spans; then batches, padded right for `run`, left for
`generate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooks.positions import OPEN_END, Tokens
from hooks.prompt import Message, Prompt, PromptError

MARK = "\ue000"  # a private-use character: put behind a turn's content, it shows what the chat template writes after it
PER_TOKEN = ("token_type_ids", "mm_token_type_ids")  # what some processors return beside the ids, one a token


@dataclass(frozen=True)
class Encoded:
    """One prompt as the model reads it. The response's ids come after the prompt's: both stay what they were."""

    id: str
    input_ids: Int[Tensor, " pos"]
    prompt_length: int
    instruction_end: int
    response_length: int
    per_token: dict[str, Tensor] = field(default_factory=dict)  # name -> [pos]
    images: dict[str, Tensor] = field(default_factory=dict)  # pixel_values and its kin; concatenated along dim 0
    n_images: int = 0

    def __len__(self) -> int:
        return len(self.input_ids)

    def prompt_only(self) -> Encoded:
        """The same prompt without its response."""
        if not self.response_length:
            return self
        p = self.prompt_length
        per_token = {name: values[:p] for name, values in self.per_token.items()}
        return Encoded(self.id, self.input_ids[:p], p, self.instruction_end, 0, per_token, self.images, self.n_images)

    def extended(self, ids: Sequence[int]) -> Encoded:
        """The same prompt with more tokens after it, its response still open."""
        more = torch.as_tensor(list(ids), dtype=self.input_ids.dtype)
        longer = {name: torch.cat([kept, kept.new_zeros(len(more))]) for name, kept in self.per_token.items()}
        return Encoded(
            self.id,
            torch.cat([self.input_ids, more]),
            self.prompt_length,
            self.instruction_end,
            0,
            longer,
            self.images,
            self.n_images,
        )


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

    @property
    def last_index(self) -> Int[Tensor, " row"]:
        """The column of each row's last real token."""
        return self.tokens.position.argmax(dim=1)

    def padded(self, side: str) -> Batch:
        """The same rows, padded on the other side."""
        return self if side == self.side else self.encoder.collate(self.encoded, side)

    def rows(self, index: Sequence[int]) -> Batch:
        """The chosen rows, in this order; a row may be taken many times (one for each cell of a grid)."""
        return self.encoder.collate([self.encoded[row] for row in index], self.side)


class Encoder:
    """Turns prompts into ids with a model's own tokenizer, chat template and image processor.

    `image_token_id` is the config's (a processor's own attribute of that name may be another token). Raises PromptError
    on what would silently change the input: a second BOS, a system turn that the template drops, images for a text
    model.
    """

    def __init__(self, tokenizer: Any, processor: Any = None, image_token_id: int | None = None) -> None:
        self.tokenizer = tokenizer
        self.processor = processor
        self.image_token_id = image_token_id
        # A model that reads per-token types wants them for text rows as well (Gemma3 refuses to train without).
        self.per_token_names = [name for name in PER_TOKEN if name in getattr(processor, "model_input_names", ())]
        self.pad_id = next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)

    def __call__(self, prompts: Sequence[Prompt], side: str = "right") -> Batch:
        return self.collate([self.encode(prompt) for prompt in prompts], side)

    def encode(self, prompt: Prompt, *, closed: bool = False) -> Encoded:
        """One prompt's ids and spans. `closed` puts what the template writes after an answer (end of turn) behind the
        response, for training; captures and statistics leave it out."""
        rendered = self.rendered(prompt)
        images: dict[str, Tensor] = {}
        if prompt.images:
            ids, per_token, images = self._with_images(prompt, rendered)
        else:
            ids = torch.tensor(self._ids(rendered, special=prompt.text is not None), dtype=torch.long)
            per_token = {name: torch.zeros_like(ids) for name in self.per_token_names}
        if len(ids) == 0:
            raise PromptError(f"prompt {prompt.id!r} has no tokens.")
        bos = self.tokenizer.bos_token_id
        if bos is not None and len(ids) > 1 and ids[0] == ids[1] == bos:
            raise PromptError(
                f"prompt {prompt.id!r} begins with two BOS tokens: expected one. The chat template and the text both "
                "write it; take it out of the text."
            )
        instruction_end = self._instruction_end(prompt, rendered, ids)
        p = len(ids)
        response = [] if prompt.response is None else self.continuation_ids(prompt.response)
        tail = self.continuation_ids(self.end_of_turn(prompt, rendered)) if closed else []
        one = Encoded(prompt.id, ids, p, instruction_end, 0, per_token, images, len(prompt.images)).extended(
            response + tail
        )
        return Encoded(one.id, one.input_ids, p, instruction_end, len(response), one.per_token, images, one.n_images)

    def rendered(self, prompt: Prompt) -> str:
        """The prompt as text, chat template applied once, image placeholders not yet expanded."""
        if prompt.text is not None:
            return prompt.text + (prompt.prefill or "")
        if prompt.images and self.processor is None:
            raise PromptError(
                f"prompt {prompt.id!r} has images, but the model reads text only: expected an image-text model."
            )
        if self._template_of().chat_template is None:
            raise PromptError(
                f"prompt {prompt.id!r} is a conversation, but the tokenizer has no chat template: expected an "
                "instruct model, or prompts with 'text' instead of 'messages'."
            )
        rendered = self._apply(prompt.messages, add_generation_prompt=True)
        for message in prompt.messages:
            if message.role == "system" and message.text.strip() not in rendered:
                raise PromptError(
                    f"prompt {prompt.id!r}: the chat template drops the system turn {message.text[:60]!r}."
                )
        return rendered + (prompt.prefill or "")

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

    def _with_images(self, prompt: Prompt, rendered: str) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        from PIL import Image

        pictures = []
        for path in prompt.images:
            try:
                with Image.open(path) as picture:
                    pictures.append(picture.convert("RGB"))
            except OSError as error:
                raise PromptError(f"prompt {prompt.id!r}: image {path} cannot be read ({error}).") from None
        out = dict(self.processor(text=[rendered], images=[pictures], add_special_tokens=False, return_tensors="pt"))
        ids = out.pop("input_ids")[0]
        out.pop("attention_mask", None)
        per_token = {name: out.pop(name)[0] for name in PER_TOKEN if name in out}
        if self.image_token_id is not None and not (ids == self.image_token_id).any():
            raise PromptError(
                f"prompt {prompt.id!r}: its image became no tokens with id {self.image_token_id} (the config's image "
                "token)."
            )
        return ids, per_token, {name: value for name, value in out.items() if isinstance(value, Tensor)}

    def _instruction_end(self, prompt: Prompt, rendered: str, ids: Int[Tensor, " pos"]) -> int:
        # Counted from the end: image placeholders expand before the user's text ends, template tokens after it do not.
        p, turns = len(ids), list(prompt.messages)
        asked = next((i for i in reversed(range(len(turns))) if turns[i].role == "user"), None)
        if asked is None or not getattr(self.tokenizer, "is_fast", False):
            return p
        turns[asked] = Message("user", (*turns[asked].parts, MARK))
        _, found, tail = self._apply(turns, add_generation_prompt=True).rpartition(MARK)
        tail += prompt.prefill or ""
        if not found or not rendered.endswith(tail):
            return p
        offsets = self.tokenizer(rendered, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        after = sum(first >= len(rendered) - len(tail) for first, _ in offsets)
        last_image = (ids == self.image_token_id).nonzero() if self.image_token_id is not None else ids[:0]
        return max(p - after, int(last_image[-1]) + 1 if len(last_image) else 0)

    def collate(self, encoded: Sequence[Encoded], side: str = "right") -> Batch:
        """Rows of one batch, padded on `side`. Pads are never real: their position is -1."""
        width, n = max(len(one) for one in encoded), len(encoded)
        input_ids = torch.full((n, width), self.pad_id, dtype=torch.long)
        position = torch.full((n, width), -1, dtype=torch.long)
        names = {name for one in encoded for name in one.per_token}
        per_token = {name: torch.zeros((n, width), dtype=torch.long) for name in names}
        for row, one in enumerate(encoded):
            columns = slice(width - len(one), width) if side == "left" else slice(0, len(one))
            input_ids[row, columns] = one.input_ids
            position[row, columns] = torch.arange(len(one))
            for name, values in one.per_token.items():
                per_token[name][row, columns] = values
        real = position >= 0
        is_image = (
            real & (input_ids == self.image_token_id) if self.image_token_id is not None else torch.zeros_like(real)
        )
        tokens = Tokens(
            input_ids=input_ids,
            position=position,
            prompt_length=torch.tensor([one.prompt_length for one in encoded]),
            instruction_end=torch.tensor([one.instruction_end for one in encoded]),
            end=torch.tensor(
                [one.prompt_length + one.response_length if one.response_length else OPEN_END for one in encoded]
            ),
            is_image=is_image,
            image_end=torch.where(is_image, position + 1, 0).amax(dim=1),
            text_of=lambda token: self.tokenizer.decode([token]),
        )
        stacks = {name for one in encoded for name in one.images}
        images = {
            name: torch.cat([one.images[name] for one in encoded if name in one.images]) for name in sorted(stacks)
        }
        rows = tuple(row for row, one in enumerate(encoded) for _ in range(one.n_images))
        inputs = {"input_ids": input_ids, "attention_mask": real.long(), **per_token, **images}
        return Batch(tuple(encoded), inputs, tokens, rows, self, side)


def next_token_index(batch: Batch) -> tuple[Int[Tensor, " k"], Int[Tensor, " row"]]:
    """The columns whose logits are wanted (each once), and which of them belongs to each row."""
    return torch.unique(batch.last_index, return_inverse=True)


def last_rows(logits: Float[Tensor, "row k vocab"], of_row: Int[Tensor, " row"]) -> Float[Tensor, "row vocab"]:
    """Each row's own column of the logits that `next_token_index` asked for."""
    return logits[torch.arange(len(of_row), device=logits.device), of_row.to(logits.device)]
