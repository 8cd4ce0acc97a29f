"""`workbench capture`, `moments`, `directions`: what is kept of a model's residual stream, and what is found in it."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from workbench.commands.model_arguments import add_model, scope_of, source_of
from workbench.commands.said import Add, Said
from workbench.commands.sharing import add_sharing, engine_of

_AT = "token scope: last, prompt, response, all, image, 3, re:^the$, ..."


def add_capturing(add: Add) -> None:
    capture = add(
        "capture",
        _capture,
        "residuals of a prompt file into a store",
        "workbench capture ./my-model prompts.jsonl --adapter ./my-lora --variants base tuned --to runs/shift",
        resumes=True,
    )
    add_model(capture)
    capture.add_argument("prompts", type=Path, help="JSONL, one prompt a line")
    capture.add_argument("--to", type=Path, required=True, help="folder; what was stopped goes on from what it holds")
    capture.add_argument("--sites", default="resid_post", help="resid_post:8-15, 'attn_out:2, projector', ...")
    capture.add_argument("--at", default="last", help=_AT)
    capture.add_argument("--pool", default="none", help="none: a row a position; mean: a row a prompt")
    capture.add_argument(
        "--variants",
        nargs="+",
        metavar="NAME",
        help="base, tuned, ...: on the same batches, so that rows pair (default: tuned alone with --adapter)",
    )
    capture.add_argument(
        "--max-tokens",
        type=int,
        metavar="N",
        help="padded tokens of one forward (default: 2,048, on a GPU 8,192); given, each forward is a commit",
    )
    add_sharing(capture)

    moments = add(
        "moments",
        _moments,
        "means and covariances of a prompt file, without storing activations",
        "workbench moments ./my-model prompts.jsonl --by label --to runs/moments.h5",
        resumes=True,
    )
    add_model(moments)
    moments.add_argument("prompts", type=Path, help="JSONL, one prompt a line")
    moments.add_argument("--to", type=Path, required=True, help="an .h5 file; a run that was stopped goes on from it")
    moments.add_argument("--sites", default="resid_post", help="as in capture")
    moments.add_argument("--at", default="last", help=f"{_AT}; all leaves out position 0")
    moments.add_argument("--pool", default="none", help="none: a row a position; mean: a row a prompt")
    moments.add_argument(
        "--by", nargs="+", default=["label"], help="label (the default), or tags: what tells classes apart"
    )
    moments.add_argument("--variants", nargs="+", metavar="NAME", help="as in capture")
    moments.add_argument("--minus", help="sum the differences from this variant")
    moments.add_argument("--covariance", choices=("within", "groups", "none"), default="within")
    moments.add_argument("--sketch", type=int, help="rank of a sketch in place of whole covariances")
    moments.add_argument("--splits", type=int, default=50, help="random halves for the reliability")
    moments.add_argument("--seed", type=int, default=0)

    directions = add(
        "directions",
        _directions,
        "the difference of two classes' means in a store, one vector a layer, into a .safetensors file",
        "workbench directions runs/shift --positive variant=tuned --negative variant=base --to runs/v.safetensors",
    )
    directions.add_argument("store", type=Path, help="a store's folder, or the .h5 file of `workbench moments`")
    for side in ("positive", "negative"):
        directions.add_argument(
            f"--{side}", nargs="+", required=True, metavar="NAME=VALUE", help="variant, label, or a tag; all must hold"
        )
    directions.add_argument("--to", type=Path, required=True, help="a .safetensors file")
    directions.add_argument("--sites", nargs="+", help="of those that were captured; by default all")
    directions.add_argument("--splits", type=int, default=50, help="random halves for the reliability")
    directions.add_argument("--seed", type=int, default=0)


def _capture(a: argparse.Namespace) -> Said:
    import workbench as wb

    settings: dict[str, Any] = {name: getattr(a, name) for name in ("sites", "pool", "max_tokens", "part", "to")}
    settings["variants"] = names_of(a.variants)
    store = wb.capture(source_of(a), a.prompts, at=scope_of(a.at), engine=engine_of(a), **settings)
    missing = len(store.missing())
    facts = {"store": str(a.to), "planned": len(store.plan), "missing": missing, "sites": list(store.sites)}
    return Said(str(store), facts, then=_after_capture(a.to, settings["variants"]) if not missing else "")


def _after_capture(store: Path, variants: list[str] | None) -> str:
    if variants is None or len(variants) < 2:
        return f"workbench info {store}"
    first, second, *_ = variants
    sides = f"--positive variant={second} --negative variant={first}"
    return f"workbench directions {store} {sides} --to {store}.safetensors"


def names_of(given: list[str] | None) -> list[str] | None:
    """Names between blanks, or commas."""
    return None if given is None else [name for text in given for name in text.split(",") if name]


def _moments(a: argparse.Namespace) -> Said:
    import workbench as wb

    covariance = None if a.covariance == "none" else a.covariance
    named = ("sites", "pool", "minus", "sketch", "splits", "seed", "to")
    settings: dict[str, Any] = {name: getattr(a, name) for name in named}
    settings |= {"by": names_of(a.by), "variants": names_of(a.variants)}
    stats = wb.moments(source_of(a).load(), a.prompts, at=scope_of(a.at), covariance=covariance, **settings)
    groups = [{**name, "rows": int(count)} for name, count in zip(stats.names, stats.counts, strict=True)]
    facts = {"moments": str(a.to), "sites": list(map(str, stats.sites)), "groups": groups}
    return Said(str(stats), facts)


def _directions(a: argparse.Namespace) -> Said:
    import workbench as wb

    rows: Any = wb.StreamedMoments.load(a.store) if a.store.suffix == ".h5" else wb.ActivationStore.open(a.store)
    sides = [rows.where(**conditions_of(given)) for given in (a.positive, a.negative)]
    v = wb.difference_of_means(*sides, sites=a.sites, splits=a.splits, seed=a.seed)
    wb.save_directions(v, a.to)
    reliability = [None] * len(v.sites) if v.reliability is None else v.reliability.tolist()
    by_site = [
        {"site": str(site), "norm": float(norm), "reliability": agreed}
        for site, norm, agreed in zip(v.sites, v.norm, reliability, strict=True)
    ]
    facts = {"directions": str(a.to), "positive": v.n_positive, "negative": v.n_negative, "matched": v.matched}
    lines = [f"{a.to}: {v.kind}, {v.n_positive} rows against {v.n_negative}"]
    if v.matched is not None:
        lines[0] += f", {v.matched} prompts paired"
    lines += [f"{'site':<16} {'norm':>9}  split-half reliability"]
    for one in by_site:
        agreed = "-" if one["reliability"] is None else f"{one['reliability']:.3f}"
        lines.append(f"{one['site']:<16} {one['norm']:>9.4g}  {agreed}")
    return Said("\n".join(lines), {**facts, "sites": by_site})


def conditions_of(given: list[str]) -> dict[str, Any]:
    """`["variant=tuned", "in_domain=false"]` as `where` takes them: a value is itself, or what it says as JSON (a
    number, true, false), whichever the rows have. Raises ValueError for what is no NAME=VALUE."""
    out: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals) or name in out:
            raise ValueError(f"{text!r}: expected NAME=VALUE, each name once, as in variant=tuned or label=on.")
        try:
            meant = json.loads(value)
        except ValueError:
            meant = value
        out[name] = value if isinstance(meant, str | list | dict) else [value, meant]
    return out
