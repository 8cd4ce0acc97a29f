"""RateLimit: no minute holds more requests or tokens than a server allows; and how long to wait before a retry."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

MINUTE = 60.0
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds before the second try, doubled each time, up to this
PATIENCE = 300.0  # a server that asks for a longer wait than this is not waited for


@dataclass(frozen=True)
class Timing:
    """The clock, so that tests need not wait."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    jitter: Callable[[], float] = random.random


def back_off(tries: int, asked: float | None, timing: Timing) -> float | None:
    """Seconds to wait after so many failed tries: doubling, with a random part, so that requests that failed together
    do not come back together; never less than the server `asked` for. None: it asked for too much."""
    if asked is not None and asked > PATIENCE:
        return None
    wait = min(LONGEST_WAIT, FIRST_WAIT * 2 ** (tries - 1)) * (0.5 + 0.5 * timing.jitter())
    return max(wait, asked or 0.0)


class _Sent:
    """One request of the last minute."""

    __slots__ = ("at", "tokens")

    def __init__(self, at: float, tokens: int) -> None:
        self.at, self.tokens = at, tokens


class RateLimit:
    """At most `requests` and `tokens` in any 60 s, counted when requests are sent: None is no limit.

    A request's tokens are an upper bound until its reply states them. One that is larger than the limit is sent when
    the minute before it is empty. Callers wait in a queue of their own (one at a time may call `turn`).
    """

    def __init__(self, requests: int | None, tokens: int | None, timing: Timing) -> None:
        for name, limit in (("requests_per_minute", requests), ("tokens_per_minute", tokens)):
            if limit is not None and limit < 1:
                raise ValueError(f"{name}={limit}: expected at least 1, or None for no limit.")
        self._requests, self._tokens, self._timing = requests, tokens, timing
        self._sent: deque[_Sent] = deque()
        self._not_before = float("-inf")

    async def turn(self, tokens: int) -> _Sent:
        """Waits until a request of so many tokens may be sent, and counts it."""
        while (wait := self._wait(tokens)) > 0:
            await self._timing.sleep(wait)
        sent = _Sent(self._timing.now(), tokens)
        if self._requests is not None or self._tokens is not None:
            self._sent.append(sent)
        return sent

    def pause(self, seconds: float) -> None:
        """Nothing is sent for so long: a server that refuses one request refuses its neighbours as well."""
        self._not_before = max(self._not_before, self._timing.now() + seconds)

    def _wait(self, tokens: int) -> float:
        now = self._timing.now()
        while self._sent and self._sent[0].at <= now - MINUTE:
            self._sent.popleft()
        wait = self._not_before - now
        if self._sent and (
            (self._requests is not None and len(self._sent) >= self._requests)
            or (self._tokens is not None and sum(one.tokens for one in self._sent) + tokens > self._tokens)
        ):
            # A little more than the rest of the minute: a wait that rounds to nothing would be asked for again.
            wait = max(wait, self._sent[0].at + MINUTE - now + 1e-3)
        return wait
