"""NaN and infinity: refused with how many, and where; or allowed, and stated by the shards. And Ctrl-C, at a unit."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import numpy as np
import pytest
import torch
from conftest import chat
from faults import notes
from store_samples import LAYERS, VARIANTS, block, encoded, new_store
from tiny_models import FAMILIES

import workbench as wb
from hooks.load import load_model
from stores import ActivationStore, Block, NotFinite, StoreMismatch
from stores.nonfinite import nonfinite
from workbench.cli import main

SILENT = {"progress": False}


def spoiled(unit, dtype, places):
    """The block of a unit with NaN or infinity at [layer, row, place]."""
    good = block(unit, dtype)
    values = good.values.copy()
    codes = encoded(np.array([np.nan, np.inf, -np.inf], np.float32), dtype)
    for n, place in enumerate(places):
        values[place] = codes[n % 3]
    return Block(**{**good.__dict__, "values": values})


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_value_that_is_no_number_is_counted(tmp_path, dtype):
    """Over all layers, though the first bad chunk stops the write; by prompt, over its variants."""
    store = new_store(tmp_path / "s", 4, dtype)
    (unit,) = store.missing()
    rows = [(prompt, variant) for variant in VARIANTS for prompt in unit.prompt_ids]
    places = [(1, 0, 3), (1, 4, 0), (1, 4, 1), (2, 3, 23)]
    bad = spoiled(unit, dtype, places)
    by_prompt = {rows[0][0]: 3, rows[3][0]: 1}  # rows 0 and 4 are of one prompt, under two variants
    found = nonfinite(bad, store._folder.manifest.streams[0])
    assert (found.count, dict(found.layers), dict(found.prompts)) == (4, {LAYERS[1]: 3, LAYERS[2]: 1}, by_prompt)
    with pytest.raises(NotFinite) as refused:
        store.commit(unit, {"resid_post": bad})
    said = str(refused.value)
    assert (
        f"Unit {unit.key!r}, stream 'resid_post', layer 1: 3 of 192 values are NaN or infinite, expected none" in said
    )
    assert "4 of 576 values are NaN or infinite, in layers 1 (3), 5 (1), of prompts p0 (3), p3 (1)" in said
    assert "allow_nonfinite=True" in said and store.missing() == [unit]
    allowing = new_store(tmp_path / "t", 4, dtype, spec={"allow_nonfinite": True})
    allowing.commit(unit, {"resid_post": bad}, note="split: out of memory")
    assert notes(allowing.path) == {
        "split: out of memory; stream 'resid_post': 4 of 576 values are NaN or infinite, in layers 1 (3), 5 (1), of "
        "prompts p0 (3), p3 (1)"
    }
    assert allowing.verify(deep=True) == [] and nonfinite(block(unit, dtype), store._folder.manifest.streams[0]) is None


def test_what_is_sound_has_no_note(tmp_path):
    store = new_store(tmp_path / "s", 4, spec={"allow_nonfinite": True})
    (unit,) = store.missing()
    store.commit(unit, {"resid_post": block(unit)})
    assert notes(store.path) == {""}


def test_many_prompts_are_named_in_part(tmp_path):
    store = new_store(tmp_path / "s", 12, plan=[new_store(tmp_path / "t", 12).plan[0].of([f"p{n}" for n in range(12)])])
    (unit,) = store.missing()
    with pytest.raises(NotFinite, match=r"p4 \(1\) and 7 more"):
        store.commit(unit, {"resid_post": spoiled(unit, "float32", [(0, row, 0) for row in range(12)])})


@pytest.fixture(scope="module")
def broken():
    """A model whose stream is NaN wherever the letter z stands."""
    module, tokenizer, _ = FAMILIES["llama"]()
    with torch.no_grad():
        module.model.embed_tokens.weight[tokenizer("z")["input_ids"][0]] = torch.nan
    return load_model(module, tokenizer)


def test_a_capture_may_be_told_to_allow_it(broken, many, tmp_path):
    prompts = [*many[:2], chat("bad", "word " * 12 + "zzz")]
    with pytest.raises(NotFinite, match=r"of prompts bad \(\d+\)"):
        wb.capture(broken, prompts, to=tmp_path / "s", max_tokens=8, **SILENT)
    assert set(ActivationStore.open(tmp_path / "s").prompt_ids) == {"p0", "p1"}
    with pytest.raises(StoreMismatch, match="allow_nonfinite"):
        wb.capture(broken, prompts, to=tmp_path / "s", allow_nonfinite=True, max_tokens=8, **SILENT)
    store = wb.capture(broken, prompts, to=tmp_path / "t", allow_nonfinite=True, **SILENT)
    assert store.spec["allow_nonfinite"] is True and set(store.prompt_ids) == {"p0", "p1", "bad"}
    assert np.isnan(store.where(prompt_id="bad").values("resid_post:2")).all()


# Ctrl-C


def test_ctrl_c_ends_a_command_at_a_unit_and_the_next_goes_on(tmp_path, llama, many, monkeypatch, capsys):
    """A real signal while the fourth unit is read: exit code 130, whole units, the same rows afterwards."""
    for part in FAMILIES["llama"]()[:2]:
        part.save_pretrained(tmp_path / "base")
    lines = [json.dumps({"id": one.id, "text": "word " * (30 * n + 1)}) for n, one in enumerate(many[:5])]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    command = ["capture", str(tmp_path / "base"), str(tmp_path / "p.jsonl"), "--to", str(tmp_path / "s")]
    monkeypatch.setattr("workbench.units.CPU_BUDGET", 100)
    monkeypatch.setattr("workbench.captures.size.tokens_of_units", lambda device, weights: 0)
    run, units = type(llama).run, iter(range(100))
    assert threading.current_thread() is threading.main_thread()

    def interrupted(self, *arguments, **named):
        if (tmp_path / "s").exists() and next(units) == 3:  # three were read; the writer may still be at them
            deadline = time.monotonic() + 60
            while len(list((tmp_path / "s").glob("shards/*/*.h5"))) < 2 and time.monotonic() < deadline:
                time.sleep(0.001)
            os.kill(os.getpid(), signal.SIGINT)
        return run(self, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(type(llama), "run", interrupted)
        assert main(command) == 130
    assert "the same command goes on" in capsys.readouterr().err
    store = ActivationStore.open(tmp_path / "s")
    assert store.verify(deep=True) == [] and 2 <= len(store.plan) - len(store.missing()) < len(store.plan)
    assert main(command) == 0
    assert main([*command[:-1], str(tmp_path / "whole")]) == 0
    whole = ActivationStore.open(tmp_path / "whole")
    assert all(np.array_equal(store.values(site), whole.values(site)) for site in whole.sites)
