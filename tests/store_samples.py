"""Small stores with known content, for the tests of the stores room: what a row holds follows from its prompt alone."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np

from stores import ActivationStore, Block, Stream, Unit
from stores.commits import written

LAYERS, D_MODEL, VARIANTS = (0, 1, 5), 24, ("base", "tuned")


def stream(dtype: str = "float32", name: str = "resid_post") -> Stream:
    return Stream(name, LAYERS, D_MODEL, dtype)


def prompt_records(n: int) -> list[dict]:
    return [
        {"id": f"p{i}", "label": ["calm", "loud"][i % 2], "tags": {"topic": i % 3, "kind": "ü"}, "sha256": f"{i:064x}"}
        for i in range(n)
    ]


def planned(n: int, size: int = 4) -> list[Unit]:
    ids = [f"p{i}" for i in range(n)]
    return [Unit.of(ids[start : start + size]) for start in range(0, n, size)]


def expected(prompt_id: str, variant: str, layer: int) -> np.ndarray:
    """The row of this prompt in float32; small whole numbers and halves, exact in all three formats."""
    seed = int(prompt_id[1:]) * 100 + VARIANTS.index(variant) * 10 + layer
    return np.random.default_rng(seed).integers(-64, 64, D_MODEL).astype(np.float32) / 2


def encoded(values: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "bfloat16":
        return (values.astype("<f4").view("<u4") >> 16).astype("<u2")
    return values.astype(dtype)


def block(unit: Unit, dtype: str = "float32", reverse: str | None = None) -> Block:
    """All variants of all prompts of a unit; the rows of the variant `reverse` stand in the opposite order."""
    rows = [
        (prompt, variant)
        for variant in VARIANTS
        for prompt in (reversed(unit.prompt_ids) if variant == reverse else unit.prompt_ids)
    ]
    values = np.stack([[expected(prompt, variant, layer) for prompt, variant in rows] for layer in LAYERS])
    return Block(
        encoded(values, dtype),
        [prompt for prompt, _ in rows],
        [variant for _, variant in rows],
        np.full(len(rows), 7),
        np.arange(len(rows)) % len(unit.prompt_ids),
    )


def new_store(path: Path, n: int = 10, dtype: str = "float32", **changes) -> ActivationStore:
    options = {
        "streams": [stream(dtype)],
        "prompts": prompt_records(n),
        "plan": planned(n),
        "spec": {"model": "tiny", "scope": "last"},
        "provenance": {},
    }
    return ActivationStore.create(path, **{**options, **changes})


def filled_store(
    path: Path, n: int = 10, dtype: str = "float32", reverse: str | None = None, **changes
) -> ActivationStore:
    store = new_store(path, n, dtype, **changes)
    for unit in store.missing():
        store.commit(unit, {"resid_post": block(unit, dtype, reverse)})
    return store


def reseal(document: Path) -> None:
    """Gives store.json, or a segment of the plan, the digest that fits what somebody has made of it."""
    text = re.sub(r'(?<="digest": ")[0-9a-f]{64}', "0" * 64, document.read_text(), count=1)
    document.write_text(text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest(), 1))


def reseal_log(log: Path) -> None:
    """Gives each line of a log the check that fits what somebody has made of it."""
    records = [json.loads(line) for line in log.read_text().splitlines()]
    log.write_bytes(b"".join(written({k: v for k, v in record.items() if k != "line"}) for record in records))


def shards(path: Path) -> list[Path]:
    return sorted((path / "shards").rglob("*.h5"))


def everything(path: Path) -> dict[str, object]:
    """All that a reader can get out of the store at `path`, for equality."""
    store = ActivationStore.open(path)
    lists = {"ids": store.prompt_ids, "variants": store.variants, "positions": store.positions.tolist()}
    values = {site: store.values(site).tobytes() for site in store.sites}
    return {**lists, "tokens": store.token_ids.tolist(), **values}
