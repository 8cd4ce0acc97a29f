"""A server on the loopback address that speaks OpenAI's chat completions, counts what it is asked and paid for, and
breaks down as it is told."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from hooks.prompt import Message, Prompt
from workbench.behaviour.endpoint_limits import Timing
from workbench.behaviour.judging import Answer

Body = dict[str, Any]


class Instant:
    """A clock that only sleeping moves, and that nobody waits for."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.slept: list[float] = []

    def timing(self) -> Timing:
        return Timing(now=lambda: self.time, sleep=self._sleep, jitter=lambda: 0.5)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)


def asked_about(text: str, *pictures: Path, answer: str = "an answer", **more: Any) -> Answer:
    """An answer to judge; the text tells requests apart."""
    return Answer(Prompt(text, (Message("user", (text, *pictures)),)), answer, **more)


def text_of(body: Body) -> str:
    """What the last message says, its images left out."""
    content = body["messages"][-1]["content"]
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


def completion(text: str, *, finish: str = "stop", tokens: tuple[int, int] = (10, 1), **more: Any) -> Body:
    """A reply in OpenAI's format; `top` are the first token's alternatives."""
    top: Mapping[str, float] | None = more.pop("top", None)
    choice: Body = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
    if top is not None:
        listed = [{"token": token, "logprob": value, "bytes": None} for token, value in top.items()]
        choice["logprobs"] = {"content": [{"token": text, "logprob": max(top.values()), "top_logprobs": listed}]}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "tiny-2026-01-01",
        "system_fingerprint": "fp_1",
        "choices": [choice],
        "usage": {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)},
        **more,
    }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # of 5, the default, eight clients at once may find it full, and one waits a second


class OpenAIServer:
    """`answer` gives the reply to a body. `faults`: for a text, what happens to the first, second, ... request that
    holds it, instead of an answer: a status ("429", "500:0.5" with a Retry-After), "quota" (429 for good), "drop" (the
    connection is closed), "hang" (silence), "cut" (half a JSON body), "cut-connection" (half the announced bytes),
    "empty", "html", or a reply of its own. Every request takes `seconds`; `before` is called with its body, in its own
    thread, when it was counted and nothing was answered yet: a test that must not depend on speed waits there."""

    def __init__(
        self,
        answer: Callable[[Body], Body],
        faults: Mapping[str, Sequence[str | Body]] | None = None,
        *,
        seconds: float = 0.0,
        before: Callable[[Body], object] = lambda body: None,
    ) -> None:
        self.answer, self.seconds, self.before = answer, seconds, before
        self.faults: dict[str, list[str | Body]] = defaultdict(list)
        self.faults |= {text: list(each) for text, each in (faults or {}).items()}
        self.asked: Counter[str] = Counter()  # requests by text
        self.paid: Counter[str] = Counter()  # whole replies, by text
        self.bodies: list[Body] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.now = self.most = 0  # simultaneous requests
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> OpenAIServer:
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()

    def fault_for(self, body: Body, headers: Mapping[str, str]) -> str | Body | None:
        text = text_of(body)
        with self._lock:
            self.asked[text] += 1
            self.bodies.append(body)
            self.headers.append({name.lower(): value for name, value in headers.items()})
            self.times.append(time.monotonic())
            for part, left in self.faults.items():
                if part in text and left:
                    return left.pop(0)
        return None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # or each reply waits 40 ms for an acknowledgement

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with server._lock:
                    server.now += 1
                    server.most = max(server.most, server.now)
                try:
                    self._respond(body)
                finally:
                    with server._lock:
                        server.now -= 1

            def _respond(self, body: Body) -> None:
                fault = server.fault_for(body, self.headers)
                server.before(body)
                if server.seconds:
                    time.sleep(server.seconds)
                if fault == "hang":
                    server._stopped.wait(20)
                    fault = "drop"
                if fault == "drop":
                    self.close_connection = True
                    return
                if isinstance(fault, str) and (fault[:1].isdigit() or fault == "quota"):
                    status, _, wait = fault.replace("quota", "429").partition(":")
                    code = "insufficient_quota" if fault == "quota" else None
                    error = {"message": f"no: {self.headers['Authorization']}", "type": "server", "code": code}
                    return self._send(json.dumps({"error": error}), int(status), wait)
                whole = json.dumps(fault if isinstance(fault, dict) else server.answer(body))
                if fault == "cut":
                    return self._send(whole[: len(whole) // 2])
                if fault == "cut-connection":
                    return self._send(whole, announced=2 * len(whole))
                if fault in ("empty", "html"):
                    return self._send("" if fault == "empty" else "<html>busy</html>")
                with server._lock:
                    server.paid[text_of(body)] += 1
                self._send(whole)

            def _send(self, text: str, status: int = 200, wait: str = "", announced: int | None = None) -> None:
                data = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(announced or len(data)))
                if wait:
                    self.send_header("Retry-After", wait)
                self.end_headers()
                self.wfile.write(data)
                self.close_connection = announced is not None

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler
