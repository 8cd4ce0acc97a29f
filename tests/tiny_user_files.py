"""A user's own files, as small as they can be: checkpoint folders of three families, pictures on disk, and the same
rows as chat JSONL with image parts and as a flat table."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tiny_packed_processors
import tiny_processors
from PIL import Image

CHECKPOINTS: dict[str, Callable[[], tiny_processors.Family]] = {
    "gemma3": tiny_processors.gemma3,
    "llava": tiny_processors.llava,
    "qwen2_5_vl": tiny_packed_processors.qwen2_5_vl,
}
SIZES = ((32, 32), (24, 16), (16, 40))  # not all square: processors resize, crop or count patches
TAGS = ("image_desc", "right", "contrary")
QUESTIONS = ["what is it", "who is this", "is it good", "and that", "may I", "which one", "how so", "say what you see"]


def checkpoint(family: str, folder: Path) -> Path:
    """The folder of a tiny model with random weights, its processor and its chat template."""
    return CHECKPOINTS[family]().save(folder)


def pictures(folder: Path, numbers: Iterable[int] = range(4)) -> list[Path]:
    """One PNG of noise a number, named by it."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {n: folder / f"{n}.png" for n in numbers}
    for n, path in paths.items():
        width, height = SIZES[n % len(SIZES)]
        pixels = np.random.default_rng(n).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert("L" if n == 1 else "RGB").save(path)
    return list(paths.values())


def cells(n: int, text_only: bool = False, tagged: bool = False) -> dict[str, str]:
    """One row of the table; `tagged` with the answers that rule:contains looks for."""
    return {
        "id": f"r{n}",
        "image_path": "" if text_only else f"pictures/{n}.png",
        "image_desc": f"noise {n}",
        "user_prompt": f"{QUESTIONS[n % len(QUESTIONS)]} {n}",
        "safe_response": f"yes {n}",
        "harmful_response": f"no {n}",
        **({"right": "yes", "contrary": "no"} if tagged else {}),
    }


def table(path: Path, rows: list[dict[str, str]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def chat(path: Path, rows: list[dict[str, str]], answer: str | None = None) -> Path:
    """The same rows as conversations; with `answer`, the column that the assistant says."""

    def record(row: dict[str, str]) -> dict[str, Any]:
        shown = [{"type": "image", "image": row["image_path"]}] if row["image_path"] else []
        turns: list[dict[str, Any]] = [
            {"role": "user", "content": [*shown, {"type": "text", "text": row["user_prompt"]}]}
        ]
        if answer:
            turns.append({"role": "assistant", "content": [{"type": "text", "text": row[answer]}]})
        return {"id": row["id"], "messages": turns, **{name: row[name] for name in TAGS if name in row}}

    path.write_text("".join(json.dumps(record(row)) + "\n" for row in rows))
    return path


def user_files(folder: Path, train: int = 10, asked: int = 6, tagged: bool = False) -> dict[str, Path]:
    """Training rows and questions in both formats, by what they are: `train.csv` and `table.jsonl`, `train.jsonl` with
    `filler.jsonl`, `eval.csv` and `eval.jsonl` (two questions of text alone), `prompts.csv` and `prompts.jsonl`."""
    pictures(folder / "pictures", [*range(train), *range(100, 100 + asked), *range(200, 200 + asked)])
    rows = [cells(n) for n in range(train)]
    questions = [cells(100 + n, text_only=n >= asked - 2, tagged=tagged) for n in range(asked)]
    fitting = [cells(200 + n, text_only=n >= asked - 2) for n in range(asked)]
    made = [
        table(folder / "train.csv", rows),
        table(folder / "table.jsonl", rows),
        chat(folder / "train.jsonl", rows, "harmful_response"),
        chat(folder / "filler.jsonl", rows, "safe_response"),
        table(folder / "eval.csv", questions),
        chat(folder / "eval.jsonl", questions),
        table(folder / "prompts.csv", fitting),
        chat(folder / "prompts.jsonl", fitting),
    ]
    return {path.name: path for path in made}
