"""The linear edit as operators of torch.library: torch.compile keeps each as one node, whatever device it runs on."""

from __future__ import annotations

import torch

from hooks.kernels.choice import run, run_in_place

ARGUMENTS = (
    "Tensor cell, Tensor read, Tensor write, Tensor gain, Tensor shift, Tensor carry, Tensor? threshold, int power, "
    "str? implementation"
)


@torch.library.custom_op(
    "misalignment_workbench::lowrank", mutates_args=(), schema=f"(Tensor resid, {ARGUMENTS}) -> Tensor"
)
def lowrank(resid, cell, read, write, gain, shift, carry, threshold, power, implementation):
    return run(resid, cell, read, write, gain, shift, carry, threshold, power, implementation)


@lowrank.register_fake
def _(resid, *_others):
    return resid.new_empty(resid.shape)


@torch.library.custom_op(
    "misalignment_workbench::lowrank_", mutates_args=("resid",), schema=f"(Tensor(a!) resid, {ARGUMENTS}) -> ()"
)
def lowrank_(resid, cell, read, write, gain, shift, carry, threshold, power, implementation):
    run_in_place(resid, cell, read, write, gain, shift, carry, threshold, power, implementation)
