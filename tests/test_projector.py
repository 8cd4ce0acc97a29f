"""The projector's output: what an image gives the language stream, before any block has read it."""

import pytest
import torch
from own_hooks import everything, noise
from seeing import Seen

from hooks.blocks import UnsupportedArchitecture
from hooks.pool import Pool
from hooks.site import Site

PROJECTOR = Site(0, "projector")
# The module that a person would hook, written by hand.
MODULES = {
    "gemma3": "model.multi_modal_projector",
    "llava": "model.multi_modal_projector",
    "qwen3_vl": "model.visual.merger",
    "idefics3": "model.connector",
}


@pytest.fixture(scope="module", params=MODULES)
def seen(request, tmp_path_factory):
    return Seen(request.param, tmp_path_factory.mktemp(request.param))


def test_it_is_what_the_projector_gave(seen):
    """Row by row in the order of the pictures; a prompt without one has none."""
    model, found = seen.model, []
    batch = model.encode([seen.prompt("a", "square", "what"), seen.prompt("b", "no picture")])
    handle = model.module.get_submodule(MODULES[seen.family]).register_forward_hook(
        lambda module, args, out: found.append(out if isinstance(out, torch.Tensor) else out[0])
    )
    try:
        kept = model.run(batch, {PROJECTOR: Pool("image")}).kept[PROJECTOR]
    finally:
        handle.remove()
    by_hand = torch.cat([out.flatten(0, -2) for out in found])
    assert len(kept) == int(batch.tokens.is_image.sum()) > 0
    torch.testing.assert_close(kept, by_hand, rtol=1e-6, atol=1e-6)


def test_an_edit_of_it_touches_image_positions_only(seen):
    model = seen.model
    batch, entry = model.encode([seen.prompt("a", "square", "what")]), Site(0, "resid_pre")
    plain = model.run(batch, {entry: everything})
    edited = model.run(batch, {entry: everything}, {PROJECTOR: [noise(model, size=5.0)]})
    moved = (plain.kept[entry] != edited.kept[entry]).any(dim=-1)
    assert torch.equal(moved, batch.tokens.is_image)
    assert not torch.equal(plain.logits, edited.logits)
    assert int(edited.tallies[PROJECTOR][0].edited[0]) == int(batch.tokens.is_image.sum())


def test_models_without_image_positions_say_so(llama):
    with pytest.raises(UnsupportedArchitecture, match="no positions in its language stream"):
        llama.spot(PROJECTOR)
