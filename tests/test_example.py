"""Examples with pictures for the probe, and layers that something is added to from outside the stream."""

import pytest
import torch
from tiny_models import FAMILIES

from hooks.deepstack import injected_layers
from hooks.example import picture_batches, with_pictures
from hooks.load import load_model


def loaded(dtype=torch.float32):
    module, tokenizer, processor = FAMILIES["gemma3"]()
    return load_model(module.to(dtype), tokenizer, processor, check=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_an_example_has_the_models_dtype_and_rows_of_one_length(dtype):
    """Pixels come in float32: a model in half precision would fail on them, and be called unsupported."""
    model = loaded(dtype)
    inputs = with_pictures(model.module, model.encoder)(3, 7)
    assert inputs["pixel_values"].dtype == dtype and inputs["input_ids"].dtype == torch.long
    assert len(inputs["input_ids"]) == 3 and bool(inputs["attention_mask"].all()), "no pads"
    with torch.no_grad():
        assert model.module(**inputs).logits.isfinite().all()


def test_every_seed_is_another_picture_and_the_same_one_every_time():
    """A check that compares two pictures must not be given one twice."""
    encoder = loaded().encoder
    one, two, again = (batch.inputs["pixel_values"] for batch in picture_batches(encoder, ["a"], seeds=[0, 1, 0]))
    assert torch.equal(one, again) and not torch.equal(one, two)


def test_pitfall_14_features_that_are_added_in_place_are_seen():
    """What was kept of the block's output must not change when something is written into that tensor later."""
    model = loaded()
    assert injected_layers(model) == ()
    model.module.model.language_model.layers[1].register_forward_hook(lambda module, args, out: out.add_(1.0))
    assert injected_layers(model) == (2,)
