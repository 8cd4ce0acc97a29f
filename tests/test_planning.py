"""A dry run: forwards, tokens and bytes from a config alone equal those of the run itself, on tiny models."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest
import torch
from conftest import chat
from seeing import FAMILIES, Seen
from tiny_models import gemma3 as gemma3_parts
from tiny_models import llama as llama_parts

from hooks.load import load_model
from workbench.behaviour.answering import sample_answers
from workbench.behaviour.judges import judge
from workbench.capturing import capture
from workbench.interventions import proof
from workbench.interventions.ablate import Ablate
from workbench.interventions.steer import Steer
from workbench.interventions.sweep import sweep
from workbench.planning.dry_run import dry_run
from workbench.planning.sweeps import PROVED_ON

CHOICE = {"right": "yes", "contrary": "no"}


@pytest.fixture(scope="module")
def llama_alone():
    """A tiny llama of this file's own, its calls counted, and its plan; what it measures once is measured."""
    module, tokenizer, _ = llama_parts()
    counted = Counted(load_model(module, tokenizer))
    return counted, dry_run(module.config, tokenizer=tokenizer, device="cpu", dtype="float32")


class Counted:
    def __init__(self, model):
        self.model, self.calls = model, 0
        model.module.register_forward_pre_hook(self._count)

    def _count(self, module, args):
        self.calls += 1

    def of(self, run):
        before = self.calls
        return run(), self.calls - before


@pytest.fixture(scope="module")
def prompts():
    return [chat(f"p{n}", "w" * (5 + 3 * n), response="yes it is" if n % 2 else None, tags=CHOICE) for n in range(11)]


def stored_bytes(folder: Path) -> tuple[int, int]:
    """Of the values as HDF5 itself counts them, and of the shards' files."""
    shards = list((folder / "shards").rglob("*.h5"))
    values = 0
    for shard in shards:
        with h5py.File(shard) as file:
            values += sum(group["values"].id.get_storage_size() for group in file["activations"].values())
    return values, sum(shard.stat().st_size for shard in shards)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"at": "all", "sites": "resid_post:0-1"},
        {"at": "response", "pool": "mean"},
        {"at": "text", "max_tokens": 80},
        {"responses": "generate", "max_new_tokens": 4, "at": "response"},
        {"responses": "generate", "max_new_tokens": 3, "at": "answering", "sites": ["resid_pre:1", "resid_post:2"]},
    ],
    ids=lambda options: "-".join(map(str, options.values())) or "plain",
)
def test_a_capture_takes_what_was_said(llama_alone, prompts, tmp_path, options):
    counted, plan = llama_alone
    given = {"max_tokens": 120, **options}
    said = plan.capture(prompts, **given)
    store, calls = counted.of(lambda: capture(counted.model, prompts, to=tmp_path / "s", progress=False, **given))
    values, files = stored_bytes(tmp_path / "s")
    writes = "responses" in options
    assert said.batches == len(store.plan) and said.at_most == writes and said.measuring == 0
    assert said.forwards == calls  # this model ends no answer early
    assert said.value_bytes == values and values < files <= said.disk_bytes
    assert said.memory.peak > said.memory.weights and said.memory.kept > 0
    if not writes:
        assert said.tokens == sum(len(counted.model.encoder.encode(prompt)) for prompt in prompts)


def test_a_sweep_and_answers_take_what_was_said(llama_alone, prompts):
    counted, plan = llama_alone
    model, v = counted.model, plan.direction().replace(model="")
    cells = [*(Ablate(v, layer=layer) for layer in range(3)), Steer(v, layer=1, at="last"), Steer(v, layer=2, at="all")]
    conditions = {"base": "base", "all": Steer(v, layer=1), "late": Steer(v, layer=1, at="answering")}
    sample_answers(model, prompts[:1], max_new_tokens=1, progress=False)  # what is measured once is measured
    for max_tokens in (150, 500, 8192):
        options = {"controls": 2, "neutral": prompts[:3], "max_tokens": max_tokens}
        said = plan.sweep(prompts, cells, **options)
        _, calls = counted.of(lambda given=options: sweep(model, prompts, cells, progress=False, **given))
        assert said.forwards - said.measuring == calls and not said.at_most and said.measuring == 10
        assert said.whole_forwards < calls
        options = {"samples": 2, "conditions": conditions, "max_new_tokens": 4, "max_tokens": max_tokens}
        said = plan.sample_answers(prompts, **options)
        _, calls = counted.of(lambda given=options: sample_answers(model, prompts, progress=False, **given))
        assert said.forwards - said.measuring == calls and said.at_most and said.written >= 2 * 4 * 3 * len(prompts)


def test_an_exact_sweep_with_a_judge_takes_what_was_said(llama_alone, prompts):
    counted, plan = llama_alone
    v = plan.direction().replace(model="")
    options = {"exact": True, "max_new_tokens": 3, "max_tokens": 200}
    cells = [Steer(v, layer=1), Ablate(v, layer="all", to="zero")]
    said = plan.sweep(prompts, cells, judge=True, **options)
    _, calls = counted.of(
        lambda: sweep(counted.model, prompts, cells, judge=judge("rule:refusal"), progress=False, **options)
    )
    assert said.forwards - said.measuring == calls


def test_the_first_call_measures_as_many_forwards_as_was_said(prompts):
    module, tokenizer, _ = llama_parts()
    counted = Counted(load_model(module, tokenizer))
    plan = dry_run(module.config, tokenizer=tokenizer, device="cpu", dtype="float32")
    v = plan.direction(1).replace(model="")
    _, calls = counted.of(lambda: sweep(counted.model, prompts, [Steer(v, layer=1)], progress=False))
    said = plan.sweep(prompts, [Steer(v, layer=1)])
    assert said.forwards == calls and said.measuring == 10 and "find out" in str(said)
    assert PROVED_ON == proof._FEW


@pytest.mark.parametrize("family", ["gemma3", "llava", "qwen2_5_vl"])
def test_a_folder_without_weights_is_planned_with_its_pictures(family, tmp_path):
    seen = Seen(family, tmp_path / "model")
    counted = Counted(seen.model)
    for file in (tmp_path / "model").glob("*.safetensors"):
        file.unlink()
    plan = dry_run(tmp_path / "model", device="cpu")
    prompts = [seen.prompt(f"p{n}", "square" if n % 2 else "wide", "what is " * (1 + n)) for n in range(4)]
    prompts.append(seen.prompt("text", "no picture"))
    said = plan.capture(prompts, at="all")
    _, calls = counted.of(lambda: capture(seen.model, prompts, at="all", to=tmp_path / "s", progress=False))
    assert (said.forwards, said.value_bytes) == (calls, stored_bytes(tmp_path / "s")[0])
    assert said.tokens == sum(len(seen.model.encoder.encode(prompt)) for prompt in prompts)
    assert family in FAMILIES and str(said).startswith("capture: 3 batches, 3 forwards" if calls == 3 else "capture: ")


def test_rows_of_a_vision_tower_are_those_of_its_patches(tmp_path, picture):
    module, tokenizer, processor = gemma3_parts()
    plan = dry_run(module.config, tokenizer=tokenizer, processor=processor, device="cpu", dtype="float32")
    counted = Counted(load_model(module, tokenizer, processor))
    prompts = [chat("a", picture, "what"), chat("b", picture, "or ", picture), chat("c", "none")]
    given = {"sites": ["resid_post", "vision.resid_post"], "at": {"language": "image", "vision": "image"}}
    said = plan.capture(prompts, **given)
    _, calls = counted.of(lambda: capture(counted.model, prompts, to=tmp_path / "s", progress=False, **given))
    assert (said.forwards, said.value_bytes) == (calls, stored_bytes(tmp_path / "s")[0])


def test_what_cannot_be_planned_is_refused(tmp_path, prompts):
    module, tokenizer, _ = llama_parts()
    with pytest.raises(FileNotFoundError, match="nothing is downloaded"):
        dry_run("google/gemma-3-4b-it")
    with pytest.raises(ValueError, match="expected tokenizer="):
        dry_run(module.config)
    with pytest.raises(ValueError, match="no model_type"):
        dry_run({"hidden_size": 4}, tokenizer=tokenizer)
    plan = dry_run(module.config, tokenizer=tokenizer, dtype="float32", variants=["tuned"])
    with pytest.raises(ValueError, match="variant 'other' is not planned"):
        plan.capture(prompts, variants=["other"])
    with pytest.raises(ValueError, match="the tags on all"):
        plan.sweep([*prompts, chat("bare", "no tags")], [Steer(plan.direction(1), layer=1)])
    two = plan.capture(prompts, variants=["base", "tuned"])
    assert two.forwards == 2 * plan.capture(prompts, variants=["base"]).forwards
    assert plan.capture(prompts, variants=["base", "tuned"], together=True).forwards < two.forwards
    small = dry_run(module.config, tokenizer=tokenizer, dtype="float32", device_memory=1000)
    assert "more than the device has" in str(small.capture(prompts))


GEMMA3_4B = {
    "model_type": "gemma3",
    "text_config": {
        "vocab_size": 262208, "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "sliding_window": 1024,
    },
    "vision_config": {
        "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
        "image_size": 896, "patch_size": 14, "vision_use_head": False,
    },
    "mm_tokens_per_image": 256,
}  # fmt: skip


def test_published_sizes_written_by_hand_give_the_weights_of_the_model():
    """By hand: attention, gated MLP and six norms a block, tied embeddings; a SigLIP tower and the projector."""
    _, tokenizer, processor = gemma3_parts()
    plan = dry_run(GEMMA3_4B, tokenizer=tokenizer, processor=processor, dtype="bfloat16")
    d, f, a, c, v, fv = 2560, 10240, 2048, 1024, 1152, 4304
    block = 2 * d * a + 2 * d * c + 3 * d * f + 4 * d + 2 * 256
    language = 262208 * d + 34 * block + d
    tower = 27 * (4 * (v * v + v) + 2 * v * fv + fv + v + 4 * v) + (3 * 14 * 14 * v + v) + 4096 * v + 2 * v
    expected = language + tower + v * d + v
    assert sum(one.numel() for one in plan.model.module.parameters()) == expected == 4_300_079_472
    said = plan.capture([chat("a", "w" * 500)], at="last")
    assert said.memory.weights == pytest.approx(2 * expected, rel=1e-3)
    assert said.value_bytes == 34 * 2560 * 2 and plan.model.device == torch.device("cuda")
