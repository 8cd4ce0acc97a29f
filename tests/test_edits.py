"""The linear edit: the kernel against a naive loop, banks against single runs, stacks against sequences, tallies."""

from dataclasses import replace

import pytest
import torch
from conftest import chat
from own_hooks import everything, noise

from hooks.edits import LowRankEdit, bank, identity
from hooks.kernels.reference import lowrank
from hooks.model import Tally, Where
from hooks.positions import Tokens
from hooks.site import Site
from hooks.stacking import stacked
from workbench.interventions.cells import Grid, grouped

ROWS, POS, D, CELLS = 5, 7, 13, 3  # odd sizes on purpose
THRESHOLDS = torch.tensor([0.3, -torch.inf, 0.1], dtype=torch.float64)  # the second cell has no gate


def draw(seed):
    generator = torch.Generator().manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)


def naive(resid, cell, read, write, gain, shift, carry, threshold=None, power=0):
    """The sentence of the docstring, one row, position and term at a time, in float64."""
    out = resid.clone().double()
    for row in range(len(resid)):
        for pos in range(resid.shape[1]):
            h, c = resid[row, pos].double(), int(cell[row, pos])
            if c < 0 or (threshold is not None and not (h @ read[c, 0]) > threshold[c] * h.norm() ** power):
                continue
            new = carry[c] * h
            for j in range(read.shape[1]):
                shifted = shift[row, pos, j] if shift.dim() == 3 else shift[c, j]
                new = new + (gain[c, j] * (h @ read[c, j]) + shifted) * write[c, j]
            out[row, pos] = new
    return out


def arguments(seed, k, per_position=False):
    """A cell a position, drawn freely, and none at four in ten."""
    randn, generator = draw(seed), torch.Generator().manual_seed(seed)
    cell = torch.randint(0, CELLS, (ROWS, POS), generator=generator)
    cell[torch.rand(ROWS, POS, generator=generator) < 0.4] = -1
    shift = randn(ROWS, POS, k) if per_position else randn(CELLS, k)
    return randn(ROWS, POS, D), cell, randn(CELLS, k, D), randn(CELLS, k, D), randn(CELLS, k), shift, randn(CELLS)


@pytest.mark.parametrize("gate", [(None, 0), (THRESHOLDS, 0), (THRESHOLDS, 1)], ids=["no gate", "power 0", "power 1"])
@pytest.mark.parametrize("per_position", [False, True])
@pytest.mark.parametrize("k", [1, 3])
def test_the_kernel_is_the_naive_loop(k, per_position, gate):
    given = arguments(k, k, per_position)
    expected = naive(*given, *gate)
    # float64 against float64, sums of 13 terms in another order.
    assert torch.allclose(lowrank(*given, *gate), expected, rtol=0, atol=1e-12)
    assert not torch.equal(expected, given[0]), "the meta-test: something is edited"
    # float32: 13 + 3 terms of scale 10, each within 6e-8 of its size.
    single = lowrank(given[0].float(), given[1], *(part.float() for part in given[2:]), *gate)
    assert single.dtype == torch.float32 and torch.allclose(single.double(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_untouched_positions_keep_their_bits(dtype):
    given = arguments(0, 2)
    resid, mask = given[0].to(dtype), given[1] >= 0
    before = resid.clone()
    out = lowrank(resid, given[1], *(part.float() for part in given[2:]))
    assert torch.equal(resid, before), "out of place"
    assert torch.equal(out[~mask], resid[~mask]) and not torch.equal(out[mask], resid[mask])
    assert out.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_pitfall_11_half_precision_is_computed_in_float32_and_rounded_once(dtype):
    given = arguments(4, 2)
    resid = given[0].to(dtype)
    out = lowrank(resid, given[1], *(part.float() for part in given[2:]))
    assert torch.equal(out, lowrank(resid.float(), given[1], *(part.float() for part in given[2:])).to(dtype))


def test_pitfall_11_the_leftover_of_a_bfloat16_ablation_is_at_the_floor():
    """One rounding moves each of the d coordinates by at most 2^-9 of itself, so h·v̂ by at most 2^-9 ‖h‖, and by
    far less in the mean. Computing in bfloat16 throughout leaves more."""
    generator = torch.Generator().manual_seed(0)
    resid = torch.randn(64, 9, 256, generator=generator).bfloat16()
    v = torch.randn(1, 1, 256, generator=generator)
    v = v / v.norm()
    edit = LowRankEdit(
        v, v, -torch.ones(1, 1), torch.zeros(1, 1), torch.ones(1), ("all",), None,
        centre=torch.zeros(1, 256), remaining=torch.zeros(1, 1),
    )  # fmt: skip
    tally = Tally.empty(64)
    out = edit(resid, Where(Site(0), Tokens.of_patches(64, 9, torch.device("cpu")), tally)).double()
    leftover = ((out @ v[0, 0].double()).abs() / out.norm(dim=-1)).amax(dim=1)
    assert leftover.max() < 2**-9
    assert torch.allclose(tally.leftover, leftover, atol=1e-6)
    low = v[0, 0].bfloat16()
    careless = (resid - (resid @ low)[..., None] * low).double()
    careless = ((careless @ v[0, 0].double()).abs() / careless.norm(dim=-1)).amax(dim=1)
    assert careless.mean() > 1.2 * leftover.mean()


def single(seed, k=1, *, read_is_write=False, scope="all", d=D) -> LowRankEdit:
    """A random edit with carry ≠ 1, not orthogonal, read ≠ write, in float64."""
    randn = draw(seed)
    read = randn(1, k, d)
    write = read if read_is_write else randn(1, k, d)
    return LowRankEdit(read, write, randn(1, k), randn(1, k), randn(1), (scope,))


def applied(edits, resid):
    where = Where(Site(0), Tokens.of_patches(*resid.shape[:2], torch.device("cpu")))
    for edit in edits:
        resid = edit(resid, where)
    return resid


@pytest.mark.parametrize("ranks", [(1, 1), (2, 3), (1, 2, 4), (3, 1, 1, 2)], ids=str)
def test_a_stack_is_its_edits_one_after_the_other(ranks):
    edits = [single(seed, k) for seed, k in enumerate(ranks)]
    resid = draw(9)(ROWS, POS, D)
    (fused,) = stacked(edits)
    one_by_one = applied(edits, resid)
    # Relative, since random non-orthogonal edits multiply: every stage can grow the residual tenfold.
    assert (applied([fused], resid) - one_by_one).abs().max() < 1e-11 * one_by_one.abs().max()
    assert fused.rank == sum(ranks)
    assert (applied(edits[::-1], resid) - one_by_one).abs().max() > 1e-3 * one_by_one.abs().max(), "order matters"


def test_two_ablations_at_once_in_sequence_and_orthonormalised():
    """Two unit vectors a, b with (a·b)² = .8. Subtracting both projections at once leaves .80 of h·a (for h = a, with
    the sign turned); one after the other leaves .20 of it (for h = b); over an orthonormal basis nothing is left."""
    c = 0.8**0.5
    a = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    b = torch.tensor([c, (1 - c**2) ** 0.5, 0.0], dtype=torch.float64)

    def ablation(*vectors):
        rows = torch.stack(vectors)[None]
        k = len(vectors)
        return LowRankEdit(rows, rows, -torch.ones(1, k), torch.zeros(1, k), torch.ones(1), ("all",))

    def left(edits, h):
        return float((applied(edits, h[None, None])[0, 0] @ a / (h @ a)).abs())

    assert left([ablation(a, b)], a) == pytest.approx(0.80)
    assert left([ablation(a), ablation(b)], b) == pytest.approx(0.20)
    assert left(stacked([ablation(a), ablation(b)]), b) == pytest.approx(0.20), "a stack is the sequence"
    basis = torch.linalg.qr(torch.stack([a, b], dim=1)).Q.T
    for h in (a, b, a + 2 * b):
        assert left([ablation(*basis)], h) == pytest.approx(0, abs=1e-12)


def test_what_cannot_fuse_stays_in_its_place():
    plain, other_scope = single(0), single(1, scope="last")
    gated = replace(single(2), threshold=0.1)
    per_position = replace(single(3), shift=torch.zeros(2, 4, 1))
    grid = bank([single(4), single(5)], D).for_rows([0, 1])
    for odd in (other_scope, gated, per_position, grid):
        assert stacked([plain, odd, plain]) == [plain, odd, plain]
    assert [edit.rank for edit in stacked([plain, plain, other_scope, other_scope, plain])] == [2, 2, 1]
    assert stacked([]) == []


def test_a_stack_fuses_over_any_scope_exactly(llama):
    """In the model, over positions: scope `answering`, the fused and the sequential run are equal to rounding."""
    edits = [replace(noise(llama, scope="answering", seed=seed), gain=torch.full((1, 1), -0.5)) for seed in range(3)]
    batch = llama.encode([chat("a", "hi", response="there"), chat("b", "what is it", response="a dog")])
    fused = stacked(edits)
    assert len(fused) == 1
    one, other = (llama.run(batch, {Site(1): everything}, {Site(1): listed}) for listed in (edits, fused))
    assert torch.allclose(one.kept[Site(1)], other.kept[Site(1)], rtol=0, atol=1e-5)
    assert torch.equal(one.tallies[Site(1)][0].edited, other.tallies[Site(1)][0].edited)


@pytest.mark.parametrize("ranks", [(1, 1, 1), (1, 3, 2)], ids=str)
def test_a_bank_does_to_each_row_what_its_cell_does_alone(ranks):
    cells = [single(seed, k) for seed, k in enumerate(ranks)]
    resid = draw(7)(4, POS, D)
    together = bank([*cells, None], D).for_rows([2, 0, 3, -1])
    out = applied([together], resid)
    for row, cell in enumerate([cells[2], cells[0], None, None]):
        alone = resid[row : row + 1] if cell is None else applied([cell], resid[row : row + 1])
        # Terms of zeros are added to the narrower cells: the sum's order may differ.
        assert torch.allclose(out[row], alone[0], rtol=1e-13, atol=1e-13)
    assert torch.equal(out[3], resid[3]) and torch.equal(out[2], resid[2])


def test_a_grid_in_one_batch_equals_one_run_a_cell(scene):
    """Cells of different sites, scopes and ranks, one with two edits at a site, one with none. fp32, tolerance 1e-5 of
    scale: cells as rows change the batch's shape, and with it the order of the BLAS's sums."""
    model, prompts = scene
    first, last = Site(0), Site(model.n_layers - 1)
    cells = [
        {first: [noise(model, scope="prompt", seed=1)]},
        {},
        {last: [noise(model, scope="last", seed=2, k=2)], first: [noise(model, scope="all", seed=3)]},
        {first: [noise(model, scope="last", seed=4), noise(model, scope="all", seed=5)]},
    ]
    batch = model.encode(prompts)
    (chosen, grid), *rest = grouped(cells, most=8)
    assert chosen == [0, 1, 2, 3] and not rest
    trace = model.run(grid.batch(batch), None, grid.banks(len(prompts), model.d_model))
    together = trace.logits.unflatten(0, (len(cells), len(prompts)))
    counted = grid.per_cell(trace.tallies, len(prompts))
    for i, cell in enumerate(cells):
        alone = model.run(batch, None, cell)
        assert (together[i] - alone.logits).abs().max() < 1e-5 * alone.logits.abs().max()
        expected = sum((t.edited for listed in alone.tallies.values() for t in listed), torch.zeros(len(prompts)))
        assert counted[i].edited.tolist() == expected.tolist()
    assert (together[0] - together[1]).abs().max() > 1e-2, "the meta-test: the cells differ"


def test_gated_edits_run_alone_and_groups_are_bounded():
    plain, gated = {Site(0): [single(0)]}, {Site(0): [replace(single(0), threshold=0.0)]}
    runs = [chosen for chosen, _ in grouped([plain, plain, plain, gated, plain], most=2)]
    assert runs == [[0, 1], [2], [3], [4]]
    assert isinstance(next(grouped([plain], 2))[1], Grid)
    with pytest.raises(ValueError, match="whose gates have one power"):
        bank([gated[Site(0)][0], replace(single(1), threshold=0.1, power=1)], D)


def test_a_gate_edits_and_counts_only_what_passes_it(llama):
    batch = llama.encode([chat("a", "hi"), chat("b", "what is it")])
    plain = llama.run(batch, {Site(1): everything}).kept[Site(1)]
    v = noise(llama).write
    real = batch.tokens.position >= 0
    along = (plain[real] @ v[0, 0]).sort().values
    middle = float(along[len(along) // 2 :][:2].mean())  # between two positions, so that rounding decides nothing
    gated = replace(noise(llama), threshold=middle)
    trace = llama.run(batch, {Site(1): everything}, {Site(1): [gated]})
    passes = (plain @ v[0, 0] > middle) & real
    assert torch.equal((trace.kept[Site(1)] != plain).any(dim=-1), passes)
    assert trace.tallies[Site(1)][0].edited.tolist() == passes.sum(dim=1).tolist()


def test_a_shift_per_position_patches_in_another_run(llama):
    """gain −1 and the donor's components along a whole basis: the residual is the donor's, and so are the logits."""
    donor, batch = llama.encode([chat("a", "cat")]), llama.encode([chat("b", "dog")])
    basis = torch.eye(llama.d_model)[None]
    there = llama.run(donor, {Site(1): everything})
    one = torch.ones(1, llama.d_model)
    patch = LowRankEdit(basis, basis, -one, there.kept[Site(1)], torch.ones(1), ("all",))
    patched = llama.run(batch, None, {Site(1): [patch]}).logits
    assert torch.allclose(patched, there.logits, rtol=0, atol=1e-5)
    assert not torch.allclose(llama.run(batch).logits, there.logits, atol=1e-2)


def test_the_tally_measures_removed_energy_and_what_is_left(llama):
    batch = llama.encode([chat("a", "hi"), chat("b", "what is it")])
    plain = llama.run(batch, {Site(1): everything}).kept[Site(1)].double()
    v = noise(llama).write
    centre = torch.randn(1, llama.d_model, generator=torch.Generator().manual_seed(8))
    keep = v[0] @ centre[0]
    edit = LowRankEdit(
        v, v, -torch.ones(1, 1), keep[None], torch.ones(1), ("prompt",), centre=centre, remaining=keep[None]
    )
    trace = llama.run(batch, {Site(1): everything}, {Site(1): [edit]})
    after, tally = trace.kept[Site(1)].double(), trace.tallies[Site(1)][0]
    on = batch.tokens.mask("prompt") & (batch.tokens.position > 0)  # position 0 is left out of energies
    for row in range(2):
        h, new = plain[row][on[row]], after[row][on[row]]
        assert tally.removed[row] == pytest.approx(float((new - h).square().sum()), rel=1e-5)
        assert tally.energy[row] == pytest.approx(float((h - centre[0].double()).square().sum()), rel=1e-5)
        assert tally.leftover[row] < 1e-6  # float32: one rounding of each of 32 terms
        assert (new @ v[0, 0].double() - float(keep)).abs().max() < 1e-5


def test_an_edit_with_the_wrong_number_of_scopes_or_rows_is_refused(llama):
    with pytest.raises(ValueError, match="LowRankEdit has 1 cells but 2 scopes: expected one scope a cell"):
        replace(single(0), scopes=("all", "last"))
    with pytest.raises(ValueError, match="scope 'everywhere' is unknown"):
        replace(single(0), scopes=("everywhere",))
    edit = bank([noise(llama), noise(llama)], llama.d_model).for_rows([0, 1, 1])
    with pytest.raises(ValueError, match="assigns 3 rows to cells: expected 1"):
        llama.run(llama.encode([chat("a", "hi")]), None, {Site(1): [edit]})


def test_identity_is_a_rank_k_edit_that_changes_nothing():
    resid = draw(0)(2, 3, D)
    assert torch.equal(applied([identity(4, D)], resid), resid)


def test_pitfall_29_bfloat16_bits_make_the_round_trip():
    values = torch.randn(50).bfloat16()
    with pytest.raises(TypeError):
        values.numpy()
    bits = values.view(torch.uint16).numpy()
    assert torch.equal(torch.from_numpy(bits).view(torch.bfloat16), values)
