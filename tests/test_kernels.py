"""The linear edit: reference and eager path against each intervention written out; bit equality, choice, refusals."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kernel_cases import INTERVENTIONS, checked, intervention, mixture

from hooks.kernels import IMPLEMENTATIONS, choice, compiled, eager, implementation_for, lowrank, lowrank_

ROOT = Path(__file__).parents[1]
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]

by_implementation = pytest.mark.parametrize("implementation", ["reference", "eager"])
by_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).split(".")[-1])


@pytest.fixture(autouse=True)
def poisoned_memory():
    """`torch.empty` gives NaNs: a place of the output that is not written shows."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(100).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@by_dtype
@by_implementation
@pytest.mark.parametrize("name", INTERVENTIONS)
def test_an_intervention_is_what_its_formula_says(name, implementation, dtype):
    case = intervention(name)
    assert not torch.equal(case.expected, case.resid), "the meta-test: something is edited"
    checked(case, dtype, implementation)


@by_implementation
@pytest.mark.parametrize("per_position", [False, True], ids=["shift a cell", "shift a position"])
@pytest.mark.parametrize("power", [0, 1])
@pytest.mark.parametrize(
    "rows, pos, d_model, cells, k, runs",
    [
        (4, 9, 33, 3, 2, False),
        (3, 130, 17, 2, 5, True),
        (70, 1, 40, 70, 1, False),  # a decoding step whose rows are cells
        (1, 1, 8, 1, 3, True),
        (2, 5, 7, 3, 64, True),
    ],
)
def test_a_bank_of_cells_is_the_loop_over_tokens(
    rows, pos, d_model, cells, k, runs, power, per_position, implementation
):
    case = mixture(rows, pos, d_model, cells, k, power=power, per_position=per_position, runs=runs, seed=k)
    checked(case, torch.float32, implementation)
    checked(case, torch.bfloat16, implementation)


@by_dtype
@by_implementation
def test_in_place_writes_what_out_of_place_returns(implementation, dtype):
    case = mixture(5, 40, 33, 3, 2, runs=True).rounded(dtype)
    expected = lowrank(*case.arguments, implementation=implementation)
    resid = case.resid.clone()
    assert lowrank_(resid, *case.arguments[1:], implementation=implementation) is None
    assert torch.equal(resid, expected)


@by_implementation
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strided_residuals_and_banks(implementation, dtype):
    """A residual that is a view with gaps, or transposed, and a bank that is a slice of another."""
    case = mixture(4, 30, 33, 2, 2)
    wide = torch.full((4, 60, 66), float("nan"), dtype=dtype)
    wide[:, ::2, ::2] = case.resid.to(dtype)
    checked(case, dtype, implementation, resid=wide[:, ::2, ::2])
    turned = case.resid.to(dtype).transpose(0, 1).contiguous().transpose(0, 1)
    checked(case, dtype, implementation, resid=turned)
    for view in (wide[:, ::2, ::2], turned):
        given = case.rounded(dtype).arguments
        expected = lowrank(*given, implementation=implementation)
        lowrank_(view, *given[1:], implementation=implementation)
        assert torch.equal(view, expected)
    assert wide[:, 1::2].isnan().all(), "in place it writes nowhere else"
    given = list(case.rounded(dtype).arguments)
    given[2] = torch.stack([given[2], given[2] + 9], dim=-1)[..., 0]
    assert torch.equal(lowrank(*given, implementation=implementation), expected)


@by_implementation
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_positions_without_a_cell_keep_every_bit(implementation, dtype):
    """Negative zeros, infinities and the payloads of NaNs: what a round trip through float32 would change."""
    whole = {2: torch.int16, 4: torch.int32}[dtype.itemsize]
    case = mixture(3, 50, 64, 2, 2).rounded(dtype)
    bits = torch.randint(torch.iinfo(whole).min, torch.iinfo(whole).max, case.resid.shape, dtype=whole)
    bits[..., 0], bits[..., 1] = torch.iinfo(whole).min, -1  # -0.0 and a NaN with all bits set
    resid = torch.where((case.cell < 0)[..., None], bits, case.resid.view(whole)).view(dtype)
    stays = case.cell < 0
    out = lowrank(resid, *case.arguments[1:], implementation=implementation)
    assert torch.equal(out.view(whole)[stays], bits[stays])
    lowrank_(resid, *case.arguments[1:], implementation=implementation)
    assert torch.equal(resid.view(whole)[stays], bits[stays])


@by_implementation
def test_a_gate_that_stays_shut_keeps_every_bit_too(implementation):
    case = mixture(3, 50, 16, 1, 2, power=0).rounded(torch.bfloat16)
    resid = torch.where(case.resid == 0, -0.0, case.resid)
    resid[..., 3] = -0.0
    given = (resid, *case.arguments[1:7], torch.full((1,), torch.inf), 0)
    assert torch.equal(lowrank(*given, implementation=implementation).view(torch.int16), resid.view(torch.int16))


@by_implementation
def test_a_residual_of_length_zero_is_edited_by_a_cell_without_a_gate(implementation):
    """-inf · 0 is no number: beside a gated cell, the one without a gate must act on it all the same."""
    case = mixture(2, 3, 8, 2, 1, power=1).rounded(torch.float32)
    cell = torch.zeros(2, 3, dtype=torch.int32)
    out = lowrank(torch.zeros(2, 3, 8), cell, *case.arguments[2:], implementation=implementation)
    assert torch.allclose(out, (case.shift[0] @ case.write[0]).expand(2, 3, 8))


@by_implementation
def test_no_tokens_and_no_edited_token(implementation):
    case = mixture(2, 3, 8).rounded(torch.float32)
    nowhere = torch.full((2, 3), -1)
    assert torch.equal(lowrank(case.resid, nowhere, *case.arguments[2:], implementation=implementation), case.resid)
    empty = lowrank(case.resid[:0], nowhere[:0], *case.arguments[2:], implementation=implementation)
    assert empty.shape == (0, 3, 8)


@pytest.mark.parametrize("pattern", ["one cell", "rows", "alternating", "last", "few"])
def test_the_eager_path_takes_the_table_apart_in_every_way(pattern, monkeypatch):
    """Slices, gathered tokens, and more tokens than a block: the same numbers as the reference."""
    monkeypatch.setattr(eager, "BLOCK", 33 * 40)
    case = mixture(4, 200, 33, 3, 2, power=1)
    cell = torch.full((4, 200), -1)
    match pattern:
        case "one cell":
            cell[:] = 1
        case "rows":
            cell[:] = torch.tensor([0, 2, -1, 1])[:, None]
        case "alternating":
            cell[:, ::2], cell[:, 1::4] = 2, 1
        case "last":
            cell[:, -1] = torch.tensor([0, 1, 2, 0])
        case _:
            cell[1, 7] = 1
    given = (case.resid, cell, *case.arguments[2:])
    expected = lowrank(*given, implementation="reference")
    assert torch.allclose(lowrank(*given, implementation="eager"), expected, rtol=0, atol=1e-13)


def test_the_eager_path_gathers_no_bank_row_per_token(monkeypatch):
    """64 terms for 4096 tokens of width 64 would be 67 MB gathered; the largest tensor it makes is one block."""
    sizes = []

    class Largest(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                sizes.append(out.numel())
            return out

    case = mixture(32, 8, 64, 3, 64, runs=True, gated=False).rounded(torch.float32)
    given = [part.repeat(1, 16, *[1] * (part.dim() - 2)) if n < 2 else part for n, part in enumerate(case.arguments)]
    with Largest():
        lowrank(*given, implementation="eager")
    assert max(sizes) <= given[0].numel()
    with Largest():
        lowrank(*given, implementation="reference")
    assert max(sizes) >= given[0].numel() * 64, "the meta-test: the reference does gather"


def test_the_choice_is_by_device_dtype_and_rank(monkeypatch):
    monkeypatch.delenv("WORKBENCH_KERNEL", raising=False)

    class Fake:
        def __init__(self, device, dtype):
            self.device, self.dtype = torch.device(device), dtype

    monkeypatch.setattr(choice, "_has_triton", lambda: True)
    assert implementation_for(torch.zeros(1), 1) == "eager"
    pick = getattr(implementation_for, "__wrapped__", implementation_for)  # a fake is no Tensor
    assert pick(Fake("cuda", torch.bfloat16), 64) == "triton"
    assert pick(Fake("cuda", torch.bfloat16), 65) == "reference"
    assert pick(Fake("cuda", torch.float64), 1) == "reference"
    assert pick(Fake("mps", torch.float32), 1) == "reference"
    monkeypatch.setattr(choice, "_has_triton", lambda: False)
    assert pick(Fake("cuda", torch.bfloat16), 64) == "reference"


def test_the_environment_and_the_argument_name_an_implementation(monkeypatch):
    monkeypatch.setenv("WORKBENCH_KERNEL", "reference")
    assert implementation_for(torch.zeros(1), 1) == "reference"
    assert implementation_for(torch.zeros(1), 1, "eager") == "eager", "the argument is nearer than the environment"
    monkeypatch.setenv("WORKBENCH_KERNEL", "cuda")
    with pytest.raises(ValueError, match="'cuda' is unknown: expected one of reference, eager, compiled, triton"):
        implementation_for(torch.zeros(1), 1)
    assert set(IMPLEMENTATIONS) == {"reference", "eager", "compiled", "triton"}


def test_compiled_is_left_alone_where_it_would_not_win(monkeypatch):
    large, small = torch.zeros(compiled.LEAST), torch.zeros(compiled.LEAST - 1)
    monkeypatch.setattr(compiled, "available", lambda: True)
    assert implementation_for(large, compiled.MAX_RANK, "compiled") == "compiled"
    assert implementation_for(large, compiled.MAX_RANK + 1, "compiled") == "eager"
    assert implementation_for(small, 1, "compiled") == "eager", "not a compiler run for a step of decoding"
    assert implementation_for(large.to("meta"), 64, "compiled") == "reference", "eager waits for a device"
    monkeypatch.setattr(compiled, "available", lambda: False)
    assert implementation_for(large, 1, "compiled") == "eager"


def test_the_reference_off_the_cpu_goes_row_by_row(monkeypatch):
    case = mixture(5, 9, 33, 3, 2, per_position=True).rounded(torch.float32)
    whole = lowrank(*case.arguments, implementation="reference")
    monkeypatch.setattr(choice, "GATHERED", 9 * 33 * 2 * 2)  # two rows at a time
    assert torch.equal(lowrank(*case.arguments, implementation="reference"), whole)


def test_gradients_flow_through_the_reference(monkeypatch):
    case = mixture(2, 3, 8, gated=False)
    resid, shift = case.resid.clone().requires_grad_(), case.shift.clone().requires_grad_()
    given = (resid, *case.arguments[1:5], shift, case.carry)
    with monkeypatch.context() as patched:
        patched.delattr(choice, "run")  # the Triton kernel would give numbers without a gradient
        lowrank(*given).square().sum().backward()
    assert resid.grad.abs().sum() > 0 and shift.grad.abs().sum() > 0
    with torch.no_grad():
        assert torch.allclose(lowrank(*given), case.expected)
    with pytest.raises(ValueError, match="lowrank_ has no gradient"):
        lowrank_(*given)


def test_what_cannot_be_done_is_said():
    case = mixture(2, 3, 8).rounded(torch.float32)
    with pytest.raises(ValueError, match="power 0 or 1, 2 came"):
        lowrank(*case.arguments[:-1], 2)
    with pytest.raises(ValueError, match="is an expanded view: expected"):
        lowrank_(torch.zeros(1, 1, 8).expand(2, 3, 8), *case.arguments[1:])


def test_the_package_imports_no_triton_and_compiles_nothing():
    """A laptop without a GPU pays for neither."""
    code = "import sys, hooks.kernels; assert 'triton' not in sys.modules and 'torch._inductor' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
