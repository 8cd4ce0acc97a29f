"""Concurrency, rate limits and the spend cap hold, as the server sees them."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai_server import Body, Instant, OpenAIServer, asked_about, completion, text_of
from test_endpoint_faults import REPLIES, judge_at

from workbench.behaviour.endpoint import in_a_loop
from workbench.behaviour.endpoint_client import _wait
from workbench.behaviour.endpoint_limits import LONGEST_WAIT, MINUTE, RateLimit, Timing, back_off
from workbench.behaviour.endpoint_spend import Budget, Prices

MANY = [asked_about(f"question {n:03d}") for n in range(30)]
WAIT = 60.0  # seconds; only a test that fails waits so long


@pytest.mark.parametrize("concurrency", [1, 3])
def test_no_more_requests_are_under_way_than_allowed(concurrency: int, tmp_path: Path):
    """And no fewer: none is answered before so many are there. One too many has 10 ms to be seen."""
    together = threading.Barrier(concurrency)
    with OpenAIServer(lambda body: REPLIES["text"], seconds=0.01, before=lambda body: together.wait(WAIT)) as server:
        judge_at(server, tmp_path, concurrency=concurrency).score_all(MANY)
        assert server.most == concurrency and sum(server.asked.values()) == len(MANY)


@given(
    st.integers(1, 5),
    st.integers(10, 60) | st.none(),
    st.lists(st.tuples(st.integers(1, 30), st.floats(0, 40)), min_size=1, max_size=25),
)
@settings(max_examples=150, deadline=None)
def test_no_minute_holds_more_than_the_limits(requests: int, tokens: int | None, sent: list[tuple[int, float]]):
    """Requests of given sizes, after given pauses, on a clock of our own."""
    clock = Instant()
    limit, times = RateLimit(requests, tokens, clock.timing()), list[tuple[float, int]]()

    async def all_of_them() -> None:
        for size, pause in sent:
            clock.time += pause
            await limit.turn(size)
            times.append((clock.time, size))

    asyncio.run(all_of_them())
    assert len(times) == len(sent)
    for i, (start, _) in enumerate(times):
        minute = list(itertools.takewhile(lambda one: one[0] < start + MINUTE, times[i:]))  # noqa: B023
        assert len(minute) <= requests
        assert tokens is None or sum(size for _, size in minute) <= tokens or len(minute) == 1
    assert clock.time - 1000 <= sum(pause for _, pause in sent) + (MINUTE + 1) * len(sent)  # and waits no longer


def test_the_limit_is_used_up():
    """Six at once, two a minute: the last goes after two minutes, not after six."""
    clock = Instant()
    limit = RateLimit(2, None, clock.timing())

    async def six() -> None:
        for _ in range(6):
            await limit.turn(1)

    asyncio.run(six())
    assert clock.time - 1000 == pytest.approx(120, abs=0.1)


def test_tokens_that_a_reply_did_not_need_are_free_again():
    clock = Instant()
    limit = RateLimit(None, 100, clock.timing())

    async def two() -> None:
        (await limit.turn(90)).tokens = 15
        await limit.turn(80)

    asyncio.run(two())
    assert clock.time == 1000


def test_requests_per_minute_hold_for_a_judge(tmp_path: Path):
    clock = Instant()
    with OpenAIServer(lambda body: REPLIES["text"]) as server:
        judge = judge_at(server, tmp_path, requests_per_minute=10, timing=clock.timing())
        assert all(one.score == 80 for one in judge.score_all(MANY))
        assert 120 <= clock.time - 1000 < 121


def test_retry_after_is_waited_for_by_every_request(tmp_path: Path):
    clock = Instant()
    with OpenAIServer(lambda body: REPLIES["text"], {"question 000": ["429:7"]}) as server:
        judge_at(server, tmp_path, concurrency=1, timing=clock.timing()).score_all(MANY)
        assert clock.slept == [7.0]


def test_while_a_server_asks_to_wait_no_other_request_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """On the real clock: only what was under way with the first request comes before a second is over. The server
    refuses when four are there, and answers the other three once the refusal was read."""
    four, read, pause = threading.Barrier(4), threading.Event(), RateLimit.pause
    paused: list[float] = []

    def noted(self: RateLimit, seconds: float) -> None:
        paused.append(time.monotonic())
        pause(self, seconds)
        read.set()

    def before(body: Body) -> None:
        if not read.is_set():
            four.wait(WAIT)
            assert "question 000" in text_of(body) or read.wait(WAIT)

    monkeypatch.setattr(RateLimit, "pause", noted)
    with OpenAIServer(lambda body: REPLIES["text"], {"question 000": ["429:1"]}, before=before) as server:
        verdicts = judge_at(server, tmp_path, concurrency=4, timing=Timing()).score_all(MANY)
    assert all(one.score == 80 for one in verdicts) and len(paused) == 1
    assert len(server.times) == len(MANY) + 1 and min(server.times[4:]) >= paused[0] + 1.0 > max(server.times[:4])


def test_a_server_that_asks_for_an_hour_is_not_waited_for(tmp_path: Path):
    clock = Instant()
    with OpenAIServer(lambda body: REPLIES["text"], {"question 000": ["429:3600"]}) as server:
        verdicts = judge_at(server, tmp_path, concurrency=1, timing=clock.timing()).score_all(MANY)
    assert verdicts[0].score is None and "429" in verdicts[0].reason and verdicts[0].facts["temporary"]
    assert clock.slept == []


def test_back_off_doubles_up_to_a_minute_and_is_spread():
    middle = Timing(jitter=lambda: 0.5)
    assert [back_off(n, None, middle) for n in (1, 2, 3, 4)] == [0.75, 1.5, 3.0, 6.0]
    assert back_off(30, None, Timing(jitter=lambda: 1.0)) == LONGEST_WAIT
    assert back_off(2, None, Timing(jitter=lambda: 0.0)) == 1.0
    assert back_off(1, 20.0, middle) == 20.0


def test_the_spend_cap_is_never_passed_and_the_rest_says_so(tmp_path: Path):
    """Each reply costs 1,000 prompt and 100 completion tokens: 0.0012 at 1 and 2 a million."""
    reply = {**REPLIES["text"], "usage": {"prompt_tokens": 1000, "completion_tokens": 100}}
    cost = 0.0012
    with OpenAIServer(lambda body: reply, seconds=0.005) as server:
        judge = judge_at(server, tmp_path, prices=(1.0, 2.0), spend_cap=0.02, concurrency=8)
        verdicts = judge.score_all(MANY)
        paid = sum(server.paid.values())
        assert judge.budget.spent == pytest.approx(paid * cost) and judge.budget.spent <= 0.02
        assert [one.score for one in verdicts] == [80] * paid + [None] * (len(MANY) - paid) and 0 < paid < len(MANY)
        assert all(one.reason == "spend cap" and one.facts["temporary"] for one in verdicts[paid:])
        bound = 0.02 - judge.budget.spent  # no request would have fitted, at its upper bound
        assert bound < Prices(1.0, 2.0).of(len(str(server.bodies[0]["messages"])) + 64, 1024)
        richer = judge_at(server, tmp_path, prices=(1.0, 2.0), spend_cap=10.0)
        assert all(one.score == 80 for one in richer.score_all(MANY))
        assert max(server.paid.values()) == 1  # what the first run paid for came from the cache


def test_a_cap_too_small_for_one_request_asks_nothing(tmp_path: Path):
    with OpenAIServer(lambda body: REPLIES["text"]) as server:
        judge = judge_at(server, tmp_path, prices=(1.0, 2.0), spend_cap=1e-6)
        assert {one.reason for one in judge.score_all(MANY)} == {"spend cap"} and not server.asked


def test_what_does_not_fit_closes_a_budget_unless_something_under_way_may_make_room():
    budget = Budget(1.0)
    assert budget.reserve(0.9) is True and budget.reserve(0.5) is None
    budget.settle(0.9, cost=0.2)
    assert budget.reserve(0.5) is True
    budget.settle(0.5, at_risk=True)
    assert budget.reserve(0.5) is False and budget.reserve(0.1) is False  # or only short answers would be scored
    assert (budget.spent, budget.at_risk) == (0.2, 0.5)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "-7"}, 0.0),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
    ],
)
def test_retry_after_is_a_number_or_a_date(headers: dict[str, str], seconds: float | None):
    assert _wait(headers) == seconds


def test_retry_after_a_date_to_come():
    start = time.time()
    then = format_datetime(datetime.fromtimestamp(start, UTC) + timedelta(seconds=90), usegmt=True)  # in whole seconds
    wait = _wait({"retry-after": then})
    assert wait is not None and 89 - (time.time() - start) <= wait <= 90


def test_judges_share_a_budget(tmp_path: Path):
    budget = Budget(0.01)
    with OpenAIServer(lambda body: REPLIES["text"]) as server:
        for temperature in (0.0, 0.5):
            judge_at(server, tmp_path, prices=(100.0, 2.0), spend_cap=budget, temperature=temperature).score_all(MANY)
        assert budget.closed and budget.spent <= 0.01


def test_a_budget_without_prices_is_refused(tmp_path: Path):
    with OpenAIServer(lambda body: REPLIES["text"]) as server, pytest.raises(ValueError, match="needs prices"):
        judge_at(server, tmp_path, spend_cap=1.0)


def test_costs_without_a_count_are_the_bound():
    assert Prices(1.0, 2.0).cost(_reply(None), 0.5) == 0.5
    assert Prices(1.0, 2.0).cost(_reply(10), 0.5) == pytest.approx(30 / 1e6)


def test_a_judge_works_inside_a_running_loop(tmp_path: Path):
    """As in a notebook."""
    with OpenAIServer(lambda body: REPLIES["text"]) as server:

        async def notebook() -> list[float | None]:
            return [one.score for one in judge_at(server, tmp_path).score_all(MANY[:3])]

        assert asyncio.run(notebook()) == [80, 80, 80]


def test_errors_inside_a_running_loop_come_out_and_an_interrupt_stops_the_work(monkeypatch: pytest.MonkeyPatch):
    begun, stopped = threading.Event(), threading.Event()

    async def failing() -> None:
        raise KeyError("mine")

    async def endless() -> None:
        try:
            begun.set()
            await asyncio.sleep(2 * WAIT)
        finally:
            stopped.set()

    join, calls = threading.Thread.join, itertools.count()

    def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        if thread.name == "endpoint" and next(calls) == 0:
            assert begun.wait(WAIT)
            raise KeyboardInterrupt
        join(thread, timeout)

    async def notebook() -> None:
        with pytest.raises(KeyError, match="mine"):
            in_a_loop(failing())
        monkeypatch.setattr(threading.Thread, "join", interrupted)
        start = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            in_a_loop(endless())
        assert time.monotonic() - start < WAIT

    asyncio.run(notebook())
    assert stopped.is_set()


def test_an_interrupt_when_the_work_is_just_over_is_still_an_interrupt(monkeypatch: pytest.MonkeyPatch):
    join, calls = threading.Thread.join, itertools.count()

    def interrupted(thread: threading.Thread, timeout: float | None = None) -> None:
        join(thread, timeout)
        if thread.name == "endpoint" and next(calls) == 0:
            raise KeyboardInterrupt

    async def notebook() -> None:
        with pytest.raises(KeyboardInterrupt):
            in_a_loop(asyncio.sleep(0))

    monkeypatch.setattr(threading.Thread, "join", interrupted)
    asyncio.run(notebook())


def _reply(tokens: int | None):
    from workbench.behaviour.endpoint_reply import reply_from

    body = completion("80")
    body["usage"] = {} if tokens is None else {"prompt_tokens": tokens, "completion_tokens": tokens}
    return reply_from(body)
