"""The zoo's own checks can fail: each is shown blocks, or a model, wrong on purpose. And the streams of
odd shape, as they were written down by hand."""

from __future__ import annotations

import pytest
import torch
import zoo
import zoo_checks as checks
import zoo_table
from zoo_checks import Failed
from zoo_inputs import text_inputs
from zoo_pictures import example, image_inputs
from zoo_product import check_product, check_sites, loaded

from hooks.blocks import UnsupportedArchitecture, find_blocks
from hooks.stream import find_stream


@pytest.fixture
def llama():
    return zoo.build("causal", "llama")


@pytest.fixture
def layers(llama):
    return list(llama.model.layers)


def test_the_same_weights_on_every_call():
    one, two = zoo.build("causal", "mixtral").state_dict(), zoo.build("causal", "mixtral").state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_family_keeps_what_makes_it_one():
    """Every kind of layer that the default config has is in the tiny one."""
    assert set(zoo.build("causal", "jamba").config.layers_block_type) == {"mamba", "attention"}
    assert set(zoo.build("causal", "gemma3_text").config.layer_types) == {"sliding_attention", "full_attention"}
    assert zoo.build("image-text", "qwen3_vl").config.vision_config.deepstack_visual_indexes == (0, 1)


def test_capture_fails_on_blocks_in_another_order_and_on_parts_of_blocks(llama, layers):
    inputs = text_inputs(llama)
    assert checks.check_capture(llama, layers, inputs) == ""
    with pytest.raises(Failed, match="in the order"):
        checks.check_capture(llama, layers[::-1], inputs)
    with pytest.raises(Failed, match="does not read what block 0 wrote"):
        checks.check_capture(llama, [layer.mlp for layer in layers], inputs)
    with pytest.raises(Failed, match="does not read what block 0 wrote"):
        checks.check_capture(llama, layers[::2], inputs)
    with pytest.raises(Failed, match="no block fires"):
        checks.check_capture(llama, zoo.build("causal", "llama").model.layers, inputs)


def test_capture_fails_when_hidden_states_say_something_else(llama, layers, monkeypatch):
    honest = checks._hidden_states
    monkeypatch.setattr(checks, "_hidden_states", lambda output: [2 * state for state in honest(output)])
    with pytest.raises(Failed, match="no entry that equals"):
        checks.check_capture(llama, layers, text_inputs(llama))


def test_edit_fails_where_an_edit_is_lost(llama, layers):
    inputs = text_inputs(llama)
    assert checks.check_edit(llama, layers, inputs) == ""
    handle = layers[2].register_forward_pre_hook(lambda module, args: (torch.zeros_like(args[0]), *args[1:]))
    with pytest.raises(Failed, match="does not change the logits"):
        checks.check_edit(llama, layers, inputs)
    handle.remove()
    layers[2].register_forward_pre_hook(lambda module, args: (args[0] * 1.5, *args[1:]), prepend=True)
    with pytest.raises(Failed, match="does not read the tensor that was edited"):
        checks.check_edit(llama, layers, inputs)


def test_patch_fails_when_something_passes_beside_the_stream(llama, layers):
    one, other = text_inputs(llama, 0), text_inputs(llama, 1)
    assert checks.check_patch(llama, layers, one, other) == ""
    with pytest.raises(Failed, match="same logits"):
        checks.check_patch(llama, layers, one, one)
    embedded = []
    llama.model.embed_tokens.register_forward_hook(lambda module, args, output: embedded.append(output))
    layers[2].register_forward_hook(lambda module, args, output: output + embedded[-1], prepend=True)
    with pytest.raises(Failed, match=r"after blocks \[0, 1\] of 4"):
        checks.check_patch(llama, layers, one, other)


def test_generate_fails_when_the_cache_forgets_an_edit(llama, layers):
    inputs = text_inputs(llama)
    assert checks.check_generate(llama, layers, inputs) == ""
    whole = llama.model.layers[1].forward

    def forgetful(hidden_states, *args, **kwargs):
        return whole(hidden_states if hidden_states.shape[1] > 1 else 0 * hidden_states, *args, **kwargs)

    llama.model.layers[1].forward = forgetful
    with pytest.raises(Failed, match="with a cache"):
        checks.check_generate(llama, layers, inputs)


def test_lora_fails_when_other_modules_are_found(llama, layers):
    with pytest.raises(Failed, match="other modules"):
        checks.check_lora(llama, layers, text_inputs(llama), lambda wrapped: find_blocks(wrapped)[::-1])


def test_image_and_tower_fail_on_what_does_not_see():
    gemma = zoo.build("image-text", "gemma3")
    one, other = image_inputs(gemma, "gemma3", 0), image_inputs(gemma, "gemma3", 1)
    blocks, tower = find_blocks(gemma), find_blocks(gemma, "vision")
    assert checks.check_image(gemma, one, other, blocks) == checks.check_tower(gemma, tower, one) == ""
    with pytest.raises(Failed, match="picture does not change"):
        checks.check_image(gemma, one, one, blocks)
    with pytest.raises(Failed, match="in the order"):
        checks.check_image(gemma, one, other, blocks[::-1])
    with pytest.raises(Failed, match="in the order"):
        checks.check_tower(gemma, tower[::-1], one)
    with pytest.raises(Failed, match="does not read what block 0 wrote"):
        checks.check_tower(gemma, [block.mlp for block in tower], one)
    with torch.no_grad():
        gemma.model.multi_modal_projector.mm_input_projection_weight.zero_()
    with pytest.raises(Failed, match="picture does not change"):
        checks.check_image(gemma, one, other, blocks)


def test_the_product_check_fails_on_a_product_that_is_a_layer_off(llama, layers, monkeypatch):
    from hooks.backends.hf import HuggingFaceModel
    from hooks.site import Site

    assert check_product(loaded(llama), layers) == ""
    honest = HuggingFaceModel.spot
    early = lambda self, site, **more: honest(self, Site(max(0, site.layer - 1), site.point, site.tower), **more)  # noqa: E731
    monkeypatch.setattr(HuggingFaceModel, "spot", early)
    with pytest.raises(Failed, match="not what plain hooks read"):
        check_product(loaded(llama), layers)


def test_the_sites_check_fails_on_sites_that_are_not_the_parts_of_the_stream(llama, monkeypatch):
    from hooks.backends.hf import HuggingFaceModel
    from hooks.site import Site

    assert check_sites(loaded(llama)) == ""
    assert check_sites(loaded(zoo.build("causal", "gptj"))) == "refused in 4 of 4 blocks"
    honest = HuggingFaceModel.spot
    for wrong, instead in (("attn_out", "mlp_out"), ("mlp_out", "attn_out")):
        taken = {wrong: instead}
        swap = lambda self, site, taken=taken, **more: honest(  # noqa: E731
            self, Site(site.layer, taken.get(site.point, site.point), site.tower), **more
        )
        monkeypatch.setattr(HuggingFaceModel, "spot", swap)
        with pytest.raises(Failed, match=f"{wrong} is not"):
            check_sites(loaded(llama))


@pytest.mark.parametrize(
    ("name", "axes", "widths", "copies", "prefix"),
    [
        ("llama", ("row", "pos", "width"), (64,), 1, 0),
        ("xlnet", ("pos", "row", "width"), (64,), 1, 0),
        ("cpmant", ("row", "pos", "width"), (64,), 1, 32),
        ("prophetnet", ("row", "pos", "width"), (64,), 3, 0),
        ("deepseek_v4", ("row", "pos", "width", "width"), (4, 64), 1, 0),
        ("gemma3n_text", ("width", "row", "pos", "width"), (4, 64), 1, 0),
    ],
)
def test_streams_of_odd_shape(name, axes, widths, copies, prefix):
    layout = find_stream(zoo.build("causal", name)).layout
    assert layout is not None
    assert (layout.axes, layout.widths, layout.copies, layout.prefix) == (axes, widths, copies, prefix)


@pytest.mark.parametrize(
    ("passed", "reason"),
    [
        (lambda blocks: blocks[::-1], "no module list whose blocks fire once, in order"),
        (lambda blocks: blocks * 2, "looped"),
    ],
)
def test_blocks_that_fire_in_another_order_or_twice_are_refused(llama, passed, reason):
    class Reordered(torch.nn.ModuleList):
        def __getitem__(self, index):  # what the model's forward passes through; the list itself stays as it is
            return passed(list(self)) if isinstance(index, slice) else super().__getitem__(index)

    llama.model.layers = Reordered(list(llama.model.layers))
    with pytest.raises(UnsupportedArchitecture, match=reason):
        find_blocks(llama)


def test_cross_attention_blocks_are_skipped_by_text_alone():
    mllama = zoo.build("image-text", "mllama")
    assert find_stream(mllama).skipped == {1, 3}
    assert find_stream(mllama, example=example(mllama, "mllama")).skipped == set()


def test_a_model_that_needs_a_picture_asks_for_an_example():
    blip = zoo.build("image-text", "blip")
    with pytest.raises(UnsupportedArchitecture, match="example"):
        find_blocks(blip)
    assert len(find_blocks(blip, example=example(blip, "blip"))) == 4


def test_the_page_is_written_only_by_a_whole_run(tmp_path, monkeypatch):
    row = {"kind": "causal", "name": "llama", "model": "LlamaForCausalLM", "block": "pre-norm", "by_picture": False}
    row |= {"refused": "", "results": {"capture": [True, "a note"], "patch": [False, "measured"]}}
    session = type("Session", (), {"config": object()})()
    monkeypatch.setattr(zoo_table, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(zoo_table, "FOUND", {("causal", "llama"): row})
    zoo_table.pytest_sessionfinish(session)
    assert not (tmp_path / "page.md").exists()
    monkeypatch.setattr(zoo, "families", lambda kind: {"llama": None} if kind == "causal" else {})
    zoo_table.pytest_sessionfinish(session)
    text = (tmp_path / "page.md").read_text()
    assert "| llama | LlamaForCausalLM | pre-norm | yes | no |" in text
    assert "- **llama** (capture): a note." in text and "- **llama** (patch): not expected" in text
    assert text == zoo_table.page([row])
