"""Endpoint: asks a server many chat completions, each paid for once, within its limits, and never loses one."""

from __future__ import annotations

import asyncio
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from workbench.behaviour.endpoint_cache import NoCache, reply_cache
from workbench.behaviour.endpoint_client import OPENAI, OpenAIClient, address_of
from workbench.behaviour.endpoint_limits import RateLimit, Timing, back_off
from workbench.behaviour.endpoint_messages import Message, fingerprint, token_bound, wire
from workbench.behaviour.endpoint_reply import CannotAsk, EndpointError, Fault, Reply
from workbench.behaviour.endpoint_spend import Budget, Prices
from workbench.progress import Progress

T = TypeVar("T")
CACHE = "runs/replies.jsonl"
CLAIMED_WAIT = 0.1  # seconds between two looks at a key that another process asks for


@dataclass(frozen=True)
class Question:
    """One chat completion to ask for: messages, and the fields beside them (temperature, ...). `limit`: completion
    tokens at most."""

    messages: Sequence[Message]
    limit: int
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """A reply, or None and why. `temporary`: another run may get one (a timeout, the spend cap)."""

    reply: Reply | None
    reason: str = ""
    temporary: bool = False


@dataclass
class Usage:
    """What one Endpoint did so far. `tries` are requests sent, `answered` those with a reply, `cached` questions that
    an earlier reply answered; `models` counts what the server called itself."""

    tries: int = 0
    answered: int = 0
    cached: int = 0
    models: Counter[str] = field(default_factory=Counter)


class Endpoint:
    """A model behind an OpenAI-compatible server.

    `base_url`: by default OPENAI_BASE_URL, or OpenAI itself; the key comes from the environment (WORKBENCH_JUDGE_KEY,
    or OPENAI_API_KEY where the address is no argument). `cache`: a JSONL file of all replies, or None to keep them in
    memory only. `tries`: how often a question is sent at most, where the server is busy or silent. `prices`: of a
    million (prompt, completion) tokens; `spend_cap`: in the same currency, or a Budget that several share; each request
    is counted at its upper bound (`image_tokens` for an image) before it is sent. `server`: a name that stands for the
    address in the identity, for a server that moves. `extra`: fields of every request that only this server knows.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        server: str | None = None,
        cache: str | Path | None = CACHE,
        concurrency: int = 8,
        tries: int = 6,
        timeout: float = 120.0,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        prices: Prices | tuple[float, float] | None = None,
        spend_cap: float | Budget | None = None,
        image_tokens: int = 50_000,
        limit_field: str | None = None,
        extra: Mapping[str, Any] | None = None,
        progress: bool = True,
        timing: Timing | None = None,
    ) -> None:
        """ValueError for settings that cannot be; nothing is sent."""
        if concurrency < 1 or tries < 1 or timeout <= 0:
            raise ValueError(
                f"concurrency={concurrency}, tries={tries}, timeout={timeout}: expected at least 1, 1, > 0."
            )
        if spend_cap is not None and prices is None:
            raise ValueError("spend_cap needs prices=(prompt, completion), what a million tokens cost.")
        address = address_of(base_url)
        self.model, self._base_url = model, base_url
        self.server = server or address.split("://", 1)[1]
        self.prices = prices if isinstance(prices, Prices) else Prices(*(prices or (0.0, 0.0)))
        self.budget = spend_cap if isinstance(spend_cap, Budget) else Budget(spend_cap)
        self.usage = Usage()
        self._cache = NoCache() if cache is None else reply_cache(cache)
        self._concurrency, self._tries, self._timeout = concurrency, tries, timeout
        self._timing = timing or Timing()
        self._limits = RateLimit(requests_per_minute, tokens_per_minute, self._timing)
        self._image_tokens, self._show = image_tokens, progress
        # OpenAI's newer models refuse the old name of this field; other servers may not know the new one, and a field
        # that a server does not know is a limit that it does not keep.
        self._limit_field = limit_field or ("max_completion_tokens" if address == OPENAI else "max_tokens")
        self.extra = dict(extra or {})

    @property
    def identity(self) -> dict[str, Any]:
        """What a reply depends on beside the question."""
        return {"endpoint": self.model, "server": self.server, "extra": self.extra}

    def key(self, question: Question, salt: str = "") -> str:
        """The cache's key: a sha256 of everything that is sent, images by their bytes, and `salt`. CannotAsk for an
        image that cannot be used."""
        whole = [self.identity, fingerprint(question.messages), question.limit, dict(question.fields), salt]
        return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()

    def ask_all(self, questions: Sequence[Question], *, salt: str = "", name: str = "asking") -> list[Outcome]:
        """One outcome a question, in order; equal questions are asked once. Raises EndpointError, with nothing paid,
        where the server knows neither key nor model, and OSError where the cache cannot be written."""
        outcomes: list[Outcome | None] = [None] * len(questions)
        places: dict[str, list[int]] = {}
        for i, question in enumerate(questions):
            try:
                places.setdefault(self.key(question, salt), []).append(i)
            except CannotAsk as error:
                outcomes[i] = Outcome(None, str(error))
        found = in_a_loop(self._ask_each({key: questions[i[0]] for key, i in places.items()}, name)) if places else {}
        for key, indices in places.items():
            for i in indices:
                outcomes[i] = found[key]
        return [outcome for outcome in outcomes if outcome is not None]

    async def _ask_each(self, questions: Mapping[str, Question], name: str) -> dict[str, Outcome]:
        found = {key: self._served(reply) for key in questions if (reply := self._cache.get(key)) is not None}
        left = [key for key in questions if key not in found]
        if not left:
            return found
        client, gate, waiting = OpenAIClient(self._base_url, self._timeout), asyncio.Lock(), iter(left)
        with Progress(name, len(questions), done=len(found), show=self._show, unit="reply") as bar:

            async def worker() -> None:
                for key in waiting:  # shared: each key goes to one worker
                    found[key] = await self._ask(client, gate, key, questions[key])
                    bar.update()

            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self._concurrency, len(left))):
                        group.create_task(worker())
            except BaseExceptionGroup as errors:
                raise errors.exceptions[0] from None
            finally:
                await client.close()
        return found

    async def _ask(self, client: OpenAIClient, gate: asyncio.Lock, key: str, question: Question) -> Outcome:
        while not self._cache.claim(key):
            await self._timing.sleep(CLAIMED_WAIT)
        try:
            if (reply := self._cache.get(key)) is not None:  # another process has paid for it
                return self._served(reply)
            return await self._paid(client, gate, key, question)
        finally:
            self._cache.release(key)

    def _served(self, reply: Reply) -> Outcome:
        self.usage.cached += 1
        self.usage.models[reply.model] += 1
        return Outcome(reply)

    async def _paid(self, client: OpenAIClient, gate: asyncio.Lock, key: str, question: Question) -> Outcome:
        prompt_bound = token_bound(question.messages, self._image_tokens)
        tokens, bound = prompt_bound + question.limit, self.prices.of(prompt_bound, question.limit)
        failed = ""
        for n in range(1, self._tries + 1):
            try:
                body = {
                    "model": self.model,
                    "messages": wire(question.messages),
                    self._limit_field: question.limit,
                    **question.fields,
                    **self.extra,
                }
            except CannotAsk as error:
                return Outcome(None, str(error))
            async with gate:  # one at a time, in order
                if not await self._reserved(bound):
                    return Outcome(None, f"spend cap{failed}", temporary=True)
                try:
                    sent = await self._limits.turn(tokens)
                except BaseException:
                    self.budget.settle(bound)
                    raise
            self.usage.tries += 1
            try:
                reply = await client.send(body)
            except Fault as fault:
                self.budget.settle(bound, at_risk=fault.paid)
                if fault.fatal and not self.usage.answered:
                    raise EndpointError(f"{self.model} at {self.server}: {fault.reason}.") from None
                wait = back_off(n, fault.wait, self._timing) if fault.again else None
                if wait is None or n == self._tries:
                    tried = f", tried {n} times" if n > 1 else ""
                    return Outcome(None, f"{fault.reason}{tried}", temporary=fault.again or fault.fatal)
                failed = f" (after: {fault.reason})"
                if fault.wait is not None:
                    self._limits.pause(fault.wait)
                await self._timing.sleep(wait)
            except BaseException:  # cancelled under way: the server may finish its reply, and charge for it
                self.budget.settle(bound, at_risk=True)
                raise
            else:
                self._cache.put(key, reply, model=self.model, server=self.server)  # before anyone uses it
                self.budget.settle(bound, cost=self.prices.cost(reply, bound))
                if reply.prompt_tokens is not None and reply.completion_tokens is not None:
                    sent.tokens = reply.prompt_tokens + reply.completion_tokens
                self.usage.answered += 1
                self.usage.models[reply.model] += 1
                return Outcome(reply)
        raise AssertionError("every try returns, or is followed by another")

    async def _reserved(self, bound: float) -> bool:
        while (room := self.budget.reserve(bound)) is None:
            await asyncio.sleep(0.02)
        return room


def in_a_loop(work: Coroutine[Any, Any, T]) -> T:
    """What the coroutine returns, from code that is not asynchronous; also under a running event loop (a notebook),
    then in a thread of its own. An interrupt stops the work in both cases."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    loop, results, failures = asyncio.new_event_loop(), list[T](), list[BaseException]()
    task = loop.create_task(work)

    def run() -> None:
        try:
            results.append(loop.run_until_complete(task))
        except BaseException as error:
            failures.append(error)
        finally:
            loop.close()

    thread = threading.Thread(target=run, name="endpoint")
    thread.start()
    try:
        thread.join()
    except BaseException:
        with suppress(RuntimeError):  # the work may be over, and its loop closed
            loop.call_soon_threadsafe(task.cancel)
        thread.join()
        raise
    if failures:
        raise failures[0]
    return results[0]
