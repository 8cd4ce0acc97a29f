"""The attention mask is left out of padded text where, and only where, it was seen to change nothing but rounding."""

import pytest
import torch
from conftest import chat
from own_hooks import everything
from tiny_lm import LANGUAGE_MODELS
from tiny_models import FAMILIES, byte_tokenizer
from torch.nn import functional

from hooks.asked import Asked
from hooks.checks_of_batches import padding
from hooks.load import load_model
from hooks.pool import Pool
from hooks.site import Site
from stores.errors import StoreMismatch
from workbench.capturing import capture


def seen_masks(model):
    """What the module is called with, for every forward from now on."""
    seen = []
    model.module.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append("attention_mask" in kwargs), with_kwargs=True
    )
    return seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", LANGUAGE_MODELS)
def test_causal_models_read_padded_text_without_a_mask(family, dtype, many):
    """Real positions are those of rows alone, with a mask: float32 to 1e-5, bfloat16 to a few of its 8 bits."""
    model = load_model(LANGUAGE_MODELS[family]().to(dtype), byte_tokenizer())
    keep, seen = {Site(2): Pool("all")}, seen_masks(model)
    assert not model.masks_text and model.identity["mask"] == "pictures only"
    bare = model.run(model.encode(many[:6]), keep, logits=False).kept[Site(2)].float()
    assert seen == [False]
    model.masks_text = True
    alone = torch.cat([model.run(model.encode([p]), keep, logits=False).kept[Site(2)] for p in many[:6]]).float()
    assert seen[1:] == [True] * 6
    assert (bare - alone).abs().max() < (1e-5 if dtype == torch.float32 else 4 * 2**-8) * alone.abs().max()


def test_batches_with_pictures_keep_their_mask(picture):
    """Tokens of a picture see each other, both ways: the mask says which they are."""
    model = load_model(*FAMILIES["gemma3"]())
    seen = seen_masks(model)
    model.run(model.encode([chat("a", picture, "what"), chat("b", "no picture")]))
    model.run(model.encode([chat("a", "what"), chat("b", "no picture")]))
    assert not model.masks_text and seen == [True, False]


def test_generation_keeps_its_mask():
    """Padded left, the pads stand in front of the text, where attention looks."""
    model = load_model(*FAMILIES["llama"]())
    seen = seen_masks(model)
    model.generate(model.encode([chat("a", "hi"), chat("b", "a longer one")]), max_new_tokens=2)
    assert seen and all(seen)


def looking_ahead(share):
    """A llama whose first MLP adds a share of what stands to the right, as far as its mask goes."""
    module, tokenizer, _ = FAMILIES["llama"]()
    seen = {}

    def note(module, args, kwargs):
        seen["mask"] = kwargs.get("attention_mask")

    inner = module.model.layers[0].mlp.forward

    def forward(stream):
        mask = seen["mask"]
        real = torch.ones(stream.shape[:2]) if mask is None else mask.float()
        ahead = functional.pad((stream * real[..., None])[:, 1:], (0, 0, 0, 1))
        return inner(stream) + share * ahead

    module.register_forward_pre_hook(note, with_kwargs=True)
    module.model.layers[0].mlp.forward = forward
    return module, tokenizer


@pytest.mark.parametrize("share", [0.5, 1e-6], ids=["much", "less than rounding"])
def test_a_model_that_looks_ahead_keeps_its_mask(share):
    """Also by less than the tolerance: what pads say must not reach a real position by a single bit."""
    module, tokenizer = looking_ahead(share)
    model = load_model(module, tokenizer, check=False)
    padding(Asked(model, (0, 1, 2)))
    assert model.pads["right"] and model.masks_text and "mask" not in model.identity
    module, tokenizer = looking_ahead(0.0)  # the meta-test: without the look it goes without
    model = load_model(module, tokenizer, check=False)
    padding(Asked(model, (0, 1, 2)))
    assert not model.masks_text


def test_positions_counted_from_the_mask_are_seen():
    """A model whose positions are wrong without a mask: the same residuals whatever the pads, but not those alone."""
    module, tokenizer, _ = FAMILIES["gpt2"]()
    inner, bare = module.transformer.forward, []

    def forward(*args, attention_mask=None, **kwargs):
        if attention_mask is None:
            ids = args[0] if args else kwargs["input_ids"]
            bare.append(ids.shape)
            kwargs["position_ids"] = torch.arange(ids.shape[1])[None] + 1
        return inner(*args, attention_mask=attention_mask, **kwargs)

    module.transformer.forward = forward
    model = load_model(module, tokenizer)
    assert model.pads["right"] and model.masks_text and bare


def test_a_model_that_cannot_run_without_a_mask_keeps_it():
    module, tokenizer, _ = FAMILIES["llama"]()
    inner = module.model.forward

    def forward(*args, attention_mask=None, **kwargs):
        assert attention_mask is not None
        return inner(*args, attention_mask=attention_mask, **kwargs)

    module.model.forward = forward
    assert load_model(module, tokenizer).masks_text


def test_one_rule_for_every_batch(llama, many):
    """Whether other rows need padding or not, the mask is left out: a row's numbers do not depend on its company."""
    seen = seen_masks(llama)
    for batch in (many[:1], many[:2], many):
        llama.run(llama.encode(batch), {Site(0): everything}, logits=False)
    assert seen == [False] * 3


def test_a_store_that_was_begun_with_a_mask_is_not_continued_without(many, tmp_path):
    module, tokenizer, _ = FAMILIES["llama"]()
    capture(load_model(module, tokenizer, check=False), many[:2], to=tmp_path / "s", progress=False)
    with pytest.raises(StoreMismatch, match=r"identity.mask: expected \(absent\), came 'pictures only'"):
        capture(load_model(module, tokenizer), many, to=tmp_path / "s", progress=False)
