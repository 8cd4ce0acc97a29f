"""Slab and host slots: what per-layer selection gives, in one piece; and when a GPU may write where."""

import copy
import types

import pytest
import torch
from conftest import chat
from own_hooks import everything, sites_of

from hooks.host_copy import HostSlot, ToHost
from hooks.model import Where
from hooks.pool import Picked, Pool
from hooks.positions import OPEN_END, Tokens
from hooks.site import Site
from hooks.slab import Slab

CPU = torch.device("cpu")


def room(shape, dtype):
    """Poisoned: what is not written shows."""
    return torch.full(shape, torch.nan, dtype=dtype)


def tokens(lengths, width):
    position = torch.stack([torch.where(torch.arange(width) < n, torch.arange(width), -1) for n in lengths])
    n = torch.tensor(lengths)
    ids = torch.arange(len(lengths) * width).view(len(lengths), width) + 100
    return Tokens(ids, position, n, n, torch.full_like(n, OPEN_END), position < -1, n * 0)


def at(tokens, layer=0, point="resid_post"):
    return Where(Site(layer, point), tokens)


@pytest.mark.parametrize("reduce", ["none", "mean"])
@pytest.mark.parametrize("scope", ["last", "all", "response", "image"])
def test_a_slab_holds_what_pools_give_layer_by_layer(scene, scope, reduce):
    model, prompts = scene
    batch, sites, pool = model.encode(prompts), sites_of(model), Pool(scope, reduce)
    dtype = torch.float32
    slab = Slab(pool, len(sites), model.d_model, dtype, room)
    slab.expect(batch.tokens, CPU)
    trace = model.run(batch, {site: slab.plane(n) for n, site in enumerate(sites)}, logits=False)
    assert trace.kept == {}, "nothing is kept twice"
    truth = model.run(batch, dict.fromkeys(sites, pool), logits=False).kept
    assert torch.equal(slab.values, torch.stack([truth[site] for site in sites]))
    assert [len(slab.picked)] == [len(column) for column in pool.index(batch.tokens)[:1]]


@pytest.mark.parametrize("reduce", ["none", "mean"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_picked_vectors_by_hand(dtype, reduce):
    """Against loops over rows and positions; also into given memory, and from a stream with positions first."""
    torch.manual_seed(0)
    lengths, width = [5, 3, 7], 7
    resid = torch.randn(3, width, 4).to(dtype)
    pool = Pool("all", reduce)
    if reduce == "none":
        expected = torch.stack([resid[r, p] for r, n in enumerate(lengths) for p in range(n)])
    else:
        expected = torch.stack([resid[r, 1:n].double().mean(dim=0) for r, n in enumerate(lengths)]).float()
    for given in (resid, resid.transpose(0, 1).contiguous().transpose(0, 1)):
        picked = pool.picked(tokens(lengths, width))
        out = room(expected.shape, expected.dtype)
        for found in (picked.of(given), picked.of(given, out), out):
            assert torch.equal(found, expected) if reduce == "none" else torch.allclose(found, expected, atol=1e-6)


def test_a_mean_leaves_out_rows_without_a_position():
    pool = Pool("all", "mean")  # a prompt of one token has position 0 alone, which does not count
    picked = pool.picked(tokens([4, 1, 3], 4))
    resid, out = torch.randn(3, 4, 2), room((2, 2), torch.float32)
    assert picked.row.tolist() == [0, 2] and picked.position.tolist() == [-1, -1]
    picked.of(resid, out)
    assert torch.allclose(out, torch.stack([resid[0, 1:4].mean(dim=0), resid[2, 1:3].mean(dim=0)]), atol=1e-6)


def test_positions_are_looked_for_once_a_forward(llama, many, monkeypatch):
    """On a GPU each look waits for the device: once a forward at most, whatever the number of layers; never where the
    tokens are known before."""
    calls, look = [], Pool._picked
    monkeypatch.setattr(Pool, "_picked", lambda self, tokens: calls.append(1) or look(self, tokens))
    batch, sites = llama.encode(many[:3]), sites_of(llama)
    llama.run(batch, dict.fromkeys(sites, Pool("last")), logits=False)
    assert len(calls) == 1
    slab = Slab(Pool("last"), len(sites), llama.d_model, torch.float32, room, passes=2)
    slab.expect(batch.tokens, CPU)
    for _ in range(2):
        llama.run(batch, {site: slab.plane(n) for n, site in enumerate(sites)}, logits=False)
        slab.next_pass()
    assert len(calls) == 2, "of the tokens on the CPU"


def test_passes_stand_one_behind_the_other():
    slab = Slab(Pool("last"), 2, 3, torch.float32, room, passes=2)
    where = at(tokens([2, 4], 4))
    slab.expect(where.tokens, CPU)
    resid = torch.randn(2, 2, 2, 4, 3)  # pass, layer, row, pos, d_model
    for p in range(2):
        for layer in range(2):
            assert slab.plane(layer)(resid[p, layer], where) is None
        slab.next_pass()
    for p in range(2):
        for layer in range(2):
            assert torch.equal(slab.values[layer, 2 * p], resid[p, layer, 0, 1])
            assert torch.equal(slab.values[layer, 2 * p + 1], resid[p, layer, 1, 3])


def test_a_layer_that_sees_the_newest_position_alone_has_its_own_indices():
    whole = tokens([4, 4], 4)
    slab = Slab(Pool("last"), 2, 3, torch.float32, room)
    slab.expect(whole, CPU)
    resid = torch.randn(2, 4, 3)
    slab.plane(0)(resid, at(whole))
    slab.plane(1)(resid[:, -1:], at(whole.columns(slice(-1, None)), 1))
    assert torch.equal(slab.values[0], resid[:, 3]) and torch.equal(slab.values[1], resid[:, 3])


@pytest.mark.parametrize(
    ("resid", "seen", "says"),
    [
        (torch.zeros(2, 4, 3, dtype=torch.float64), [2, 4], "has 2 kept rows of 3 torch.float64: expected 2 of 3"),
        (torch.zeros(2, 4, 5), [2, 4], "2 kept rows of 5 torch.float32: expected 2 of 3 torch.float32"),
        (torch.zeros(3, 4, 3), [2, 4, 4], "3 kept rows of 3 torch.float32: expected 2"),
    ],
    ids=["dtype", "width", "rows"],
)
def test_what_does_not_fit_is_refused_not_converted(resid, seen, says):
    slab = Slab(Pool("last"), 1, 3, torch.float32, room)
    slab.expect(tokens([2, 4], 4), CPU)
    with pytest.raises(ValueError, match=says):
        slab.plane(0)(resid, at(tokens(seen, 4)))


# From the device to the host.


def test_a_slot_is_used_again_and_grows():
    slot = HostSlot()
    first = slot.room("a", (2, 3), torch.float32)
    assert first.shape == (2, 3) and first.dtype == torch.float32
    smaller = slot.room("a", (4,), torch.bfloat16)
    assert smaller.data_ptr() == first.data_ptr() and smaller.dtype == torch.bfloat16
    other = slot.room("b", (2, 3), torch.float32)
    assert other.data_ptr() != first.data_ptr() and slot.nbytes == 48
    assert slot.room("a", (100,), torch.float32).shape == (100,) and slot.nbytes == 424
    assert slot.room("c", (3, 0, 2), torch.bfloat16).shape == (3, 0, 2)


def test_on_a_cpu_nothing_is_copied():
    host = ToHost(CPU)
    slot = host.slots(2)[0]
    slab = host.room(slot, "a", (2, 2), torch.float32)
    slab.fill_(3)
    arrived = host.send(slot, {"a": slab}).wait()["a"]
    assert arrived.data_ptr() == slab.data_ptr() == slot.room("a", (2, 2), torch.float32).data_ptr()


class Device(types.SimpleNamespace):
    """CUDA's streams, as far as the order of things goes: everything that is asked for is written down."""

    def __init__(self):
        super().__init__(log=[])
        log = self.log

        class Stream:
            def __init__(self, device=None, name="beside"):
                self.name = name

            def wait_stream(self, other):
                log.append(f"{self.name} waits for {other.name}")

        class Event:
            def record(self, stream):
                log.append(f"event on {stream.name}")

            def synchronize(self):
                log.append("host waits for the event")

        class Inside:
            def __init__(self, stream):
                self.stream = stream

            def __enter__(self):
                log.append(f"into {self.stream.name}")

            def __exit__(self, *error):
                log.append(f"out of {self.stream.name}")

        self.Stream, self.Event, self.stream = Stream, Event, Inside
        self.current_stream = lambda device: Stream(name="model")


class Made(torch.Tensor):
    """A tensor as if on a GPU: it may not be given away before the copy has run."""

    def record_stream(self, stream):
        self.kept_for = stream.name


def test_on_a_gpu_the_copy_runs_beside_the_next_forward_and_the_writer_waits_for_it():
    device = Device()
    host = ToHost(torch.device("cuda"), cuda=device)
    slab = torch.arange(6.0).view(2, 3).as_subclass(Made)
    arriving = host.send(HostSlot(), {"a": slab})
    assert device.log == ["beside waits for model", "into beside", "event on beside", "out of beside"]
    assert slab.kept_for == "beside"
    assert torch.equal(arriving.wait()["a"], torch.arange(6.0).view(2, 3))
    assert device.log[-1] == "host waits for the event"


def test_indices_stay_where_they_are():
    picked = Pool("last").picked(tokens([2, 3], 3))
    assert picked.to(CPU) is picked
    moved = picked.to(torch.device("meta"))
    assert isinstance(moved, Picked) and moved.flat.device.type == "meta" and moved.weight is None


def test_everything_else_of_a_run_is_as_with_pools(llama):
    """Edits act first, and logits are those of a run without a slab."""
    batch = llama.encode([chat("a", "hi"), chat("b", "a longer one")])
    slab = Slab(Pool("last"), 1, llama.d_model, torch.float32, room)
    slab.expect(batch.tokens, CPU)
    push = {Site(0): [lambda resid, where: resid + 1]}
    trace = llama.run(batch, {Site(0): slab.plane(0)}, copy.copy(push))
    truth = llama.run(batch, {Site(0): Pool("last"), Site(1): everything}, push)
    assert torch.equal(trace.logits, truth.logits) and torch.equal(slab.values[0], truth.kept[Site(0)])
