"""sweep_routes: every route on its prompts, each with its own random twins, as the rows that `routing_matrix` takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hooks.prompt import Prompt, as_prompts
from workbench.interventions.routing import UNEDITED, Routes
from workbench.interventions.sweep import sweep
from workbench.subspace.rows import RowSource
from workbench.training.splits import row_groups


def sweep_routes(
    model: Any,
    routes: Routes,
    prompts: Mapping[str, Sequence[Prompt]],
    *,
    to: str | Path,
    controls: int = 0,
    activations: Mapping[str, RowSource] | None = None,
    neutral: str | Path | Sequence[Prompt] | None = None,
    progress: bool = False,
    **options: Any,
) -> dict[str, list[dict[str, Any]]]:
    """One sweep a route (`wb.sweep`, with its options: judge, seed, max_new_tokens, ...) in a folder of its name under
    `to`, resumable; the rows by set of prompts, under the name of their route (`condition`) or unedited.

    `prompts` are the sets that the routes were made for. Each route gets `controls` random twins of its own: matched in
    energy to it at the positions that it edits where `activations` (by applied scope) are given, else of equal norm.
    Only those `neutral` prompts are asked that show what the set shows. Rows also state their `prompt_group`, the same
    for prompts that ask the same or show the same picture, in all sets.
    """
    listed = [prompt for own in prompts.values() for prompt in own]
    group = {prompt.id: number for prompt, number in zip(listed, row_groups(listed), strict=True)}
    calm = [] if neutral is None else as_prompts(neutral)
    found: dict[str, list[dict[str, Any]]] = {}
    for evaluated, own in prompts.items():
        alike = [prompt for prompt in calm if bool(prompt.images) == bool(own[0].images)]
        found[evaluated] = []
        for first, route in ((n == 0, route) for n, route in enumerate(routes.on(evaluated))):
            matched = (activations or {}).get(route.applied)
            table = sweep(
                model,
                own,
                [route.intervention],
                controls=controls,
                control_kinds=["isotropic" if matched is None else "energy_matched"],
                activations=matched,
                neutral=alike or None,
                to=Path(to) / f"{route.name} on {evaluated}",
                progress=progress,
                **options,
            )
            for row in table.rows():
                if row["cell"] == 0 and not first:
                    continue  # the unedited model is the same in every table
                name = UNEDITED if row["cell"] == 0 else route.name
                found[evaluated].append(
                    {**row, "cell": None, "condition": name, "prompt_group": group[str(row["prompt"])]}
                )
    return found
