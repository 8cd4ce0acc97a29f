"""Models spread over several devices: what can be said without a second one. `meta` stands for the other device; no
test here has run on two GPUs."""

import pytest
import torch

from hooks.load import load_model
from hooks.shortcuts import shortcuts
from hooks.spread import WHY, MovedView, placed_on, refuse_moved, spread
from hooks.view import PlainView
from workbench.capturing import capture

HERE, OTHER = torch.device("cpu"), torch.device("meta")


def test_keeps_and_edits_work_where_the_inputs_are_and_the_stream_goes_back(llama, prompts):
    tokens, stream = llama.encode(prompts).tokens, torch.ones(2, 3, 4)
    plain = PlainView(tokens)
    assert placed_on(HERE, stream, plain) is plain, "nothing is wrapped where all is on one device"
    view = placed_on(OTHER, stream, plain)
    assert isinstance(view, MovedView) and view.tokens is tokens
    assert view.rows(stream).device == OTHER and view.rows(stream).shape == stream.shape
    assert MovedView(plain, HERE, OTHER).back(stream).device == OTHER


def test_a_spread_model_is_not_moved_and_takes_no_shortcut(llama, prompts, monkeypatch):
    monkeypatch.setitem(llama._found, "spread", True)
    batch = llama.encode(prompts)
    assert shortcuts(llama, batch).replay == WHY
    trace = llama.run(batch, {})
    monkeypatch.setitem(llama._found, "spread", False)
    assert torch.equal(trace.logits, llama.run(batch, {}).logits), "without logits_to_keep, the same logits"
    two = torch.nn.ModuleList([torch.nn.Linear(2, 2, device=device) for device in (HERE, OTHER)])
    assert spread(two) and not spread(two[:1])
    refuse_moved(two[:1], "cpu")
    with pytest.raises(ValueError, match="spread over several devices: expected device_map= alone"):
        refuse_moved(two, "cpu")


def test_a_device_map_gives_the_same_model(own_checkpoint, many, tmp_path):
    base, adapter = own_checkpoint
    plain, mapped = (load_model(base, adapter=adapter, **more) for more in ({}, {"device_map": {"": "cpu"}}))
    assert mapped.identity == plain.identity and not mapped.spread
    stores = [capture(model, many, to=tmp_path / name, progress=False) for name, model in (("a", plain), ("b", mapped))]
    assert (stores[0].values("resid_post:1") == stores[1].values("resid_post:1")).all()
    with pytest.raises(ValueError, match="device_map says where each part lies, device where all do"):
        load_model(base, device_map="auto", device="cpu")
    with pytest.raises(ValueError, match="device_map and trust_remote_code say how a checkpoint is read"):
        load_model(plain.module, plain.tokenizer, device_map="auto")
