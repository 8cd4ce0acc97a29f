"""Captures, sweeps, sums, trainings and organisms, killed and started again until they are done. n counts the kills.

The parent has torch and the model warm, and has never run backward (its threads would not outlive a fork).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from killing import NEVER, Tell, forked
from pipelines import answered, captured, organism, summed, swept, trained, watched
from resumed import Task, Units, killed_in_turn
from safetensors import safe_open
from samples import committed, rows_of
from tiny_models import llama

from hooks.load import load_model
from stores import ActivationStore, ResultTable
from workbench.subspace.streamed_file import load_moments


def run(n: int, scratch: Path, seed: int = 0) -> dict[str, int]:
    return killed_in_turn("pipeline_kills", tasks(scratch), n, scratch, seed)


def tasks(scratch: Path) -> dict[str, Task]:
    import peft  # noqa: F401  (warm)
    from transformers import Trainer  # noqa: F401

    torch.set_num_threads(1)
    base = scratch / "base"
    module, tokenizer, _ = llama(layers=2)
    module = module.bfloat16()
    for part in (module, tokenizer):
        part.save_pretrained(base)
    model = load_model(module, tokenizer)
    sweep = partial(swept, model)
    known: dict[str, int] = {}

    def rows(path: Path) -> Units:
        if not known:
            known.update(heights(sweep, scratch / "heights"))
        return rows_of_units(known, path)

    return {
        "capture": Task(partial(captured, model), rows_of, sound_store, calls=150, seconds=0.1),
        "sweep": Task(sweep, rows, sound_table, calls=300, seconds=0.2),
        "generate": Task(partial(answered, model), rows_and_answers, sound_store, calls=250, seconds=0.2),
        "train": Task(partial(trained, base), adapter_of, sound_adapter, calls=150, seconds=0.06, told=4),
        "moments": Task(partial(summed, model), moments_of, lambda path: [], calls=100, seconds=0.05),
        "watch": Task(partial(watched, model, base), adapter_and_drift, sound_adapter, calls=300, seconds=0.2),
        "organism": Task(organism, files_of_organism, lambda path: [], calls=2500, seconds=0.2, told=1),
    }


def heights(work: Callable[[Path, Tell], None], path: Path) -> dict[str, int]:
    """Rows of each unit of a sweep, as its commits say them."""

    def count(tell: Tell) -> None:
        commit = ResultTable.commit

        def told(self: Any, key: str, rows: Sequence[Any], *more: Any) -> bool:
            tell(f"{key}\t{len(rows)}")
            return commit(self, key, rows, *more)

        ResultTable.commit = told
        work(path, lambda _: None)

    ended = forked(count, NEVER)
    if ended.error:
        raise RuntimeError(ended.error)
    return {key: int(n) for key, n in (line.split("\t") for line in ended.told)}


def rows_of_units(heights: dict[str, int], path: Path) -> Units:
    """Of a table whose units have so many rows each, and the residuals that were captured beside it, once all are
    there. None is what a row of other units has, and this one lacks."""
    table = ResultTable.open(path)
    rows = ({name: cell for name, cell in row.items() if cell is not None} for row in table.rows())
    found: dict[str, Any] = {
        key: {i: repr(sorted(next(rows).items())).encode() for i in range(heights[key])}
        for key in committed(table.plan, table.missing())
    }
    if (path / "residuals" / "store.json").exists() and not ActivationStore.open(path / "residuals").missing():
        found["residuals"] = {
            (unit, *row): bits for unit, own in rows_of(path / "residuals").items() for row, bits in own.items()
        }
    return found


def rows_and_answers(path: Path) -> Units:
    """Residuals by unit, and the answers that belong to the units that are there."""
    found = {key: dict(rows) for key, rows in rows_of(path).items()}
    if not found:
        return found
    unit_of = {name: unit.key for unit in ActivationStore.open(path).plan for name in unit.prompt_ids}
    for row in ResultTable.open(path / "answers").rows():
        unit = unit_of[str(row["prompt_id"])]
        if unit in found:
            found[unit]["answer", row["prompt_id"], row["variant"]] = repr(sorted(row.items())).encode()
    return found


def adapter_of(path: Path) -> Units:
    """Every tensor of the adapter, bit for bit; nothing while there is no folder of its name."""
    folder = path / "adapter"
    if not folder.exists():
        return {}
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name).float().numpy().tobytes() for name in file.keys()}  # noqa: SIM118
    return {"adapter": {**tensors, "config": (folder / "adapter_config.json").read_bytes()}}


def adapter_and_drift(path: Path) -> Units:
    """The drift's table belongs to the adapter: whole when that is there, and readable all the while."""
    found: dict[str, Any] = {key: dict(own) for key, own in adapter_of(path).items()}
    if not (path / "drift" / "store.json").exists():
        return found
    rows = [repr(sorted(row.items())).encode() for row in ResultTable.open(path / "drift").rows()]
    if found:
        found["adapter"].update(enumerate(rows))
    return found


def moments_of(path: Path) -> Units:
    """Every sum of the finished ones, bit for bit; those on their way can be read as well."""
    if not (path / "sums.h5").exists():
        return {}
    stats = load_moments(path / "sums.h5", unfinished=True)
    done, planned = stats.info["units"]
    arrays = {
        f"{i}.{name}": array.tobytes() for i, part in enumerate(stats.parts) for name, array in part.arrays().items()
    }
    return {"moments": arrays} if done == planned else {}


def files_of_organism(path: Path) -> Units:
    """Every file, once the manifest, which is written first and last, says that they are there."""
    manifest = path / "organism.json"
    if not manifest.exists() or not json.loads(manifest.read_text())["files"]:
        return {}
    files = (file for file in sorted(path.rglob("*")) if file.is_file() and file.name != ".lock")
    return {"files": {str(file.relative_to(path)): file.read_bytes() for file in files}}


def sound_store(path: Path) -> list[str]:
    answers = path / "answers"
    of_answers = ResultTable.open(answers).verify(deep=True) if answers.is_dir() else []
    return [*ActivationStore.open(path).verify(deep=True), *of_answers]


def sound_table(path: Path) -> list[str]:
    return [
        *ResultTable.open(path).verify(deep=True),
        *ActivationStore.open(path / "residuals").verify(deep=True),
    ]


def sound_adapter(path: Path) -> list[str]:
    return [] if (path / "adapter" / "training.json").is_file() else [f"{path} has no record"]
