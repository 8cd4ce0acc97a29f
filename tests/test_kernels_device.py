"""The implementation that this machine takes by itself, at the sizes of real models: Triton where there is a GPU."""

import pytest
import torch
from kernel_cases import Case, decided, mixture, tolerance

from hooks.kernels import implementation_for, lowrank, lowrank_, reference

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
NEEDS_CUDA = pytest.mark.skipif(DEVICE == "cpu", reason="no GPU: run on a machine with CUDA, nothing to install")
SIZES = [(6, 70, 2560, 4, 1), (3, 40, 8192, 3, 2), (40, 1, 4096, 40, 16), (5, 60, 2560, 3, 16), (4, 64, 640, 2, 64)]


def on_device(case: Case, dtype: torch.dtype) -> Case:
    case = case.rounded(dtype)
    return Case(*(part.to(DEVICE) if isinstance(part, torch.Tensor) else part for part in vars(case).values()))


def poison(resid: torch.Tensor) -> None:
    """Leaves NaNs in the memory that the allocator will hand out next."""
    for _ in range(3):
        torch.full_like(resid, float("nan"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("gate", [None, 0, 1], ids=["no gate", "power 0", "power 1"])
@pytest.mark.parametrize("rows, pos, d_model, cells, k", SIZES)
def test_fresh_inputs_against_float64_into_poisoned_memory(rows, pos, d_model, cells, k, gate, dtype):
    for seed in (1, 2):
        plain = mixture(
            rows, pos, d_model, cells, k, gated=gate is not None, power=gate or 0, runs=pos > 1, seed=seed,
            per_position=seed == 2,
        )  # fmt: skip
        case = on_device(plain, dtype)
        poison(case.resid)
        out = lowrank(*case.arguments)
        expected = reference.lowrank(case.resid.double(), *case.arguments[1:])
        clear = decided(case)
        assert (expected - case.expected)[clear].abs().max() <= tolerance(plain, torch.float32), "the reference itself"
        # The tensor cores are given 16 bits of mantissa of the bank: 2^8 times float32's rounding.
        inner = tolerance(plain, torch.float32) * (2**8 if DEVICE == "cuda" and dtype != torch.float32 else 4)
        assert (out.double() - expected)[clear].abs().max() <= tolerance(plain, dtype) + inner
        stays = case.cell < 0
        assert torch.equal(out[stays], case.resid[stays])
        wide = torch.full((rows, pos, d_model + 8), float("nan"), dtype=dtype, device=DEVICE)
        view = wide[..., 8:]
        view.copy_(case.resid)
        view[stays] = float("nan")
        lowrank_(view, *case.arguments[1:])
        # In place it takes the same steps on the same numbers.
        assert torch.equal(view[~stays], out[~stays])
        assert view[stays].isnan().all() and wide[..., :8].isnan().all()


def test_the_machine_takes_the_implementation_that_it_should(monkeypatch):
    monkeypatch.delenv("WORKBENCH_KERNEL", raising=False)
    resid = torch.zeros(1, dtype=torch.bfloat16, device=DEVICE)
    assert implementation_for(resid, 64) == ("triton" if DEVICE == "cuda" else "eager")


@NEEDS_CUDA
@pytest.mark.parametrize("k", [1, 16])
def test_nothing_waits_for_the_device_and_graphs_hold_it(k):
    case = on_device(mixture(8, 64, 640, 3, k, runs=True), torch.bfloat16)
    with torch.inference_mode():
        expected = lowrank(*case.arguments)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            lowrank(*case.arguments)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        cell, graph = case.cell.clone(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = lowrank(case.resid, cell, *case.arguments[2:])
        graph.replay()
        assert torch.equal(out, expected)
        cell.copy_(cell.roll(1, dims=0))  # tables are persistent buffers: other cells, the same graph
        graph.replay()
        assert torch.equal(out, lowrank(case.resid, cell, *case.arguments[2:]))
        compiled = torch.compile(lambda resid: lowrank(resid * 2, *case.arguments[1:]), mode="reduce-overhead")
        for _ in range(3):
            assert torch.equal(compiled(case.resid), lowrank(case.resid * 2, *case.arguments[1:]))
