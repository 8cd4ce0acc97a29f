"""The promises of a hooked run: hooks removed, blocks not run in vain, edits checked, counted and in order."""

import pytest
import torch
from conftest import chat
from own_hooks import blocks_of, everything, hooks_left, noise
from torch import nn

from hooks.engine import hooked
from hooks.layout import Layout
from hooks.pool import Pool
from hooks.positions import Tokens
from hooks.site import Site
from hooks.spot import Spot
from hooks.view import text_view


class Block(nn.Module):
    """A block that returns its stream as `wrap` makes it."""

    def __init__(self, wrap):
        super().__init__()
        self.wrap = wrap

    def forward(self, hidden):
        return self.wrap(hidden + 1)


class RowsAsTheyAre:
    def __init__(self, tokens):
        self.tokens = tokens

    def rows(self, resid):
        return resid

    def back(self, rows):
        return rows


def one_block(wrap, keep, edits=None):
    """The block's output on a stream of ones [2, 3, 4], and what the hooked run gathered."""
    block, tokens = Block(wrap), Tokens.of_patches(2, 3, torch.device("cpu"))
    spot = Spot(block, "output")
    with hooked({Site(0): spot}, keep, edits or {}, lambda *_: RowsAsTheyAre(tokens), 2) as visit:
        out = block(torch.ones(2, 3, 4))
    return out, visit


@pytest.mark.parametrize(
    "wrap", [lambda h: h, lambda h: (h, "cache"), lambda h: [h, "cache"]], ids=["tensor", "tuple", "list"]
)
def test_pitfall_02_tensor_and_tuple_outputs_keep_their_container(wrap):
    """The whole batch is read, not row 0; and what goes on has the type that the next block expects."""
    out, visit = one_block(wrap, {Site(0): everything}, {Site(0): [lambda resid, where: resid * 2]})
    assert type(out) is type(wrap(torch.ones(1)))
    stream = out if isinstance(out, torch.Tensor) else out[0]
    assert torch.equal(stream, torch.full((2, 3, 4), 4.0)) and torch.equal(visit.kept[Site(0)][0], stream)


@pytest.mark.parametrize(
    ("resid", "came"),
    [
        (torch.ones(2, 3, 4, 5), r"\(2, 3, 4, 5\)"),  # hyper-connections, where the probe saw one stream
        (torch.ones(6, 4), r"\(6, 4\)"),  # packed
        (torch.ones(3, 2, 4), r"\(3, 2, 4\)"),  # position first
        (torch.ones(2, 3, 5), r"\(2, 3, 5\)"),  # another width
    ],
    ids=["four streams", "packed", "position first", "another width"],
)
def test_a_stream_of_another_shape_is_refused(resid, came):
    tokens, layout = Tokens.of_patches(2, 3, torch.device("cpu")), Layout(("row", "pos", "width"), (4,))
    with pytest.raises(RuntimeError, match=rf"the residual at resid_post:0 is {came}: expected \(2, 3, 4\) for 2 rows"):
        text_view(Site(0), resid, tokens, layout)


def test_early_stop_does_not_run_later_blocks(scene):
    model, prompts = scene
    ran = []
    handles = [
        block.register_forward_hook(lambda m, a, o, layer=layer: ran.append(layer))
        for layer, block in enumerate(blocks_of(model))
    ]
    try:
        batch = model.encode(prompts)
        trace = model.run(batch, {Site(1): Pool("last")}, logits=False)
        assert trace.logits is None and 2 not in ran and 0 in ran
        ran.clear()
        model.run(batch, {Site(1, "resid_pre"): Pool("last")}, logits=False)
        assert ran == [0]
        ran.clear()
        model.run(batch, {Site(0): Pool("last")}, {Site(1): [noise(model)]}, logits=False)
        assert 2 not in ran, "the edit at layer 1 is the last wanted place"
        ran.clear()
        model.run(batch, {Site(1): Pool("last")})
        assert ran == list(range(model.n_layers)), "the meta-test: with logits every block runs"
    finally:
        [handle.remove() for handle in handles]


def test_hooks_are_removed_even_after_an_exception(scene):
    model, prompts = scene
    batch = model.encode(prompts)
    before = hooks_left(model)

    def breaks(resid, where):
        raise ArithmeticError("inside the edit")

    with pytest.raises(ArithmeticError, match="inside the edit"):
        model.run(batch, {Site(0): Pool("last")}, {Site(1): [breaks]})
    with pytest.raises(ArithmeticError, match="inside the edit"):
        model.generate(batch, edits={Site(1): [breaks]}, max_new_tokens=2)
    with pytest.raises(ValueError, match="outside this model"):
        model.run(batch, {Site(0): Pool("last"), Site(99): Pool("last")})
    model.run(batch, {Site(0): Pool("last")}, logits=False)  # the early stop leaves by an exception too
    assert hooks_left(model) == before


def test_a_site_outside_the_model_is_refused(llama):
    with pytest.raises(ValueError, match=r"site resid_post:3 is outside this model: expected layers 0\.\.2"):
        llama.run(llama.encode([chat("a", "hi")]), {Site(3): Pool("all")})
    with pytest.raises(ValueError, match=r"vision\.resid_post:0 is outside this model"):
        llama.run(llama.encode([chat("a", "hi")]), {Site(0, tower="vision"): Pool("all")})


def test_a_hook_that_never_fires_raises(llama):
    block = llama.module.model.layers[1]
    llama.module.model.layers[1] = torch.nn.Identity()  # the forward passes another module
    llama.module.model.layers[1].forward = lambda hidden_states, **rest: hidden_states
    try:
        with pytest.raises(RuntimeError, match="the hooks at resid_post:1 never fired"):
            llama.run(llama.encode([chat("a", "hi")]), {Site(1): Pool("last")})
    finally:
        llama.module.model.layers[1] = block


def test_pitfall_19_training_mode_is_refused(llama):
    batch = llama.encode([chat("a", "hi")])
    llama.module.train()
    try:
        for act in (llama.run, llama.generate):
            with pytest.raises(RuntimeError, match="training mode, where dropout changes every residual"):
                act(batch)
    finally:
        llama.module.eval()


def test_no_gradient_is_recorded(llama):
    trace = llama.run(llama.encode([chat("a", "hi")]), {Site(0): everything})
    assert not trace.logits.requires_grad and not trace.kept[Site(0)].requires_grad
