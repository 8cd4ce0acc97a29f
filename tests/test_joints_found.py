"""find_joints on blocks made by hand: of several modules that could be a half, the planted one is found."""

from dataclasses import replace

import pytest
import torch
from test_joints import MORE
from test_stream import Model, in_turn
from tiny_lm import LANGUAGE_MODELS, loud
from torch import nn

from hooks.blocks import UnsupportedArchitecture
from hooks.joints import find_joints
from hooks.layout import Layout
from hooks.spot import Spot
from hooks.stream import find_stream


class Nested(nn.Module):
    """A half whose last inner module returns the very same tensor: the outer one is the half."""

    def __init__(self, width=4):
        super().__init__()
        self.out = nn.Linear(width, width)

    def forward(self, hidden):
        return self.out(hidden.tanh())


class Attention(Nested):
    def forward(self, hidden, attention_mask=None):
        return super().forward(hidden)


class Block(nn.Module):
    """Attention, then MLP; the subclasses differ in what stands around them. `planted` are the two halves."""

    planted = ("attn", "mlp")

    def __init__(self):
        super().__init__()
        self.attn, self.mlp, self.norm = Attention(), Nested(), nn.LayerNorm(4)
        self.echo, self.zero = nn.Identity(), nn.Linear(4, 4)
        nn.init.zeros_(self.zero.weight)
        nn.init.zeros_(self.zero.bias)

    def forward(self, hidden):
        mid = hidden + self.attn(hidden)
        return mid + self.mlp(self.norm(mid))


class DropoutBehind(Block):
    """What is added has passed a dropout of the block's own: of equals the last is what the sum reads."""

    planted = ("echo", "mlp")

    def forward(self, hidden):
        mid = hidden + self.echo(self.attn(hidden))
        return mid + self.mlp(self.norm(mid))


class EchoLater(Block):
    """A module that is shown the first half's output once more, later: an edit there would change nothing."""

    def forward(self, hidden):
        added = self.attn(hidden)
        mid = hidden + added
        out = mid + self.mlp(self.norm(mid))
        self.echo(added)
        return out


class NoNormBetween(Block):
    """The second half is one module that reads the stream itself."""

    planted = ("attn", "direct")

    def __init__(self):
        super().__init__()
        self.direct = nn.Linear(4, 4)

    def forward(self, hidden):
        mid = hidden + self.attn(hidden)
        return mid + self.direct(mid)


class InPlace(Block):
    """The sum is written into the half's own output: what it was must be noted before."""

    def forward(self, hidden):
        mid = self.attn(hidden).add_(hidden)
        return self.mlp(self.norm(mid)).add_(mid)


class Parallel(Block):
    def forward(self, hidden):
        normed = self.norm(hidden)
        return hidden + self.attn(normed) + self.mlp(normed)


class ParallelMlpFirst(Block):
    """Which half is attention does not follow from the order, but from what it is called with."""

    def forward(self, hidden):
        normed = self.norm(hidden)
        mlp = self.mlp(normed)
        return hidden + mlp + self.attn(normed)


class OneBranch(Block):
    """A second module whose output is zero and goes nowhere does not make two halves."""

    def forward(self, hidden):
        self.zero(hidden)
        return hidden + self.attn(self.norm(hidden))


def model_of(*kinds, passes=None):
    """The blocks' own random weights; a model of three blocks where one kind is given."""
    torch.manual_seed(1)
    listed = kinds if len(kinds) > 1 else kinds * 3
    model = Model(passes or in_turn(), depth=len(listed), layers=[kind() for kind in listed])
    model.embed.weight.data.mul_(2.0)
    return model


def found(model):
    return find_joints(model, find_stream(model))


@pytest.mark.parametrize("kind", [Block, DropoutBehind, EchoLater, NoNormBetween, InPlace])
def test_of_modules_with_like_outputs_the_one_that_is_added_is_found(kind):
    model = model_of(kind)
    for block, joint in zip(model.layers, found(model), strict=True):
        assert joint.attn is not None and joint.mlp is not None, joint.why
        halves = [name for half in (joint.attn, joint.mlp) for name, m in block.named_modules() if m is half.module]
        assert tuple(halves) == kind.planted and not joint.parallel
        assert joint.attn.scale == joint.mlp.scale == 1.0


@pytest.mark.parametrize("kind", [Parallel, ParallelMlpFirst])
def test_the_halves_of_a_parallel_block_are_told_apart(kind):
    model = model_of(kind)
    for block, joint in zip(model.layers, found(model), strict=True):
        assert joint.parallel and joint.attn.module is block.attn and joint.mlp.module is block.mlp


def test_a_module_that_adds_nothing_is_no_half():
    model = model_of(OneBranch)
    for joint in found(model):
        with pytest.raises(UnsupportedArchitecture, match="attn_out was not found: the block has one branch"):
            joint.spot("attn_out", Spot(model, "input"))


def test_joints_stand_at_their_own_blocks_where_text_skips_one():
    """Cross-attention blocks do not run on text: their place in the list stays, so that no other moves up."""

    def without_the_second(model, h):
        for n, block in enumerate(model.layers):
            h = h if n == 1 else block(h)
        return h

    model = model_of(Block, Block, NoNormBetween, passes=without_the_second)
    joints = found(model)
    assert joints[0].mlp.module is model.layers[0].mlp and joints[2].mlp.module is model.layers[2].direct
    with pytest.raises(UnsupportedArchitecture, match="no text passes this block"):
        joints[1].spot("mlp_out", Spot(model, "input"))


@pytest.mark.parametrize("layout", [Layout(("row", "pos", "width"), (4,), prefix=2), None], ids=["prefix", "none"])
def test_a_stream_of_another_form_has_no_joints(layout):
    """Its tensors are not [row, pos, d_model], so sums of them would pair wrong rows."""
    model = model_of(Block)
    stream = find_stream(model)
    odd = replace(stream, layouts={} if layout is None else dict.fromkeys(stream.layouts, layout))
    with pytest.raises(UnsupportedArchitecture, match="need one stream of"):
        find_joints(model, odd)


# The multiplier of a model that scales its residual branches; 1 elsewhere, to the bit.
FACTORS = {"llama": 1.0, "gpt2": 1.0, "gemma2": 1.0, "qwen3": 1.0, "granite": 0.22, "olmo2": 1.0, "phi": 1.0}


@pytest.mark.parametrize("name", FACTORS)
def test_half_precision_finds_the_same_modules_with_the_same_factor(name):
    """Sums of bfloat16 are off by 2^-8, so the search must allow for it, and still not take a like module."""

    def halves(dtype):
        module = (LANGUAGE_MODELS[name]() if name in LANGUAGE_MODELS else loud(MORE[name]())).to(dtype)
        names = {part: path for path, part in module.named_modules()}
        joints = found(module)
        assert all(joint.attn and joint.mlp for joint in joints), [joint.why for joint in joints]
        return [(names[half.module], half.slot, half.scale) for j in joints for half in (j.attn, j.mlp)]

    exact, rounded = halves(torch.float32), halves(torch.bfloat16)
    assert [one[:2] for one in exact] == [one[:2] for one in rounded]
    for scale in [one[2] for one in exact + rounded]:
        assert scale == pytest.approx(FACTORS[name], rel=1e-2) and (scale == 1.0) == (FACTORS[name] == 1.0)
