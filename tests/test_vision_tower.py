"""Sites inside the vision tower: rows are images, positions are patches; counts come back by prompt."""

import numpy as np
import pytest
import torch
from conftest import chat
from own_hooks import everything, noise, own_hooks, sites_of

from hooks.edits import LowRankEdit
from hooks.pool import Pool
from hooks.site import Site


@pytest.fixture
def seeing(gemma3, picture, tmp_path):
    """Rows with one image, none, and two; the images differ."""
    from PIL import Image

    other = tmp_path / "other.png"
    Image.fromarray(np.random.default_rng(5).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(other)
    return gemma3.encode([chat("a", picture, "x"), chat("b", "y"), chat("c", other, "or", picture, "z")])


def test_vision_sites_equal_own_hooks_bit_for_bit(gemma3, seeing):
    truth, sites = own_hooks(gemma3, seeing, "vision"), sites_of(gemma3, "vision")
    kept = gemma3.run(seeing, dict.fromkeys(sites, Pool("image")), logits=False).kept
    for site in sites:
        assert truth[site].shape == (3, 16, 24)
        assert torch.equal(kept[site], truth[site].flatten(0, 1))
    means = gemma3.run(seeing, {Site(1, tower="vision"): Pool("all", "mean")}, logits=False).kept
    assert torch.allclose(means[Site(1, tower="vision")], truth[Site(1, tower="vision")].mean(dim=1), atol=1e-5)


@pytest.mark.parametrize("scope", ["last", "prompt", "text", "response", 3, "re:a"])
def test_vision_sites_refuse_scopes_of_text(gemma3, seeing, scope):
    with pytest.raises(ValueError, match="no meaning inside the vision tower: expected 'image' or 'all'"):
        gemma3.run(seeing, {Site(0, tower="vision"): Pool(scope)})


def test_vision_edits_are_counted_by_prompt_and_act_on_their_own_images(gemma3, seeing):
    """A bank gives a cell to each prompt: all images of that prompt are edited, those of the others are not."""
    site = Site(0, tower="vision")
    write = torch.randn(1, 1, 24, generator=torch.Generator().manual_seed(1))
    one = LowRankEdit(write, write, torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1), ("image",))
    plain = gemma3.run(seeing, {site: everything}).kept[site]
    for cells, touched, counts in [([0, 0, 0], [0, 1, 2], [16, 0, 32]), ([-1, -1, 0], [1, 2], [0, 0, 32])]:
        trace = gemma3.run(seeing, {site: everything}, {site: [one.for_rows(cells)]})
        changed = (trace.kept[site] != plain).any(dim=-1).any(dim=-1).nonzero().flatten().tolist()
        assert changed == touched
        assert trace.tallies[site][0].edited.tolist() == counts
        assert trace.untouched() == [row for row, n in enumerate(counts) if n == 0]
    both = gemma3.run(seeing, None, {site: [one], Site(1): [noise(gemma3)]})
    assert both.tallies[site][0].edited.tolist() == [16, 0, 32] and both.untouched() == []


def test_vision_edits_reach_the_logits_and_generation(gemma3, seeing):
    site = Site(0, tower="vision")
    write = torch.randn(1, 1, 24, generator=torch.Generator().manual_seed(1)) * 5
    edit = LowRankEdit(write, write, torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1), ("image",))
    plain, edited = gemma3.run(seeing).logits, gemma3.run(seeing, None, {site: [edit]}).logits
    assert (plain != edited).any(dim=-1).tolist() == [True, False, True]
    out = gemma3.generate(seeing, edits={site: [edit]}, max_new_tokens=2)
    assert out.tallies[site][0].edited.tolist() == [16, 0, 32]


def test_a_vision_site_without_images_is_refused(gemma3):
    with pytest.raises(RuntimeError, match=r"hooks at vision\.resid_post:0 never fired: .*give prompts with images"):
        gemma3.run(gemma3.encode([chat("a", "hi")]), {Site(0, tower="vision"): Pool("all")})
