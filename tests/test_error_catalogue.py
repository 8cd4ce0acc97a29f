"""The catalogue of errors: every error class is raised by a call that a user makes, and says what was expected, what
came, and how to mend it."""

from __future__ import annotations

import ast
import builtins
import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import failing_calls as calls
import pytest
import torch
from failing_calls import At
from store_samples import filled_store
from test_errors import FILES, ROOT
from tiny_models import byte_tokenizer

import workbench as wb

# What one part says to another: whoever catches it says more, or takes another way. No user meets these.
INSIDE = {
    "CannotAsk": "an endpoint's answers say it as ValueError, a judge as a verdict without a score",
    "BrokenRow": "read_table collects it, line by line, into its report",
    "CannotReplay": "a recorded decode step falls back to the plain loop",
    "Fault": "an endpoint's: tried again, or said as EndpointError",
    "InstallRefused": "load_model says which package is missing, as ImportError",
    "NotStatic": "a static cache falls back to the growing one",
    "PictureRefused": "a page shows the picture's name instead",
    "RowsUnknown": "adapters row by row fall back to one adapter a pass",
}


@dataclass(frozen=True)
class Case:
    """`call` raises the error; `came`, `expected` and `mend` are what its message must say, each a regex."""

    call: Callable[[At], object]
    came: str
    expected: str
    mend: str


CATALOGUE: dict[str, Case] = {
    "NothingEdited": Case(calls.edits_nothing, "touched no position", "expected a scope that these", "at='all'"),
    "GeneratesWithoutCache": Case(
        calls.without_cache, r"read \(2, \d+\) tokens", "expected one a row", "Leave use_cache=False out"
    ),
    "SelfTestFailed": Case(
        calls.breaks_a_promise, r"zero edit +BROKEN", "Expected a model without hooks", "check=False"
    ),
    "UnsupportedArchitecture": Case(
        lambda at: wb.load_model(torch.nn.Sequential(torch.nn.Linear(2, 2)), byte_tokenizer()),
        "a Sequential without a config came",
        "expected a model of transformers",
        "Give a module of your own",
    ),
    "Refused": Case(
        calls.runs_code_of_the_checkpoint, "custom code", "inspect the repository", "trust_remote_code=True"
    ),
    "PromptError": Case(
        lambda at: wb.read_prompts(at.written("p.jsonl", '{"id": "a"}\n')),
        "line 1: neither messages nor text came",
        'expected "messages"',
        '"text": "..."',
    ),
    "StoreError": Case(
        calls.streams_mixed, r"resid_post 4, vision\.resid_post 2", "expected one list of rows", r"\.at\('resid_post'\)"
    ),
    "StoreMissing": Case(
        lambda at: wb.open_store(at.folder / "none"), "none holds no store", r"expected store\.json", "Mend: check the"
    ),
    "StoreMismatch": Case(
        calls.other_spec, "came 2", r"spec\.k: expected 1", "Mend: give the new spec a path of its own"
    ),
    "StoreCorrupted": Case(calls.damaged, r"\.h5 has \d+ bytes", r"expected \d+", "Mend: delete this shard and run"),
    "UnsafeFile": Case(
        calls.deep_json, r"store\.json nests its JSON more than 64 deep", "expected at most that", "no store is"
    ),
    "UnknownName": Case(lambda at: at.table.column("colour"), "No column 'colour'", "cell, score", "there are cell"),
    "NoRows": Case(
        lambda at: filled_store(at.folder / "s").where(label="quiet"), "label='quiet'", "'calm'", r"'loud' \(10 rows\)"
    ),
    "NotFinite": Case(calls.not_finite, "96 of 96 values are NaN", "expected none", "Mend: store in bfloat16"),
    "WriteFailed": Case(
        lambda at: wb.save_directions(at.v, at.folder / ("x" * 300 + ".safetensors")),
        "File name too long",
        "Nothing half-written",
        "Mend: check the disk",
    ),
    "SecretFound": Case(
        calls.secret_in_a_plan, "looks like a secret", "Expected it taken out", r"redacted\(...\) does"
    ),
    "PopulationFailed": Case(
        calls.population_with_a_bad_recipe,
        "'r' has no response",
        "expected a final assistant turn",
        "Mend the cause and call",
    ),
    "LostMask": Case(
        calls.labels_on_the_prompt, r"\d+ tokens have labels", "expected labels at these", "use `workbench.tr"
    ),
    "UnusableLabels": Case(
        calls.constant_labels, "constant within 'two'", "a label that varies within every model", "Leave the model out"
    ),
    "AnswersMissing": Case(calls.answers_missing, "2 of 2 answers .* are missing", "server was busy", "run it again"),
    "EndpointError": Case(calls.no_key, "No key", "OPENAI_API_KEY", "put one into the environment variable"),
    "RubricError": Case(
        lambda at: wb.rubric("alined"), "'alined' is unknown", "expected one of aligned", r"or the path of a \.yaml"
    ),
    "YamlError": Case(
        lambda at: wb.read_questions(at.written("q.yaml", "a: [1")), r"q\.yaml, line 1", "expected ','", "or ']'"
    ),
    "NeedsWeights": Case(
        lambda at: wb.endpoint("openai:tiny", cache=None).run,
        "has no 'run'",
        "need the model's weights",
        "wb.load_model",
    ),
    "ScoresMissing": Case(calls.scores_missing, "have no score", "spend cap", "call judge_answers again with the same"),
    "PseudoReplication": Case(
        calls.samples_of_few, "n is 2, not 6", "constant within each of 2 groups", "Average the rows"
    ),
    "PseudoReplicationWarning": Case(calls.warns_of_few, "n is 2, not 6", "constant within each", "Average the rows"),
    "UnitsFailed": Case(
        calls.units_fail,
        "1 units failed 3 times",
        "OSError: the disk is gone",
        "the same command tries the others again",
    ),
    "AblationIncomplete": Case(
        calls.comes_back, r"at resid_pre:2", "expected at most", "give the direction at that site too"
    ),
    "NotMeasurable": Case(calls.gap_of_two_families, "in 2 question families", r"expected \d+", "or more"),
    "DoesNotFit": Case(
        calls.too_long_for_the_device, "prompt 'a' alone does not fit", "device's memory", "Mend: fewer sites"
    ),
}


@cache
def error_classes() -> dict[str, str]:
    """Name -> module of every error that the three rooms define, but for private ones; read, not imported."""
    classes = {
        node.name: ({ast.unparse(base).split(".")[-1] for base in node.bases}, module_of(file))
        for file in FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ClassDef)
    }

    def is_error(name: str) -> bool:
        built_in = getattr(builtins, name, None)
        if isinstance(built_in, type) and issubclass(built_in, BaseException):
            return True
        return name in classes and any(map(is_error, classes[name][0]))

    return {name: module for name, (_, module) in classes.items() if is_error(name) and not name.startswith("_")}


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("name", CATALOGUE)
def test_an_error_says_what_came_what_was_expected_and_how_to_mend_it(name, tmp_path, monkeypatch, llama):
    case, cls = CATALOGUE[name], getattr(importlib.import_module(error_classes()[name]), name)
    with pytest.raises(cls) as caught:
        case.call(At(tmp_path, monkeypatch, llama))
    assert type(caught.value) is cls, "the class itself, not one that is a kind of it"
    said = str(caught.value)
    lacking = [part for part in ("came", "expected", "mend") if not re.search(getattr(case, part), said)]
    assert not lacking, f"{name} does not say {lacking}: {said}"


def test_the_catalogue_is_complete():
    assert set(CATALOGUE) | set(INSIDE) == set(error_classes()) and not set(CATALOGUE) & set(INSIDE)
