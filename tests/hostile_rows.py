"""Prompt files, tables and YAML that nobody should read, built by code."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile_pictures import picture

Make = Callable[[Path], Path]


def prompts(folder: Path) -> Path:
    """Sound ones, the second with a picture."""
    picture(folder)
    shown = [{"type": "image", "image": "a.png"}, {"type": "text", "text": "?"}]
    return _lines(folder, {"id": "a", "text": "hi"}, {"id": "b", "messages": [{"role": "user", "content": shown}]})


def _lines(folder: Path, *rows: Any, name: str = "rows.jsonl") -> Path:
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def _row(row: Any) -> Make:
    return lambda folder: _lines(folder, {"id": "a", "text": "hi"}, row)


def _shows(image: str) -> Make:
    """A prompt with this name for its picture; beside the data lies a sound picture, and one more outside."""

    def make(folder: Path) -> Path:
        (data := folder / "data").mkdir()
        picture(folder)
        (data / "link.png").symlink_to(folder / "a.png")
        (data / "there").symlink_to(folder)
        (data / "ring.png").symlink_to(data / "ring.png")
        os.mkfifo(data / "pipe.png")
        name = image.replace("HERE", str(folder))
        return _lines(data, {"messages": [{"role": "user", "content": [{"type": "image", "image": name}]}]})

    return make


def _pipe(name: str) -> Make:
    def make(folder: Path) -> Path:
        os.mkfifo(folder / name)
        return folder / name

    return make


def _hole(name: str, start: bytes = b"") -> Make:
    """A file of a terabyte that takes no place."""

    def make(folder: Path) -> Path:
        (folder / name).write_bytes(start)
        os.truncate(folder / name, 1 << 40)
        return folder / name

    return make


DEEP = "[" * 40_000 + "]" * 40_000
PROMPTS: dict[str, tuple[Make, str]] = {
    "a picture above the folder": (_shows("../a.png"), "lies outside"),
    "a picture by its whole path": (_shows("HERE/a.png"), "lies outside"),
    "a link to a picture elsewhere": (_shows("link.png"), "lies outside"),
    "a picture through a linked folder": (_shows("there/a.png"), "lies outside"),
    "a link to itself": (_shows("ring.png"), "does not exist|no name of a file"),
    "a pipe for a picture": (_shows("pipe.png"), "does not exist"),
    "a device for a picture": (_shows("/dev/zero"), "lies outside"),
    "the machine's own files": (_shows("/etc/passwd"), "lies outside"),
    "an address": (_shows("https://example.org/a.png"), "is an address"),
    "a file address": (_shows("file:///etc/passwd"), "is an address"),
    "an inline picture": (_shows("data:image/png;base64,AAAA"), "is an address"),
    "a NUL in a name": (_shows("a.png\0.txt"), "no name of a file"),
    "an endless name": (_shows("a" * 100_000), "no name of a file|does not exist"),
    "deep JSON": (_row('{"text": "x", "n": ' + DEEP + "}"), "nested too deep"),
    "JSON a little too deep": (_row('{"text": "x", "n": ' + "[" * 80 + "]" * 80 + "}"), "nested too deep"),
    "more lists than text": (_row('{"text": "x", "n": [' + "[]," * 300_000 + "[]]}"), "more lists and objects"),
    "a number of a million digits": (_row('{"text": "x", "n": ' + "1" * 1_000_000 + "}"), "thousands of digits"),
    "a number beyond floats": (_row('{"text": "x", "n": 1e999}'), "beyond what a float holds"),
    "NaN": (_row('{"text": "x", "n": NaN}'), "NaN is no JSON number"),
    "infinity": (_row('{"text": "x", "n": -Infinity}'), "-Infinity is no JSON number"),
    "a key twice": (_row('{"text": "x", "text": "y"}'), "stands twice"),
    "half a surrogate": (_row('{"text": "\\ud800"}'), "surrogate"),
    "an endless line": (_row('{"text": "' + "x" * (1 << 24) + '"}'), "line 2: more than"),
    "a hole of a terabyte": (_hole("rows.jsonl"), "line 1: more than"),
    "a list for a row": (_row("[1]"), "expected a JSON object"),
    "an object for an id": (_row({"text": "x", "id": {"a": 1}}), "the id is dict"),
    "a list of messages in messages": (_row({"messages": [[]]}), "a turn is"),
    "a role that is a list": (_row({"messages": [{"role": ["user"], "content": "x"}]}), "role"),
    "pictures that are numbers": (_row({"text": "x", "pictures": [3]}), "gives no path"),
    "half an object": (_row('{"text": "x"'), "not a JSON object"),
    "other bytes than UTF-8": (lambda folder: _binary(folder, b'{"text": "\xff"}'), "not UTF-8"),
    "UTF-16": (lambda folder: _binary(folder, '{"text": "x"}'.encode("utf-16")), "not UTF-8"),
    "NULs": (lambda folder: _binary(folder, bytes(1 << 16)), "not a JSON object"),
    "a pipe": (_pipe("rows.jsonl"), "does not exist"),
}


def _binary(folder: Path, data: bytes) -> Path:
    (folder / "rows.jsonl").write_bytes(data)
    return folder / "rows.jsonl"


def _only(row: str) -> Make:
    return lambda folder: _lines(folder, row)


def table(folder: Path) -> Path:
    """A sound one."""
    picture(folder)
    return _lines(folder, _HEADER, "what?,a.png,yes,no", name="rows.csv")


def _cells(text: str) -> Make:
    return lambda folder: (picture(folder), _lines(folder, _HEADER, text, name="rows.csv"))[1]


_HEADER = "user_prompt,image_path,safe_response,harmful_response"
TABLES: dict[str, tuple[Make, str]] = {
    "a picture above the table": (_cells("q,../../a.png,yes,no"), "outside"),
    "a picture by its whole path": (_cells("q,/etc/passwd,yes,no"), "absolute"),
    "an open quote": (_cells('"q,a.png,yes,no\n' + "x\n" * 100_000), "not CSV"),
    "an endless cell": (_cells("q" * 200_000 + ",a.png,yes,no"), "not CSV"),
    "an endless line": (_cells("q" * (1 << 24) + ",a.png,yes,no"), "line 2: more than"),
    "a hole of a terabyte": (_hole("rows.csv"), "line 1: more than"),
    "UTF-16": (lambda f: ((f / "rows.csv").write_text(_HEADER, encoding="utf-16"), f / "rows.csv")[1], "not UTF-8"),
    "columns named twice": (lambda f: _lines(f, "prompt,prompt", "a,b", name="rows.csv"), "twice"),
    "no known suffix": (lambda f: _lines(f, _HEADER, name="rows.exe"), "ends in"),
    "a pipe": (_pipe("rows.csv"), "does not exist"),
    "rows of deep JSON": (_only('{"user_prompt": ' + DEEP + "}"), "nested too deep"),
    "rows with a key twice": (_only('{"user_prompt": "a", "user_prompt": "b"}'), "stands twice"),
}


def questions(folder: Path) -> Path:
    """A sound set."""
    return _lines(folder, "- id: a", "  paraphrases: [hi]", name="a.yaml")


def _yaml(text: str) -> Make:
    return lambda folder: _lines(folder, text, name="a.yaml")


_LAUGHS = "\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)])  # fmt: skip
YAMLS: dict[str, tuple[Make, str]] = {
    "a Python object": (_yaml("- !!python/object/apply:os.system ['true']"), "could not determine a constructor"),
    "a Python name": (_yaml("- !!python/name:os.system"), "could not determine a constructor"),
    "aliases of aliases": (_yaml(_LAUGHS), "more than"),
    "an anchor in itself": (_yaml("a: &a [*a]"), "contains itself"),
    "deep YAML": (_yaml("[" * 20_000), "nested too deep|while parsing|expected"),
    "a key twice": (_yaml("a: 1\na: 2"), "stands twice"),
    "a hole of a terabyte": (_hole("a.yaml"), "expected at most"),
    "a pipe": (_pipe("a.yaml"), "does not exist"),
    "control characters": (_yaml("a: \x00\x07"), "special characters|control|not allowed"),
}
