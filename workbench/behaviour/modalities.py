"""The modalities of an evaluation: the same prompts with their images, without them, or with something in their place.

What a fine-tuned model does with a picture in front of it is one question, whether the picture matters another: the
controls are the same question with another prompt's picture, with a plain one of equal size, or with a caption.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hooks.prompt import Message, Prompt, PromptError, as_prompts
from workbench.behaviour.image_donors import image_donors
from workbench.behaviour.plain_images import GREY, Colour, hexadecimal, plain_image
from workbench.training.rows import Rows

MODALITIES = ("text_only", "multimodal", "swapped", "blank", "captioned")
TAGS = ("shown_as", "shown_of", "asked_with", "image_of")  # what a prompt that was shown otherwise has
Given = str | Path | Iterable[Prompt]


def in_modalities(
    prompts: Given,
    modalities: Sequence[str] = ("text_only", "multimodal"),
    *,
    to: str | Path | None = None,
    colour: Colour = GREY,
    caption: str = "image_desc",
    form: str = "{caption}\n",
    within: str | None = None,
    across: str | None = None,
    seed: int = 0,
) -> Rows:
    """The prompts in each of these modalities, as one list; its `made` says, modality by modality, what it holds.

    A prompt "x" becomes "x@text_only", "x@swapped", ... with the tags `shown_as` (the modality), `shown_of` ("x", by
    which modalities are joined), `asked_with` and `modality` ("image" or "text": what the prompt had, and what the
    model is given now). One without a `family` or `question` tag gets "x" as its family, so that no interval takes its
    modalities for several prompts. `to` is the folder of blank images, `caption` the tag of captions and `form` how
    they are written; `within`, `across` and `seed` are `swapped`'s. Prompts without images are in `text_only` alone.
    Raises PromptError, and ValueError for unknown modalities, none, or one twice.
    """
    listed = as_prompts(prompts)
    if not modalities or len(set(modalities)) < len(modalities) or set(modalities) - set(MODALITIES):
        raise ValueError(f"modalities={list(modalities)}: expected some of {', '.join(MODALITIES)}, each once.")
    seeing = [prompt for prompt in listed if prompt.images]
    if len(seeing) < len(listed) and "text_only" not in modalities:
        raise PromptError(
            f"{len(listed) - len(seeing)} of {len(listed)} prompts have no image and would be in no modality: leave "
            "them out, or ask for 'text_only' as well."
        )
    if "blank" in modalities and to is None:
        raise ValueError("blank images are files: expected to=, a folder for them.")
    made = {
        "text_only": lambda: text_only(listed),
        "multimodal": lambda: multimodal(seeing),
        "swapped": lambda: swapped(seeing, seed=seed, within=within, across=across),
        "blank": lambda: blank(seeing, to=to or "", colour=colour),
        "captioned": lambda: captioned(seeing, caption=caption, form=form),
    }
    parts = {name: made[name]() for name in modalities}
    whole = as_prompts(prompt for rows in parts.values() for prompt in rows)
    return Rows(tuple(whole), {name: dict(rows.made) for name, rows in parts.items()})


def multimodal(prompts: Given) -> Rows:
    """The prompts as they are, images included."""
    return _rows("multimodal", [(prompt, prompt, {}) for prompt in _seeing(prompts, "multimodal")])


def text_only(prompts: Given) -> Rows:
    """The prompts without their images, texts that stood around one joined; `made` counts how many lost an image.

    Questions about what is seen ("which colour is it?") are asked all the same: whether an answer without the picture
    means anything is for the reader. Raises PromptError where nothing is left of a turn, and for raw text whose
    placeholders only its model knows.
    """
    listed = as_prompts(prompts)
    out = [(_with_images(p, [""] * len(p.images), "text_only"), p, {}) for p in listed]
    lost = [len(prompt.images) for prompt in listed if prompt.images]
    made = {"lost an image": len(lost), "had none": len(listed) - len(lost), "images removed": sum(lost)}
    return _rows("text_only", out, **made)


def swapped(prompts: Given, *, seed: int = 0, within: str | None = None, across: str | None = None) -> Rows:
    """Each prompt with the images of another, named in its tag `image_of`; each image is shown as often as before.

    No prompt keeps an image of its own, nor gets an equal file. `within` is a tag that prompt and donor share (their
    domain), `across` one in which they differ (the right answer, so that the question is about the wrong picture).
    Raises PromptError where that is impossible: more than half of the prompts of a group would have to be apart.
    """
    listed = _seeing(prompts, "swapped")
    donors = image_donors(listed, seed=seed, within=within, across=across)
    pairs = zip(listed, donors, strict=True)
    out = [(_with_images(prompt, donor.images, "swapped"), prompt, {"image_of": donor.id}) for prompt, donor in pairs]
    return _rows("swapped", out, within=within, across=across, seed=seed)


def blank(prompts: Given, *, to: str | Path, colour: Colour = GREY) -> Rows:
    """Each image replaced by a plain one of the same size and mode, written once into the folder `to` as PNG.

    `colour` is red, green and blue, 0..255; an image whose mode cannot hold it in a PNG (black and white, CMYK) gets
    an RGB one, which `made` counts: models read all images as RGB. Raises PromptError for an image that cannot be read.
    """
    listed = _seeing(prompts, "blank")
    plain = {path: plain_image(path, Path(to), colour) for prompt in listed for path in prompt.images}
    out = [(_with_images(p, [plain[path][0] for path in p.images], "blank"), p, {}) for p in listed]
    as_rgb = sum(other for _, other in plain.values())
    return _rows("blank", out, colour=hexadecimal(colour), **{"written as RGB for want of a mode": as_rgb})


def captioned(prompts: Given, *, caption: str = "image_desc", form: str = "{caption}\n") -> Rows:
    """Each image replaced by text, at its place: its caption, from the tag `caption` (a text, or a list of one text an
    image), in `form`. Raises PromptError for prompts without as many captions as images."""
    if "{caption}" not in form:
        raise ValueError(f"form={form!r}: expected a text with {{caption}} where the caption stands.")
    listed = _seeing(prompts, "captioned")
    if lacking := [p.id for p in listed if len(_captions(p, caption)) != len(p.images)]:
        raise PromptError(
            f"{len(lacking)} of {len(listed)} prompts do not have one caption for each image in their tag {caption!r}, "
            f"the first {lacking[0]!r}: expected text, or a list of texts; caption= names another tag."
        )
    texts = [[form.replace("{caption}", text) for text in _captions(prompt, caption)] for prompt in listed]
    out = [(_with_images(p, text, "captioned"), p, {}) for p, text in zip(listed, texts, strict=True)]
    return _rows("captioned", out, caption=caption, form=form, **{"images described": sum(map(len, texts))})


def _captions(prompt: Prompt, tag: str) -> list[str]:
    given = prompt.tags.get(tag)
    listed = given if isinstance(given, list) else [given]
    return [text.strip() for text in listed if isinstance(text, str) and text.strip()]


def _seeing(prompts: Given, name: str) -> list[Prompt]:
    listed = as_prompts(prompts)
    if blind := [prompt.id for prompt in listed if not prompt.images]:
        raise PromptError(
            f"{len(blind)} of {len(listed)} prompts have no image, the first {blind[0]!r}: {name!r} expects prompts "
            "with images; prompts without go into 'text_only'."
        )
    return listed


def _with_images(prompt: Prompt, new: Sequence[Path | str], name: str) -> Prompt:
    """The prompt with its images, in order, replaced by others or by text."""
    if not any(isinstance(one, str) for one in new):
        if prompt.text is not None:
            return replace(prompt, pictures=tuple(new))
    elif prompt.text is not None:
        raise PromptError(
            f"prompt {prompt.id!r} is raw text with pictures, where only its model knows the placeholders: {name!r} "
            "expects a conversation (messages)."
        )
    given = iter(new)
    return replace(prompt, messages=tuple(_turn(turn, given, prompt.id, name) for turn in prompt.messages))


def _turn(turn: Message, new: Iterable[Path | str], prompt: str, name: str) -> Message:
    if not any(isinstance(part, Path) for part in turn.parts):
        return turn
    given = iter(new)
    parts = [next(given) if isinstance(part, Path) else part for part in turn.parts]
    if not any(isinstance(part, Path) or part.strip() for part in parts):
        raise PromptError(
            f"prompt {prompt!r} has a {turn.role} turn of nothing but images: {name!r} would leave it empty. Leave the "
            "prompt out."
        )
    if any(isinstance(was, Path) and isinstance(now, str) for was, now in zip(turn.parts, parts, strict=True)):
        parts = _joined(parts)
    return Message(turn.role, tuple(parts))


def _joined(parts: Iterable[Path | str]) -> list[Path | str]:
    """Neighbouring texts as one: chat templates trim each part, so that two words would grow together."""
    out: list[Path | str] = []
    for part in parts:
        if isinstance(part, str) and out and isinstance(out[-1], str):
            out[-1] += part
        else:
            out.append(part)
    return out


def _rows(name: str, shown: Sequence[tuple[Prompt, Prompt, Mapping[str, Any]]], **made: Any) -> Rows:
    prompts = tuple(_marked(prompt, source, name, tags) for prompt, source, tags in shown)
    images = [path for prompt in prompts for path in prompt.images]
    counts = {"prompts": len(prompts), "images": len(images), "distinct images": len(set(images))}
    return Rows(prompts, {"shown_as": name, **counts, **made})


def _marked(prompt: Prompt, source: Prompt, name: str, tags: Mapping[str, Any]) -> Prompt:
    if taken := sorted(set(source.tags) & set(TAGS)):
        raise PromptError(
            f"prompt {source.id!r} has the tag {taken[0]!r} already: expected prompts as they were before modalities "
            "were made of them."
        )
    family = {} if {"family", "question"} & set(source.tags) else {"family": source.id}
    facts = {"modality": _kind(prompt), "asked_with": _kind(source), "shown_as": name, "shown_of": source.id}
    return replace(prompt, id=f"{source.id}@{name}", tags={**source.tags, **family, **facts, **tags})


def _kind(prompt: Prompt) -> str:
    return "image" if prompt.images else "text"
