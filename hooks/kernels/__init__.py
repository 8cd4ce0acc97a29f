"""One dispatch for the linear edit: the pure-torch reference is the specification, and today the only
implementation."""

from hooks.kernels.reference import lowrank

__all__ = ["lowrank"]
