"""Which cell acts where, and one cell in as few operations as it takes: against the kernels' reference in float64."""

from dataclasses import replace

import pytest
import torch
from own_hooks import noise

from hooks.acting import FEW, Acting, OneCell
from hooks.edits import LowRankEdit, bank
from hooks.kernels.reference import lowrank
from hooks.model import Tally, Where
from hooks.positions import Tokens
from hooks.site import Site

D = 13


def tokens(position):
    rows, pos = position.shape
    return replace(Tokens.of_patches(rows, pos, torch.device("cpu")), position=position, patches=False)


def cell(seed, k, gain, carry):
    randn = lambda *shape: torch.randn(*shape, generator=torch.Generator().manual_seed(seed))  # noqa: E731
    terms = torch.zeros(1, k) if gain == 0 else gain * randn(1, k)
    return LowRankEdit(randn(1, k, D), randn(1, k, D).flip(-1), terms, randn(1, k), torch.full((1,), carry), ("all",))


CELLS = {
    "a steering": (1, 0.0, 1.0),
    "two steerings": (2, 0.0, 1.0),
    "a replacement": (1, 0.0, 0.0),
    "an ablation": (1, -1.0, 1.0),
    "a subspace, carried by half": (3, 0.7, 0.5),
}
# Of terms of scale 10: one rounding to the residual's dtype, and sums of 13 terms in another order.
OFF = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 0.1}


@pytest.mark.parametrize("dtype", OFF, ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (5, 1), (2, 3)], ids=str)
@pytest.mark.parametrize("name", CELLS)
def test_one_cell_is_the_reference(name, shape, dtype):
    edit = cell(3, *CELLS[name])
    resid = torch.randn(*shape, D, generator=torch.Generator().manual_seed(4)).to(dtype)
    before = resid.clone()
    exact = torch.float64 if dtype == torch.float64 else torch.float32
    bank_of_one = [part[0].to(exact) for part in (edit.read, edit.write, edit.gain, edit.shift, edit.carry)]
    found = OneCell.of(*bank_of_one)(resid)
    given = (part.double() for part in (edit.read, edit.write, edit.gain, edit.shift, edit.carry))
    expected = lowrank(resid.double(), torch.zeros(shape, dtype=torch.int32), *given)
    assert found.dtype == dtype and (found.double() - expected).abs().max() < OFF[dtype]
    assert torch.equal(resid, before) and (expected - resid.double()).abs().max() > 0.1


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize(
    "position", [[[3], [7], [2]], [[3], [-1], [2]], [[-1], [-1], [-1]], [[-1, 0, 1], [0, 1, 2], [-1, -1, 0]]], ids=str
)
def test_few_tokens_are_edited_as_the_kernel_edits_them(name, position):
    """Rows that have ended keep their bits, and where nothing acts the residual itself comes back."""
    edit, place = cell(1, *CELLS[name]), tokens(torch.tensor(position))
    resid = torch.randn(*place.position.shape, D, generator=torch.Generator().manual_seed(2))
    tally, mask = Tally.empty(3), place.position >= 0
    with torch.inference_mode():
        found = edit(resid, Where(Site(0), place, tally))
    table = torch.where(mask, 0, -1).int()
    expected = lowrank(resid, table, edit.read, edit.write, edit.gain, edit.shift, edit.carry)
    assert (found - expected).abs().max() < 1e-5 and torch.equal(found[~mask], resid[~mask])
    assert tally.edited.tolist() == mask.sum(dim=1).tolist()
    assert (found is resid) == (not mask.any())


def test_what_the_host_sees_of_a_table():
    def seen(*rows):
        acting = Acting.of_several(torch.tensor(rows, dtype=torch.int32), looks=True)
        return acting.only, acting.everywhere

    assert seen([2, 2], [2, 2]) == (2, True) and seen([2, -1], [2, 2]) == (2, False)
    assert seen([-1], [-1]) == (-1, False) and seen([0, 1]) == (None, False) and seen([0, -1], [3, 0]) == (None, False)
    mask = torch.tensor([[True, False], [True, True]])
    one = Acting.of_one(mask, looks=True)
    assert (one.only, one.everywhere) == (0, False) and one.cell.tolist() == [[0, -1], [0, 0]]
    assert one.counts.tolist() == [1, 2] and Acting.of_one(~mask & mask, looks=True).only == -1
    blind = Acting.of_one(mask, looks=False)
    assert blind.only is None and not blind.everywhere and torch.equal(blind.cell, one.cell)


def test_sites_whose_edits_act_alike_share_one_table(llama):
    """Made anew for each site it would cost a decoding step more than the edit; edits that act elsewhere have their
    own."""
    place = tokens(torch.tensor([[4], [5]]))
    cells = [noise(llama, scope="all"), noise(llama, scope="response")]
    banks = [bank(cells, llama.d_model).for_rows(rows) for rows in ([0, 1], [0, 1], [1, 0])]
    first, second, other = (one.acting(Where(Site(0), place)) for one in banks)
    assert first is second and other is not first and not torch.equal(first.cell, other.cell)
    assert noise(llama, seed=1).acting(Where(Site(0), place)) is noise(llama, seed=2).acting(Where(Site(1), place))


def test_gradients_gates_and_long_residuals_take_the_kernel(monkeypatch):
    """What is made once from a bank would hold a gradient's graph, knows no gate, and is not cut into blocks."""
    monkeypatch.setattr(OneCell, "__call__", lambda *_: pytest.fail("one cell as a few operations"))
    edit, where = cell(0, 1, 1.0, 1.0), Where(Site(0), tokens(torch.tensor([[3], [4]])))
    resid = torch.randn(2, 1, D, requires_grad=True)
    edit(resid, where).sum().backward()
    assert resid.grad is not None and resid.grad.abs().sum() > 0
    with torch.inference_mode():
        replace(edit, threshold=-1e9)(resid.detach(), where)
        replace(edit, shift=torch.zeros(2, 1, 1))(resid.detach(), where)
        long = FEW // D + 1
        edit(torch.randn(1, long, D), Where(Site(0), tokens(torch.arange(long)[None])))


def test_another_kernel_that_was_asked_for_runs(monkeypatch):
    asked = []
    monkeypatch.setattr("hooks.edits.lowrank", lambda resid, *_: asked.append(1) or resid.clone())
    monkeypatch.setenv("WORKBENCH_KERNEL", "reference")
    with torch.inference_mode():
        cell(0, 1, 1.0, 1.0)(torch.randn(1, 1, D), Where(Site(0), tokens(torch.tensor([[3]]))))
    assert asked
