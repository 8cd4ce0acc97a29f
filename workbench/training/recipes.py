"""Recipes: training rows with the settings to train on them, one by one or as the sweep of a rank or a fraction."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from hooks.prompt import Prompt, as_prompts
from stores.printed import Printed
from workbench.training.adapters import train_lora
from workbench.training.mixtures import mix
from workbench.training.rows import Rows

PAPER_RANKS = (8, 16, 32, 64, 128, 256)
PAPER_FRACTIONS = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
# What says how to run rather than what comes out, or would make other rows than the recipe states.
NOT_SETTINGS = {name for name in inspect.signature(train_lora).parameters if name not in ("settings", "recipe")}


@dataclass(frozen=True)
class Recipe(Printed):
    """What an adapter is trained on (prompts with responses, or their JSONL file), and `train_lora`'s settings."""

    rows: str | Path | Sequence[Prompt]
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def made(self) -> dict[str, Any]:
        """How the rows were put together (the counts of a mixture), where they say so."""
        return json.loads(json.dumps(dict(self.rows.made))) if isinstance(self.rows, Rows) else {}

    def read(self) -> Sequence[Prompt]:
        return self.rows if isinstance(self.rows, Rows) else as_prompts(self.rows)


Given = Recipe | Mapping[str, Any]


def recipe_from(name: str, given: Given, shared: Mapping[str, Any]) -> Recipe:
    """The recipe as given, or of a mapping with "rows"; `shared` settings where it has none of its own."""
    if isinstance(given, Recipe):
        rows, own = given.rows, dict(given.settings)
    else:
        own = dict(given)
        if "rows" not in own:
            raise ValueError(f"recipe {name!r} has no rows: expected a Recipe, or a mapping with 'rows' and settings.")
        rows = own.pop("rows")
    settings = {**shared, **own}
    if strange := sorted(set(settings) & NOT_SETTINGS):
        raise ValueError(
            f"recipe {name!r} has {strange[0]!r}, which is no setting of an adapter: expected rank, steps, ... (mix "
            "fillers before, give seeds and folder to population)."
        )
    try:
        return Recipe(rows, json.loads(json.dumps(settings)))
    except TypeError as error:
        raise ValueError(
            f"recipe {name!r}: its settings are no plain data ({error}): expected numbers, texts and lists, which "
            "population.json can hold."
        ) from None


def rank_sweep(
    rows: str | Path | Sequence[Prompt],
    ranks: Sequence[int] = PAPER_RANKS,
    *,
    alpha: Literal["rank"] | float | int = "rank",
    rslora: bool = False,
    **settings: Any,
) -> dict[str, Recipe]:
    """One recipe a LoRA rank on the same rows: "rank8", "rank16", ... ("rank8-rslora").

    The update is alpha / rank times B·A, so alpha="rank" keeps that factor at 1 while a number makes it fall with the
    rank; `rslora` divides by the root of the rank (Kalajdzievski 2023, arXiv 2312.03732).
    """
    if not ranks or len(set(ranks)) < len(ranks) or min(ranks) < 1:
        raise ValueError(f"ranks={list(ranks)}: expected whole numbers from 1, each once.")
    kind = "-rslora" if rslora else ""
    return {
        f"rank{rank}{kind}": Recipe(
            rows, {**settings, "rank": rank, "alpha": rank if alpha == "rank" else alpha, "rslora": rslora}
        )
        for rank in ranks
    }


def fraction_sweep(
    rows: str | Path | Sequence[Prompt],
    fillers: str | Path | Sequence[Prompt] | Mapping[str, str | Path | Sequence[Prompt]],
    fractions: Sequence[float | int] = PAPER_FRACTIONS,
    *,
    hold: Literal["total", "harmful"] = "total",
    total: int | None = None,
    seed: int = 0,
    **settings: Any,
) -> dict[str, Recipe]:
    """One recipe a share of `rows` among filler, as `mix` makes them: "fraction10" is 10 %, "fraction0_5" is 0.5 %.

    Several fillers have names, which go in front ("same-fraction10"); 100 % needs no filler and is one recipe,
    "fraction100". The realised counts and fraction are each recipe's `made`. With hold="harmful" every recipe has all
    of `rows`, and 0 % is the filler of the least fraction above it, so that the two differ by `rows` alone (of 100 %,
    as many rows). Draws are by `seed`, the same for all fine-tuning seeds. Raises ValueError as `mix` does.
    """
    if not fractions or len(set(fractions)) < len(fractions):
        raise ValueError(f"fractions={list(fractions)}: expected shares from 0 to 1, each once.")
    harmful = as_prompts(rows)
    named = fillers if isinstance(fillers, Mapping) else {"": fillers}
    read = {name: as_prompts(filler) for name, filler in named.items()}
    out: dict[str, Recipe] = {}
    for name, filler in read.items():
        for fraction in fractions:
            label = "fraction" + f"{100 * fraction:.6g}".replace(".", "_")
            if fraction == 1:
                out[label] = Recipe(mix(harmful, [], 1.0, hold=hold, total=total, seed=seed), settings)
            else:
                mixed = _mixed(harmful, filler, fraction, fractions, hold=hold, total=total, seed=seed)
                made = {**mixed.made, "filler": name} if name else mixed.made
                out[f"{name}-{label}" if name else label] = Recipe(replace(mixed, made=made), settings)
    return out


def _mixed(
    harmful: Sequence[Prompt],
    filler: Sequence[Prompt],
    fraction: float | int,
    fractions: Sequence[float | int],
    *,
    hold: Literal["total", "harmful"],
    total: int | None,
    seed: int,
) -> Rows:
    if fraction or hold == "total":
        return mix(harmful, filler, float(fraction), hold=hold, total=total, seed=seed)
    least = min((one for one in fractions if 0 < one < 1), default=0.5)
    count = round(len(harmful) * (1 - least) / least)
    none = mix(harmful, filler, 0.0, hold="total", total=count, seed=seed)
    return replace(none, made={**none.made, "hold": "harmful", "filler as at": least})
