"""capture, stopped and run again: the same bits, prompts added, and folders of something else refused."""

import numpy as np
import pytest
import torch
from conftest import chat, stop_after
from tiny_models import FAMILIES
from workbench_samples import by_place, random_directions

from hooks.load import load_model
from stores import ActivationStore
from stores.errors import NotFinite, StoreMismatch
from workbench.capturing import capture
from workbench.interventions.steer import Steer

SILENT = {"progress": False}


def test_pitfall_40_a_stopped_capture_goes_on_to_the_same_bits(half, many, tmp_path, monkeypatch):
    """bfloat16 and prompts of mixed lengths: with one length in float32 another batch shape would not show."""
    settings = dict(sites="resid_post", at="all", max_tokens=120, **SILENT)
    whole = capture(half, many, to=tmp_path / "whole", **settings)
    assert len(whole.plan) >= 4
    resumed = stop_after(monkeypatch, ActivationStore, commits=2)
    with pytest.raises(KeyboardInterrupt):
        capture(half, many, to=tmp_path / "s", **settings)
    resumed()
    assert len(ActivationStore.open(tmp_path / "s").missing()) == len(whole.plan) - 2
    ran = []
    monkeypatch.setattr(
        half, "run", lambda batch, *a, **k: ran.append(batch.ids) or type(half).run(half, batch, *a, **k)
    )
    monkeypatch.setattr(half, "variant", lambda name: half)
    # Another budget changes nothing: the plan was written when the store was made.
    again = capture(half, many, to=tmp_path / "s", **{**settings, "max_tokens": 4096})
    assert ran == [unit.prompt_ids for unit in whole.plan[2:]], "units that were there are not run again"
    assert again.prompt_ids == whole.prompt_ids and again.positions.tolist() == whole.positions.tolist()
    for site in whole.sites:
        assert np.array_equal(again.values(site), whole.values(site))
    assert again.verify(deep=True) == []


def test_new_prompts_are_added_and_old_ones_left_alone(llama, many, tmp_path):
    first = capture(llama, many[:4], to=tmp_path / "s", **SILENT)
    before, units = by_place(first, "resid_post:2"), first.plan
    store = capture(llama, many, to=tmp_path / "s", **SILENT)
    after = by_place(store, "resid_post:2")
    assert store.plan[: len(units)] == units and sorted(store.prompt_ids) == sorted(p.id for p in many)
    assert all(np.array_equal(after[key], before[key]) for key in before)
    assert len(capture(llama, many[:2], to=tmp_path / "s", **SILENT)) == 10, "a finished store takes a part of them"


def test_a_begun_store_wants_all_the_prompts_of_its_units(llama, many, tmp_path, monkeypatch):
    """Left out silently, the prompts that share a unit with an absent one would be missing from every mean."""
    resumed = stop_after(monkeypatch, ActivationStore, commits=0)
    with pytest.raises(KeyboardInterrupt):
        capture(llama, many, to=tmp_path / "s", **SILENT)
    resumed()
    with pytest.raises(ValueError, match=r"was begun with more prompts, .* hold 9 that did not come \(first: 'p1'\)"):
        capture(llama, many[:1], to=tmp_path / "s", **SILENT)
    assert len(capture(llama, many, to=tmp_path / "s", **SILENT)) == 10


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"at": "all"}, "scope: expected 'last', came 'all'"),
        ({"pool": "mean"}, "pool: expected 'none', came 'mean'"),
        ({"sites": "resid_post:1"}, r"streams.resid_post.layers: expected \[0, 1, 2\], came \[1\]"),
        ({"interventions": 1}, r"interventions: expected \[\], came"),
        ({"model": 1}, "identity.model: expected 'LlamaForCausalLM', came 'GPT2LMHeadModel'"),
        ({"weights": 1}, "identity.weights: expected"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_model_or_scope_in_the_same_folder_is_refused(llama, gpt2, many, tmp_path, change, named):
    before = capture(llama, many[:2], to=tmp_path / "s", **SILENT)
    rows, model, change = len(before), llama, dict(change)
    if change.pop("model", None):
        model = gpt2
    if change.pop("weights", None):
        module, tokenizer, _ = FAMILIES["llama"]()
        with torch.no_grad():
            module.model.layers[2].mlp.down_proj.weight[0, 0] += 1e-3
        model = load_model(module, tokenizer)
    if "interventions" in change:
        change["interventions"] = [Steer(random_directions(llama), 0)]
    with pytest.raises(StoreMismatch, match=named):
        capture(model, many, to=tmp_path / "s", **change, **SILENT)
    assert len(ActivationStore.open(tmp_path / "s")) == rows


def test_a_prompt_that_changed_under_its_id_is_refused(llama, many, tmp_path):
    capture(llama, many[:2], to=tmp_path / "s", **SILENT)
    with pytest.raises(StoreMismatch, match="Prompt 'p0' differs from the prompt of this id"):
        capture(llama, [chat("p0", "something else"), *many[1:2]], to=tmp_path / "s", **SILENT)


def test_nan_is_refused_and_what_was_committed_stays(many, tmp_path):
    module, tokenizer, _ = FAMILIES["llama"]()
    with torch.no_grad():
        module.model.embed_tokens.weight[tokenizer("z")["input_ids"][0]] = torch.nan
    model = load_model(module, tokenizer)
    prompts = [*many[:2], chat("bad", "word " * 12 + "zzz")]
    with pytest.raises(NotFinite, match=r"layer 0: 32 of 32 values are NaN or infinite"):
        capture(model, prompts, to=tmp_path / "s", max_tokens=8, **SILENT)
    store = ActivationStore.open(tmp_path / "s")
    assert sorted(store.prompt_ids) == ["p0", "p1"] and np.isfinite(store.values("resid_post:2")).all()
    assert [unit.prompt_ids for unit in store.missing()] == [("bad",)]
