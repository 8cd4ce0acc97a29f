"""Projected: what one direction reads at every token of one text, as `projections.json` holds it and the page shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from stores.printed import Printed

PARTS = ("template", "prompt", "response", "image")


@dataclass(frozen=True)
class SeenPicture:
    """A picture as the model saw it (a data URI), and which tokens are its patches: `count` of them from `start` on,
    in rows of `columns`; 0 where the grid is unknown."""

    uri: str
    start: int
    count: int
    columns: int = 0


@dataclass(frozen=True, eq=False)
class Projected(Printed):
    """The coordinate along a direction at every token of a prompt and its response.

    `tokens`, `values` and `parts` ("template", "prompt", "response" or "image") have one entry a token; `scale` says in
    words what 0 and 1 are. `title` is the prompt as people read it.
    """

    prompt: str
    title: str
    condition: str
    direction: str
    site: str
    scale: str
    tokens: tuple[str, ...]
    values: Float[np.ndarray, " pos"]
    parts: tuple[str, ...]
    pictures: tuple[SeenPicture, ...] = ()

    def record(self) -> dict[str, Any]:
        """As JSON: the values at five digits."""
        facts = {name: getattr(self, name) for name in ("prompt", "title", "condition", "direction", "site", "scale")}
        return {
            **facts,
            "texts": list(self.tokens),  # a file's "tokens" are taken for keys, and blackened
            "values": [float(f"{value:.5g}") for value in self.values],
            "parts": list(self.parts),
            "pictures": [dict(vars(picture)) for picture in self.pictures],
        }

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Projected:
        """The same from JSON. Raises ValueError for anything but what `record` writes."""
        try:
            facts = {name: str(record[name]) for name in ("prompt", "title", "condition", "direction", "site", "scale")}
            tokens, parts = (tuple(str(each) for each in record[name]) for name in ("texts", "parts"))
            values = np.array([float(value) for value in record["values"]], np.float64)
            pictures = tuple(_picture(one, len(tokens)) for one in record.get("pictures", ()))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"a projection lacks or mistakes {error}: expected what wb.token_projections records, came a "
                f"{type(record).__name__}."
            ) from None
        if not len(tokens) == len(values) == len(parts) or not np.isfinite(values).all() or set(parts) - set(PARTS):
            raise ValueError(
                f"a projection has {len(tokens)} tokens, {len(values)} values and {len(parts)} parts: expected as many "
                f"of each, finite values, and parts among {', '.join(PARTS)}."
            )
        return cls(**facts, tokens=tokens, values=values, parts=parts, pictures=pictures)


def colour_scale(listed: Sequence[Projected]) -> float:
    """The value that gets the full colour, one for texts that are compared: the 98th percentile of all absolute values.
    Position 0 and the template do not count; their norms drown the others."""
    counted = [
        abs(float(value))
        for one in listed
        for place, (value, part) in enumerate(zip(one.values, one.parts, strict=True))
        if place and part != "template"
    ]
    top = float(np.percentile(counted, 98)) if counted else 0.0
    return top if top > 0 and math.isfinite(top) else 1.0


def _picture(one: Mapping[str, Any], tokens: int) -> SeenPicture:
    found = SeenPicture(str(one["uri"]), int(one["start"]), int(one["count"]), int(one["columns"]))
    fits = found.start >= 0 and found.count > 0 and found.start + found.count <= tokens
    if not fits or found.columns < 0 or (found.columns and found.count % found.columns):
        raise ValueError(
            f"a projection's picture has {found.count} patches from token {found.start} on in rows of {found.columns}, "
            f"in a text of {tokens} tokens: expected patches among the tokens, in whole rows."
        )
    return found
