"""Prompt records: what a store keeps of each prompt, so that a row leads back to its label and tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stores.canonical import plain

_KEYS = {"id", "label", "tags", "sha256"}


def prompt_records(prompts: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], ...]:
    """Prompt records as a store keeps them: `id`, `label`, `tags`, `sha256`. Raises ValueError for doubles or strange
    keys."""
    records: dict[str, dict[str, Any]] = {}
    for prompt in prompts:
        if "id" not in prompt or not isinstance(prompt["id"], str) or not prompt["id"] or "\0" in prompt["id"]:
            raise ValueError(f"Prompt record {dict(prompt)!r}: expected an 'id' of non-empty text without NUL.")
        if extra := set(prompt) - _KEYS:
            raise ValueError(
                f"Prompt {prompt['id']!r} has {sorted(extra)}: expected {sorted(_KEYS)}; own keys belong into 'tags'."
            )
        if prompt["id"] in records:
            raise ValueError(f"Prompt id {prompt['id']!r} occurs twice: expected one record an id.")
        records[prompt["id"]] = plain(
            {
                "id": prompt["id"],
                "label": prompt.get("label"),
                "tags": prompt.get("tags") or {},
                "sha256": prompt.get("sha256"),
            },
            f"prompt {prompt['id']!r}",
        )
    return tuple(records.values())
