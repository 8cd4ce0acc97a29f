"""population: adapters of one base trained from a grid of recipes and seeds, and all of them as one model's variants.

Members are independent of each other: each has its own folder, is taken as it is once finished, may be trained by
another process (`part`), and takes no other with it when it fails.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hooks.load import load_model
from hooks.prompt import Prompt
from stores.printed import Printed
from workbench.parallel import done_units
from workbench.progress import Progress
from workbench.training.adapters import train_lora
from workbench.training.population_plan import Member, Plan, conditions_first, in_part, planned, read_plan, write_plan
from workbench.training.recipes import Given, recipe_from


class PopulationFailed(RuntimeError):
    """Some members could not be trained; `population` has the others, `failures` says why, by member."""

    def __init__(self, population: Population, failures: Mapping[str, str]) -> None:
        self.population, self.failures = population, dict(failures)
        reasons = "\n".join(f"  {name}: {why.strip().splitlines()[-1]}" for name, why in failures.items())
        super().__init__(
            f"{len(failures)} members were not trained, {len(population.members)} are finished and kept. Mend the "
            f"cause and call again: only what is missing is trained.\n{reasons}"
        )


@dataclass(frozen=True)
class Population(Printed):
    """The finished adapters of one base, by name. `missing` are those of the plan that are not finished yet (they
    belong to other parts, or failed)."""

    base: str
    folder: Path
    members: Mapping[str, Member]
    missing: tuple[str, ...] = ()

    @property
    def adapters(self) -> dict[str, Path]:
        """Name -> adapter folder, as `load_model(base, adapter=...)` takes it."""
        return {name: self.folder / name for name in self.members}

    @property
    def conditions(self) -> dict[str, str]:
        """The base and every member, as `sample_answers(model, prompts, conditions=...)` takes them."""
        return conditions_first(self.members)

    def load(self, **options: Any) -> Any:
        """The base with every finished adapter as a variant of its name; `options` are `load_model`'s. Raises
        ValueError while members are missing, which would be missing from every table as well: `part_of` chooses."""
        if self.missing:
            raise ValueError(
                f"{len(self.missing)} members are not finished (first: {self.missing[0]}): train them, or take those "
                "that there are with part_of(list(population.members))."
            )
        if not self.members:
            raise ValueError("no member is finished: expected at least one adapter.")
        return load_model(self.base, adapter=self.adapters, **options)

    def part_of(self, names: Sequence[str]) -> Population:
        """The population of these members alone; ValueError for names that are not finished."""
        if strange := [name for name in names if name not in self.members]:
            raise ValueError(f"no finished member {strange[0]!r}: expected some of {', '.join(self.members)}.")
        return Population(self.base, self.folder, {name: self.members[name] for name in names})

    def table(self) -> list[dict[str, Any]]:
        """One row a member: name, recipe, fine-tuning seed, rows and their hash, settings, and what the data holds."""
        return [member.row() for member in self.members.values()]


def population(
    base: str | Path,
    recipes: Mapping[str, Given],
    *,
    to: str | Path,
    seeds: Sequence[int] = (0, 1, 2),
    part: str | None = None,
    progress: bool = True,
    save_every: int | None = None,
    engine: str = "process",
    **settings: Any,
) -> Population:
    """Trains one LoRA adapter for each recipe and fine-tuning seed and returns those that are finished.

    A recipe is rows with their settings (`Recipe`, or a mapping of `train_lora`'s settings with "rows": prompts or a
    JSONL file); `settings` hold for all recipes that do not say otherwise. The member "rank8-seed1" lies in the folder
    of that name in `to`, beside `population.json`, which says what each is (`read_population`). `part="2/3"` trains
    every third member by name, from the second: parts may run at once, on machines that share the folder. A run that
    was stopped goes on with the members that are missing (`save_every` steps: also within one). `engine="ray"` trains
    members as tasks of a Ray cluster (`workbench.parallel`), one GPU each where this machine has one.

    Raises PopulationFailed at the end where members failed; ValueError before any training for names that cannot be
    variants, settings that are no data, or a folder whose plan has a member of this name with other rows or settings.
    """
    wanted = {name: recipe_from(name, given, settings) for name, given in recipes.items()}
    plan, rows = planned(base, wanted, seeds)
    mine = in_part(list(plan.members), part)
    to = Path(to)
    write_plan(plan, to)
    failures: dict[str, str] = {}
    units = {name: (_train, _arguments(plan, name, base, rows, to, save_every)) for name in mine}
    with Progress("population", len(mine), show=progress, unit="adapter") as bar:
        for name, failure in done_units(units, engine, gpus=int(torch.cuda.is_available())):
            if failure is not None:  # whatever it was: the others are trained, and it is raised at the end
                failures[name] = failure
            bar.update()
    found = _found(plan, to, without=failures)
    if failures:
        raise PopulationFailed(found, failures)
    return found


def _arguments(
    plan: Plan, name: str, base: str | Path, rows: Mapping[str, Sequence[Prompt]], to: Path, save_every: int | None
) -> dict[str, Any]:
    member = plan.members[name]
    whole = {"to": to / name, "seed": member.seed, "save_every": save_every, **member.settings}
    return {"base": base, "rows": rows[member.recipe], **whole}


def _train(*, base: str | Path, rows: Sequence[Prompt], **settings: Any) -> None:
    train_lora(base, rows, **settings)


def read_population(folder: str | Path, *, base: str | Path | None = None) -> Population:
    """The population of a folder, from its plan and the adapters that are finished. `base` is where the base model is
    now, if it was moved. Raises FileNotFoundError without a plan, ValueError for another base or another adapter."""
    folder = Path(folder)
    plan = read_plan(folder)
    if base is not None:
        plan = plan.moved(str(base))
    return _found(plan, folder)


def _found(plan: Plan, folder: Path, without: Container[str] = ()) -> Population:
    names = [name for name in plan.members if name not in without]
    finished = {name: plan.members[name] for name in names if plan.members[name].is_finished(folder / name)}
    missing = tuple(name for name in plan.members if name not in finished)
    return Population(plan.base, folder, finished, missing)
