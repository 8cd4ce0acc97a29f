"""The compiled CPU path: inductor's loop gives what the formulas say, and stays one loop for all sizes."""

import pytest
import torch
from kernel_cases import INTERVENTIONS, checked, intervention, mixture

from hooks.kernels import compiled, lowrank, lowrank_

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not compiled.available(), reason="no C++ compiler: install g++ to test inductor's loop"),
]


@pytest.fixture(autouse=True)
def however_small(monkeypatch):
    monkeypatch.setattr(compiled, "LEAST", 0)


@pytest.mark.parametrize("name", INTERVENTIONS)
def test_an_intervention_is_what_its_formula_says(name):
    checked(intervention(name, d_model=40), torch.bfloat16, "compiled")


def test_a_mixed_bank_and_strided_residuals_in_place_too():
    case = mixture(3, 50, 64, 3, 2, power=1)
    checked(case, torch.float32, "compiled")
    wide = torch.full((3, 50, 128), float("nan"))
    wide[..., ::2] = case.resid
    checked(case, torch.float32, "compiled", resid=wide[..., ::2])
    given = case.rounded(torch.float32).arguments
    expected = lowrank(*given, implementation="compiled")
    lowrank_(wide[..., ::2], *given[1:], implementation="compiled")
    assert torch.equal(wide[..., ::2], expected) and wide[..., 1::2].isnan().all()


def test_positions_without_a_cell_keep_their_bits():
    """Negative zeros, subnormal numbers and infinities; of a NaN only that it is one."""
    case = mixture(3, 50, 64, 2, 2).rounded(torch.bfloat16)
    bits = torch.randint(-(2**15), 2**15, case.resid.shape, dtype=torch.int16)
    bits[..., 0] = -(2**15)
    bits = torch.where(bits.view(torch.bfloat16).isnan(), -1, bits)
    stays = case.cell < 0
    resid = torch.where(stays[..., None], bits, case.resid.view(torch.int16)).view(torch.bfloat16)
    out = lowrank(resid, *case.arguments[1:], implementation="compiled")
    assert torch.equal(out.view(torch.int16)[stays], bits[stays])


def test_other_sizes_compile_nothing_anew():
    from torch._dynamo.utils import counters

    def edit(rows, pos, d_model, cells):
        given = mixture(rows, pos, d_model, cells, 1).rounded(torch.bfloat16).arguments
        return lowrank(*given, implementation="compiled")

    edit(2, 9, 40, 3)
    counters.clear()
    for size in [(3, 7, 40, 2), (5, 20, 64, 4), (2, 3, 100, 5)]:
        edit(*size)
    assert counters["stats"]["unique_graphs"] == 0
    given = mixture(2, 9, 40, 3, 2).rounded(torch.float16).arguments
    lowrank(*given, implementation="compiled")
    assert counters["stats"]["unique_graphs"] == 1, "the meta-test: another dtype and rank is another graph"
