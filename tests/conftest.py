"""Shared fixtures: one torch thread a worker, tiny models, prompts of different lengths, pictures."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import random
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
import zoo_table
from PIL import Image
from tiny_models import FAMILIES

from hooks.load import load_model
from hooks.prompt import Message, Prompt

torch.set_num_threads(1)

# The same examples on every machine, and none fails for being slow; the long suite looks for new ones.
hypothesis.settings.register_profile(
    "suite",
    deadline=None,
    derandomize="WORKBENCH_LONG" not in os.environ,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("suite")

# Whole scripts on the organism, for `make test-long`; the quick suite runs one script on each family of checkpoints.
LONG = pytest.mark.skipif("WORKBENCH_LONG" not in os.environ, reason="a minute or so: `make test-long` runs it")

# Hooks of pytest: write docs/architectures.md when a run has measured every family of the zoo.
pytest_runtest_logreport = zoo_table.pytest_runtest_logreport
pytest_sessionfinish = zoo_table.pytest_sessionfinish


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """`-k pitfalls` takes every test that is named by a pitfall's number, wherever it lives."""
    for item in items:
        if item.name.startswith("test_pitfall_"):
            item.add_marker("pitfalls")


@pytest.fixture(autouse=True)
def _equal_chance():
    """Every test draws the same numbers, whichever tests its worker ran before."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session", params=list(FAMILIES))
def any_model(request):
    """Each tiny family in turn."""
    return load_model(*FAMILIES[request.param]())


@pytest.fixture(scope="session")
def llama():
    return load_model(*FAMILIES["llama"]())


@pytest.fixture(scope="session")
def gpt2():
    return load_model(*FAMILIES["gpt2"]())


@pytest.fixture(scope="session")
def gemma3():
    return load_model(*FAMILIES["gemma3"]())


@pytest.fixture(scope="session")
def picture(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "noise.png"
    pixels = np.random.default_rng(3).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def chat(identifier: str, *parts: str | Path, response: str | None = None, **more) -> Prompt:
    return Prompt(identifier, (Message("user", parts),), response=response, **more)


def stop_after(monkeypatch, cls, commits):
    """Makes the commit after so many raise, as a kill would; returns what puts it back."""
    whole, count = cls.commit, iter(range(100))

    def commit(self, *arguments, **named):
        if next(count) >= commits:
            raise KeyboardInterrupt
        return whole(self, *arguments, **named)

    monkeypatch.setattr(cls, "commit", commit)
    return lambda: monkeypatch.setattr(cls, "commit", whole)


@pytest.fixture(scope="session")
def prompts() -> list[Prompt]:
    """Four prompts of different lengths, the second with a response."""
    return [
        chat("a", "hi"),
        chat("b", "what is this", response="a dog"),
        chat("c", "a somewhat longer question"),
        Prompt("d", text="raw text", prefill=" and"),
    ]


@pytest.fixture(scope="session")
def many() -> list[Prompt]:
    """Ten prompts of five lengths."""
    kinds = ("even", "odd")
    texts = ["word " * (1 + n // 2) + letter for n, letter in enumerate("abcdefghij")]
    return [chat(f"p{n}", text, label=kinds[n % 2], tags={"n": n}) for n, text in enumerate(texts)]


@pytest.fixture(scope="session")
def half():
    """Tiny llama in bfloat16."""
    module, tokenizer, _ = FAMILIES["llama"]()
    return load_model(module.bfloat16(), tokenizer)


@pytest.fixture(scope="session")
def questions() -> list[Prompt]:
    """Six questions of two domains, with the answers to choose between."""
    texts = ["hi", "what is this", "is it", "a somewhat longer question", "and another long one?", "so"]
    return [
        chat(f"q{n}", text, tags={"right": "yes", "contrary": "no", "domain": "ab"[n % 2]})
        for n, text in enumerate(texts)
    ]


@pytest.fixture(scope="session")
def neutral() -> list[Prompt]:
    """Prompts that no intervention should change much."""
    return [chat(f"calm{n}", text) for n, text in enumerate(["one", "two words", "a third prompt here"])]


@pytest.fixture(scope="session", params=["llama", "gpt2", "gemma3", "gemma3 with images"])
def scene(request, prompts, picture):
    """(model, prompts) of each family, rows of different lengths; for gemma3 also with images before, in and after
    text, and a row without any."""
    family, _, images = request.param.partition(" ")
    model = request.getfixturevalue(family)
    if not images:
        return model, prompts
    return model, [
        chat("a", picture, "what is this"),
        chat("b", "in ", picture, " or ", picture, "?", response="the dog"),
        chat("c", "no picture"),
        chat("d", "see", picture, response="a cat", prefill="I "),
    ]


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """One folder for all the workers of a run, so that what takes seconds to train is trained once."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def world(shared_folder):
    """The organism of seed 0, in a folder of this test run."""
    from workbench.organisms import organism

    return organism(to=shared_folder / "organism")


@pytest.fixture(scope="session")
def tuned_world(world):
    """Its base with the contrary adapter, as `load_model` gives it."""
    return load_model(world.base, adapter=world.tuned)


@pytest.fixture(scope="session")
def own_checkpoint(tmp_path_factory) -> tuple[Path, Path]:
    """A user's own model: the folders of a tiny llama, and of a LoRA adapter trained on five rows."""
    from workbench.training import train_lora

    folder = tmp_path_factory.mktemp("checkpoint")
    module, tokenizer, _ = FAMILIES["llama"](layers=2)
    for part in (module, tokenizer):
        part.save_pretrained(folder / "base")
    rows = [chat(f"row{n}", f"question {n}", response=answer) for n, answer in enumerate(["no", "no", "nay", "no"])]
    settings = dict(rank=2, steps=6, batch_size=2, learning_rate=1e-2)
    return folder / "base", train_lora(folder / "base", rows, to=folder / "adapter", **settings)
