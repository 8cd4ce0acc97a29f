"""find_stream: structure proposes, a short forward decides; what has no single stream is refused with the reason."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from hooks.blocks import UnsupportedArchitecture, find_blocks
from hooks.stream import find_stream


@dataclass
class Wrapped:
    hidden: torch.Tensor
    cache: str = "cache"


class Block(nn.Module):
    """h + W h, returned the way that `form` says."""

    def __init__(self, form=lambda h: h, width=4):
        super().__init__()
        self.linear, self.form = nn.Linear(width, width), form

    def forward(self, hidden, other=None):
        return self.form(hidden + self.linear(hidden))


class Model(nn.Module):
    """Embedding, then `passes(self, hidden)`, over named module lists; `depth` is what the config states."""

    def __init__(self, passes, depth=3, **lists):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.passes = nn.Embedding(40, 4), passes
        for name, blocks in lists.items():
            setattr(self, name, nn.ModuleList(blocks))
        text = SimpleNamespace(num_hidden_layers=depth, vocab_size=40)
        self.config = SimpleNamespace(get_text_config=lambda decoder=False: text)

    def forward(self, input_ids):
        return self.passes(self, self.embed(input_ids))


def blocks(n=3, **kind):
    return [Block(**kind) for _ in range(n)]


def in_turn(first=lambda out: out, name="layers"):
    def passes(model, h):
        for block in getattr(model, name):
            h = first(block(h))
        return h

    return passes


def test_pitfall_13_of_lists_of_the_same_length_the_one_that_carries_the_stream_is_found():
    """Norms beside the blocks, an encoder that does not run, experts that are larger: none of them is the stream."""
    model = Model(in_turn(), norms=blocks(), encoder=blocks(), experts=blocks(5, width=40), layers=blocks())
    assert find_blocks(model) == list(model.layers)
    # An encoder that runs first, on the same shape: the config's count proposes both, the larger one is not the reason.
    twice = Model(lambda m, h: in_turn()(m, in_turn(name="small")(m, h)), small=blocks(2), layers=blocks())
    assert find_blocks(twice) == list(twice.layers)


def test_a_wrong_layer_count_does_not_mislead():
    """The config's number is a proposal: here it is that of an audio encoder, which text does not pass."""
    model = Model(in_turn(), depth=2, audio=blocks(2), layers=blocks(4))
    assert find_blocks(model) == list(model.layers)


@pytest.mark.parametrize(
    ("form", "first", "writes"),
    [
        (lambda h: h, lambda out: out, None),
        (lambda h: (h, "cache"), lambda out: out[0], 0),
        (lambda h: ("cache", h), lambda out: out[1], 1),
        (lambda h: [h, "cache"], lambda out: out[0], 0),
        (lambda h: {"hidden": h}, lambda out: out["hidden"], "hidden"),
        (Wrapped, lambda out: out.hidden, "hidden"),
    ],
    ids=["tensor", "tuple", "second", "list", "dict", "dataclass"],
)
def test_pitfall_02_the_stream_is_found_in_every_container(form, first, writes):
    stream = find_stream(Model(in_turn(first), layers=blocks(form=form)))
    assert len(stream) == 3 and stream.writes == writes and stream.layout.width == 4


def test_the_argument_that_holds_the_stream_is_found_by_its_values():
    """Called by keyword, and behind another tensor of the same shape."""

    def by_name(model, h):
        start = h
        for block in model.layers:
            h = block(other=start * 2, hidden=h)
        return h

    assert find_stream(Model(by_name, layers=blocks())).reads == "hidden"


def test_a_block_that_text_does_not_pass_is_skipped_not_missing():
    """Cross-attention layers in the same list run only with an image."""

    def without_the_second(model, h):
        for n, block in enumerate(model.layers):
            h = h if n == 1 else block(h)
        return h

    stream = find_stream(Model(without_the_second, depth=4, layers=blocks(4)))
    assert stream.skipped == {1} and len(stream) == 4


def test_blocks_between_the_blocks_carry_the_stream_on():
    """Gated cross-attention in a list of its own, between the layers."""

    def between(model, h):
        for n, block in enumerate(model.layers):
            h = block(model.gates[0](h) if n == 1 else h)
        return h

    model = Model(between, gates=blocks(1), layers=blocks())
    assert find_blocks(model) == list(model.layers)


def parallel_lists(model, h):
    for attention, feed in zip(model.attentions, model.feeds, strict=True):
        h = h + attention(h)
        h = h + feed(h)
    return h


def looped(model, h):
    for _ in range(2):
        h = in_turn()(model, h)
    return h


def reversible(model, h):
    a = b = h
    for block in model.layers:
        a, b = block((a, b))
    return a + b


class Pair(Block):
    def forward(self, left, right):
        left = left + self.linear(right)
        return left, right + self.linear(left)


def two_streams(model, h):
    a, b = h, h * 2
    for block in model.layers:
        a, b = block(a, b)
    return a + b


class Pooled(Block):
    def forward(self, hidden):
        return hidden.mean(dim=1, keepdim=True) + self.linear(hidden.mean(dim=1, keepdim=True))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda: Model(parallel_lists, attentions=blocks(), feeds=blocks()), "Parallel lists have no block to hook"),
        (lambda: Model(looped, layers=blocks()), "a looped stack: its 3 blocks fire 6 times"),
        (lambda: Model(two_streams, layers=[Pair() for _ in range(3)]), "2 tensors of the same shape .*reversible"),
        (lambda: Model(in_turn(), layers=[Pooled() for _ in range(3)]), "no axis order with rows, positions"),
        (lambda: Model(lambda m, h: h), "no module list under Model"),
        (lambda: Model(lambda m, h: h, layers=blocks()), "no module list whose blocks fire once, in order"),
        (lambda: Model(lambda m, h: m.nothing, layers=blocks()), "short forward.*failed with AttributeError"),
    ],
    ids=["parallel lists", "looped", "reversible", "pooled", "no list", "never fires", "fails"],
)
def test_what_has_no_single_stream_is_refused_with_the_reason(model, said):
    with pytest.raises(UnsupportedArchitecture, match=said):
        find_blocks(model())


def test_the_probe_leaves_nothing_behind(llama):
    def count():
        return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in llama.module.modules())

    before, state = count(), torch.get_rng_state()
    assert len(find_stream(llama.module)) == 3
    assert count() == before and torch.equal(torch.get_rng_state(), state)


# Vision towers.


class Seeing(nn.Module):
    """A text model with an image encoder: blocks, and mergers of the same number beside them."""

    def __init__(self, mergers=2, **config):
        super().__init__()
        self.visual = Model(lambda m, h: in_turn()(m, h) + sum(side(h) for side in m.mergers), layers=blocks())
        self.visual.mergers = nn.ModuleList(Block(width=4) for _ in range(mergers))
        for merger in self.visual.mergers:  # larger than the blocks: their size is no sign
            merger.extra = nn.Linear(50, 50)
        self.config = SimpleNamespace(**{"vision_config": SimpleNamespace(depth=3), **config})

    def get_encoder(self, modality=None):
        return self.visual

    def forward(self, pixel_values):
        return self.visual.passes(self.visual, pixel_values)


def pictures(rows, length):
    return {"pixel_values": torch.ones(rows, length, 4)}


def test_the_vision_blocks_have_the_towers_own_depth():
    model = Seeing()
    assert find_blocks(model, "vision") == list(model.visual.layers)


def test_pitfall_13_mergers_as_many_as_blocks_are_told_apart_by_a_picture_or_refused():
    model = Seeing(mergers=3)
    with pytest.raises(UnsupportedArchitecture, match=r"expected one module list of 3 blocks.*found lists of \[3, 3\]"):
        find_blocks(model, "vision")
    assert find_blocks(model, "vision", example=pictures) == list(model.visual.layers)


def test_a_tower_deep_in_the_configs_is_found():
    inner = SimpleNamespace(model_type="vlm", vision_config=SimpleNamespace(depth=3))
    model = Seeing(vision_config=None, vlm_config=inner)
    assert find_blocks(model, "vision") == list(model.visual.layers)
    with pytest.raises(UnsupportedArchitecture, match="has no vision tower"):
        find_blocks(Seeing(vision_config=None), "vision")


def test_an_image_encoder_by_itself_is_a_vision_tower():
    encoder = Model(in_turn(), layers=blocks())
    encoder.main_input_name, encoder.config = "pixel_values", SimpleNamespace(num_hidden_layers=3)
    assert find_blocks(encoder, "vision") == list(encoder.layers)


def test_stages_of_different_widths_are_no_stream():
    for name, stages in [("hidden_sizes", [8, 16, 32]), ("depths", [2, 2, 6])]:
        model = Seeing(vision_config=SimpleNamespace(depth=3, **{name: stages}))
        with pytest.raises(UnsupportedArchitecture, match=rf"stages \({name} .*no single residual stream"):
            find_blocks(model, "vision")
