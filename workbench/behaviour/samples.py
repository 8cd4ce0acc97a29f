"""Some of the answers of a table, to be read beside its numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hooks.prompt import Prompt
from stores import ResultTable

EACH = 2  # answers of every domain and modality


def samples_of(table: ResultTable, prompts: Iterable[Prompt], condition: str) -> list[dict[str, Any]]:
    """The first answers of every domain and modality as `samples.json` holds them: under the table's first
    intervention, or of the unedited model where it has none. Taken in the table's order, never for what they say."""
    asked = {prompt.id: prompt for prompt in prompts}
    rows = [row for row in table.rows(control=None) if row.get("text") is not None and str(row["prompt"]) in asked]
    cell = min((int(row["cell"]) for row in rows if row["intervention"] != "none"), default=0)  # type: ignore[arg-type]
    taken: dict[tuple[Any, Any], int] = {}
    samples = []
    for row in rows:
        place = (row.get("domain"), row.get("modality"))
        if row["cell"] != cell or taken.setdefault(place, 0) == EACH:
            continue
        taken[place] += 1
        prompt = asked[str(row["prompt"])]
        samples.append(
            {
                "prompt": prompt.messages[-1].text if prompt.messages else prompt.text,
                "id": row["prompt"],
                "modality": row.get("modality"),
                "condition": condition,
                "text": row["text"],
                "category": row["category"],
            }
        )
    return samples
