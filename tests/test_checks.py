"""The checks themselves: faults that could hide from them, which layers they look at, and what keeps a model out."""

import pytest
import torch
from conftest import chat
from test_selftest import broken, fresh, wrapped
from tiny_models import FAMILIES

from hooks.asked import distance, with_other_tokens
from hooks.checks import CHECKS
from hooks.load import load_model
from hooks.selftest import SelfTestFailed, checked, doctor
from hooks.site import Site


def nan_when_decoding(model):
    """One token at a time gives no number: a cache of the wrong dtype, or a row without anything to attend to."""
    wrapped(model.module.model.layers[1], lambda out, a, k: out * float("nan") if out.shape[1] == 1 else out)


def nan_under_edits(model):
    """Block 2 gives no number as soon as its input is not, to the bit, what block 1 had computed."""
    raw, layers = {}, model.module.model.layers
    wrapped(layers[1], lambda out, a, k: raw.update(out=out.clone()) or out)
    wrapped(layers[2], lambda out, a, k: out + (-(a[0] - raw["out"]).abs().amax(-1, keepdim=True)).sqrt())


@pytest.mark.parametrize(
    ("spoil", "found"),
    [(nan_when_decoding, {"cache under edits"}), (nan_under_edits, {"whole-stream patch", "cache under edits"})],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_what_is_no_number_does_not_pass_a_check(spoil, found):
    """max(0.0, nan) is 0.0 and nan > tolerance is False: a worst case that is gathered with either forgets it."""
    model = fresh()
    spoil(model)
    checkup = doctor(model)
    assert found <= broken(checkup), str(checkup)


def test_a_distance_to_what_is_no_number_is_infinite():
    one = torch.ones(3)
    assert distance(one * float("nan"), one) == distance(one, one * float("nan")) == float("inf")
    assert distance(one * float("inf"), one) == float("inf") and distance(one, one) == 0.0
    assert distance(torch.tensor([3.0, -1.0]), torch.tensor([2.0, -4.0])) == pytest.approx(0.75), "3 of the largest, 4"


def test_a_hook_in_front_of_a_block_is_seen():
    """A user's own pre-hook changes what block 1 reads. Kept in front of it, resid_pre would show what nobody read."""
    model, read = fresh(), []

    def scaled(module, args, kwargs):
        return tuple(value * 1.5 if isinstance(value, torch.Tensor) else value for value in args), kwargs

    block = model.module.model.layers[1]
    block.register_forward_pre_hook(scaled, with_kwargs=True)
    wrapped(block, lambda out, args, kwargs: read.append(args[0].clone()) or out)
    site = Site(1, "resid_pre")
    kept = model.run(model.encode([chat("a", "hi")]), {site: lambda r, w: r.clone()}).kept
    assert torch.equal(kept[site], read[-1]), "what is kept is what the block reads"
    assert "residual chain" in broken(doctor(model))


def test_an_edit_that_is_lost_while_decoding_is_seen():
    """Without an edit the cached answer equals the full one here: the check has to be made under an edit."""
    model, raw = fresh(), {}
    block = model.module.model.layers[model.n_layers // 2]
    wrapped(block, lambda out, a, k: raw.update(out=out) or out)
    block.register_forward_hook(lambda module, args, out: raw["out"] if out.shape[1] == 1 else out)
    assert broken(doctor(model)) == {"cache under edits"}


def test_pictures_that_act_but_do_not_enter_the_stream_where_they_should_are_seen():
    """Nothing changes at the embedding although image positions are stated there: what enters later is not captured."""
    model, raw = fresh("gemma3"), []
    first = model.module.model.language_model.layers[0]

    def hidden(module, args):
        raw.append(args[0])
        return (torch.zeros_like(args[0]), *args[1:])

    first.register_forward_pre_hook(hidden)
    first.register_forward_hook(lambda module, args, out: out + raw[-1])
    assert "image" in broken(doctor(model))


def test_one_dead_adapter_of_two_is_seen(own_checkpoint):
    base, adapter = own_checkpoint
    model = load_model(base, adapter={"one": adapter, "two": adapter})
    assert doctor(model).passed
    with torch.no_grad():
        dead = [weight for name, weight in model.module.named_parameters() if "lora_B.two" in name]
        [weight.zero_() for weight in dead]
    assert dead and broken(doctor(model)) == {"adapter"}


def test_a_model_whose_logits_know_nothing_of_the_prompt_cannot_be_tested_by_a_patch():
    """Equal logits before and after would look like a patch that moved everything."""
    model = fresh()
    with torch.no_grad():
        model.module.lm_head.weight.zero_()
    found = {check.name: check.passed for check in doctor(model).checks}
    assert found["whole-stream patch"] is None and found["edits act"] is False


def test_the_other_prompt_of_a_patch_differs_in_ordinary_tokens(llama):
    one = llama.encoder.encode(chat("a", "name a colour"))
    other = with_other_tokens(llama, one)
    changed = (one.input_ids != other.input_ids).nonzero().flatten().tolist()
    assert changed == [one.instruction_end - 1, one.prompt_length - 1]
    assert not set(other.input_ids[changed].tolist()) & set(llama.tokenizer.all_special_ids)


def test_a_check_up_starts_anew():
    """What an earlier one found out about padding does not decide what this one sees."""
    model = fresh()
    model.pads.update(right=False, left=False)
    assert doctor(model).passed and model.pads == {"right": True, "left": True}


def test_the_quick_part_looks_at_the_first_middle_and_last_layer(monkeypatch):
    model, seen = load_model(*FAMILIES["llama"](layers=5), check=False), []
    monkeypatch.setitem(CHECKS, "zero edit", lambda asked: (seen.append(asked.layers) or True, "-"))
    doctor(model, quick=True)
    doctor(model)
    assert seen == [(0, 2, 4), (0, 1, 2, 3, 4)]


# Written by hand: what captures and edits rest on. The others are recorded, and the model is loaded.
KEEPS_OUT = {"parity", "residual chain", "zero edit", "edits act", "hooks removed", "adapter"}


@pytest.mark.parametrize("name", CHECKS)
def test_a_model_is_kept_out_by_what_every_number_rests_on_and_by_nothing_else(name, monkeypatch):
    model = fresh()
    for each in list(CHECKS):
        monkeypatch.setitem(CHECKS, each, lambda asked, each=each: (each != name, "-"))
    if name in KEEPS_OUT:
        with pytest.raises(SelfTestFailed, match=rf"{name} +BROKEN"):
            checked(model)
    else:
        assert broken(checked(model)) == {name}


def test_pitfall_07_a_model_whose_answers_are_not_those_of_its_forwards_does_not_generate():
    """RoBERTa and kin: transformers' own generate numbers positions from 0, their forward does not. Captures stand."""
    module, tokenizer, _ = FAMILIES["llama"]()
    wrapped(module.model.layers[1], lambda out, a, k: out.flip(-1) if out.shape[1] == 1 else out)
    model = load_model(module, tokenizer)
    batch = model.encode([chat("a", "hi")])
    assert model.run(batch).logits.isfinite().all()
    with pytest.raises(RuntimeError, match=r"not that of its full forwards.*off by .*check=False"):
        model.variant("base").generate(batch, max_new_tokens=2)
    assert load_model(module, tokenizer, check=False).generate(batch, max_new_tokens=2).token_ids
    sound, tokenizer, _ = FAMILIES["llama"]()
    assert load_model(sound, tokenizer).generate(batch, max_new_tokens=2).token_ids, "the meta-test"
