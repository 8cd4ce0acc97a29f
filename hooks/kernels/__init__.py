"""One dispatch for the linear edit, beside the pure-torch reference that specifies it."""

from hooks.kernels.reference import lowrank

__all__ = ["lowrank"]
