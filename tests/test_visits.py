"""What one forward may do at a site: how often it fires, what is counted, and which tokens a tensor belongs to."""

from dataclasses import replace

import pytest
import torch
from conftest import chat
from own_hooks import everything
from torch import nn

from hooks.engine import hooked, stream_order
from hooks.layout import Layout
from hooks.positions import Tokens
from hooks.site import Site
from hooks.spot import Spot
from hooks.view import TextView, text_view

PLAIN = Layout(("row", "pos", "width"), (4,))


def fires(site, times, *, once):
    """A module that one body calls several times, hooked at `site`; gives what was kept."""
    module = nn.Identity()
    resid, tokens = torch.ones(2, 3, 4), Tokens.of_patches(2, 3, torch.device("cpu"))
    spots = {site: Spot(module, "output")}
    with hooked(spots, {site: everything}, {}, lambda s, t: TextView(tokens, PLAIN, t), 2, once=once) as visit:
        for _ in range(times):
            module(resid)
    return visit.kept[site]


def test_a_layer_that_runs_twice_in_one_forward_is_refused():
    """A shared or looped layer is not one place in the stream: the first of its residuals is not the layer's."""
    with pytest.raises(RuntimeError, match=r"the hook at resid_post:0 fired 2 times in one forward: expected once"):
        fires(Site(0), 2, once=True)
    assert len(fires(Site(0), 1, once=True)) == 1
    assert len(fires(Site(0), 3, once=False)) == 3, "while generating, once for every token"


def test_a_tower_that_runs_once_an_image_is_refused_in_generation_too():
    """Its second call holds other images than the owners that its rows are counted for."""
    vision = Site(0, tower="vision")
    with pytest.raises(RuntimeError, match=r"the hook at vision\.resid_post:0 fired 2 times"):
        fires(vision, 2, once=False)
    assert len(fires(vision, 1, once=False)) == 1


def test_the_stream_meets_the_vision_tower_first_and_a_block_from_its_input_to_its_output():
    sites = [Site(1), Site(0, "mlp_out"), Site(1, "resid_pre"), Site(0), Site(1, tower="vision"), Site(0, "projector")]
    sites += [Site(0, "attn_out"), Site(0, "resid_mid"), Site(0, "resid_pre")]
    found = [str(site) for site in stream_order(sites)]
    first = ["vision.resid_post:1", "projector:0", "resid_pre:0", "attn_out:0", "resid_mid:0", "mlp_out:0"]
    assert found == [*first, "resid_post:0", "resid_pre:1", "resid_post:1"]


def test_an_edit_that_counts_for_itself_is_not_counted_again(llama):
    """One position a row, said by the edit; compared with the residual it would be counted twice."""

    def first_only(resid, where):
        out = resid.clone()
        out[:, 0] += 1.0
        where.tally.add(torch.ones(len(resid), dtype=torch.long))
        return out

    batch = llama.encode([chat("a", "hi"), chat("b", "a longer question")])
    trace = llama.run(batch, edits={Site(1): [first_only]})
    assert trace.tallies[Site(1)][0].edited.tolist() == [1, 1]


# A last layer that runs on the newest token alone while a prompt is read.


def tokens_of(position):
    tokens = Tokens.of_patches(*position.shape, torch.device("cpu"))
    return replace(tokens, position=position, input_ids=position + 100, patches=False)


def test_one_position_of_a_padded_prompt_is_that_of_its_newest_token():
    """Rows padded left, as in generation: position, token and length are the last column's, not the first's."""
    tokens = tokens_of(torch.tensor([[-1, 0, 1], [0, 1, 2]]))
    view = text_view(Site(2), torch.ones(2, 1, 4), tokens, PLAIN)
    assert view.tokens.position.tolist() == [[1], [2]] and view.tokens.input_ids.tolist() == [[101], [102]]
    assert view.rows(torch.ones(2, 1, 4)).shape == (2, 1, 4)


def test_what_was_seen_of_one_site_is_not_taken_for_another():
    """The view of whole rows is remembered for the sites behind: a site of another shape has its own, or is refused."""
    tokens = tokens_of(torch.tensor([[-1, 0, 1], [0, 1, 2]]))
    assert text_view(Site(0), torch.ones(2, 3, 4), tokens, PLAIN).tokens is tokens
    assert text_view(Site(1), torch.ones(2, 3, 4), tokens, PLAIN).tokens is tokens
    assert text_view(Site(2), torch.ones(2, 1, 4), tokens, PLAIN).tokens.position.tolist() == [[1], [2]]
    pictures = replace(tokens, is_image=tokens.position == 1)
    for site in (Site(0), Site(0, "projector")):
        position = text_view(site, torch.ones(2, 3, 4), pictures, PLAIN).tokens.position.tolist()
        assert position == ([[-1, -1, 1], [-1, 1, -1]] if site.point == "projector" else tokens.position.tolist())
    with pytest.raises(RuntimeError, match=r"the residual at resid_post:3 is \(2, 3, 8\): expected \(2, 3, 4\)"):
        text_view(Site(3), torch.ones(2, 3, 8), tokens, PLAIN)


def test_one_position_of_rows_that_end_apart_is_refused():
    """Padded right, the last column is a pad for the shorter rows: whose residual it is cannot be told."""
    tokens = tokens_of(torch.tensor([[0, 1, -1], [0, 1, 2]]))
    with pytest.raises(RuntimeError, match="the residual at resid_post:2 has one position, and the rows do not end"):
        text_view(Site(2), torch.ones(2, 1, 4), tokens, PLAIN)
