"""What a study leaves: `summary.json`, `samples.json`, `projections.json`, and the hashes that stand in them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stores.files import write_file
from stores.secret_text import redacted

SCHEMA = 1


def summary_of(study: Any, base: Any, other: Any, *, whole: bool) -> dict[str, Any]:
    """The study's `summary.json`: what was asked, of which models and files, and every number found."""
    hashes = hashes_of(base, other, study.files)
    return {
        "schema": SCHEMA,
        "question": study.question,
        "whole": whole or not study.question,
        "seed": study.seed,
        "model": {"name": hashes["models"]["base"]["model"], "kind": study.inputs.kind, **study.inputs.options},
        "hashes": hashes,
        "judge": [study.judge.name, study.judge.revision],
        "seconds": study.seconds,
        "command": study.command,
        "directions": None if study.cosines is None else {"cosines": study.cosines},
        "results": study.results,
    }


def write_record(folder: Path, summary: Mapping[str, Any], samples: Sequence[Any], projections: Sequence[Any]) -> None:
    """The three files, each whole, with every secret taken out."""
    write_file(folder / "summary.json", json.dumps(redacted(_to_nine_digits(summary)), indent=1))
    write_file(folder / "samples.json", json.dumps(redacted(samples), indent=1))
    write_file(folder / "projections.json", json.dumps(redacted(projections)))


def longest_seconds(folder: Path, seconds: Mapping[str, float]) -> dict[str, float]:
    """A run that only resumes takes seconds; the summary states those of the run that did the work."""
    file = folder / "summary.json"
    earlier = json.loads(file.read_text())["seconds"] if file.is_file() else {}
    return {name: max(spent, earlier.get(name, 0.0)) for name, spent in seconds.items()}


def hashes_of(base: Any, other: Any, files: Mapping[str, Path]) -> dict[str, Any]:
    """The identity of the models, sha256 of the data files, and of this code."""
    return {
        "models": {"base": base.identity, "other": None if other is None else other.identity},
        "data": {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()},
        "code": code_hash(),
    }


def _to_nine_digits(value: Any) -> Any:
    """The same with every float at nine significant digits: the bits behind them change with an array's place in
    memory, and two runs shall give one summary."""
    if isinstance(value, dict):
        return {name: _to_nine_digits(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_to_nine_digits(each) for each in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


def code_hash() -> str:
    """sha256 over the sources of hooks, stores and workbench: the numbers' own version, with or without git."""
    home = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for room in ("hooks", "stores", "workbench"):
        for file in sorted((home / room).rglob("*.py")):
            digest.update(str(file.relative_to(home)).encode() + file.read_bytes())
    return digest.hexdigest()
