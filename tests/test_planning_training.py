"""A planned fine-tune against the real one: forwards, steps, tokens, loss tokens, the bytes of the adapter's file."""

from __future__ import annotations

import json

import pytest
import torch
from conftest import LONG, chat
from seeing import FAMILIES, Seen

import workbench.training.adapters as adapters
from hooks.prompt import Prompt, PromptError
from workbench.planning.dry_run import dry_run
from workbench.training.adapters import train_lora, whole_settings
from workbench.training.mixtures import mix
from workbench.training.population import population
from workbench.training.recipes import rank_sweep

ROWS = [chat(f"r{n}", "w" * (3 + 5 * n), response="yes " * (1 + n % 3)) for n in range(7)]
FAST = {"learning_rate": 1e-2, "rank": 2}


class Watched:
    """What really passes the PeftModel of every training while this is on."""

    def __init__(self, monkeypatch) -> None:
        self.forwards = self.tokens = self.loss = self.pictures = 0
        real = adapters.with_lora

        def watched(module, options):
            peft = real(module, options)
            peft.register_forward_pre_hook(self._count, with_kwargs=True)
            return peft

        monkeypatch.setattr(adapters, "with_lora", watched)

    def _count(self, module, args, given) -> None:
        self.forwards += 1
        self.tokens += int(given["attention_mask"].sum())
        self.loss += int((given["labels"] != -100).sum())
        pixels = given.get("pixel_values")
        self.pictures += 0 if pixels is None else len(pixels)

    @property
    def counts(self) -> tuple[int, int, int, int]:
        return self.forwards, self.tokens, self.loss, self.pictures


def counts(said) -> tuple[int, int, int, int]:
    return said.forwards, said.tokens, said.loss_tokens, said.pictures


def steps_of(folder) -> int:
    return json.loads((folder / "training.json").read_text())["trained_steps"]


def file_bytes(folder) -> int:
    return (folder / "adapter_model.safetensors").stat().st_size


@pytest.mark.parametrize(
    "settings",
    [
        {"batch_size": 2},
        {"batch_size": 3, "accumulate": 2, "epochs": 2},
        {"batch_size": 2, "steps": 5, "accumulate": 3},
        {"batch_size": 4, "epochs": 1.5, "rank": 5, "targets": ["q_proj", "down_proj"]},
        {"batch_size": 2, "steps": 3, "rank": 8, "alpha": 16, "dropout": 0.1, "rslora": True},
        {"recipe": "paper_a", "rank": 3, "alpha": 3},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_a_fine_tune_takes_what_was_said(own_checkpoint, tmp_path, monkeypatch, settings):
    settings = {**FAST, **settings}
    said = dry_run(own_checkpoint[0], device="cpu").train_lora(ROWS, seed=3, **settings)
    seen = Watched(monkeypatch)
    folder = train_lora(own_checkpoint[0], ROWS, to=tmp_path / "a", seed=3, **settings)
    assert counts(said) == seen.counts and said.steps == steps_of(folder) and not said.at_most
    assert said.disk_bytes == file_bytes(folder) > said.value_bytes > 0


@LONG
def test_the_seed_decides_which_rows_are_drawn(own_checkpoint):
    """Three steps see some of the rows: other seeds, other tokens; the sampler's own draw, not an average."""
    plan = dry_run(own_checkpoint[0], device="cpu")
    found = {seed: plan.train_lora(ROWS, seed=seed, batch_size=1, steps=3).tokens for seed in range(5)}
    assert len(set(found.values())) > 2
    assert plan.train_lora(ROWS, batch_size=1, epochs=2).tokens == 2 * plan.train_lora(ROWS, batch_size=1).tokens


@pytest.mark.parametrize(("family", "tower"), [("gemma3", "frozen"), ("llava", None)])
def test_pictures_and_towers_are_planned_without_weights(family, tower, tmp_path, monkeypatch):
    seen = Seen(family, tmp_path / "model")
    rows = [
        Prompt(**{**vars(seen.prompt(f"r{n}", "square" if n % 2 else "wide", "what is")), "response": "a thing"})
        for n in range(4)
    ]
    rows.append(chat("text", "no picture", response="none"))
    settings = {**FAST, "batch_size": 2, **({"tower": tower} if tower else {})}
    plan_folder = FAMILIES[family]().save(tmp_path / "plan")
    for file in plan_folder.glob("*.safetensors"):
        file.unlink()
    plan = dry_run(plan_folder, device="cpu")
    said = plan.train_lora(rows, **settings)
    watched = Watched(monkeypatch)
    folder = train_lora(tmp_path / "model", rows, to=tmp_path / "a", **settings)
    assert counts(said) == watched.counts and said.pictures == 4 and said.steps == steps_of(folder)
    assert said.disk_bytes == file_bytes(folder)
    assert said.checkpointed is not None and not said.notes, said.notes
    whole = plan.train_lora(rows, **FAST, batch_size=2).disk_bytes
    assert (said.disk_bytes < whole) == (tower == "frozen")


@LONG
def test_a_population_takes_what_was_said(own_checkpoint, tmp_path, monkeypatch):
    plan = dry_run(own_checkpoint[0], device="cpu")
    recipes = {**rank_sweep(ROWS, [1, 12]), "mixed": {"rows": mix(ROWS[:4], ROWS[4:], 0.5), "rank": 3}}
    settings = {"batch_size": 2, "steps": 5, "learning_rate": 1e-2}
    said = plan.population(recipes, seeds=(0, 4), **settings)
    seen = Watched(monkeypatch)
    real = population(own_checkpoint[0], recipes, to=tmp_path, seeds=(0, 4), progress=False, **settings)
    folders = real.adapters.values()
    assert counts(said) == seen.counts and said.adapters == len(real.members) == 6
    assert said.steps == sum(map(steps_of, folders)) == 30
    assert said.disk_bytes == sum(map(file_bytes, folders))
    assert said.conditions == real.conditions and said.members == real.members
    parts = [plan.population(recipes, seeds=(0, 4), part=f"{n}/4", **settings) for n in (1, 2, 3, 4)]
    assert sum(part.tokens for part in parts) == said.tokens and sum(part.adapters for part in parts) == 6
    assert all(part.conditions == said.conditions for part in parts)
    loaded = said.load()
    assert list(loaded.model.variants) == list(real.load().variants)
    answers = loaded.sample_answers(ROWS[:2], conditions=said.conditions, max_new_tokens=3)
    assert answers.written == 7 * 2 * 3
    assert answers.memory.weights - plan.sample_answers(ROWS[:2], max_new_tokens=3).memory.weights == said.value_bytes


def test_what_training_refuses_is_refused_before_it(own_checkpoint):
    plan = dry_run(own_checkpoint[0], device="cpu")
    with pytest.raises(PromptError, match="has no response"):
        plan.train_lora([chat("bare", "no answer")])
    with pytest.raises(PromptError, match="over max_length=9"):
        plan.train_lora(ROWS, max_length=9)
    with pytest.raises(TypeError, match="does not know rnak"):
        plan.train_lora(ROWS, rnak=3)
    with pytest.raises(ValueError, match="o_pro"):
        plan.train_lora(ROWS, targets=["o_pro"])
    with pytest.raises(ValueError, match="has no vision tower"):
        plan.train_lora(ROWS, tower="frozen")
    nobody = plan.population({"a": {"rows": ROWS}}, seeds=[0], part="2/2")
    assert (nobody.forwards, nobody.disk_bytes, nobody.adapters) == (0, 0, 0) and list(nobody.members) == ["a-seed0"]


def test_planning_leaves_the_random_numbers_as_they_were(own_checkpoint):
    plan = dry_run(own_checkpoint[0], device="cpu")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    plan.train_lora(ROWS[:2], steps=1)
    assert torch.equal(torch.rand(3), expected)
    assert whole_settings("paper_a", {})["alpha"] == 128


def test_the_estimate_says_what_it_counts(own_checkpoint):
    said = dry_run(own_checkpoint[0], device="cpu").train_lora(ROWS, steps=3, batch_size=2)
    record = said.record()
    assert json.loads(json.dumps(record)) == record and record["peak_memory_bytes"] == said.memory.peak
    assert record["peak_memory_bytes_with_checkpointing"] == said.checkpointed.peak
    assert "3 steps, 3 forwards with their backwards" in str(said) and "with gradient checkpointing" in str(said)
