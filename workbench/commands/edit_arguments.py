"""The interventions of a command: directions of a file, taken out or added, where."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from workbench.commands.model_arguments import scope_of


def add_edits(parser: argparse.ArgumentParser, *, grid: bool) -> None:
    """`grid`: every layer and coefficient is a cell of its own; else all of them act together."""
    group = parser.add_argument_group("interventions (without them: the model as it is)")
    group.add_argument("--directions", type=Path, help="what `workbench directions` or wb.save_directions wrote")
    group.add_argument("--ablate", choices=("mean", "zero"), help="take the direction out, down to this")
    group.add_argument(
        "--steer",
        type=float,
        nargs="+",
        metavar="C",
        default=[],
        help="add the direction, times C; a cell for each" if grid else "add the direction, times C",
    )
    group.add_argument(
        "--unit",
        choices=("raw", "residual"),
        default="raw",
        help="what C counts: the direction as measured, or the median length of the residual",
    )
    group.add_argument(
        "--layers",
        nargs="+",
        default=["all"],
        metavar="L",
        help=f"3, 4-8, or all: {'a cell for each, and one for all' if grid else 'these together'}",
    )
    group.add_argument("--at", default="all", help="token scope that is edited")


def interventions_of(a: argparse.Namespace, *, grid: bool) -> list[Any]:
    """What is asked for. Raises ValueError where directions and what to do with them do not come together."""
    import workbench as wb

    if (a.directions is None) == bool(a.ablate or a.steer):
        raise ValueError("--directions go with --ablate or --steer: expected both, or neither.")
    if not grid and len(a.steer) > 1:
        raise ValueError(f"--steer {a.steer}: expected one coefficient; several are cells of `workbench sweep`.")
    if a.directions is None:
        return []
    v: Any = wb.load_directions(a.directions)
    where: dict[str, Any] = {"at": scope_of(a.at)}
    if a.steer and not isinstance(v, wb.Directions):
        raise ValueError(f"{a.directions} holds a {type(v).__name__}: expected directions for --steer, or --ablate.")
    layers: list[Any] = [layer for text in a.layers for layer in _layers(text)]
    if not grid:
        layers = ["all"] if "all" in layers else [layers]
    ablated = [wb.Ablate(v, layer=layer, to=a.ablate, **where) for layer in layers if a.ablate]
    return ablated + [wb.Steer(v, layer, c, unit=a.unit, **where) for layer in layers for c in a.steer]


def _layers(text: str) -> list[Any]:
    found = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
    if text == "all":
        return [text]
    if found is None or int(found[1]) > int(found[2] or found[1]):
        raise ValueError(f"--layers {text}: expected layers from 0, as in 3 or 4-8, or all.")
    return list(range(int(found[1]), int(found[2] or found[1]) + 1))
