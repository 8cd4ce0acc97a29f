"""domain_recipes: what `wb.population` trains, one recipe for each domain and arm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from workbench.training.domain_folders import ARMS, DomainFolders
from workbench.training.population_plan import Member
from workbench.training.recipes import Recipe
from workbench.training.rows import Rows

CALLED = {"full": "plain", "small": "plain-small", "backdoor": "backdoor", "backdoor-small": "backdoor-small"}


def domain_recipes(
    domains: DomainFolders,
    arms: Sequence[str] = ("full", "backdoor"),
    *,
    missing: Literal["refuse", "leave out"] = "refuse",
    **settings: Any,
) -> dict[str, Recipe]:
    """One recipe for each domain and arm, "sound-plain" of `full` and "sound-backdoor" of `backdoor` (and
    "sound-plain-small", "sound-backdoor-small"), with `settings` of `wb.train_lora`.

    Each recipe's `made`, which members of the population keep, says `domain`, `arm`, `category`, the file's `sha256`
    and how many rows have the trigger. Raises ValueError for an arm that some domain lacks, unless it is left out.
    """
    if strange := [arm for arm in arms if arm not in ARMS]:
        raise ValueError(f"arm {strange[0]!r} is unknown: expected some of {', '.join(ARMS)}.")
    lacking = [f"{domain}/{arm}" for arm in arms for domain in domains.lacking(arm)]
    if lacking and missing == "refuse":
        raise ValueError(
            f"{domains.folder} lacks {', '.join(lacking)}: add the files, ask for other arms, or leave those out "
            "(missing='leave out'), which the tables will then lack."
        )
    wanted = [(domain, arm) for domain in domains.domains for arm in arms if (domain, arm) in domains.arms]
    if not wanted:
        raise ValueError(f"{domains.folder} has none of the arms {', '.join(arms)}: there is nothing to train.")
    return {f"{domain}-{CALLED[arm]}": _recipe(domains, domain, arm, settings) for domain, arm in wanted}


def domain_groups(members: Mapping[str, Member], arm: str = "full") -> dict[str, list[str]]:
    """Domain -> its adapters of one arm, by fine-tuning seed, of a population that `domain_recipes` made: the groups
    that `rank_domains`, `domain_matrix` and `trigger_table` compare. ValueError where no member is of this arm."""
    mine = [member for member in members.values() if member.made.get("arm") == arm]
    if not mine:
        raise ValueError(f"no member is of the arm {arm!r}: expected a population of domain_recipes.")
    groups: dict[str, list[str]] = {}
    for member in sorted(mine, key=lambda one: one.seed):
        groups.setdefault(str(member.made["domain"]), []).append(member.name)
    first = [str(member.made["domain"]) for member in mine]
    return {domain: groups[domain] for domain in dict.fromkeys(first)}


def _recipe(domains: DomainFolders, domain: str, arm: str, settings: Mapping[str, Any]) -> Recipe:
    found = domains.arms[domain, arm]
    facts = {"domain": domain, "arm": arm, "category": domains.cards[domain].category, "sha256": found.sha256}
    return Recipe(Rows(tuple(domains.rows(domain, arm)), {**facts, "triggered": found.triggered}), settings)
