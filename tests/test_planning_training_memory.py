"""The traced memory of fine-tuning against torch's own record of a real training on the CPU: within 20 %, stated before
the run. Weights that are there before are left out on both sides."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import transformers
from conftest import LONG, chat
from test_planning_memory import TOKENIZER, allocated, gemma3, llama

from hooks.load import load_model
from hooks.prompt import Prompt
from workbench.planning.dry_run import dry_run
from workbench.planning.training_memory import step_bytes
from workbench.training.adapters import train_lora, whole_settings, with_lora

WITHIN = 0.2


def rows(count: int, length: int, answer: int = 10, pictures: tuple = ()) -> list[Prompt]:
    return [chat(f"r{n}", *pictures, "w" * length, response="e" * answer) for n in range(count)]


CASES = {
    "layers": (lambda: llama(inner=256), {"rank": 2, "batch_size": 6}, (6, 200, 10)),
    "a large adapter": (lambda: llama(width=64), {"rank": 64, "batch_size": 1, "accumulate": 3}, (6, 20, 4)),
    "vocabulary": (lambda: llama(width=32, inner=48, vocabulary=20_000), {"rank": 2, "batch_size": 4}, (8, 60, 10)),
    "sliding": (gemma3, {"rank": 4, "batch_size": 6}, (6, 200, 10)),
    "pictures": (lambda: gemma3(side=64), {"rank": 4, "batch_size": 2}, (4, 30, 10)),
    "a tower that stays": (lambda: gemma3(side=64), {"rank": 4, "batch_size": 2, "tower": "frozen"}, (4, 30, 10)),
}


@pytest.mark.parametrize(
    ("case", "dtype"),
    [*((case, "float32") for case in CASES), pytest.param("layers", "bfloat16", marks=LONG), ("pictures", "bfloat16")],
)
def test_a_training_takes_what_was_estimated(case, dtype, picture, tmp_path, monkeypatch):
    build, settings, (count, length, answer) = CASES[case]
    module, processor = build()
    module.to(getattr(torch, dtype)).save_pretrained(tmp_path / "base")
    (processor or TOKENIZER).save_pretrained(tmp_path / "base")
    shown = (picture,) if processor is not None and "sliding" not in case else ()
    data = rows(count, length, answer, shown)
    settings = {"learning_rate": 1e-3, "epochs": 2, **settings}
    said = dry_run(tmp_path / "base", device="cpu").train_lora(data, **settings)
    real, most = transformers.Trainer.train, []
    monkeypatch.setattr(
        transformers.Trainer,
        "train",
        lambda self, **given: most.append(allocated(lambda: real(self, **given))) or Out(),
    )
    train_lora(tmp_path / "base", data, to=tmp_path / "adapter", **settings)
    # The adapter and what it began as are there before `train` begins.
    expected = said.memory.peak - said.memory.weights - said.memory.adapter
    assert expected == pytest.approx(most[0], rel=WITHIN), said.memory


class Out:
    training_loss = 0.0


def test_gradient_checkpointing_is_traced_as_it_runs(tmp_path):
    """A step with checkpointing on real weights takes what the trace of one says, and far less than without."""
    module, _ = llama(inner=256)
    settings = whole_settings(None, {"rank": 2})
    inputs = load_model(module, TOKENIZER).encode(rows(6, 200)).inputs
    inputs = {**inputs, "labels": inputs["input_ids"].clone()}
    peft = with_lora(module, settings).train()
    for one in peft.parameters():
        one.grad = torch.zeros_like(one) if one.requires_grad else None
    found = {}
    for checkpointing in (False, True):
        if checkpointing:
            peft.get_base_model().activation_checkpointing_enable({"use_reentrant": False})
        found[checkpointing] = allocated(lambda: peft(**inputs, use_cache=False).loss.backward())
        with torch.device("meta"):
            bare = with_lora(type(module)(replace_nothing(module.config)), settings)
        said = step_bytes(bare, inputs, checkpointing=checkpointing)
        assert said == pytest.approx(found[checkpointing], rel=WITHIN)
    assert found[True] < 0.6 * found[False]


def replace_nothing(config):
    return type(config).from_dict(config.to_dict())


def test_parts_add_up_by_hand(tmp_path):
    """Rank 3 on q_proj and down_proj of three layers, by hand, float32: numbers, gradients, two moments, B's copy."""
    module, _ = llama(width=64, inner=192)
    plan = dry_run(module.config, tokenizer=TOKENIZER, device="cpu", dtype="float32")
    said = plan.train_lora(rows(2, 10), rank=3, targets=["q_proj", "down_proj"])
    a, b = 3 * 3 * (64 + 192), 3 * 3 * (64 + 64)
    assert said.value_bytes == said.memory.gradients == 4 * (a + b) and said.memory.optimizer == 8 * (a + b)
    assert said.memory.adapter == 4 * (a + b) + 4 * b
    assert said.memory.weights == 4 * sum(one.numel() for one in module.parameters()) + sum(
        one.nbytes for one in module.buffers()
    )
    half = dry_run(module.config, tokenizer=TOKENIZER, device="cpu", dtype="bfloat16").train_lora(
        rows(2, 10), rank=3, targets=["q_proj", "down_proj"]
    )
    assert half.memory.gradients == said.memory.gradients and half.memory.weights < 0.6 * said.memory.weights
    longer = plan.train_lora(rows(2, 300), rank=3, targets=["q_proj", "down_proj"])
    assert longer.memory.activations > 5 * said.memory.activations > 0
    assert longer.checkpointed is not None and longer.checkpointed.peak < longer.memory.peak
    assert replace(longer.memory, activations=0) == replace(said.memory, activations=0)


def test_a_step_that_cannot_be_traced_is_said(monkeypatch):
    module, _ = llama()
    plan = dry_run(module.config, tokenizer=TOKENIZER, device="cpu", dtype="float32")
    monkeypatch.setattr("workbench.planning.training.step_bytes", lambda *_, **__: 1 / 0)
    said = plan.train_lora(rows(2, 10))
    assert said.checkpointed is None and said.memory.activations == 0 and said.forwards == 1
    assert "without activations" in said.notes[0] and "ZeroDivisionError" in str(said)
