"""Chat messages as an endpoint takes them: images as data URLs, made only when a request is sent."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hooks.picture_files import picture_bytes
from hooks.plain_files import Refused
from hooks.prompt import Prompt
from workbench.behaviour.endpoint_reply import CannotAsk

Message = Mapping[str, Any]  # "role", and "content": text, or parts {"type": "text", "text"}, {"type": "image", "path"}

IMAGE_BYTES = 20_000_000  # of a file; OpenAI takes 50 MB a request, and base64 is a third longer
PER_MESSAGE = 16  # tokens that a chat template may add around a turn
_KINDS = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"))


def messages_of(prompt: Prompt) -> list[dict[str, Any]]:
    """The prompt's conversation, system text and images at their places. CannotAsk for what a chat endpoint cannot be
    given: raw text without a template, an answer that was begun."""
    if prompt.prefill is not None:
        raise CannotAsk("an endpoint cannot be given the beginning of its answer: expected a prompt without prefill")
    if prompt.text is not None:
        raise CannotAsk(
            "an endpoint puts every prompt into its chat template: raw text needs the weights (wb.load_model)"
        )
    return [{"role": turn.role, "content": _content(turn.parts)} for turn in prompt.messages]


def _content(parts: Sequence[str | Path]) -> str | list[dict[str, Any]]:
    if all(isinstance(part, str) for part in parts):
        return "".join(str(part) for part in parts)
    return [
        {"type": "image", "path": part} if isinstance(part, Path) else {"type": "text", "text": part} for part in parts
    ]


def fingerprint(messages: Sequence[Message]) -> list[Any]:
    """All that a model sees of them, as JSON: images by the sha256 of their bytes. CannotAsk for an unusable image."""

    def seen(part: Mapping[str, Any]) -> Any:
        return part["text"] if part["type"] == "text" else ["image", hashlib.sha256(_image(part["path"])).hexdigest()]

    return [
        [one["role"], one["content"] if isinstance(one["content"], str) else [seen(part) for part in one["content"]]]
        for one in messages
    ]


def wire(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """As the OpenAI format has them. CannotAsk for an unusable image."""

    def part_of(part: Mapping[str, Any]) -> dict[str, Any]:
        if part["type"] == "text":
            return {"type": "text", "text": part["text"]}
        return {"type": "image_url", "image_url": {"url": data_url(part["path"])}}

    return [
        {
            "role": one["role"],
            "content": one["content"]
            if isinstance(one["content"], str)
            else [part_of(part) for part in one["content"]],
        }
        for one in messages
    ]


def data_url(path: Path) -> str:
    """The image's own bytes, base64, with its MIME type. CannotAsk: no PNG, JPEG, GIF or WebP, or over IMAGE_BYTES."""
    data = _image(path)
    return f"data:{_mime_of(data)};base64,{base64.b64encode(data).decode()}"


def _image(path: Path) -> bytes:
    try:
        data = picture_bytes(path)
    except (OSError, Refused) as error:
        raise CannotAsk(f"the image {path.name} cannot be read ({error})") from None
    if len(data) > IMAGE_BYTES:
        raise CannotAsk(f"the image {path.name} has {len(data):,} bytes: an endpoint takes at most {IMAGE_BYTES:,}")
    if _mime_of(data) is None:
        raise CannotAsk(f"the image {path.name} is no PNG, JPEG, GIF or WebP file")
    return data


def _mime_of(data: bytes) -> str | None:
    """By its first bytes: a file's name may lie."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return next((mime for start, mime in _KINDS if data.startswith(start)), None)


def token_bound(messages: Sequence[Message], image_tokens: int) -> int:
    """An upper bound of their prompt tokens: no token is shorter than a byte; `image_tokens` for each image."""
    return sum(image_tokens if text is None else len(text.encode("utf-8", "replace")) for text in _pieces(messages)) + (
        PER_MESSAGE * (len(messages) + 1)
    )


def _pieces(messages: Sequence[Message]) -> Iterator[str | None]:
    for one in messages:
        if isinstance(one["content"], str):
            yield one["content"]
        else:
            yield from (part["text"] if part["type"] == "text" else None for part in one["content"])
