"""Of several module lists, arguments and outputs the stream is the planted one; what looks like it is passed by."""

from types import SimpleNamespace

import pytest
import torch
from test_stream import Block, Model, Seeing, blocks, in_turn
from torch import nn

from hooks.blocks import UnsupportedArchitecture, find_blocks
from hooks.layout import Layout
from hooks.probe import text_inputs
from hooks.stream import find_stream
from hooks.structure import image_token_id, windows

PLAIN = Layout(("row", "pos", "width"), (4,))


def one_after_the_other(*names):
    def passes(model, h):
        for name in names:
            h = in_turn(name=name)(model, h)
        return h

    return passes


def heavy(n):
    """Blocks with more weights than a stream's: their size is no sign, until chains are equally long."""
    listed = blocks(n)
    for block in listed:
        block.more = nn.Linear(30, 30)
    return listed


# Which list.


def test_the_configs_count_comes_before_a_longer_chain():
    model = Model(one_after_the_other("audio", "layers"), depth=3, audio=heavy(5), layers=blocks(3))
    assert find_blocks(model) == list(model.layers)


def test_where_the_count_fits_none_the_longest_chain_is_the_stream_however_large_the_others_are():
    model = Model(one_after_the_other("adapter", "layers"), depth=9, adapter=heavy(2), layers=blocks(4))
    assert find_blocks(model) == list(model.layers)


def test_of_chains_of_one_length_the_larger_is_the_stream():
    model = Model(one_after_the_other("small", "layers"), depth=3, small=blocks(3), layers=heavy(3))
    assert find_blocks(model) == list(model.layers)


def test_one_expert_of_as_many_as_there_are_layers_is_no_stream():
    """Routed experts beside the layers: one fires, which makes a chain without a gap, of one."""

    def routed(model, h):
        return in_turn()(model, model.experts[1](h))

    model = Model(routed, depth=3, experts=heavy(3), layers=blocks(4))
    assert find_blocks(model) == list(model.layers)


class WithParts(Block):
    """A list inside a block, which runs in turn as blocks do."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList(blocks(3))

    def forward(self, hidden):
        for part in self.parts:
            hidden = part(hidden)
        return hidden


def test_a_list_inside_a_block_is_not_searched():
    model = Model(in_turn(), depth=3, layers=[WithParts() for _ in range(4)])
    assert find_blocks(model) == list(model.layers)


def test_blocks_that_run_in_another_order_than_their_list_are_refused():
    """Layer n of such a list is not the n-th place in the stream."""

    def backwards(model, h):
        for block in reversed(model.layers):
            h = block(h)
        return h

    with pytest.raises(UnsupportedArchitecture, match="no module list whose blocks fire once, in order"):
        find_blocks(Model(backwards, layers=blocks()))


class InPlace(Block):
    def forward(self, hidden):
        return hidden.add_(self.linear(hidden))


def test_blocks_that_write_into_their_input_are_refused():
    """Input and output are one tensor there: what is kept of the input would be the output."""
    with pytest.raises(UnsupportedArchitecture, match="no module list whose blocks fire once, in order, each reading"):
        find_blocks(Model(in_turn(), layers=[InPlace() for _ in range(3)]))


def test_weights_that_give_no_numbers_still_have_a_stream():
    model = Model(in_turn(), layers=blocks())
    model.layers[1].linear.bias.data.fill_(float("nan"))
    assert find_blocks(model) == list(model.layers)


def test_a_decoder_that_is_no_decoder_does_not_count():
    """get_decoder() of some classes is their LM head."""
    model = Model(in_turn(), layers=blocks())
    model.head = nn.Linear(4, 40)
    model.get_decoder = lambda: model.head
    assert find_blocks(model) == list(model.layers)


def test_inside_a_peft_wrapper_is_the_model():
    base = Model(in_turn(), layers=blocks())
    wrapper = SimpleNamespace(peft_config={}, get_base_model=lambda: base)
    assert find_blocks(wrapper) == list(base.layers)


# Which argument, which output.


def test_an_argument_that_is_the_stream_at_one_joint_only_is_not_where_it_is_read():
    def passes(model, h):
        start = h * 2
        for n, block in enumerate(model.layers):
            h = block(h, other=h if n == 1 else start)
        return h

    assert find_stream(Model(passes, layers=blocks())).reads == 0


class WithBias(Block):
    """Stream and position bias go from block to block, both by name; `bias` is first in the alphabet."""

    def forward(self, hidden, bias):
        return {"hidden": hidden + self.linear(hidden), "bias": bias + 1}


class ScaleFirst(Block):
    """A number a row in front of the stream."""

    def forward(self, scale, hidden):
        return scale * 2, hidden + self.linear(hidden)


def test_of_two_tensors_that_are_passed_on_the_stream_has_the_outputs_first_shape():
    def by_name(model, h):
        out = {"hidden": h, "bias": torch.ones(*h.shape[:2], 2)}
        for block in model.layers:
            out = block(**out)
        return out["hidden"]

    stream = find_stream(Model(by_name, layers=[WithBias() for _ in range(3)]))
    assert (stream.reads, stream.writes, stream.layout) == ("hidden", "hidden", PLAIN)


def test_a_number_a_row_is_no_stream():
    def passes(model, h):
        scale = torch.ones(len(h))
        for block in model.layers:
            scale, h = block(scale, h)
        return h

    stream = find_stream(Model(passes, layers=[ScaleFirst() for _ in range(3)]))
    assert (stream.reads, stream.writes, stream.layout) == (1, 1, PLAIN)


class Ids(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(40, 4)

    def forward(self, ids):
        return self.table(ids)


class OnIds(Model):
    def forward(self, input_ids):
        return self.layers[0](input_ids)


def test_a_block_that_reads_no_floating_tensor_is_refused():
    with pytest.raises(UnsupportedArchitecture, match="take or return no floating tensor"):
        find_blocks(OnIds(in_turn(), depth=1, layers=[Ids()]))


class Widens(nn.Module):
    def __init__(self, width, out):
        super().__init__()
        self.linear = nn.Linear(width, out)

    def forward(self, hidden):
        return self.linear(hidden)


def test_blocks_of_different_widths_are_not_one_stream():
    with pytest.raises(UnsupportedArchitecture, match=r"streams of different widths \[4, 6\]: not one stream"):
        find_blocks(Model(in_turn(), layers=[Widens(4, 4), Widens(4, 6), Widens(6, 4)]))


def test_an_example_may_be_longer_than_was_asked_for():
    """Pictures make rows longer: positions are counted from the ids, or the rest would pass for a learned prefix."""

    def longer(rows, length):
        return text_inputs(model, rows, length + 4)

    model = Model(in_turn(), layers=blocks())
    assert find_stream(model, example=longer).layout == PLAIN


# What the probe reads.


class Reads(Model):
    def forward(self, input_ids, use_cache=True, attention_mask=None):
        return self.passes(self, self.embed(input_ids))


def test_the_probes_tokens_are_ordinary_and_no_two_rows_are_alike():
    """Placeholder ids would call for pictures; equal rows could not be told from one row, copied."""
    model = Reads(in_turn(), layers=blocks())
    text = SimpleNamespace(vocab_size=40, eos_token_id=20, image_token_id=15)
    model.config = SimpleNamespace(get_text_config=lambda decoder=False: text, video_token_index=25, boi_token_id=17)
    inputs = text_inputs(model, 5, 12)
    ids = inputs["input_ids"]
    assert not set(ids.flatten().tolist()) & {15, 17, 20, 25} and ids.max() < 40
    assert len({tuple(row) for row in ids.tolist()}) == 5 and bool(inputs["attention_mask"].all())
    assert inputs["use_cache"] is False


# Image encoders.


def test_an_encoder_that_is_not_the_image_encoder_is_passed_by():
    """get_encoder() may be the text encoder, and other parts bear the name as well: the stated depth decides."""
    model = Seeing()
    model.text = Model(in_turn(), layers=blocks(5))
    model.get_encoder = lambda modality=None: model.text
    model.audio = nn.Module()
    model.audio.encoder = Model(in_turn(), layers=blocks(4))
    del model.visual
    model.visual = Model(in_turn(), layers=blocks(3))
    assert find_blocks(model, "vision") == list(model.visual.layers)


@pytest.mark.parametrize(
    "config",
    [
        {"vision_config": {"depth": 3}},
        {"vision_config": None, "encoder": SimpleNamespace(model_type="vit", image_size=8, patch_size=2, depth=3)},
    ],
    ids=["a dictionary", "an encoder that states a size of pictures"],
)
def test_the_image_encoders_config_is_found_in_other_forms(config):
    model = Seeing(**config)
    assert find_blocks(model, "vision") == list(model.visual.layers)


def test_a_window_that_no_layer_uses_is_not_stated():
    def stated(**text):
        return windows(SimpleNamespace(get_text_config=lambda decoder=False: SimpleNamespace(**text)))

    assert stated(sliding_window=8, layer_types=["full_attention"] * 2) == {} == stated(sliding_window=None)
    mixed = ["sliding_attention", "full_attention"]
    assert stated(sliding_window=8, layer_types=mixed) == {"sliding_window": 8, "layer_types": mixed}
    assert stated(sliding_window=8) == {"sliding_window": 8, "layer_types": []}, "every layer, where none is named"


def test_the_image_token_is_stated_under_either_name():
    assert (
        image_token_id(SimpleNamespace(image_token_index=7)) == 7 == image_token_id(SimpleNamespace(image_token_id=7))
    )
    assert image_token_id(SimpleNamespace(image_token_id=None, image_token_index=7)) == 7
    assert image_token_id(SimpleNamespace(image_token_id=None)) is None
