"""Faults that hide from a check-up by being no number at all, or by acting just before a block reads."""

import pytest
import torch
from conftest import chat
from test_selftest import broken, fresh, wrapped

from hooks.asked import distance
from hooks.selftest import doctor
from hooks.site import Site


def nan_when_decoding(model):
    """One token at a time gives no number: a cache of the wrong dtype, or a row without anything to attend to."""
    wrapped(model.module.model.layers[1], lambda out, a, k: out * float("nan") if out.shape[1] == 1 else out)


def nan_under_edits(model):
    """Block 2 gives no number as soon as its input is not, to the bit, what block 1 had computed."""
    raw, layers = {}, model.module.model.layers
    wrapped(layers[1], lambda out, a, k: raw.update(out=out.clone()) or out)
    wrapped(layers[2], lambda out, a, k: out + (-(a[0] - raw["out"]).abs().amax(-1, keepdim=True)).sqrt())


@pytest.mark.parametrize(
    ("spoil", "found"),
    [(nan_when_decoding, {"cache under edits"}), (nan_under_edits, {"whole-stream patch", "cache under edits"})],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_what_is_no_number_does_not_pass_a_check(spoil, found):
    """max(0.0, nan) is 0.0 and nan > tolerance is False: a worst case that is gathered with either forgets it."""
    model = fresh()
    spoil(model)
    checkup = doctor(model)
    assert found <= broken(checkup), str(checkup)


def test_a_distance_to_what_is_no_number_is_infinite():
    one = torch.ones(3)
    assert distance(one * float("nan"), one) == distance(one, one * float("nan")) == float("inf")
    assert distance(one * float("inf"), one) == float("inf") and distance(one, one) == 0.0
    assert distance(torch.tensor([3.0, -1.0]), torch.tensor([2.0, -4.0])) == pytest.approx(0.75), "3 of the largest, 4"


def test_a_hook_in_front_of_a_block_is_seen():
    """A user's own pre-hook changes what block 1 reads. Kept in front of it, resid_pre would show what nobody read."""
    model, read = fresh(), []

    def scaled(module, args, kwargs):
        return tuple(value * 1.5 if isinstance(value, torch.Tensor) else value for value in args), kwargs

    block = model.module.model.layers[1]
    block.register_forward_pre_hook(scaled, with_kwargs=True)
    wrapped(block, lambda out, args, kwargs: read.append(args[0].clone()) or out)
    site = Site(1, "resid_pre")
    kept = model.run(model.encode([chat("a", "hi")]), {site: lambda r, w: r.clone()}).kept
    assert torch.equal(kept[site], read[-1]), "what is kept is what the block reads"
    assert "residual chain" in broken(doctor(model))
