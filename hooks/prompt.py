"""Prompt: one input of an experiment, text and images, and `read_prompts`, the one reader of prompt files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hooks.picture_files import picture_bytes, picture_inside
from hooks.plain_files import Refused, lines_of, nearest, parsed

OTHER_FORMATS = {
    ".csv": "Tables are read by wb.read_table(FILE).",
    ".tsv": "Tables are read by wb.read_table(FILE).",
    ".yaml": "Question sets are read by wb.read_questions(FILE).",
    ".yml": "Question sets are read by wb.read_questions(FILE).",
}
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")
ROLES = ("system", "user", "assistant", "tool")


class PromptError(Refused):
    """A prompt file, or a prompt, that cannot be used; the message says where, what was expected and what came."""


@dataclass(frozen=True)
class Message:
    """One turn: a role and its parts in order; a `str` is text, a `Path` is an image."""

    role: str
    parts: tuple[str | Path, ...]

    @property
    def text(self) -> str:
        return "".join(part for part in self.parts if isinstance(part, str))

    @property
    def images(self) -> tuple[Path, ...]:
        return tuple(part for part in self.parts if isinstance(part, Path))


@dataclass(frozen=True)
class Prompt:
    """One input: a conversation (`messages`) or raw `text`, perhaps with the answer that follows it.

    Raw text may show `pictures`, for models without a chat template: where it has the model's own placeholder
    (`"<image>caption en"`), or in front of it when it has none. `prefill` is the beginning of the answer, given to the
    model as part of the prompt (the scope `last` is then its last token); `response` is an answer that is complete.
    `label` is the class that a study contrasts; `tags` holds every other key of the prompt's line. The id is what rows
    are joined by: it is unique in a file.
    """

    id: str
    messages: tuple[Message, ...] = ()
    text: str | None = None
    prefill: str | None = None
    response: str | None = None
    label: str | None = None
    tags: Mapping[str, Any] = field(default_factory=dict)
    pictures: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if self.pictures and self.text is None:
            raise PromptError(f"prompt {self.id!r}: pictures go with raw text: expected images as parts of a message.")
        if bool(self.messages) == (self.text is not None):
            raise PromptError(
                f"prompt {self.id!r}: expected either messages or text, got {'both' if self.messages else 'neither'}."
            )

    def __repr__(self) -> str:
        turns = [(m.role, m.text) for m in self.messages] or [("text", self.text or "")]
        turns += [(name, text) for name in ("prefill", "response") if (text := getattr(self, name)) is not None]
        said = [f"{role} {text if len(text) <= 60 else text[:57] + '...'!r}" for role, text in turns[-4:]]
        said = [f"{len(turns) - 4} turns before", *said] if len(turns) > 4 else said
        said += [f"{len(self.images)} images"] if self.images else []
        said += [] if self.label is None else [f"label {self.label!r}"]
        said += [f"tags {', '.join(map(repr, self.tags))}"] if self.tags else []
        return f"{type(self).__name__}({self.id!r}: {', '.join(said)})"

    @property
    def images(self) -> tuple[Path, ...]:
        """The images of all turns, or of the raw text, in order."""
        return self.pictures or tuple(image for message in self.messages for image in message.images)

    @property
    def content_hash(self) -> str:
        """sha256 of all that the model sees: roles, texts, image bytes, prefill and response; no id, label or tags."""
        return _content_hash(self.messages, self.text, self.prefill, self.response, self.pictures)

    def record(self) -> dict[str, Any]:
        """The prompt as a store keeps it: id, label, tags and content hash."""
        return {"id": self.id, "label": self.label, "tags": dict(self.tags), "sha256": self.content_hash}


def _content_hash(
    messages: Iterable[Message],
    text: str | None,
    prefill: str | None,
    response: str | None,
    pictures: Iterable[Path] = (),
) -> str:
    digest = hashlib.sha256()

    def add(part: str | Path) -> None:
        is_image = isinstance(part, Path)
        digest.update(
            b"\0image" + hashlib.sha256(picture_bytes(part)).digest() if is_image else f"\0text {part}".encode()
        )

    for message in messages:
        digest.update(f"\0role {message.role}".encode())
        for part in message.parts:
            add(part)
    for picture in pictures:
        add(picture)
    digest.update(json.dumps([text, prefill, response]).encode())
    return digest.hexdigest()


def as_prompts(prompts: str | Path | Iterable[Prompt]) -> list[Prompt]:
    """The prompts of a JSONL file, or those given, after the same checks (not empty, no id twice)."""
    if isinstance(prompts, str | Path):
        return read_prompts(prompts)
    listed = list(prompts)
    if not listed:
        raise PromptError("no prompts: expected at least one.")
    seen: set[str] = set()
    for prompt in listed:
        if not isinstance(prompt, Prompt):
            raise PromptError(
                f"a prompt is {type(prompt).__name__}: expected wb.Prompt(id, text=...) or wb.read_prompts(FILE)."
            )
        if prompt.id in seen:
            raise PromptError(
                f"prompt id {prompt.id!r} is there twice: rows are joined by id, so every id must be unique."
            )
        seen.add(prompt.id)
    return listed


def read_prompts(path: str | Path, *, pictures: str | Path | None = None) -> list[Prompt]:
    """The prompts of a JSONL file, one JSON object a line; image paths are relative to the file's folder, and lead to
    files in it, or in the folder `pictures`.

    Keys: `messages` (chat turns; `content` is a string or a list of text and image parts) or `text` (no chat template,
    with `pictures`, a list of paths, where the text has placeholders for them); optional `id` (else the content hash),
    `prefill`, `response`, `label`; every other key becomes a tag. A final assistant turn is the response. Raises
    PromptError with the line number on anything that it cannot use.
    """
    path = Path(path)
    if not path.is_file():
        came, mend = ("is a folder", "") if path.is_dir() else ("does not exist", nearest(path))
        raise PromptError(f"prompt file {path} {came}: expected a JSONL file, one prompt a line.{mend}")
    if path.suffix.lower() in OTHER_FORMATS:
        raise PromptError(f"{path} is no JSONL: expected one JSON object a line. {OTHER_FORMATS[path.suffix.lower()]}")
    prompts: list[Prompt] = []
    line_of: dict[str, int] = {}
    for number, line in _lines_of(path):
        if not line.strip():
            continue
        try:
            prompt = prompt_from(parsed(line), path.parent, pictures)
        except Refused as error:
            raise PromptError(f"{path}, line {number}: {error}") from None
        if prompt.id in line_of:
            raise PromptError(
                f"{path}, line {number}: id {prompt.id!r} was used on line {line_of[prompt.id]}: every id must "
                "be unique (a line without an id is named by its content, so two equal lines need ids)."
            )
        line_of[prompt.id] = number
        prompts.append(prompt)
    if not prompts:
        raise PromptError(f"prompt file {path} is empty: expected one JSON object a line.")
    return prompts


def _lines_of(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        yield from lines_of(path)
    except Refused as error:
        raise PromptError(str(error)) from None


def prompt_from(row: Any, folder: Path, pictures: str | Path | None = None) -> Prompt:
    """The prompt of one JSON line, its images relative to `folder` (and inside it, or inside `pictures`). Raises
    PromptError, which does not know the line's number."""
    if not isinstance(row, dict):
        mend = " (Of a list in one document, write each object on a line.)" if isinstance(row, list) else ""
        raise PromptError(f"expected a JSON object, got {type(row).__name__}.{mend}")
    row = dict(row)
    turns = row.pop("messages", None) or []
    if not isinstance(turns, list):
        raise PromptError(f"messages is {type(turns).__name__}: expected a list of turns.")
    image = partial(_image_from, folder=folder, pictures=pictures)
    messages = tuple(_message_from(turn, image) for turn in turns)
    text, prefill, response, label = (_optional_text(row, key) for key in ("text", "prefill", "response", "label"))
    if messages and messages[-1].role == "assistant":
        if response is not None:
            raise PromptError("both a final assistant turn and a response: expected one of them.")
        if messages[-1].images:
            raise PromptError("the final assistant turn has an image: expected a response of text only.")
        messages, response = messages[:-1], messages[-1].text
        if not messages:
            raise PromptError("the only turn is the assistant's: expected a user turn before it.")
    if not messages and text is None:
        raise PromptError(
            f"neither messages nor text came (keys: {', '.join(map(repr, list(row)[:12]))}): expected "
            '"messages": [{"role": "user", "content": "..."}], or "text": "..." (raw, past the template).'
        )
    named = row.pop("pictures", None) or []
    if not isinstance(named, list) or (named and text is None):
        raise PromptError("pictures is a list of paths beside 'text': expected images of a conversation as its parts.")
    shown = tuple(image(name) for name in named)
    if (unread := _looks_shown(row)) and not shown and not any(message.images for message in messages):
        raise PromptError(
            f"{unread!r} names a picture that no model would see: expected images as parts of a message, "
            '{"type": "image", "image": path}, or "pictures" beside "text".'
        )
    identifier = row.pop("id", None)
    if identifier is not None and (isinstance(identifier, bool) or not isinstance(identifier, str | int | float)):
        raise PromptError(f"the id is {type(identifier).__name__}: expected text or a number.")
    if identifier is not None and not str(identifier).strip():
        raise PromptError("the id is empty: leave it out, or give it text.")
    if identifier is None:
        identifier = _content_hash(messages, text, prefill, response, shown)[:16]
    return Prompt(str(identifier), messages, text, prefill, response, label, row, shown)


def _looks_shown(row: Mapping[str, Any]) -> str | None:
    """The key of a line that names pictures as other libraries do; here it would be a tag, and nothing be shown."""
    for key in ("image", "images", "image_path"):
        named = row.get(key)
        first = named[0] if isinstance(named, list) and named else named
        if isinstance(first, str) and Path(first).suffix.lower() in PICTURES:
            return key
    return None


def _optional_text(row: dict[str, Any], key: str) -> str | None:
    value = row.pop(key, None)
    if key == "label" and isinstance(value, int | float):  # 0/1 labels are common; a label is a name here
        return str(value)
    if value is not None and not isinstance(value, str):
        raise PromptError(f"{key} is {type(value).__name__}: expected text.")
    if value is not None and not value.strip():
        raise PromptError(f"{key} is empty: leave it out, or give it text.")
    return value


def _message_from(turn: Any, image: Callable[[Any], Path]) -> Message:
    if not isinstance(turn, dict) or "role" not in turn:
        raise PromptError(f"a turn is {turn!r:.200}: expected an object with role and content.")
    role, content = turn["role"], turn.get("content")
    if role not in ROLES:
        raise PromptError(f"role {role!r:.60} is unknown: expected one of {', '.join(ROLES)}.")
    if not isinstance(content, str | list | None):
        raise PromptError(f"the {role} turn's content is {type(content).__name__}: expected text or a list of parts.")
    parts = (content,) if isinstance(content, str) else tuple(_part_from(part, image) for part in content or ())
    if not any(isinstance(part, Path) or part.strip() for part in parts):
        raise PromptError(f"the {role} turn is empty: expected text or an image.")
    return Message(role, parts)


def _part_from(part: Any, image: Callable[[Any], Path]) -> str | Path:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return part["text"]
    if kind == "image":
        return image(part.get("image") or part.get("path"))
    raise PromptError(
        f"a part is {part!r:.200}: expected {{'type': 'text', 'text': ...}} or {{'type': 'image', 'image': path}}."
    )


def _image_from(name: Any, folder: Path, pictures: str | Path | None) -> Path:
    if not isinstance(name, str):
        raise PromptError("an image part gives no path: expected {'type': 'image', 'image': 'pictures/1.png'}.")
    try:
        return picture_inside(name, folder, pictures)
    except Refused as error:
        raise PromptError(str(error)) from None
