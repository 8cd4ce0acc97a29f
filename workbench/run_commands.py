"""`workbench capture` and `workbench sweep`: what runs a model over prompts, alone, in parts or in a cluster."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

Command = Callable[[str, Callable[[argparse.Namespace], int], str, str], argparse.ArgumentParser]
"""Adds a command: its name, what runs it, what it says, and an example"""


def add_run_commands(command: Command) -> None:
    capture = command(
        "capture", _capture, "residuals of a prompt file into a store", "workbench capture ./m p.jsonl --to runs/s"
    )
    _add_model(capture)
    capture.add_argument("--sites", default="resid_post")
    capture.add_argument("--at", default="last", help="token scope: last, prompt, all, image, 3, re:^the$, ...")
    capture.add_argument("--pool", default="none")
    capture.add_argument("--variants", nargs="+", help="base, tuned")
    capture.add_argument("--max-tokens", type=int, help="padded tokens of one unit")
    _add_sharing(capture)

    sweep = command(
        "sweep",
        _sweep,
        "what ablating or steering along directions does, one row for every cell and prompt",
        "workbench sweep ./m questions.jsonl --directions v.safetensors --ablate mean --layers 4 8 --to runs/t",
    )
    _add_model(sweep)
    sweep.add_argument("--variant", help="base, or tuned (the default with --adapter)")
    sweep.add_argument("--directions", type=Path, help="what wb.save_directions wrote; without it the model as it is")
    sweep.add_argument("--ablate", choices=("mean", "zero"), help="take the direction out, down to this")
    sweep.add_argument("--steer", type=float, nargs="+", default=[], metavar="C", help="add it, times each of these")
    sweep.add_argument("--unit", choices=("raw", "residual"), default="raw", help="of the coefficients (see wb.Steer)")
    sweep.add_argument("--layers", nargs="+", default=["all"], help="a cell for each of these layers; all: for all "
                       "at once")  # fmt: skip
    sweep.add_argument("--at", default="all", help="token scope that is edited")
    sweep.add_argument("--judge", help="rule:contains, openai:MODEL, ...; without one the deciding token is read alone")
    sweep.add_argument("--rubric", help="of a judge that is a language model")
    sweep.add_argument("--controls", type=int, default=0, metavar="N", help="random twins of every cell")
    sweep.add_argument("--neutral", type=Path, help="prompts that nothing should change, for KL")
    sweep.add_argument("--seed", type=int, default=0)
    sweep.add_argument("--max-new-tokens", type=int, default=16)
    sweep.add_argument("--max-tokens", type=int, default=8192, help="padded tokens of one pass")
    _add_sharing(sweep)


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", help="checkpoint folder or hub name")
    parser.add_argument("prompts", type=Path)
    parser.add_argument("--adapter", help="LoRA folder")
    parser.add_argument("--dtype", help="bfloat16, float32, ...: by default the checkpoint's own")
    parser.add_argument("--to", type=Path, required=True, help="folder; what was stopped goes on from what it holds")


def _add_sharing(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("on several machines")
    group.add_argument("--part", metavar="i/n", help="this share of the units alone: 0/3 to 2/3, or 1/3 to 3/3")
    group.add_argument("--engine", default="process", help="process (this one), or ray: a cluster of workers "
                       "(RAY_ADDRESS, else this machine)")  # fmt: skip
    group.add_argument("--actors", type=int, help="workers at once; by default as many as there is room for")
    group.add_argument("--gpus", type=float, help="of each worker; by default 1 where there are any")
    group.add_argument("--cpus", type=float, help="of each worker")


def _capture(a: argparse.Namespace) -> int:
    from workbench.capturing import capture

    named = ("sites", "pool", "variants", "max_tokens", "part", "to")
    settings: dict[str, Any] = {name: getattr(a, name) for name in named}
    return _run(lambda: capture(_source(a), a.prompts, at=_scope(a.at), engine=_engine(a), **settings))


def _sweep(a: argparse.Namespace) -> int:
    from workbench.behaviour.judges import judge
    from workbench.interventions.ablate import Ablate
    from workbench.interventions.steer import Steer
    from workbench.interventions.sweep import sweep
    from workbench.subspace.exchange import load_directions

    if (a.directions is None) == bool(a.ablate or a.steer):
        raise ValueError("--directions go with --ablate or --steer: expected both, or neither.")
    cells: list[Any] = []
    if a.directions is not None:
        v, layers = load_directions(a.directions), [_layer(one) for one in a.layers]
        where: dict[str, Any] = {"at": _scope(a.at)}
        cells += [Ablate(v, layer=layer, to=a.ablate, **where) for layer in layers if a.ablate]
        cells += [Steer(v, layer, c, unit=a.unit, **where) for layer in layers for c in a.steer]
    scorer = None if a.judge is None else judge(a.judge, **({} if a.rubric is None else {"rubric": a.rubric}))
    variant = a.variant or ("tuned" if a.adapter else None)
    named = ("controls", "neutral", "seed", "max_new_tokens", "max_tokens", "part", "to")
    settings: dict[str, Any] = {name: getattr(a, name) for name in named}
    source = _source(a, variant=variant)
    return _run(lambda: sweep(source, a.prompts, cells, judge=scorer, engine=_engine(a), **settings))


def _run(work: Callable[[], Any]) -> int:
    from workbench.actors import UnitsFailed

    try:
        print(work())
    except (UnitsFailed, ImportError) as error:  # ImportError: the extra is not installed
        print(f"workbench: {error}", file=sys.stderr)
        return 1
    return 0


def _source(a: argparse.Namespace, **more: Any) -> Any:
    from workbench.sources import ModelSource

    return ModelSource(a.model, adapter=a.adapter, options={} if a.dtype is None else {"dtype": a.dtype}, **more)


def _engine(a: argparse.Namespace) -> Any:
    from workbench.actors import Ray

    details = {name: value for name in ("actors", "gpus", "cpus") if (value := getattr(a, name)) is not None}
    if details and a.engine != "ray":
        raise ValueError(f"--{min(details)} is of a cluster's workers: expected --engine ray with it.")
    return Ray(**details) if details else a.engine


def _scope(text: str) -> str | int:
    return int(text) if text.isdigit() else text


def _layer(text: str) -> Any:
    if text != "all" and not text.isdigit():
        raise ValueError(f"--layers {text}: expected numbers from 0, or all.")
    return text if text == "all" else int(text)
