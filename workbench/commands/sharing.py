"""A command's share of the work: one part of several, or the workers of a cluster."""

from __future__ import annotations

import argparse
from typing import Any


def add_sharing(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("on several machines")
    group.add_argument("--part", metavar="i/n", help="this share of the units alone: 0/3 to 2/3, or 1/3 to 3/3")
    group.add_argument(
        "--engine", default="process", help="process (this one), or ray: a cluster (RAY_ADDRESS, else this machine)"
    )
    group.add_argument("--actors", type=int, help="workers at once; by default as many as there is room for")
    group.add_argument("--gpus", type=float, help="of each worker; by default 1 where there are any")
    group.add_argument("--cpus", type=float, help="of each worker")


def engine_of(a: argparse.Namespace) -> Any:
    """Raises ValueError for details of workers where there are none."""
    import workbench as wb

    details = {name: value for name in ("actors", "gpus", "cpus") if (value := getattr(a, name)) is not None}
    if details and a.engine != "ray":
        raise ValueError(f"--{min(details)} is of a cluster's workers: expected --engine ray with it.")
    return wb.Ray(**details) if details else a.engine
