"""doctor: sound models pass every check; a model that was broken on purpose fails the check that is meant for it."""

import re

import pytest
import torch
from own_hooks import hooks_left
from seeing import FAMILIES as SEEING
from tiny_models import FAMILIES

from hooks.checks import QUICK
from hooks.load import load_model
from hooks.pool import Pool
from hooks.selftest import Check, Checkup, SelfTestFailed, doctor
from hooks.site import Site
from workbench.capturing import capture
from workbench.cli import main
from workbench.interventions.generate import generate

ALL = [
    "parity",
    "residual chain",
    "zero edit",
    "edits act",
    "hooks removed",
    "one BOS",
    "adapter",
    "whole-stream patch",
]
ALL += ["padding", "cache under edits", "image"]


def fresh(family="llama", dtype=torch.float32):
    module, tokenizer, processor = FAMILIES[family]()
    return load_model(module.to(dtype), tokenizer, processor)


def broken(checkup):
    return {check.name for check in checkup.checks if check.passed is False}


def wrapped(part, change):
    """`part` with a forward whose result goes through `change(result, args, kwargs)`."""
    forward = part.forward
    part.forward = lambda *args, **kwargs: change(forward(*args, **kwargs), args, kwargs)


# What is sound passes.


def test_the_tiny_families_pass(any_model):
    before = hooks_left(any_model), torch.get_rng_state()
    checkup = doctor(any_model)
    assert [check.name for check in checkup.checks] == ALL
    skipped = {check.name for check in checkup.checks if check.passed is None}
    assert checkup.passed and skipped == {"adapter"} | ({"image"} if "vision" not in any_model.towers else set())
    assert hooks_left(any_model) == before[0]
    assert torch.equal(torch.get_rng_state(), before[1]), "a check-up must not change the draws that follow it"


def test_half_precision_passes():
    assert doctor(fresh(dtype=torch.bfloat16)).passed


def test_a_model_of_one_layer_passes():
    assert doctor(load_model(*FAMILIES["llama"](layers=1))).passed


def test_the_organism_passes_with_its_adapter(tuned_world):
    """Its vocabulary knows none of the words that the checks ask, and it has a vision tower."""
    checkup = doctor(tuned_world)
    assert all(check.passed for check in checkup.checks), str(checkup)
    assert "tuned moves the logits by" in str(checkup) and "enters at 4 of" in checkup.checks[-1].detail
    assert tuned_world.active == "tuned", "it is left as it was"


def test_a_model_without_a_chat_template_is_asked_in_plain_text():
    module, tokenizer, _ = FAMILIES["gpt2"]()
    tokenizer.chat_template = None
    assert doctor(load_model(module, tokenizer)).passed


# What is broken fails, each check by a model made for it.


def side_channel(model):
    """The last block adds the embeddings behind the stream's back: the residual no longer holds all there is."""
    kept = {}
    model.module.model.embed_tokens.register_forward_hook(lambda module, args, out: kept.update(now=out))
    wrapped(model.module.model.layers[-1], lambda out, a, k: out + 0.3 * kept["now"])


def mixes_positions(model):
    """A block that takes off the mean over positions, pads included: what a row holds depends on its neighbours."""
    wrapped(model.module.model.layers[1], lambda out, a, k: out - out.mean(dim=1, keepdim=True))


def ignores_the_mask(model):
    """Neither attention mask nor positions: right padding does not show it (attention is causal), left padding does."""
    forward = model.module.forward

    def deaf(**kwargs):
        kwargs.pop("attention_mask", None)
        kwargs.pop("position_ids", None)
        return forward(**kwargs)

    model.module.forward = deaf


def forgets_when_decoding(model):
    """A block that does something else on one token at a time, as a cache that is read wrongly would."""
    wrapped(model.module.model.layers[1], lambda out, a, k: out.flip(-1) if out.shape[1] == 1 else out)


def changes_between_blocks(model):
    """A user's own hook, left on the model: block 1 reads something else than what block 0 showed."""
    model.module.model.layers[0].register_forward_hook(lambda module, args, out: out * 1.01)


def is_random(model):
    wrapped(model.module.model.layers[1], lambda out, a, k: out + 1e-5 * torch.randn_like(out))


def undoes_edits(model):
    """A hook of the user's that gives back what the block had computed: the edit is seen by nobody."""
    raw = {}
    wrapped(model.module.model.layers[1], lambda out, a, k: raw.update(out=out) or out)
    model.module.model.layers[1].register_forward_hook(lambda module, args, out: raw["out"])


def writes_into_the_stream(model):
    """A hook of the user's that works in place: what was kept is not what a hook behind it sees."""
    model.module.model.layers[0].register_forward_hook(lambda module, args, out: out.mul_(1.01))


def writes_two_bos(model):
    model.tokenizer.chat_template = "<bos>" + model.tokenizer.chat_template


def blind(model):
    """The projector is zero: no picture has any effect."""
    with torch.no_grad():
        model.module.model.multi_modal_projector.mm_input_projection_weight.zero_()


def looks_elsewhere(model):
    """The picture enters at another token than the config says."""
    model.encoder.placeholder_id = 6


def leaves_hooks(model):
    def again(module, args):
        module.register_forward_pre_hook(lambda module, args: None)

    model.module.model.layers[0].register_forward_pre_hook(again)


BREAKS = {
    side_channel: {"whole-stream patch"},
    mixes_positions: {"padding", "cache under edits"},
    forgets_when_decoding: {"cache under edits"},
    changes_between_blocks: {"parity", "residual chain"},
    writes_into_the_stream: {"parity", "residual chain"},
    undoes_edits: {"edits act", "whole-stream patch"},
    is_random: {"parity", "zero edit"},
    leaves_hooks: {"hooks removed"},
    writes_two_bos: {"one BOS"},
    blind: {"image"},
    looks_elsewhere: {"image"},
}


@pytest.mark.parametrize("spoil", BREAKS, ids=lambda spoil: spoil.__name__)
def test_each_check_fails_on_what_it_is_for(spoil, monkeypatch, capsys):
    """And `workbench doctor` ends with 3."""
    model = fresh("gemma3" if spoil in (blind, looks_elsewhere) else "llama")
    spoil(model)
    monkeypatch.setattr("workbench.sources.ModelSource.load", lambda source: model)
    assert main(["doctor", "a-model"]) == 3
    table = capsys.readouterr().out
    found = {name for name in ALL if re.search(rf"^{name} +BROKEN", table, re.M)}
    assert found == BREAKS[spoil], table


def test_pitfall_06_where_left_padding_changes_the_numbers_rows_of_one_length_go_together(questions, tmp_path):
    """As on models with learned positions: answers then are those of the prompts alone, and padded rows are refused."""
    model = fresh()
    ignores_the_mask(model)
    assert doctor(model).passed and model.pads == {"right": True, "left": False}
    with pytest.raises(ValueError, match="numbers change when shorter rows are padded on the left"):
        model.generate(model.encode(questions), max_new_tokens=2)
    together = generate(model, questions, max_new_tokens=4, progress=False)
    alone = [model.generate(model.encode([question]), max_new_tokens=4).texts[0] for question in questions]
    assert [one.text for one in together] == alone


def test_pitfall_26_where_right_padding_changes_the_numbers_captures_do_without(many, tmp_path):
    model = fresh()
    mixes_positions(model)
    assert broken(doctor(model)) == BREAKS[mixes_positions] and not model.pads["right"]
    with pytest.raises(ValueError, match="numbers change when shorter rows are padded on the right"):
        model.run(model.encode(many))
    store = capture(model, many, sites="resid_post:2", at="last", to=tmp_path / "s", progress=False)
    for prompt in many:
        kept = model.run(model.encode([prompt]), {Site(2): Pool("last")}).kept[Site(2)]
        index = store.prompt_ids.index(prompt.id)
        torch.testing.assert_close(torch.tensor(store.values("resid_post:2")[index]), kept[0], rtol=1e-5, atol=1e-5)


def test_every_check_is_broken_by_some_model_above():
    assert set().union(*BREAKS.values()) | {"adapter"} == set(ALL)


def test_a_model_that_breaks_a_promise_does_not_load():
    module, tokenizer, _ = FAMILIES["llama"]()
    layer = module.model.layers[1]
    wrapped(layer, lambda out, a, k: out + 1e-5 * torch.randn_like(out))
    with pytest.raises(SelfTestFailed, match=r"zero edit +BROKEN"):
        load_model(module, tokenizer)
    assert broken(doctor(load_model(module, tokenizer, check=False))) == {"parity", "zero edit"}


def test_the_check_up_of_the_load_travels_with_the_model():
    model = fresh()
    assert model.checkup.passed and [check.name for check in model.checkup.checks] == ALL
    assert model.variant("base").checkup is model.checkup


def test_a_large_model_gets_the_quick_part(monkeypatch):
    monkeypatch.setattr("hooks.selftest.SMALL", 100)
    model = fresh()
    assert [check.name for check in model.checkup.checks] == list(QUICK)


def test_an_adapter_that_does_nothing_fails(own_checkpoint):
    base, adapter = own_checkpoint
    model = load_model(base, adapter=adapter)
    assert doctor(model).passed
    with torch.no_grad():
        for name, weight in model.module.named_parameters():
            if "lora_B" in name:
                weight.zero_()
    checkup = doctor(model)
    assert broken(checkup) == {"adapter"} and "tuned moves the logits by 0.0e+00" in str(checkup)


def test_an_adapter_that_stays_fails(own_checkpoint, monkeypatch):
    """Switched off, the base must be the base again, to the bit: merging and unmerging would not give that."""
    base, adapter = own_checkpoint
    model = load_model(base, adapter=adapter)
    activate = model.adapters.activate

    def careless(name):
        if name != model.adapters._current:
            with torch.no_grad():
                model.module.get_input_embeddings().weight.mul_(1 + 1e-6)
        activate(name)

    monkeypatch.setattr(model.adapters, "activate", careless)
    checkup = doctor(model)
    assert broken(checkup) == {"adapter"} and "off again is the base NO MORE" in str(checkup)


def test_a_check_that_raises_is_a_broken_one_and_the_others_go_on():
    model = fresh()
    model.module.generate = None
    checkup = doctor(model)
    assert broken(checkup) == {"padding", "cache under edits"}
    assert "TypeError: 'NoneType' object is not callable" in str(checkup)


def test_the_table_and_the_record():
    checks = Check("one", True, "fine"), Check("the other", False, "off by 3"), Check("c", None, "-")
    checkup = Checkup("a model", checks)
    assert str(checkup).splitlines() == [
        "a model", "one        ok       fine", "the other  BROKEN   off by 3", "c          skipped  -"]  # fmt: skip
    assert checkup.record() == {"one": [True, "fine"], "the other": [False, "off by 3"], "c": [None, "-"]}
    assert not checkup.passed and Checkup("m", checkup.checks[::2]).passed


@pytest.mark.parametrize("family", ["llama", "qwen3_vl", "gemma3", "llava_next", "mllama", "paligemma"])
def test_doctor_prints_its_table_for_a_checkpoint_of_the_users_own(family, tmp_path, capsys):
    if family == "llama":
        for part in FAMILIES["llama"]()[:2]:
            part.save_pretrained(tmp_path)
    else:
        SEEING[family]().save(tmp_path)
    assert main(["doctor", str(tmp_path)]) == 0
    table = capsys.readouterr().out
    found = dict(re.findall(rf"^({'|'.join(ALL)}) +(ok|skipped|BROKEN)", table, re.M))
    skipped = {name for name, verdict in found.items() if verdict == "skipped"}
    assert list(found) == ALL and skipped == {"adapter"} | ({"image"} if family == "llama" else set()), table
