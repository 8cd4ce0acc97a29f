"""Disk full, input/output error, no permission, at every kind of write, fsync and publish of the pipeline: a clean
error that names the file, everything committed readable, nothing half-written, and the next run ends as if nothing had
been."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import LONG
from faults import ERRORS, calls, half_written, leftovers, places
from peft import LoraConfig, get_peft_model
from test_study import inputs  # noqa: F401
from tiny_models import FAMILIES
from tiny_training import ROWS, SETTINGS, direction, saved_base
from workbench_samples import cells_of

import workbench as wb
from hooks.site import Site
from stores import ActivationStore, ResultTable
from stores.errors import WriteFailed
from workbench.behaviour.judges import judge
from workbench.organisms import _current_data
from workbench.study import Study
from workbench.training.published import publish

QUIET = {"progress": False}
QUICK = 6  # places a pipeline in the quick suite


def rows_of(store: ActivationStore) -> dict[str, bytes]:
    """Every number of a store by its place: prompt, variant, position, site."""
    found = {}
    for site in store.sites:
        rows = store.at(site)
        keys = zip(rows.prompt_ids, rows.variants, rows.positions.tolist(), rows.values(site), strict=True)
        found |= {(site, prompt, variant, position): value.tobytes() for prompt, variant, position, value in keys}
    return found


def stores_in(folder: Path) -> list[Any]:
    """Every store below the folder that can be opened: one whose store.json is not there yet holds nothing."""
    found = []
    for path in sorted(folder.rglob("store.json")):
        kind = ActivationStore if b'"kind": "activations"' in path.read_bytes() else ResultTable
        found.append(kind.open(path.parent))
    return found


def committed(folder: Path) -> dict[Any, Any]:
    """All that can be read, by place; every shard against its hashes."""
    found: dict[Any, Any] = {}
    for store in stores_in(folder):
        assert store.verify(deep=True) == []
        name = store.path.relative_to(folder)
        if isinstance(store, ResultTable):
            found |= {(name, *(str(row.get(key)) for key in KEYS)): plain(row) for row in store.rows()}
        elif len(store.missing()) < len(store.plan):
            found |= {(name, *place): value for place, value in rows_of(store).items()}
    return found


def published(folder: Path) -> set[str]:
    """Names of the files outside the stores, which no run draws at random."""
    stores = [path.parent for path in folder.rglob("store.json")]
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and not any(path.is_relative_to(store) for store in stores)
    }


KEYS = ("cell", "condition", "prompt", "prompt_id", "variant", "sample", "judge", "measure")


def _wide(d_model: int) -> Any:
    site = Site(2)
    return wb.Directions.of([site], np.random.default_rng(0).normal(size=(1, d_model)))


def plain(row: dict[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in row.items()}


@pytest.fixture(scope="module")
def small(llama, many, questions, request, tmp_path_factory) -> dict[str, Callable[[Path], Any]]:
    """The pipeline in its smallest form: each writes into a folder, and goes on where it was stopped."""
    base = saved_base(tmp_path_factory.mktemp("base") / "llama")
    asked = questions[:2]
    tuned = get_peft_model(FAMILIES["llama"]()[0], LoraConfig(r=2, target_modules="all-linear"))

    def answers(folder: Path) -> None:
        table = wb.sample_answers(llama, asked, max_new_tokens=2, to=folder / "answers", **QUIET)
        wb.judge_answers(table, asked, [judge("rule:contains")], to=folder / "scores", **QUIET)

    def swept(folder: Path) -> None:
        settings = dict(judge=judge("rule:contains"), max_new_tokens=2, **QUIET)
        wb.sweep(llama, asked, cells_of(llama)[:1], to=folder / "s", capture_to=folder / "rows", **settings)

    def study(folder: Path) -> None:
        made = Study(folder, request.getfixturevalue("inputs"), command="python small.py")
        with made.phase("two cells"):
            where = dict(
                name="cells", condition="ablation", baseline="tuned", sample=True, questions=made.elsewhere[:4]
            )
            v = _wide(made.model.d_model)
            made.measure(made.model, [wb.Steer(v, layer=2, coefficient=-1.0)], detail="d", **where)
        made.finish()

    def data(folder: Path) -> None:
        _current_data(folder / "o", {"seed": 0, "domain": "capital", "answers": {}})

    writing = dict(at="response", responses="generate", max_new_tokens=2, max_tokens=60)
    return {
        "capture": lambda folder: wb.capture(llama, many[:3], to=folder / "s", max_tokens=60, **QUIET),
        "generated answers": lambda folder: wb.capture(llama, many[:2], to=folder / "s", **writing, **QUIET),
        "sweep": swept,
        "answers and scores": answers,
        "adapter": lambda folder: publish(folder / "a", {"key": "1"}, tuned.save_pretrained),
        "training": lambda folder: wb.train_lora(base, ROWS[:2], to=folder / "a", **{**SETTINGS, "steps": 1}),
        "study": study,
        "organism": data,
        "moments": lambda folder: wb.moments(llama, many[:3], to=folder / "m" / "m.h5", splits=2, **QUIET),
        "directions": lambda folder: wb.save_directions(direction(), folder / "v" / "v.safetensors"),
    }


PIPELINES = ["capture", "generated answers", "sweep", "answers and scores", "adapter", "moments", "directions"]
LONG_PIPELINES = ["training", "study", "organism"]


def assert_every_fault_is_clean(run: Callable[[Path], Any], tmp_path: Path, every: bool = False) -> tuple[int, int]:
    """Returns how many faults were met, and how many were played."""
    whole = tmp_path / "whole"
    whole.mkdir()
    with calls(whole) as seen:
        run(whole)
    truth, met = committed(whole), 0
    files = published(whole)
    found_places = places(seen)
    played = found_places if every else found_places[:: 1 + len(found_places) // QUICK]
    for n, place in enumerate(played):
        for number in ERRORS if every else [ERRORS[n % len(ERRORS)]]:
            folder = tmp_path / f"{n}-{number}"
            folder.mkdir()
            with calls(folder, place, number):
                try:
                    run(folder)
                except WriteFailed as error:
                    assert error.errno == number and str(folder) in str(error) and os.strerror(number) in str(error)
                    met += 1
            assert half_written(folder) == [] and leftovers(folder) == [], place
            found = committed(folder)
            assert all(truth[key] == value for key, value in found.items()), place
            run(folder)
            assert committed(folder) == truth and half_written(folder) == [] and leftovers(folder) == [], place
            assert published(folder) == files
    return met, len(played)


@pytest.mark.parametrize("name", PIPELINES)
def test_any_call_may_fail(small, name, tmp_path):
    """Each call on each kind of file, its first and its last use; a few of them here, all in the long suite."""
    met, played = assert_every_fault_is_clean(small[name], tmp_path)
    assert met >= 0.6 * played >= 2, "the others were met while leftovers were swept, or by nobody"


@LONG
@pytest.mark.parametrize("name", PIPELINES)
def test_any_call_may_fail_with_any_error(small, name, tmp_path):
    met, played = assert_every_fault_is_clean(small[name], tmp_path, every=True)
    assert met >= 0.6 * played


@LONG
@pytest.mark.parametrize("name", LONG_PIPELINES)
def test_any_call_of_the_slow_ones_may_fail(small, name, tmp_path):
    met, played = assert_every_fault_is_clean(small[name], tmp_path)
    assert met >= 0.6 * played >= 2
