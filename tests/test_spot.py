"""Spot: the tensor that was asked for is taken and put back, whatever stands beside it, in the container that came."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPast

from hooks.spot import Spot

# Each of another value, so that a wrong slot shows; all of the stream's own shape, so that no shape gives it away.
OTHER, STREAM, NEW = torch.full((2, 3, 4), 1.0), torch.full((2, 3, 4), 2.0), torch.full((2, 3, 4), 3.0)


class Named(NamedTuple):
    other: torch.Tensor
    stream: torch.Tensor


@dataclass
class Held:
    other: torch.Tensor
    stream: torch.Tensor


OUTPUTS = {
    "tuple": (1, (OTHER, STREAM, "cache")),
    "tuple, third": (2, (OTHER, None, STREAM)),
    "list": (1, [OTHER, STREAM, "cache"]),
    "named tuple": (1, Named(OTHER, STREAM)),
    "dict": ("stream", OrderedDict(other=OTHER, stream=STREAM)),
    "dataclass": ("stream", Held(OTHER, STREAM)),
    "model output": ("last_hidden_state", BaseModelOutputWithPast(hidden_states=(OTHER,), last_hidden_state=STREAM)),
}


def entries(held: Any) -> list[Any]:
    if isinstance(held, Mapping):
        return list(held.values())
    return list(held) if isinstance(held, tuple | list) else list(vars(held).values())


@pytest.mark.parametrize("name", OUTPUTS)
def test_of_several_tensors_in_an_output_the_one_that_carries_the_stream_is_taken_and_replaced(name):
    """The probe said which entry; the first tensor would often be right, and silently wrong where it is not."""
    slot, held = OUTPUTS[name]
    spot, before = Spot(nn.Identity(), "output", slot), entries(held)
    assert spot.take(held) is STREAM
    new = spot.put(held, NEW)
    assert type(new) is type(held) and spot.take(new) is NEW
    expected = [NEW if entry is STREAM else entry for entry in before]
    assert all(a is b for a, b in zip(entries(new), expected, strict=True)), "all else stays where it was"
    assert spot.take(held) is STREAM, "the module's own output is not written into: others may hold it"


def test_an_output_that_is_a_tensor_is_the_stream():
    spot = Spot(nn.Identity(), "output")
    assert spot.take(STREAM) is STREAM and spot.put(STREAM, NEW) is NEW


@pytest.mark.parametrize(
    ("slot", "held", "expected"),
    [
        (0, ((STREAM, OTHER), {}), ((NEW, OTHER), {})),
        (1, ((OTHER, STREAM, None), {}), ((OTHER, NEW, None), {})),
        ("stream", ((), {"other": OTHER, "stream": STREAM}), ((), {"other": OTHER, "stream": NEW})),
        ("stream", ((OTHER,), {"stream": STREAM}), ((OTHER,), {"stream": NEW})),
        # Another call than the probe's: by keyword where it was positional. The usual name comes before the first.
        (0, ((), {"other": OTHER, "hidden_states": STREAM}), ((), {"other": OTHER, "hidden_states": NEW})),
        (0, ((None,), {"stream": STREAM}), ((None,), {"stream": NEW})),
        ("stream", ((STREAM, OTHER), {}), ((NEW, OTHER), {})),
    ],
    ids=["first", "second", "by name", "by name behind another", "hidden_states", "first is None", "positional now"],
)
def test_the_argument_that_carries_the_stream_is_taken_and_replaced(slot, held, expected):
    spot = Spot(nn.Identity(), "input", slot)
    assert spot.take(held) is STREAM
    args, kwargs = spot.put(held, NEW)
    assert all(a is b for a, b in zip(args, expected[0], strict=True)) and kwargs.keys() == expected[1].keys()
    assert all(kwargs[name] is value for name, value in expected[1].items())
    assert spot.take(held) is STREAM, "the caller's own arguments stay as they are"


@pytest.mark.parametrize(
    ("side", "held", "said"),
    [
        ("input", ((torch.ones(2, dtype=torch.long),), {}), "Identity was called without a tensor"),
        ("output", ("cache", None), "Identity returned tuple without a tensor in it"),
        ("output", None, "Identity returned NoneType without a tensor in it"),
    ],
)
def test_where_there_is_no_tensor_the_module_is_named(side, held, said):
    with pytest.raises(RuntimeError, match=said):
        Spot(nn.Identity(), side).take(held)
