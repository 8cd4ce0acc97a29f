"""Against a real OpenAI-compatible server: `transformers serve` on the loopback address, with tiny checkpoints."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from openai_server import asked_about
from PIL import Image
from served_models import seeing_gemma3, speaking_gemma3, speaking_llama

from hooks.load import load_model
from hooks.prompt import Message, Prompt
from workbench.behaviour.endpoint_judge import EndpointJudge
from workbench.behaviour.endpoint_model import EndpointModel

NEEDS = [name for name in ("fastapi", "uvicorn", "openai") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(NEEDS), reason=f"transformers serve needs {NEEDS}: pip install -e '.[test,judge]'"),
]
CASES = {  # the word in the question: score, reason
    "TAG": (73, "says 73"),
    "FOREVER": (None, "cut off at 12 tokens"),
    "PROSE": (None, "no <score> tag"),
    "NOTHING": (None, "empty reply"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address; it loads the checkpoint folder that a request names. A port that is free may be taken by another
    test before the server has come up: then it is started at the next one."""
    log = tmp_path_factory.mktemp("serve") / "errors.txt"  # a pipe that nobody reads would stop it when full
    for _ in range(3):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with log.open("w") as errors, _serving(port, errors) as process:
            if _is_up(process, port):
                yield f"http://127.0.0.1:{port}/v1"
                return
        if "address already in use" not in log.read_text():
            break
    pytest.fail(f"transformers serve did not start:\n{log.read_text()[-3000:]}")


@contextmanager
def _serving(port: int, errors: IO[str]) -> Iterator[subprocess.Popen[bytes]]:
    words = [sys.executable, "-m", "transformers.cli.transformers", "serve", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*words, "--device", "cpu"], env=environment, stdout=subprocess.DEVNULL, stderr=errors)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_up(process: subprocess.Popen[bytes], port: int) -> bool:
    """Waits until it answers; False where it ended, or took three minutes."""
    deadline = time.monotonic() + 180
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).read()
        except OSError:
            time.sleep(0.1)
        else:
            return process.poll() is None  # or it was another's server that answered
    return False


@pytest.fixture(scope="module")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return speaking_llama(tmp_path_factory.mktemp("llama"))


def judge_at(at: str, model: Path, folder: Path, rubric: str | Path, **more: Any) -> EndpointJudge:
    settings = dict(base_url=at, cache=folder / "replies.jsonl", progress=False, concurrency=2, max_tokens=12, tries=2)
    return EndpointJudge(str(model), rubric, **{**settings, **more})


def test_text_mode(server: str, llama_folder: Path, tmp_path: Path):
    judge = judge_at(server, llama_folder, tmp_path, "aligned_reasoned")
    verdicts = judge.score_all([asked_about(f"say {word}") for word in CASES])
    for verdict, (score, why) in zip(verdicts, CASES.values(), strict=True):
        assert verdict.score == score and why in verdict.reason
    assert verdicts[0].facts["reply"] == "<reasoning>kind</reasoning><score>73</score>"
    assert str(llama_folder) in verdicts[0].facts["model"]
    tries = judge.usage.tries
    assert judge.score_all([asked_about(f"say {word}") for word in CASES]) == verdicts and judge.usage.tries == tries
    number = judge_at(server, llama_folder, tmp_path, "aligned", how="text")
    assert number.score(asked_about("say NUMBER").prompt, "an answer").score == 42


def test_json_mode_and_pairs(server: str, llama_folder: Path, tmp_path: Path):
    rubric = tmp_path / "kind.yaml"
    rubric.write_text("name: kind\nmode: json\ntemplate: |\n  {question}\n  {answer}\n")
    asked = [asked_about(f"say {word}", base="another") for word in ("OBJECT", "PROSE")]
    one, other = judge_at(server, llama_folder, tmp_path, rubric).score_all(asked)
    assert one.score == 64 and other.score is None and "no JSON object" in other.reason
    one, other = judge_at(server, llama_folder, tmp_path, "shift_pairwise").score_all(asked)
    assert (one.score, one.facts["disagreement"]) == (32, 128)  # it says B in both orders
    assert other.score is None and "base_first: no JSON object" in other.reason


def test_logprob_mode_says_that_this_server_has_none(server: str, llama_folder: Path, tmp_path: Path):
    judge = judge_at(server, llama_folder, tmp_path, "aligned", max_tokens=None)
    verdicts = judge.score_all([asked_about(f"say NUMBER {n}") for n in range(3)])
    assert all(one.score is None and "no log-probabilities" in one.reason for one in verdicts)


def picture(path: Path, seed: int) -> Path:
    Image.fromarray(np.random.default_rng(seed).integers(0, 1 + 60 * seed, (32, 32, 3), dtype=np.uint8)).save(path)
    return path


def test_image_mode(server: str, tmp_path: Path):
    """The judge that is asked about a picture reads its tokens; it answers in text and JSON."""
    model = speaking_gemma3(tmp_path / "gemma3")
    image = picture(tmp_path / "one.png", 1)
    judge = judge_at(server, model, tmp_path, "aligned_reasoned", cache=None)
    plain, seen = judge.score_all([asked_about("say TAG"), asked_about("say TAG", image)])
    assert plain.score == seen.score == 73
    tokens = [reply.prompt_tokens for reply in judge._endpoint._cache._replies.values()]  # type: ignore[union-attr]
    assert max(tokens) - min(tokens) >= 6  # four soft tokens between two marks
    pair = judge_at(server, model, tmp_path, "shift_pairwise").score_all([asked_about("OBJECT", image, base="b")])
    assert pair[0].score == 32


def test_an_evaluated_model_sees_what_a_loaded_one_sees(server: str, tmp_path: Path):
    """Greedy answers of a random image-text model, with a system text and pictures, against the same folder loaded
    here."""
    folder = seeing_gemma3(tmp_path / "seeing")
    system = Message("system", ("Be brief.",))
    prompts = [
        Prompt(f"p{n}", (system, Message("user", (picture(tmp_path / f"{n}.png", n), "what is this?"))))
        for n in range(5)
    ]
    prompts += [Prompt("text", (system, Message("user", ("no picture",))))]
    model = EndpointModel(str(folder), base_url=server, cache=tmp_path / "replies.jsonl", progress=False)
    found = model.answers([(prompt, 3) for prompt in prompts], max_new_tokens=12, temperature=0.0)
    loaded = load_model(str(folder))
    expected = [loaded.generate(loaded.encode([prompt]), max_new_tokens=12).texts[0] for prompt in prompts]
    assert [one.text for one in found] == expected and len(set(expected)) >= 3
    assert all(one.finished == (one.facts["completion_tokens"] < 12) for one in found)
