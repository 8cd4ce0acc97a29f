"""Frozen manifests: what a data set was, by SHA-256, so that it can be told later what in it has changed."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hooks.plain_files import Refused, json_file
from hooks.prompt import Prompt, read_prompts
from stores.files import write_file
from workbench.training.row_keys import image_hash

VERSION = 1


def freeze(paths: str | Path | Sequence[str | Path], to: str | Path) -> dict[str, Any]:
    """Writes the manifest of JSONL files into `to` and returns it: SHA-256 of every file, of every row's content and of
    its label and tags, of every picture, counts by label, and one `sha256` that stands for all of it.

    Paths are kept relative to the manifest, so that a folder may move as a whole. The same data give the same bytes. A
    manifest that says the same is left as it is; raises FileExistsError where `to` says something else.
    """
    to = Path(to).absolute()
    made = manifest(paths, to.parent)
    if to.exists():
        if changes := changed(to):
            raise FileExistsError(
                f"{to} was frozen from other data ({len(changes)} changes, first: {changes[0]}): give another file, "
                "or remove it."
            )
        if json.loads(to.read_text(encoding="utf-8")) == made:
            return made
        raise FileExistsError(f"{to} was frozen from other files than these: give another file, or remove it.")
    write_file(to, json.dumps(made, sort_keys=True) + "\n")
    return made


def manifest(paths: str | Path | Sequence[str | Path], folder: Path) -> dict[str, Any]:
    """What `freeze` writes, with paths relative to the folder. Raises PromptError on files that cannot be read."""
    listed = [paths] if isinstance(paths, str | Path) else list(paths)
    files, images = {}, {}
    for path in map(Path, listed):
        rows = read_prompts(path)
        files[_relative(path, folder)] = {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "rows": _row_hashes(rows),
            "labels": dict(sorted(Counter(str(row.label) for row in rows).items())),
            "count": len(rows),
        }
        images |= {_relative(picture, folder): image_hash(picture) for row in rows for picture in row.images}
    made = {"version": VERSION, "files": files, "images": images}
    return {**made, "sha256": _hash(made)}


def changed(frozen: str | Path) -> list[str]:
    """What differs from the manifest in this file, one line each; empty when the data are what they were.

    Raises ValueError on a file that is no manifest, or whose own hash does not fit what it says.
    """
    frozen = Path(frozen).absolute()
    then = _opened(frozen)
    out = []
    for name, file in then["files"].items():
        path = frozen.parent / name
        if not path.is_file():
            out.append(f"{name}: the file is gone")
            continue
        if hashlib.sha256(path.read_bytes()).hexdigest() != file["sha256"]:
            out += _changed_rows(name, file, path)
    for name, sha256 in then["images"].items():
        path = frozen.parent / name
        if not path.is_file():
            out.append(f"{name}: the picture is gone")
        elif image_hash(path) != sha256:
            out.append(f"{name}: the picture is another one")
    return out


def _changed_rows(name: str, file: dict[str, Any], path: Path) -> list[str]:
    try:
        listed = _row_hashes(read_prompts(path))
    except ValueError:
        return [f"{name}: the file cannot be read any more (`workbench check {path}` says why)"]
    then, now = ({row: hashes for row, *hashes in rows} for rows in (file["rows"], listed))
    out = [f"{name}: row {row!r} is gone" for row in then if row not in now]
    out += [f"{name}: row {row!r} is new" for row in now if row not in then]
    for row in then:
        if row in now and now[row] != then[row]:
            what = "content" if now[row][0] != then[row][0] else "label or tags"
            out.append(f"{name}: row {row!r} has another {what}")
    if not out and list(now) != list(then):
        out.append(f"{name}: the same rows in another order")
    return out or [f"{name}: other bytes, the same rows (spaces, or the order of keys)"]


def _opened(path: Path) -> dict[str, Any]:
    try:
        found = json_file(path)
    except Refused as error:
        raise ValueError(f"{path} is no manifest ({error}): expected a file that `freeze` wrote.") from None
    if not isinstance(found, dict) or found.get("version") != VERSION:
        raise ValueError(f"{path} is no manifest of version {VERSION}: expected a file that `freeze` wrote.")
    if _hash({name: value for name, value in found.items() if name != "sha256"}) != found.get("sha256"):
        raise ValueError(f"{path} was edited: its own hash does not fit what it says. Freeze the data again.")
    return found


def _row_hashes(rows: Sequence[Prompt]) -> list[list[str]]:
    """Id, hash of what a model sees, and hash of label and tags of every row, in order."""
    return [[row.id, row.content_hash, _hash([row.label, dict(row.tags)])] for row in rows]


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.absolute(), folder)).as_posix()
