"""Limits: what a file may declare, far above what the workbench writes and far below what harms a machine.

Without them a kilobyte of HDF5 or JSON asks for terabytes. Each is an option of `open`, since what is too large for one
machine is a day's work on another: `ActivationStore.open(path, limits=Limits(dataset_bytes=1 << 40))`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What is read of a file at most. Every error that one of these causes names it."""

    dataset_bytes: int = 64 << 30
    """declared by one dataset"""
    array_bytes: int = 1 << 30
    """of one array that is read whole (indexes, columns)"""
    chunk_bytes: int = 256 << 20
    """of one chunk, unpacked"""
    attribute_bytes: int = 1 << 20
    """of one attribute"""
    objects: int = 20_000
    """groups, datasets and attributes of one file"""
    depth: int = 16
    """of groups inside groups"""
    expansion: int = 1000
    """declared / stored bytes of one dataset, above 1 GiB declared"""
    array_expansion: int = 8
    """declared by all datasets of one file / its bytes, above 8 MiB declared; the same for one packed chunk"""
    text_bytes: int = 1 << 30
    """of one JSON file (store.json, summary.json)"""
    text_depth: int = 64
    """of lists and objects inside each other, in JSON"""
    line_bytes: int = 16 << 20
    """of one line of a log"""


LIMITS = Limits()
