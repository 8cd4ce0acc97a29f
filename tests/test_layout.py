"""Layout: axes told apart by two forwards of different size; every form goes to [row, pos, d_model] and back."""

import pytest
import torch
from einops import rearrange

from hooks.layout import Layout, measured

FIRST, SECOND = (2, 5), (3, 7)

# name: what the model makes of [row, pos, stream, d], as (rows, positions) -> tensor, and the same as [row, pos, width]
FORMS = {
    "plain": (1, lambda x: x[:, :, 0], lambda x: x[:, :, 0]),
    "four streams": (4, lambda x: x, lambda x: rearrange(x, "b t s d -> b t (s d)")),
    "streams first": (4, lambda x: rearrange(x, "b t s d -> s b t d"), lambda x: rearrange(x, "b t s d -> b t (s d)")),
    "position first": (1, lambda x: rearrange(x, "b t 1 d -> t b d"), lambda x: x[:, :, 0]),
    "one after the other": (
        3,
        lambda x: rearrange(x, "b t s d -> b (s t) d"),
        lambda x: rearrange(x, "b t s d -> b t (s d)"),
    ),
    "behind a prefix": (1, lambda x: torch.cat([torch.full((len(x), 4, 6), 9.0), x[:, :, 0]], 1), lambda x: x[:, :, 0]),
}


def example(streams, rows, length):
    return torch.randn(rows, length, streams, 6, generator=torch.Generator().manual_seed(1))


def layout_of(name):
    streams, model, _ = FORMS[name]
    shapes = [tuple(model(example(streams, *size)).shape) for size in (FIRST, SECOND)]
    return measured(shapes[0], FIRST, shapes[1], SECOND)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("size", [(2, 5), (4, 1), (1, 9), (5, 4)], ids=str)
def test_every_form_becomes_rows_and_goes_back(name, size):
    streams, model, rows = FORMS[name]
    layout, x = layout_of(name), example(streams, *size)
    assert layout is not None and layout.shape(*size) == tuple(model(x).shape)
    seen = layout.rows(model(x), *size)
    assert torch.equal(seen, rows(x)) and seen.shape[-1] == layout.width
    assert torch.equal(layout.back(seen, model(x)), model(x))
    # An edit of one position of one row reaches that place, and no other.
    changed, x2 = seen.clone(), x.clone()
    changed[-1, -1] += 1
    x2[-1, -1] += 1
    assert torch.equal(layout.back(changed, model(x)), model(x2))


def test_a_plain_stream_is_passed_through_untouched():
    layout, x = layout_of("plain"), torch.ones(2, 3, 6)
    assert layout.plain and layout.rows(x, 2, 3) is x and layout.back(x, x) is x
    assert not any(layout_of(name).plain for name in FORMS if name != "plain")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((10, 6), (21, 6)),  # rows and positions in one axis: which is which cannot be told
        ((2, 5), (3, 7)),  # no width
        ((2, 5, 6), (3, 7, 9)),  # the width changes with the batch
        ((2, 3, 6), (3, 3, 6)),  # pooled: no positions
        ((5, 6), (7, 6)),  # no rows
        ((2, 5, 6), (3, 7)),
        ((2, 5, 5, 6), (3, 7, 7, 6)),  # two position axes: attention weights
    ],
)
def test_what_is_no_stream_has_no_layout(first, second):
    assert measured(first, FIRST, second, SECOND) is None


def test_widths_of_the_batchs_own_size_are_no_rows():
    """d_model 2 or 5 equals the rows or positions of one forward; the other forward tells them apart."""
    assert measured((2, 5, 2), FIRST, (3, 7, 2), SECOND) == Layout(("row", "pos", "width"), (2,))
    assert measured((2, 5, 5), FIRST, (3, 7, 5), SECOND) == Layout(("row", "pos", "width"), (5,))


@pytest.mark.parametrize(
    ("first", "second"),
    [((2, 10, 6), (3, 7, 6)), ((2, 5, 6), (3, 14, 6)), ((2, 9, 6), (3, 12, 6)), ((2, 4, 6), (3, 6, 6))],
    ids=["two copies, then one", "one copy, then two", "a prefix that grows", "fewer positions than tokens"],
)
def test_an_axis_that_follows_the_positions_differently_each_time_is_no_position_axis(first, second):
    """Copies and prefix must be the same in both forwards; taken from one alone they would cut rows at wrong places."""
    assert measured(first, FIRST, second, SECOND) is None


@pytest.mark.parametrize("name", [name for name in FORMS if name != "plain"])
def test_going_back_does_not_write_into_the_models_own_tensor(name):
    """Others may hold it: what was kept of it before the edit, a cache, the block's own residual sum."""
    streams, model, _ = FORMS[name]
    layout, own = layout_of(name), model(example(streams, 2, 5)).clone()
    before = own.clone()
    layout.back(layout.rows(own, 2, 5) + 1, own)
    assert torch.equal(own, before)
