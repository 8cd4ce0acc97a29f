"""adapter_doses: one adapter for every dose of what is done in training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hooks.prompt import Prompt, as_prompts
from workbench.training.adapters import train_lora
from workbench.training.population_plan import in_part


def adapter_doses(
    base: str | Path,
    rows: str | Path | Sequence[Prompt],
    doses: Mapping[float | int, Mapping[str, Any]],
    *,
    to: str | Path,
    part: str | None = None,
    **settings: Any,
) -> dict[float | int, Path]:
    """Dose -> folder of the adapter that `wb.train_lora` gives with that dose's settings over the common ones, in the
    folder `to`: `adapter_doses(base, right, {5: {"steps": 5}, 20: {"steps": 20}}, to="runs/repair", start=harmful)`,
    or `{1: {"during": [wb.Steer(v, layer=12)]}}`.

    Finished ones are taken as they are. `part="2/3"` trains every third dose, from the second; the folders of the
    others are named all the same (`wb.Arms` refuses them until they are finished). Raises what `train_lora` raises.
    """
    listed, folder = as_prompts(rows), Path(to)
    mine = set(in_part([f"{dose:g}" for dose in doses], part))
    for dose, own in doses.items():
        if f"{dose:g}" in mine:
            train_lora(base, listed, to=folder / f"{dose:g}", **{**settings, **own})
    return {dose: folder / f"{dose:g}" for dose in doses}
