"""The model of a command: which checkpoint, which adapters, loaded how."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.sources import ModelSource


def add_model(parser: argparse.ArgumentParser, *, backends: bool = True) -> None:
    """The arguments that every command understands which loads a model."""
    parser.add_argument("model", help="checkpoint folder or hub name")
    group = parser.add_argument_group("how the model is loaded")
    group.add_argument(
        "--adapter",
        action="append",
        metavar="[NAME=]FOLDER",
        help="LoRA folder, variant 'tuned'; again with NAME= for others",
    )
    if backends:
        group.add_argument("--backend", help="hf (the default), transformer_lens or nnsight")
    group.add_argument("--dtype", help="bfloat16, float32, ...: by default the checkpoint's own")
    group.add_argument("--device", help="cuda, cuda:1, cpu: by default a GPU where there is one")
    group.add_argument("--revision", help="of a hub name")
    add_trust(group)


def add_trust(parser: Any) -> None:
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="run code that the checkpoint brings; its hash is kept beside every number",
    )


def source_of(a: argparse.Namespace, **more: Any) -> ModelSource:
    """What `wb.load_model` is asked for, as data: a cluster's workers load it themselves."""
    import workbench as wb

    named = {name: getattr(a, name, None) for name in ("backend", "dtype", "device", "revision")}
    options: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    if a.trust_remote_code:
        options["trust_remote_code"] = True
    return wb.ModelSource(
        a.model, adapter=adapters_of(a.adapter), options={**options, **more.pop("options", {})}, **more
    )


def adapters_of(given: list[str] | None) -> Any:
    """None, one folder, or name -> folder; a folder with `=` in its name is a folder. Raises ValueError for two of one
    name."""
    if not given:
        return None
    named: dict[str, str] = {}
    for text in given:
        name, equals, folder = ("tuned", "", text) if Path(text).exists() else text.partition("=")
        if not equals:
            name, folder = "tuned", text
        if name in named:
            raise ValueError(
                f"--adapter {text}: there is a variant {name!r} already ({named[name]}): expected another name, as in "
                "--adapter right=FOLDER."
            )
        named[name] = folder
    return named["tuned"] if list(named) == ["tuned"] else named


def active_variant(a: argparse.Namespace) -> str | None:
    """The variant that acts where one does: --variant, else the one adapter that was given. Raises ValueError for a
    choice among several."""
    adapters = adapters_of(a.adapter)
    if a.variant is not None or adapters is None:
        return a.variant
    names = list(adapters) if isinstance(adapters, dict) else ["tuned"]
    if len(names) > 1:
        raise ValueError(f"there are the variants base, {', '.join(names)}: expected --variant with one of them.")
    return names[0]


def scope_of(text: str) -> str | int:
    """A token scope; digits are an absolute position."""
    return int(text) if text.isdigit() else text
