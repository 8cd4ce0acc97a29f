"""The Triton kernels under the interpreter: the numbers of every intervention, out of place and in place."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed: pip install -e '.[test]' on Linux")

from hooks.kernels import triton_lowrank as kernels

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def found():
    """What the interpreter gave, one entry for each kernel, dtype and case."""
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    script = ROOT / "tests/interpreted_kernels.py"
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"exit {done.returncode} (-11: forbidden memory was touched)\n{done.stderr}"
    return json.loads(done.stdout)


KERNELS = ("rows, several a program", "rows, d_model by loop", "tiles")


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_intervention_is_what_its_formula_says(found, kernel):
    """bfloat16, float16 and float32; within what one rounding of the result and of each product explains."""
    mine = {name: result for name, result in found.items() if name.startswith(kernel)}
    hardest = {"cosine gate", "a shift a position", "rank 5", "rank 64"}
    assert {name.split(" | ")[2] for name in mine} >= hardest and len(mine) == (12 if "loop" in kernel else 25)
    assert {name for name, result in mine.items() if not result["error / tolerance"] <= 1} == set()
    unedited = {name for name, result in mine.items() if not result["edited"]}
    assert unedited == {name for name in mine if "no token with a cell" in name}


@pytest.mark.parametrize(
    "promise",
    [
        "kept bits",
        "in place equals out of place",
        "in place leaves the rest",
        "out of place leaves its input",
        "strides make no difference",
    ],
)
def test_what_must_not_change_does_not(found, promise):
    results = {name: result for name, result in found.items() if name.startswith(KERNELS)}
    assert {name for name, result in results.items() if not result[promise]} == set()


def test_in_place_tokens_without_a_cell_are_neither_read_nor_written(found):
    """They lay in memory that the process may not touch; a touch would have ended it."""
    assert found["pages"] == dict.fromkeys(KERNELS, True)


def test_every_bit_of_what_is_not_edited_stays(found):
    assert found["bits"] == {"rows, several a program": True, "tiles": True}


def test_the_dispatch_reaches_the_kernel(found):
    result = found["dispatch"]
    assert result["error / tolerance"] <= 1 and result["in place"] and result["a residual of length zero"]


@pytest.mark.parametrize(
    "tokens, pos, cells, k, d_model, tiled",
    [
        (16384, 256, 8, 1, 2560, False),
        (16384, 256, 8, 64, 2560, True),
        (16384, 1, 1, 16, 2560, True),  # one cell for all: any tile has it
        (16384, 1, 80, 16, 2560, False),  # rows are cells: a tile would edit its tokens one after the other
        (64, 1, 1, 64, 2560, False),  # a decoding step
    ],
)
def test_tiles_are_for_ranks_and_runs(tokens, pos, cells, k, d_model, tiled):
    assert kernels.settings(tokens, pos, cells, k, d_model, torch.bfloat16)[0] == tiled


def test_a_row_of_8192_is_one_pass_and_nothing_is_larger_than_a_program_holds():
    for k in (1, 2, 3, 4, 5, 16, 64):
        for d_model in (1, 13, 512, 2560, 8192, 16384):
            for tokens in (1, 64, 16384):
                tiled, blocks = kernels.settings(tokens, 1, 80, k, d_model, torch.bfloat16)
                assert not tiled and blocks["KP"] >= k
                held = blocks["ROWS"] * blocks["KP"] * blocks["BD"]
                assert held <= kernels.ONE_PASS and held <= 1024 * blocks["num_warps"]
                assert k > 1 or blocks["BD"] >= min(d_model, kernels.ONE_PASS)
    assert kernels.settings(16384, 1, 80, 1, 512, torch.bfloat16)[1]["ROWS"] == 4
    assert kernels.settings(64, 1, 80, 1, 512, torch.bfloat16)[1]["ROWS"] == 1


def test_a_launch_refuses_what_it_would_read_wrong():
    resid, cell = torch.zeros(2, 3, 8), torch.zeros(2, 3, dtype=torch.int32)
    bank, one = torch.zeros(4, 2, 8), torch.zeros(4, 2)
    given = dict(resid=resid, cell=cell, read=bank, write=bank, gain=one, shift=one, carry=torch.ones(4))
    given.update(threshold=None, power=0, out=resid)

    def refused(match, **changed):
        with pytest.raises(ValueError, match=match):
            kernels.launch(**{**given, **changed})

    refused(r"write is \(4, 3, 8\).*cells of rank 2 takes \(4, 2, 8\)", write=torch.zeros(4, 3, 8))
    refused(r"cell is \(2, 1\)", cell=cell[:, :1])
    refused(r"shift is \(2, 3, 1\).*takes \(4, 2\) or \(2, 3, 2\)", shift=torch.zeros(2, 3, 1))
    refused("threshold is .* on meta", threshold=torch.zeros(4, device="meta"))
    refused("bfloat16, float16 or float32", resid=resid.double(), out=resid.double())
    large, many = torch.zeros(4, 65, 8), torch.zeros(4, 65)
    refused("ranks up to 64", read=large, write=large, gain=many, shift=many)
