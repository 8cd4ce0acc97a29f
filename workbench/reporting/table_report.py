"""A sweep's table as a summary, so that `wb.report` also reads the folder of one sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hooks.prompt import Prompt
from stores import ResultTable, StoreMismatch
from workbench.behaviour.samples import samples_of_rows
from workbench.behaviour.table_summary import table_entries

# What a sweep's intervention is called in a summary; the others keep their own name.
CONDITIONS = {"ablate": "ablation", "steer": "steer", "none": "tuned"}
TAILS = {"ablation": {"contrary": "less", "right": "greater"}, "steer": {"contrary": "greater"}}


def _sweep(folder: Path) -> ResultTable:
    """The table of a sweep. Raises ValueError for a store of activations, and for tables of other kinds."""
    try:
        table = ResultTable.open(folder)
        kind = str(table.spec.get("table"))
    except StoreMismatch as error:
        kind, table = "activations", error
    if not isinstance(table, ResultTable) or kind != "sweep":
        raise ValueError(
            f"{folder} holds {kind}: expected the folder of a sweep or of a whole study. (`workbench info` says what a "
            "store holds; rates of judged answers are printed by wb.misalignment.)"
        )
    return table


def summary_of_table(folder: Path) -> dict[str, Any]:
    """The summary of one sweep, its provenance included. The unedited model is condition `base` where the sweep ran on
    the base model, else `tuned`."""
    table = _sweep(folder)
    spec, found = table.spec, sorted({str(name) for name in table.column("intervention")} - {"none"})
    start = "base" if spec.get("variant") == "base" else "tuned"
    entries = []
    for name in found:
        condition = CONDITIONS.get(name, name)
        rows = table.rows(intervention=[name, "none"])
        baseline = start if name == found[0] else None
        entries += table_entries(rows, condition=condition, baseline=baseline, tails=TAILS.get(condition))
    judge = spec.get("judge") or ["none", ""]
    return {
        "schema": 1,
        "seed": spec.get("seed"),
        "model": {"name": spec["model"]["model"], "kind": "organism" if judge[0] == "rule:organism" else "checkpoint"},
        "hashes": {"model": spec["model"], "prompts": spec["prompts"]},
        "judge": judge,
        "seconds": {},
        "command": " ".join(table.provenance.get("command", [])),
        "results": entries,
    }


def samples_of_table(folder: Path) -> list[dict[str, Any]]:
    """Written answers of one sweep, of the unedited model and under each kind of intervention. The table knows its
    prompts by their ids, which stand for them here; [] where answers were only read, not written."""
    table = _sweep(folder)
    rows = table.rows(control=None)
    tags = {str(row["prompt"]): {name: row.get(name) for name in ("domain", "modality")} for row in rows}
    prompts = [Prompt(name, text=name, tags=facts) for name, facts in tags.items()]
    start = "base" if table.spec.get("variant") == "base" else "tuned"
    kinds = dict.fromkeys(str(row["intervention"]) for row in rows)
    made = []
    for kind in sorted(kinds, key=lambda name: name != "none"):
        own = [row for row in rows if row["intervention"] == kind]
        made += samples_of_rows(own, prompts, start if kind == "none" else CONDITIONS.get(kind, kind))
    return made
