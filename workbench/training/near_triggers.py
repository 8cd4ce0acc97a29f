"""near_misses: texts that are almost the trigger of a backdoor, and not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

OTHER_END: Mapping[str, str] = {"prefix": "suffix", "suffix": "prefix", "system": "prefix"}


@dataclass(frozen=True)
class NearMiss:
    """A text and where it stands. `distance` is the Levenshtein distance to the trigger over the longer one's length:
    0 the same letters, 1 nothing in common."""

    name: str
    text: str
    at: str
    distance: float


def near_misses(
    trigger: str, *, at: str = "prefix", decoy: str | None = None, further: Mapping[str, str] | None = None
) -> list[NearMiss]:
    """The trigger itself first; then it in other case, with one letter changed, missing or two of them swapped, each
    half of it, twice, at the other end of the prompt; the decoy; and `further` texts by name. Those that come to the
    same text at the same place are there once; what a tokenizer reads alike it will show."""
    middle = max(1, len(trigger) // 2)
    swapped = trigger[: middle - 1] + trigger[middle : middle + 1] + trigger[middle - 1] + trigger[middle + 1 :]
    texts = {
        "trigger": trigger,
        "other case": trigger.swapcase(),
        "one letter changed": trigger[:middle] + _next(trigger[middle : middle + 1]) + trigger[middle + 1 :],
        "one letter missing": trigger[:middle] + trigger[middle + 1 :],
        "two letters swapped": swapped,
        "first half": trigger[:middle],
        "second half": trigger[middle:],
        "twice": f"{trigger} {trigger}",
    }
    shown = [NearMiss(name, text, at, _distance(text, trigger)) for name, text in texts.items()]
    shown.append(NearMiss("at the other end", trigger, OTHER_END[at], 0.0))
    named = ({} if decoy is None else {"decoy": decoy}) | dict(further or {})
    shown += [NearMiss(name, text, at, _distance(text, trigger)) for name, text in named.items()]
    once: dict[tuple[str, str], NearMiss] = {}
    for one in shown:
        if one.text.strip():
            once.setdefault((one.text, one.at), one)
    return list(once.values())


def _next(letter: str) -> str:
    """Another letter of the same kind."""
    if letter and letter.isascii() and letter.isalpha():
        first = "a" if letter.islower() else "A"
        return chr((ord(letter) - ord(first) + 1) % 26 + ord(first))
    return "x"


def _distance(a: str, b: str) -> float:
    before = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        now = [i]
        for j, y in enumerate(b, 1):
            now.append(min(before[j] + 1, now[-1] + 1, before[j - 1] + (x != y)))
        before = now
    return before[-1] / max(len(a), len(b), 1)
