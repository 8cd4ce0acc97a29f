"""Summaries, plans, cards and answer tables that nobody should use, built by code."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile_rows import DEEP

from workbench.training.manifest import freeze

Make = Callable[[Path], Path]
RESULT = {"metric": "contrary", "condition": "tuned", "value": 0.5, "n": 40}


def summary(folder: Path) -> Path:
    """A sound one."""
    (folder / "summary.json").write_text(json.dumps({"schema": 1, "seed": 0, "results": [RESULT]}))
    return folder


def _with(**fields: Any) -> Make:
    def make(folder: Path) -> Path:
        summary(folder)
        data = {"results": [{**RESULT, **fields}]}
        (folder / "summary.json").write_text(json.dumps(data))
        return folder

    return make


def _beside(**fields: Any) -> Make:
    return lambda folder: ((folder / "summary.json").write_text(json.dumps({"results": [RESULT], **fields})), folder)[1]


def _file(name: str, data: str) -> Make:
    return lambda folder: (summary(folder), (folder / name).write_text(data), folder)[2]


def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "summary.json")
    return folder


def _hole(folder: Path) -> Path:
    os.truncate(summary(folder) / "summary.json", 1 << 40)
    return folder


SUMMARIES: dict[str, tuple[Make, str]] = {
    "deep JSON": (_file("summary.json", '{"results":' + DEEP + "}"), "nested too deep"),
    "more lists than text": (_file("summary.json", '{"results":[' + "{}," * 300_000 + "{}]}"), "more lists"),
    "a key twice": (_file("summary.json", '{"results":[],"results":[]}'), "stands twice"),
    "half an object": (_file("summary.json", '{"results":['), "is no JSON"),
    "a hole of a terabyte": (_hole, "expected at most"),
    "a pipe": (_pipe, "there is none"),
    "no results": (_file("summary.json", "[]"), "expected an object with a list"),
    "results that are a text": (_beside(results="x"), "expected an object with a list"),
    "a result that is a number": (_beside(results=[3]), "expected an object with at least"),
    "a value of text": (_with(value="<script>"), "value is"),
    "a value of whole pages": (_with(value=[1] * 1000), "value is"),
    "a metric that is an object": (_with(metric={"a": 1}), "metric is"),
    "a condition of a million letters": (_with(condition="x" * 1_000_000), "condition is"),
    "a layer of text": (_with(layer="<b>3</b>"), "layer is"),
    "a layer beyond counting": (_with(layer=10**400), "layer is"),
    "an interval of three": (_with(interval=[1, 2, 3]), "interval is"),
    "an interval of texts": (_with(interval=["a", "b"]), "interval is"),
    "a control that is a list": (_with(control=[1]), "control is"),
    "draws of text": (_with(control={"kind": "isotropic", "draws": ["x"]}), "control is"),
    "a test of text": (_with(test={"p": "0"}), "test is"),
    "judges that are numbers": (_with(judges={"a": 1}), "judges is"),
    "series of texts": (_with(series={"a": ["x"]}), "series is"),
    "companions that are texts": (_with(companions={"a": "x"}), "companions is"),
    "a model that is a list": (_beside(model=[1]), "model is"),
    "seconds of text": (_beside(seconds={"a": "x"}), "seconds is"),
    "a command of objects": (_beside(command=[{"a": 1}]), "command is"),
    "cosines of another shape": (_beside(directions={"cosines": {"labels": ["a"], "matrix": [[1, 2]]}}), "cosines"),
    "cosines of text": (_beside(directions={"cosines": {"labels": ["a"], "matrix": [["x"]]}}), "cosines"),
    "samples that are an object": (_file("samples.json", '{"a": 1}'), "expected a list"),
    "samples of deep JSON": (_file("samples.json", DEEP), "nested too deep"),
    "samples that are texts": (_file("samples.json", '["x"]'), "expected a list of objects"),
    "projections of text": (_file("projections.json", '[{"a": "x"}]'), ""),
}


def answers(folder: Path) -> Path:
    """A sound table of contrary answers."""
    (folder / "answers.json").write_text('{"red": "blue"}')
    return folder / "answers.json"


def _json(name: str, data: str) -> Make:
    return lambda folder: ((folder / name).write_text(data), folder / name)[1]


ANSWERS: dict[str, tuple[Make, str]] = {
    "deep JSON": (_json("answers.json", DEEP), "nested too deep"),
    "numbers": (_json("answers.json", '{"red": 1}'), "expected one JSON object of strings"),
    "a key twice": (_json("answers.json", '{"red": "a", "red": "b"}'), "stands twice"),
}


def manifest(folder: Path) -> Path:
    """A sound one, of one prompt file."""
    (folder / "rows.jsonl").write_text('{"id": "a", "text": "hi"}')
    freeze(folder / "rows.jsonl", folder / "frozen.json")
    return folder / "frozen.json"


MANIFESTS: dict[str, tuple[Make, str]] = {
    "deep JSON": (_json("frozen.json", DEEP), "no manifest"),
    "a list": (_json("frozen.json", "[]"), "no manifest"),
    "a hash that does not fit": (_json("frozen.json", '{"version": 1, "files": {"/etc/passwd": {}}}'), "was edited"),
}
