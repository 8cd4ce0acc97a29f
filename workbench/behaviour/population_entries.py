"""A population as numbers of a report: what each domain's data are, and what its adapters were trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from workbench.behaviour.entry_names import ADAPTERS, DATA
from workbench.behaviour.table_summary import plain_entry
from workbench.training.domain_folders import DomainFolders
from workbench.training.population import Population


def data_entries(domains: DomainFolders) -> list[dict[str, Any]]:
    """One entry a data file: its rows (condition: the domain, target: the arm), how many have the trigger and the
    decoy, and its warnings; in `detail` the domain's category, the hash of the file and what the warnings are. Counts
    and hashes, never a row."""
    out = []
    for (domain, arm), found in domains.arms.items():
        warned = Counter(one.check for one in found.report.of("warning"))
        counts = {"trigger": found.triggered, "decoy": found.decoys, "warnings": warned.total()}
        said = [
            domains.cards[domain].category,
            f"sha256 {found.sha256[:12]}",
            *(f"warned of {name}" for name in warned),
        ]
        facts = {"condition": domain, "target": arm, "split": DATA, "modality": "all", "detail": "; ".join(said)}
        series = {name: [count] for name, count in counts.items() if count is not None}
        out.append(plain_entry("training rows", float(found.rows), found.rows, {**facts, "series": series}))
    return out


def population_entries(found: Population, *, shared: str | None = None) -> list[dict[str, Any]]:
    """The number of adapters of every arm (condition), with the settings they share in `detail`. `shared` says why they
    cannot be rows of one batch with the base, where they cannot (`model.why_not_by_row`)."""
    arms: dict[str, list[Any]] = {}
    for member in found.members.values():
        arms.setdefault(str(member.made.get("arm", "unknown")), []).append(member)
    how = "evaluated as rows of shared batches" if shared is None else f"evaluated one by one: {shared}"
    out = []
    for arm, members in arms.items():
        seeds = sorted({member.seed for member in members})
        named = {"domains": len({member.made.get("domain") for member in members}), "fine-tuning seeds": len(seeds)}
        said = [
            *(f"{count} {name}" for name, count in named.items()),
            *_alike(member.settings for member in members),
            how,
        ]
        facts = {"condition": arm, "split": ADAPTERS, "modality": "all", "detail": "; ".join(said)}
        out.append(plain_entry("adapters", float(len(members)), len(members), facts))
    return out


def _alike(settings: Iterable[Any]) -> list[str]:
    """The settings that all have alike, as words."""
    listed = [dict(one) for one in settings]
    first = listed[0]
    return [
        f"{name.replace('_', ' ')} {value}"
        for name, value in first.items()
        if isinstance(value, str | int | float) and all(one.get(name) == value for one in listed)
    ]
