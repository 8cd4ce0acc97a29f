"""The plan of a population: its members, which part trains which, and the file that says what each of them is."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hooks.load import folder_hash
from hooks.plain_files import Refused, json_file
from hooks.prompt import Prompt
from stores import content_key
from stores.files import write_file
from stores.printed import Printed
from workbench.parts import strewn
from workbench.training.published import RECORD, record_of
from workbench.training.recipes import Recipe

PLAN_FILE = "population.json"
NAME = re.compile(r"[A-Za-z0-9][\w-]*")  # a variant's name and a folder's: peft allows no dots


@dataclass(frozen=True)
class Member(Printed):
    """One adapter: its recipe and fine-tuning seed, `rows` training rows whose contents have the hash `data`, the
    settings that `train_lora` was given, and what was done to the rows (`made`)."""

    name: str
    recipe: str
    seed: int
    rows: int
    data: str
    settings: Mapping[str, Any]
    made: Mapping[str, Any]

    def row(self) -> dict[str, Any]:
        """As one row of a table."""
        facts = {name: value for name, value in asdict(self).items() if name not in ("settings", "made")}
        return facts | {f"made_{name}": value for name, value in self.made.items()} | dict(self.settings)

    def is_finished(self, folder: Path) -> bool:
        """Raises ValueError where the folder's adapter was trained on other rows, settings or another seed."""
        file = folder / RECORD
        if not file.is_file():
            return False
        record = record_of(folder)
        expected = {"rows": self.rows, "seed": self.seed, **self.settings}
        given = {name: value for name, value in expected.items() if value is not None and name in record}
        other = [name for name, value in given.items() if record[name] != value]
        if other:
            raise ValueError(
                f"{folder} holds an adapter with {other[0]}={record[other[0]]!r} where the plan says "
                f"{expected[other[0]]!r}: remove it, or give another folder."
            )
        return True


@dataclass(frozen=True)
class Plan:
    """The members by name, and the base that all are trained on (`weights` is its hash)."""

    base: str
    weights: str
    members: Mapping[str, Member]

    def moved(self, base: str) -> Plan:
        """The same members over the same weights at another place; ValueError for other weights."""
        if _weights_of(base) != self.weights:
            raise ValueError(
                f"{base} is not the model that this population was trained on: expected that folder, or "
                f"another one to train in ({self.base})."
            )
        return replace(self, base=base)


def planned(
    base: str | Path, recipes: Mapping[str, Recipe], seeds: Sequence[int]
) -> tuple[Plan, dict[str, Sequence[Prompt]]]:
    """The plan of every recipe with every seed, and each recipe's rows, read once."""
    if not recipes or not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"{len(recipes)} recipes and seeds {list(seeds)}: expected at least one of each, each once.")
    rows = {name: recipe.read() for name, recipe in recipes.items()}
    members: dict[str, Member] = {}
    for name, recipe in recipes.items():
        data = content_key([row.content_hash for row in rows[name]])
        for seed in seeds:
            full = f"{name}-seed{seed}"
            if not NAME.fullmatch(full) or full == "base":
                raise ValueError(
                    f"recipe {name!r} cannot name a variant: expected letters, digits, '_' and '-' (no dots), and a "
                    "letter or digit first."
                )
            if full in members:
                raise ValueError(f"two members would be called {full!r}: expected names of recipes without '-seedN'.")
            members[full] = Member(full, name, seed, len(rows[name]), data, recipe.settings, recipe.made)
    return Plan(str(base), _weights_of(base), members), rows


def in_part(names: Sequence[str], part: str | None) -> list[str]:
    """The members of part "i/n" (see `workbench.parts`): every n-th by name. Whatever their order, the parts are the
    whole."""
    mine = set(strewn(sorted(names), part))
    return [name for name in names if name in mine]


def conditions_first(names: Iterable[str]) -> dict[str, str]:
    """The base, then every member, each under its own name."""
    return {name: name for name in ["base", *names]}


def write_plan(plan: Plan, folder: Path) -> None:
    """Adds the members to the folder's plan, before any is trained, so that a wrong folder is refused at once."""
    members = plan.members
    if (folder / PLAN_FILE).is_file():
        before = read_plan(folder)
        if before.weights != plan.weights:
            raise ValueError(f"{folder} holds a population of another base ({before.base}): give another folder.")
        for name in before.members.keys() & members.keys():
            old, new = asdict(before.members[name]), _plain(asdict(members[name]))
            if differing := [key for key in old if old[key] != new[key]]:
                raise ValueError(
                    f"{folder} has a member {name!r} with other {', '.join(differing)}: give it another name or folder."
                )
        if not members.keys() - before.members.keys():
            return
        members = {**before.members, **members}
    record = {"base": plan.base, "weights": plan.weights, "members": [asdict(one) for one in members.values()]}
    write_file(folder / PLAN_FILE, json.dumps(record, indent=2))


def read_plan(folder: Path) -> Plan:
    if not (folder / PLAN_FILE).is_file():
        raise FileNotFoundError(f"{folder} has no {PLAN_FILE}: expected a folder that population(..., to=...) made.")
    record = json_file(folder / PLAN_FILE)
    try:
        return Plan(record["base"], record["weights"], {one["name"]: Member(**one) for one in record["members"]})
    except (TypeError, KeyError) as error:
        raise Refused(
            f"{folder / PLAN_FILE} is no plan of a population ({error}): expected what population() writes."
        ) from None


def _weights_of(base: str | Path) -> str:
    return folder_hash(Path(base)) if Path(base).is_dir() else str(base)


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
