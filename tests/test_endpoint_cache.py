"""What was paid for is never paid for again: after a kill, beside another process, behind a torn line."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from openai_server import Body, OpenAIServer, asked_about
from test_endpoint_faults import REPLIES, judge_at

from workbench.behaviour.endpoint_cache import ReplyCache, reply_cache
from workbench.behaviour.endpoint_reply import Reply

WAIT = 120.0  # seconds; only a test that fails waits so long
MANY = [asked_about(f"question {n:03d}") for n in range(24)]
RUN = """
import sys
sys.path.insert(0, sys.argv[3])
from openai_server import asked_about
from workbench.behaviour.endpoint_judge import EndpointJudge
judge = EndpointJudge("tiny", "aligned_reasoned", how="text", base_url=sys.argv[1], cache=sys.argv[2], concurrency=3,
                      progress=False)
many = [asked_about(f"question {n:03d}") for n in range(24)]
print([verdict.score for verdict in judge.score_all(many)], judge.usage.tries)
"""


def process(server: OpenAIServer, folder: Path) -> subprocess.Popen[str]:
    """A run of its own, as a user's script."""
    words = [sys.executable, "-c", RUN, server.address, str(folder / "replies.jsonl"), str(Path(__file__).parent)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def test_a_run_that_was_killed_pays_only_for_the_rest(tmp_path: Path):
    """The server answers eight requests and holds the next back until the kill: whatever is slow, the run dies with all
    of its three connections waiting."""
    arrived, killed = itertools.count(), threading.Event()

    def held_back(body: Body) -> None:
        assert next(arrived) < 8 or killed.wait(WAIT)

    with OpenAIServer(lambda body: REPLIES["text"], before=held_back) as server:
        run = process(server, tmp_path)
        deadline = time.monotonic() + WAIT
        while sum(server.asked.values()) < 8 + 3:
            assert run.poll() is None and time.monotonic() < deadline, "the run has not come so far"
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
        run.communicate()
        assert len(ReplyCache(tmp_path / "replies.jsonl")) == sum(server.paid.values()) == 8
        killed.set()
        verdicts = judge_at(server, tmp_path).score_all(MANY)
        assert [one.score for one in verdicts] == [80] * 24
        assert sum(server.asked.values()) == 24 + 3  # those that nobody read the replies of
        assert judge_at(server, tmp_path).score_all(MANY) == verdicts and sum(server.asked.values()) == 24 + 3


def test_two_processes_at_once_pay_once(tmp_path: Path):
    with OpenAIServer(lambda body: REPLIES["text"], seconds=0.02) as server:
        runs = [process(server, tmp_path) for _ in range(2)]
        said = [run.communicate(timeout=WAIT)[0] for run in runs]
        assert all(str([80.0] * 24) in one for one in said)
        assert sum(server.asked.values()) == sum(server.paid.values()) == 24
    assert sum(int(one.split()[-1]) for one in said) == 24


def test_two_threads_at_once_pay_once(tmp_path: Path):
    with OpenAIServer(lambda body: REPLIES["text"], seconds=0.01) as server:
        found: list[list[float | None]] = []

        def run() -> None:
            found.append([one.score for one in judge_at(server, tmp_path).score_all(MANY)])

        threads = [threading.Thread(target=run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [[80] * 24] * 2 and sum(server.asked.values()) == 24


def test_threads_that_open_a_file_at_once_get_one_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Two objects of one file in a process would both be given a claim: the kernel's locks do not part threads."""
    first = ReplyCache.__init__

    def slowly(self: ReplyCache, path: Path) -> None:
        time.sleep(0.05)
        first(self, path)

    monkeypatch.setattr(ReplyCache, "__init__", slowly)
    with ThreadPoolExecutor(4) as threads:
        opened = list(threads.map(reply_cache, [tmp_path / "replies.jsonl"] * 4))
    assert all(cache is opened[0] for cache in opened)


def test_another_rubric_model_setting_or_answer_is_another_key(tmp_path: Path):
    with OpenAIServer(lambda body: REPLIES["text"]) as server:
        one = [asked_about("q")]
        for judge in (judge_at(server, tmp_path), judge_at(server, tmp_path, max_tokens=99)):
            judge.score_all(one)
        judge_at(server, tmp_path, temperature=0.5).score_all(one)
        judge_at(server, tmp_path, extra={"top_k": 1}).score_all(one)
        judge_at(server, tmp_path, server="elsewhere").score_all(one)
        judge_at(server, tmp_path).score_all([asked_about("q", answer="another")])
        assert sum(server.asked.values()) == 6
        judge_at(server, tmp_path).score_all(one)
        assert sum(server.asked.values()) == 6


def test_without_a_file_a_judge_remembers_as_long_as_it_lives(tmp_path: Path):
    with OpenAIServer(lambda body: REPLIES["text"]) as server:
        judge = judge_at(server, tmp_path, cache=None)
        assert judge.score_all(MANY) == judge.score_all(MANY)
        assert sum(server.asked.values()) == 24 and not list(tmp_path.iterdir())


REPLY = Reply('{"score": 1}\n"zweite" ü', "stop", first_token={"7": -0.25}, model="m", prompt_tokens=3)
KEYS = [hashlib.sha256(bytes([n])).hexdigest() for n in range(5)]


def test_a_reply_comes_back_as_it_was(tmp_path: Path):
    cache = ReplyCache(tmp_path / "deep" / "replies.jsonl")
    cache.put(KEYS[0], REPLY, model="m")
    assert cache.get(KEYS[0]) == REPLY and cache.get(KEYS[1]) is None
    assert ReplyCache(tmp_path / "deep" / "replies.jsonl").get(KEYS[0]) == REPLY
    assert (tmp_path / "deep" / "replies.jsonl").stat().st_mode & 0o077 == 0


def test_a_torn_line_costs_one_reply_and_no_more(tmp_path: Path):
    """As a kill or a full disk leaves it, at every place of the last line."""
    path = tmp_path / "replies.jsonl"
    for key in KEYS[:2]:
        ReplyCache(path).put(key, REPLY)
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        cache = ReplyCache(path)
        assert cache.get(KEYS[0]) == REPLY and cache.get(KEYS[1]) is None
        cache.put(KEYS[2], REPLY)
        assert ReplyCache(path).get(KEYS[2]) == REPLY and cache.get(KEYS[2]) == REPLY
        # A line that only lacks its end is whole again behind it.
        assert ReplyCache(path).get(KEYS[1]) == (REPLY if end == len(whole) - 1 else None)


def test_lines_that_are_no_replies_are_passed_over(tmp_path: Path):
    path = tmp_path / "replies.jsonl"
    good = {"version": 1, "key": KEYS[0], "reply": REPLY.record()}
    bad = ["", "[]", "{}", "\x00\x00", json.dumps({**good, "version": 99}), json.dumps({**good, "reply": {"text": 1}})]
    path.write_text("\n".join([*bad, json.dumps(good), ""]))
    assert len(ReplyCache(path)) == 1 and ReplyCache(path).get(KEYS[0]) == REPLY


def test_a_line_of_another_writer_is_seen_and_the_first_reply_counts(tmp_path: Path):
    one, other = (ReplyCache(tmp_path / "replies.jsonl") for _ in range(2))
    assert one.get(KEYS[0]) is None
    other.put(KEYS[0], REPLY)
    assert one.get(KEYS[0]) == REPLY
    one.put(KEYS[0], Reply("later", "stop"))
    assert other.get(KEYS[0]) == ReplyCache(tmp_path / "replies.jsonl").get(KEYS[0]) == REPLY


def test_a_claim_belongs_to_one_and_dies_with_its_process(tmp_path: Path):
    path = tmp_path / "replies.jsonl"
    cache = reply_cache(path)
    assert reply_cache(str(path)) is cache
    assert cache.claim(KEYS[0]) and not cache.claim(KEYS[0]) and cache.claim(KEYS[1])
    script = (
        "import sys; from pathlib import Path; from workbench.behaviour.endpoint_cache import ReplyCache\n"
        "cache = ReplyCache(Path(sys.argv[1])); print(*(cache.claim(key) for key in sys.argv[2:]), flush=True)\n"
        "sys.stdin.read()"
    )
    words = [sys.executable, "-c", script, str(path), *KEYS[:3]]
    other = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline().split() == ["False", "False", "True"]
    assert not cache.claim(KEYS[2])
    os.kill(other.pid, signal.SIGKILL)
    other.communicate()
    assert cache.claim(KEYS[2])
    cache.release(KEYS[0])
    assert cache.claim(KEYS[0])


def test_a_cache_that_cannot_be_written_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Replies that would be lost are not paid for: at most those under way."""

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    with OpenAIServer(lambda body: REPLIES["text"]) as server:
        judge = judge_at(server, tmp_path, concurrency=2)
        monkeypatch.setattr("workbench.behaviour.endpoint_cache.os.write", full)
        with pytest.raises(OSError, match="No space"):
            judge.score_all(MANY)
        assert sum(server.asked.values()) <= 3
