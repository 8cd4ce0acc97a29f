"""The Triton kernels compiled for sm_80 and sm_90 on any machine: registers, spills, width of every access.

Blocks and warps are those that a launch of that size takes. Without a GPU this is as far as code can be checked; what
the numbers are is checked by the interpreter (test_kernels_triton.py).
"""

import os
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton", reason="Triton is not installed: pip install -e '.[test]' on Linux")

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from hooks.kernels import triton_lowrank as kernels  # noqa: E402

TOOL = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
NAMES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
MEMORY = re.compile(r"\b(LDGSTS|LDG|STG|LDL|STL)((?:\.[A-Z0-9]+)*)\s+([^;]*);")

pytestmark = pytest.mark.skipif(not TOOL.exists(), reason="Triton came without cuobjdump: install its Linux wheel")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Nothing compiled earlier is taken for what this source gives."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "triton"))


def built(
    architecture, dtype, d_model, k, tokens=16384, pos=256, *, gated=True, per_position=False, in_place=True, **changed
):
    """Registers, bytes of stack, and how often each access of memory occurs in the machine code of one launch."""
    tiled, blocks = kernels.settings(tokens, pos, 8, k, d_model, dtype)
    blocks = {**blocks, **changed}
    kernel = kernels.edit_tiles if tiled else kernels.edit_rows
    options = {name: blocks.pop(name) for name in ("num_warps", "num_stages", "enable_fp_fusion")}
    constants = dict(
        D=d_model, K=k, GATED=gated, POWER=1, SHIFT_PER_POSITION=per_position, IN_PLACE=in_place, resid_d=1, out_d=1,
        **blocks,
    )  # fmt: skip
    kinds = {"resid": f"*{NAMES[dtype]}", "out": f"*{NAMES[dtype]}", "cell": "*i32", "tokens": "i32", "pos": "i32"}
    strides = ("resid_row", "resid_pos", "out_row", "out_pos")
    signature = {
        name: "constexpr" if name in constants else "i64" if name in strides else kinds.get(name, "*fp32")
        for name in kernel.arg_names
    }
    # What a launch finds out by itself: torch's allocations start at multiples of 16 bytes, and so do whole rows.
    even = [name for name, kind in signature.items() if kind.startswith("*") or name in strides]
    source = ASTSource(
        fn=kernel,
        signature=signature,
        constexprs={(kernel.arg_names.index(name),): value for name, value in constants.items()},
        attrs={(kernel.arg_names.index(name),): [["tt.divisibility", 16]] for name in even},
    )
    machine = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    return read_back(machine.asm["cubin"])


def read_back(cubin):
    path = Path(os.environ["TRITON_CACHE_DIR"]) / "checked.cubin"
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(cubin)

    def tool(*options):
        return subprocess.run([TOOL, *options, path], capture_output=True, text=True, check=True).stdout

    usage, code = tool("--dump-resource-usage"), tool("-sass")
    registers, stack = (int(re.search(rf"{name}:(\d+)", usage).group(1)) for name in ("REG", "STACK"))
    accesses = Counter()
    for operation, parts, _ in MEMORY.findall(code):
        width = next((part for part in parts.split(".") if part in ("128", "64", "U16", "U8", "S16")), "32")
        accesses[operation, width] += 1
    return registers, stack, accesses, code


def assert_sound(registers, stack, accesses, _code):
    """No spills, and everything that is written leaves in 16-byte pieces."""
    assert stack == 0 and not any(name in ("LDL", "STL") for name, _ in accesses), f"{stack} bytes of registers spilt"
    assert registers <= 255
    stores = {width for name, width in accesses if name == "STG"}
    assert stores == {"128"}, f"stores of other widths than 16 bytes: {stores}"


ARCHITECTURES = pytest.mark.parametrize("architecture", [80, 90], ids=["sm_80", "sm_90"])


@ARCHITECTURES
@pytest.mark.parametrize("d_model", [2560, 4096, 8192])
@pytest.mark.parametrize("in_place", [True, False], ids=["in place", "out of place"])
def test_one_direction_is_one_pass_of_wide_accesses(d_model, in_place, architecture):
    """The row is read once, kept in registers, and written: each in as few 16-byte pieces a thread as it has."""
    registers, stack, accesses, code = built(architecture, torch.bfloat16, d_model, 1, in_place=in_place)
    assert_sound(registers, stack, accesses, code)
    assert registers <= 128, "two programs of 8 warps to a multiprocessor, or more"
    _, blocks = kernels.settings(16384, 256, 8, 1, d_model, torch.bfloat16)
    threads = 32 * blocks["num_warps"]
    # A masked piece is skipped at run time or dropped by the compiler: between the row itself and its next power of 2.
    whole, padded = d_model / (8 * threads), blocks["BD"] / (8 * threads)
    assert whole <= accesses["STG", "128"] <= padded
    # 2 bytes a residual and 4 bytes each for read and write: five times as many loads as stores, none of them narrow.
    assert accesses["LDG", "128"] <= 5 * padded, "the residual is loaded once, not again for the second half"
    assert sum(count for (name, width), count in accesses.items() if name == "LDG" and width != "128") <= 8, "scalars"


@ARCHITECTURES
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=NAMES.get)
@pytest.mark.parametrize("k", [16, 32, 64])
def test_subspaces_go_through_the_tensor_cores_in_flight(k, dtype, architecture):
    """The largest variant: gated, a shift a position, out of place. Tiles are copied asynchronously, 16 bytes each."""
    registers, stack, accesses, code = built(architecture, dtype, 2560, k, per_position=True, in_place=False)
    assert_sound(registers, stack, accesses, code)
    assert accesses["LDGSTS", "128"] > 0 and not any(name == "LDGSTS" and width != "128" for name, width in accesses)
    # 16-bit residuals by split bfloat16 products, float32 by split TF32: neither drops the bank to 8 or 10 bits.
    product = "BF16" if dtype != torch.float32 else "TF32"
    assert re.search(rf"HG?MMA\.[^;]*{product}", code) or re.search(rf"HMMA[^;]*{product}", code)


@ARCHITECTURES
@pytest.mark.parametrize(
    "d_model, k, tokens, dtype",
    [
        (512, 1, 16384, torch.bfloat16),  # several tokens a program
        (1024, 1, 16384, torch.float32),
        (2560, 2, 16384, torch.bfloat16),
        (2560, 3, 16384, torch.bfloat16),  # the smallest rank that goes through tiles
        (16384, 1, 16384, torch.bfloat16),  # beyond one pass
        (2560, 1, 8, torch.bfloat16),  # a decoding step
        (8192, 1, 16384, torch.float32),
    ],
)
def test_other_sizes_are_sound_too(d_model, k, tokens, dtype, architecture):
    assert_sound(*built(architecture, dtype, d_model, k, tokens, per_position=True, in_place=False))


@ARCHITECTURES
@pytest.mark.parametrize("k", [4, 16, 64])
def test_a_decoding_step_of_a_subspace_does_not_spill(k, architecture):
    _, stack, accesses, _ = built(architecture, torch.bfloat16, 2560, k, tokens=8, pos=1)
    assert stack == 0 and not any(name in ("LDL", "STL") for name, _ in accesses)


def test_the_checks_can_fail():
    """An odd width makes narrow accesses; half as many warps as the tiles of rank 64 need makes spills."""
    with pytest.raises(AssertionError, match="other widths"):
        assert_sound(*built(80, torch.bfloat16, 2561, 1))
    with pytest.raises(AssertionError, match="registers spilt"):
        assert_sound(*built(80, torch.bfloat16, 2560, 64, per_position=True, in_place=False, num_warps=4))
