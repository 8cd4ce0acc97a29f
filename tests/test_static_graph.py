"""The CUDA graph of a decoding step, on a CPU: what is captured is replayed without its Python (recorded_graph.py),
writes what the ordinary loop writes, and waits for nothing; a model whose step cannot be captured is decoded as
before."""

import pytest
import tiny_lm
import torch
import transformers.generation.utils  # noqa: F401  its annotations name torch.cuda.Stream, which is replaced below
from own_hooks import hooks_left, noise
from recorded_graph import Graph, Refused, recorded_graphs
from test_static_decode import KINDS, LONG, OPTIONS, compared, edits_of
from tiny_models import byte_tokenizer
from torch import nn

from hooks import cuda_graph, static_decode, static_step
from hooks.load import load_model
from hooks.site import Site


@pytest.fixture(scope="module", params=list(tiny_lm.LANGUAGE_MODELS))
def family(request):
    return load_model(tiny_lm.LANGUAGE_MODELS[request.param](), byte_tokenizer())


@pytest.fixture(scope="module")
def qwen():
    return load_model(tiny_lm.qwen2(), byte_tokenizer())


@pytest.fixture
def graphs(monkeypatch):
    """Graphs on the CPU, with the kernel that runs on a GPU without Triton; what happened, in order. The current stream
    is the same at the end."""
    reason = static_decode.why_not
    monkeypatch.setattr(static_decode, "why_not", lambda *given: reason(*given[:-1], "static"))
    monkeypatch.setenv("WORKBENCH_KERNEL", "reference")
    happened, streams = recorded_graphs(monkeypatch)
    yield happened
    assert streams == ["default"]


ORDER = [
    "side waits for default",
    "on side",
    "default waits for side",
    "on default",
    "capture thread_local",
    "captured",
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_replayed_step_writes_what_the_ordinary_loop_writes(family, prompts, graphs, kind):
    """Positions, scopes, windows, counts and the end of rows are read from memory: nothing that the capture saw once
    stays as it was."""
    edits = edits_of(family, kind)
    compared(family, prompts, edits, "graph", **OPTIONS)
    assert graphs == ORDER
    compared(family, prompts, edits, "graph", **LONG)


def test_pictures(gemma3, scene, graphs):
    model, prompts = scene
    compared(model, prompts, {Site(1): [noise(model, 2.0, "response")]}, "graph", **LONG)


@pytest.mark.parametrize(
    "sampling", [{"do_sample": True, "temperature": 0.7, "top_k": 30}, {"suppress_tokens": [11]}], ids=str
)
def test_what_is_no_argmax_is_chosen_outside_the_graph(qwen, prompts, graphs, sampling):
    compared(qwen, prompts, edits_of(qwen, "all"), "graph", **LONG, **sampling)


def test_one_replay_a_token(qwen, prompts, graphs, monkeypatch):
    """Two to prove it, then one for each token behind the first two. The step's Python runs three times in all:
    repeated, warmed up, captured."""
    made, steps, step = [], [], static_step.StaticStep.step
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: made.append(Graph()) or made[-1])
    monkeypatch.setattr(static_step.StaticStep, "step", lambda self: (steps.append(1), step(self))[1])
    compared(qwen, prompts, edits_of(qwen, "all"), "graph", **LONG)
    assert len(made) == 1 and made[0].replays == 2 + 24 - 2 and len(steps) == 3


def test_the_host_looks_seldom_whether_all_have_ended(qwen, prompts, graphs, monkeypatch):
    made = []
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: made.append(Graph()) or made[-1])
    monkeypatch.setattr(static_step, "LOOKS", 8)
    ordinary, _ = compared(qwen, prompts, None, "graph", **{**OPTIONS, "max_new_tokens": 40})
    longest = max(len(ids) for ids in ordinary.token_ids)
    assert longest < 32 and made[0].replays == 2 + -(-longest // 8) * 8 - 2


class Waits(nn.Module):
    """A norm that looks at a number, as routers of experts do."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.asked = inner, 0

    def forward(self, x):
        self.asked += 1
        return self.inner(x) if float(x.sum()) < 1e30 else x


class Counts(nn.Module):
    """A norm whose Python goes on from call to call, which no graph repeats."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.calls = inner, 0

    def forward(self, x):
        self.calls += x.shape[1] == 1
        return self.inner(x) * (1.0 + 1e-2 * self.calls)


def test_a_model_that_waits_for_the_device_is_decoded_as_before(prompts, graphs):
    module = tiny_lm.qwen2()
    model = load_model(module, byte_tokenizer(), check=False)
    module.model.norm = Waits(module.model.norm)
    said = "dynamic: Refused: aten.item.default is not permitted when stream is capturing"
    compared(model, prompts, edits_of(model, "all"), "graph", said, **LONG, do_sample=True)
    assert graphs == ORDER[:-1]
    del graphs[:]
    compared(model, prompts, edits_of(model, "all"), "graph", said, **LONG)
    assert graphs == [], "it is not tried again"


def test_a_graph_that_repeats_what_its_capture_saw_is_found_out(prompts, graphs, monkeypatch):
    """The first step would agree: the second tells."""
    module = tiny_lm.qwen2()
    model = load_model(module, byte_tokenizer(), check=False)
    fixed = static_step.StaticStep._compare
    module.model.norm = counting = Counts(module.model.norm)
    monkeypatch.setattr(
        static_step.StaticStep,
        "_compare",
        lambda self, *given: None if "first step" in given[1] else fixed(self, *given),
    )
    counting.calls, left = 0, hooks_left(model)
    out = model.generate(model.encode(prompts), decode="graph", **LONG)
    assert out.decoding.startswith("dynamic: a replayed CUDA graph gave other logits (by ")
    assert hooks_left(model) == left


def test_the_stand_in_refuses_what_a_capture_refuses(graphs):
    """And repeats operations, not Python: the meta-test of this file."""
    numbers, python = torch.zeros(3), []

    def body():
        python.append(1)
        numbers.add_(1).mul_(2)

    replay = cuda_graph.captured(body, torch.device("cpu"))
    assert len(python) == 1 and numbers.tolist() == [2.0] * 3, "unlike a GPU's, this capture computes"
    replay()
    assert len(python) == 1 and numbers.tolist() == [6.0] * 3
    for waits in (lambda: bool(numbers.any()), lambda: numbers.nonzero(), lambda: torch.tensor([1.0])):
        with pytest.raises(Refused):
            cuda_graph.captured(waits, torch.device("cpu"))
