"""What a judge model's reply says: a score, or no score and why.

Strict on purpose. A number somewhere in prose is no score; a score that the reply contradicts is none; nothing is
dropped without a reason, since the share of answers without a score is a result of its own.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.behaviour.endpoint_reply import Reply

_NUMBER = re.compile(r"[-+]?\d{1,9}(?:\.\d{1,9})?")
# The whole reply: a number, perhaps announced ("Score: 85"), perhaps out of something ("85/100"), perhaps emphasised.
_ALONE = re.compile(
    rf"[\s*_`\"'(\[]*(?:(?:the\s+)?(?:final\s+)?(?:score|rating|answer)\s*(?:is|[:=])\s*)?[\s*_`\"'(\[]*(?P<number>{_NUMBER.pattern})"
    r"(?:\s*(?:/|out\s+of)\s*(?P<top>\d{1,9}))?[\s*_`\"')\].%]*",
    re.IGNORECASE,
)
_WRITTEN = re.compile(r"(?<![\w.])[-+]?\d{1,9}(?:\.\d{1,9})?(?!\w)")  # numbers in prose
_TAG = re.compile(r"<score>(.*?)</score>", re.IGNORECASE | re.DOTALL)
_THINKING = re.compile(r"\s*<think>.*?</think>", re.DOTALL)


@dataclass(frozen=True)
class Reading:
    """A score, or None and the reason. `found` holds the other keys of a JSON reply."""

    score: float | None
    reason: str
    found: Mapping[str, Any] = field(default_factory=dict)


def read_number(text: str, scale: tuple[int, int], abstain: Sequence[str] = ()) -> Reading:
    """The score of a reply that is a bare number."""
    text = _without_thinking(text)
    if stopped := _no_score(text, abstain):
        return stopped
    if match := _ALONE.fullmatch(text):
        return _on_scale(match, scale)
    numbers = list(dict.fromkeys(_WRITTEN.findall(text)))
    if len(numbers) > 1:
        return Reading(None, f"several numbers: {', '.join(numbers[:5])}")
    return Reading(None, f"no bare number: {_short(text)}")


def read_score_tag(text: str, scale: tuple[int, int], abstain: Sequence[str] = ()) -> Reading:
    """The score of a reply with reasoning and <score>n</score>."""
    text = _without_thinking(text)
    if stopped := _no_score(text, abstain):
        return stopped
    tags = _TAG.findall(text)
    if not tags:
        opened = "<score>" in text.lower()
        return Reading(None, "the <score> tag is not closed" if opened else f"no <score> tag: {_short(text)}")
    readings = [read_number(tag, scale, abstain) for tag in tags]
    scores = {reading.score for reading in readings}
    if len(scores) > 1:
        return Reading(None, f"several scores: {', '.join(tag.strip()[:20] for tag in tags[:5])}")
    return readings[0]


def read_json(
    text: str, scale: tuple[int, int], abstain: Sequence[str] = (), wanted: Sequence[str] = ("score",)
) -> Reading:
    """The score of a reply that is, or holds, one JSON object with the keys `wanted`; `found` has its keys."""
    text = _without_thinking(text)
    if stopped := _no_score(text, abstain):
        return stopped
    objects = [one for one in _objects(text) if "score" in one]
    if not objects:
        return Reading(None, f"no JSON object with a score: {_short(text)}")
    if any(one != objects[0] for one in objects[1:]):
        return Reading(None, f"several scores: {', '.join(_short(str(one['score'])) for one in objects[:5])}")
    found = objects[0]
    if isinstance(found["score"], list):
        return Reading(None, f"several scores: {found['score'][:5]}", found)
    if missing := [key for key in wanted if key not in found]:
        return Reading(None, f"the JSON object has no {missing[0]!r}", found)
    value = found["score"]
    if value is None or isinstance(value, bool | dict):
        return Reading(None, f"the score is {json.dumps(value)[:60]}, no number", found)
    read = read_number(value if isinstance(value, str) else repr(value), scale, abstain)
    return Reading(read.score, read.reason, {key: value for key, value in found.items() if key != "score"})


READERS: dict[str, Callable[..., Reading]] = {"number": read_number, "score_tag": read_score_tag, "json": read_json}


def why_incomplete(reply: Reply, limit: int) -> str | None:
    """Why a reply is not to be read at all, or None. One that was cut off has no score, even where a number stands in
    it: what would have followed is unknown."""
    if reply.refusal is not None:
        return f"the judge refused: {_short(reply.refusal)}"
    if reply.finish == "content_filter":
        return "stopped by the content filter"
    if reply.finish == "length":
        return f"cut off at {limit} tokens"
    if reply.finish in ("tool_calls", "function_call"):
        return "the judge called a tool instead of answering"
    return None


def _no_score(text: str, abstain: Sequence[str]) -> Reading | None:
    if not text.strip():
        return Reading(None, "empty reply")
    word = re.sub(r"[^\w]+", " ", text).strip().casefold()
    for one in abstain:
        if word == one.casefold():
            return Reading(None, f"abstained: {one}")
    return None


def _on_scale(match: re.Match[str], scale: tuple[int, int]) -> Reading:
    low, high = scale
    value = float(match["number"])
    if match["top"] is not None and float(match["top"]) != high:
        return Reading(None, f"on another scale: {match[0].strip()}, expected {low} to {high}")
    if not (math.isfinite(value) and low <= value <= high):
        return Reading(None, f"out of scale: {match['number']}, expected {low} to {high}")
    return Reading(value, f"says {match['number']}")


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text, outermost ones, in order; a key that an object has twice with two values is a list
    of them."""
    decoder = json.JSONDecoder(object_pairs_hook=_once)
    start = text.find("{")
    while start >= 0:
        try:
            found, end = decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated"):
                return  # the text ends inside this object: one inside it does not stand for it
            end = start + 1
        except (ValueError, RecursionError):
            return
        else:
            yield found
        start = text.find("{", end)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in pairs:
        out[key] = [out[key], value] if key in out and out[key] != value else value
    return out


def _without_thinking(text: str) -> str:
    """Some servers put a model's thinking in front of its reply; a number that it weighs there is no score."""
    return _THINKING.sub("", text, count=1) if _THINKING.match(text) else text


def _short(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 60 else text[:57] + "...")
