"""Reply: what a chat endpoint answered, reduced to what a score may depend on; and the ways in which it fails."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Reply:
    """One chat completion. `first_token`: log-probabilities of the alternatives of its first token, None where the
    server gave none. `model` and `fingerprint` are what the server says that it is; token counts are its own."""

    text: str
    finish: str  # "stop", "length", "content_filter", ...; "" where the server does not say
    refusal: str | None = None
    first_token: Mapping[str, float] | None = None
    model: str = ""
    fingerprint: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    def record(self) -> dict[str, Any]:
        """As JSON keeps it."""
        return asdict(self)


class EndpointError(RuntimeError):
    """An endpoint that answers nobody (a key or a model that it does not know): nothing was paid."""


class CannotAsk(ValueError):
    """A request that cannot be written; the message is the reason."""


class Fault(Exception):
    """A request without a reply. `again`: another try may succeed, at the earliest after `wait` seconds where the
    server says so; `paid`: the server may have charged for it; `fatal`: every request will fail like this."""

    def __init__(
        self, reason: str, *, again: bool = False, paid: bool = False, wait: float | None = None, fatal: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason, self.again, self.paid, self.wait, self.fatal = reason, again, paid, wait, fatal


def reply_from(body: Any) -> Reply:
    """The first choice of a chat completion's JSON body. Raises Fault where it is no chat completion."""
    choices = body.get("choices") if isinstance(body, dict) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        raise Fault("the server's reply is no chat completion", again=True, paid=True)
    content, refusal, usage = message.get("content"), message.get("refusal"), body.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    return Reply(
        text=content if isinstance(content, str) else "",
        finish=str(choice.get("finish_reason") or ""),
        refusal=refusal if isinstance(refusal, str) and refusal else None,
        first_token=_first_token(choice.get("logprobs")),
        model=str(body.get("model") or ""),
        fingerprint=body.get("system_fingerprint") or None,
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
    )


def _first_token(logprobs: Any) -> dict[str, float] | None:
    """Alternatives of one text are added: several tokens may be written alike. None where they are not all there, are
    no logarithms of probabilities, or sum to more than one."""
    positions = logprobs.get("content") if isinstance(logprobs, dict) else None
    first = positions[0] if isinstance(positions, list) and positions else None
    listed = first.get("top_logprobs") if isinstance(first, dict) else None
    if not isinstance(listed, list) or not listed:
        return None
    probabilities: dict[str, float] = {}
    for one in listed:
        token, value = (one.get("token"), one.get("logprob")) if isinstance(one, dict) else (None, None)
        if not isinstance(token, str) or not isinstance(value, int | float) or isinstance(value, bool):
            return None
        if not value <= 1e-3:  # the rounding of bfloat16 servers; NaN is not below it either
            return None
        probabilities[token] = probabilities.get(token, 0.0) + math.exp(value)
    if math.fsum(probabilities.values()) > 1.01:
        return None
    # A probability of exp(-9999), which some servers give for "not likely", is zero: it has no logarithm.
    return {token: min(0.0, math.log(p)) for token, p in probabilities.items() if p > 0}


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
