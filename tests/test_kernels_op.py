"""The linear edit as an operator: torch.compile keeps it as one node, fake tensors know its shape, graphs re-use it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from kernel_cases import mixture

from hooks.kernels import compiled, lowrank, lowrank_, op

ROOT = Path(__file__).parents[1]
CASES = {
    "plain": mixture(3, 7, 12, gated=False).rounded(torch.float32),
    "gated": mixture(3, 7, 12, power=1).rounded(torch.bfloat16),
    "a shift a position": mixture(3, 7, 12, per_position=True, power=0).rounded(torch.float16),
}
by_case = pytest.mark.parametrize("name", list(CASES))


@by_case
@pytest.mark.parametrize("operator", [op.lowrank, op.lowrank_], ids=["out of place", "in place"])
def test_the_operator_keeps_the_rules_of_operators(name, operator):
    """Schema, fake tensors, functionalisation with fixed and free shapes; strided inputs too."""
    given = CASES[name].arguments
    torch.library.opcheck(operator, (*given, None))
    turned = given[0].transpose(0, 1).contiguous().transpose(0, 1)
    torch.library.opcheck(operator, (turned, *given[1:], "reference"))


def edited(resid, *others):
    """A step of a model with an edit out of place and one in place."""
    first = lowrank(torch.tanh(resid), *others)
    second = first * 2
    lowrank_(second, *others)
    return first + second


SCRIPT = """
import torch
from test_kernels_op import CASES, edited
for name, case in CASES.items():
    graphs = []
    def keep(graph, inputs):
        graphs.append(graph)
        return graph.forward
    with torch.inference_mode():
        expected = edited(*case.arguments)
        got = torch.compile(edited, fullgraph=True, backend=keep)(*case.arguments)
        assert torch.equal(got, expected) and not torch.equal(expected, 3 * torch.tanh(case.resid)), name
        calls = [str(node.target) for node in graphs[0].graph.nodes if "misalignment" in str(node.target)]
        assert calls == ["misalignment_workbench.lowrank.default", "misalignment_workbench.lowrank_.default"], calls
        others = ("einsum", "where", "bmm", "index")
        assert not any(word in str(node.target) for node in graphs[0].graph.nodes for word in others)
    if INDUCTOR:
        with torch.inference_mode():
            step = torch.compile(edited, fullgraph=True)
            for rows in (3, 2):
                given = [part[:rows] if n < 2 or (n == 5 and part.dim() == 3) else part
                         for n, part in enumerate(case.arguments)]
                # Inductor's tanh may differ in a last bit of float32, which bfloat16 and the bank can widen.
                torch.testing.assert_close(step(*given), edited(*given), rtol=2e-2, atol=2e-2)
"""


@pytest.mark.parametrize("inductor", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["graph", "inductor"])
def test_a_compiled_step_keeps_the_edit_as_one_node(inductor):
    """In a process of its own: the run-time shape checks of the tests would be traced too."""
    if inductor and not compiled.available():
        pytest.skip("no C++ compiler: install g++ to test inductor")
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    script = f"INDUCTOR = {inductor}\n{SCRIPT}"
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@by_case
def test_in_inference_mode_and_on_meta(name):
    case = CASES[name]
    with torch.inference_mode():
        out = op.lowrank(*case.arguments, None)
        resid = case.resid.clone()
        op.lowrank_(resid, *case.arguments[1:], None)
        assert torch.equal(out, resid) and torch.equal(out, lowrank(*case.arguments))
    meta = [part.to("meta") if isinstance(part, torch.Tensor) else part for part in case.arguments]
    shape = op.lowrank(*meta, None)
    assert shape.shape == case.resid.shape and shape.dtype == case.resid.dtype and shape.is_contiguous()
