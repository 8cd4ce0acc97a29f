"""study.add takes every kind of result in one way: the tables of kinds are whole, and what is missing is asked for."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import workbench as wb
from workbench.behaviour import summary
from workbench.behaviour.pooled_texts import PooledAuroc
from workbench.behaviour.table_summary import plain_entry
from workbench.interventions.drift_runs import Retentions
from workbench.interventions.routing_built import BuiltDirections
from workbench.subspace.arrays import ArrayRows
from workbench.subspace.directions import Directions

BEHAVIOUR = Path(summary.__file__).parent
SITE = "resid_post:1"


def direction(length: float = 2.0) -> Directions:
    return Directions.of([SITE], np.eye(1, 6) * length)


def pooled(score: str) -> PooledAuroc:
    return PooledAuroc(score, 0.7, 0.02, 0.001, 30, 11, 5, (0.5, 0.6))


class Mine:
    """A result of a user's own."""

    def entries(self, *, of: str, **facts: Any) -> list[dict[str, Any]]:
        return [plain_entry("mine", 1.0, 3, {"condition": of, **facts})]


def test_no_function_of_entries_is_public():
    """One way: an object that `study.add` takes. The script knows the result, not the function that tells it."""
    assert not [name for name in wb.__all__ if name.endswith(("_entries", "_entry"))]
    for script in (BEHAVIOUR.parent.parent / "experiments").glob("*.py"):
        assert "entries" not in script.read_text(), script.name


def test_every_kind_of_entries_is_reached():
    """A function KIND_entries that stands in no table, in no method and in no other one is never told."""
    told = {of.__name__ for of in [*summary.ONE.values(), *summary.MANY.values()]}
    sources = [ast.parse(file.read_text()) for file in BEHAVIOUR.glob("*.py") if file.name != "summary.py"]
    made = {node.name for tree in sources for node in tree.body if isinstance(node, ast.FunctionDef)}
    called = {node.func.id for tree in sources for node in ast.walk(tree)
              if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}  # fmt: skip
    listed = {name for name in made if name.endswith("_entries") and not name.startswith("_")}
    assert len(listed) > 25 and not listed - told - called


def test_a_result_that_does_not_know_what_it_was_measured_on_asks():
    with pytest.raises(ValueError, match=r"Directions does not say .* expected condition=\.\.\. beside it"):
        wb.summarise(direction())
    with pytest.raises(ValueError, match=r"Mine does not say .* expected of=\.\.\."):
        wb.summarise(Mine())
    assert {one["condition"] for one in wb.summarise(direction(), condition="tuned")} == {"tuned"}


@pytest.mark.parametrize("found", ["something", 3.0, [direction(), "something"], np.eye(2)])
def test_what_is_no_result_is_refused_by_name(found):
    with pytest.raises(TypeError, match=r"summarise\((str|float|ndarray)\): expected a result of this workbench"):
        wb.summarise(found, condition="tuned")


def test_nothing_found_adds_nothing():
    assert wb.summarise(None) == wb.summarise([]) == wb.summarise({}) == []
    assert wb.summarise(Retentions({"a": None}), condition="stopped") == []


def test_lists_are_told_one_by_one_or_as_a_whole():
    both = wb.summarise([direction(2.0), direction(3.0)], condition="tuned")
    assert [one["value"] for one in both if one["metric"] == "norm"] == [2.0, 3.0]
    assert [one["detail"] for one in wb.summarise([pooled("loss"), pooled("zlib")])] == ["loss", "zlib"]
    assert wb.summarise(pooled("loss")) == wb.summarise([pooled("loss")]), "one is a list of one"
    assert wb.summarise({"x": direction()}, condition="tuned") == wb.summarise(direction(), condition="tuned")


def test_facts_go_into_every_entry_even_of_kinds_that_take_none():
    facts: Mapping[str, Any] = {"target": "t", "split": "s"}
    for found in (direction(), [pooled("loss")], Mine(), [plain_entry("m", 1.0, 1, {})]):
        entries = wb.summarise(found, condition="c", **({"of": "o"} if isinstance(found, Mine) else {}), **facts)
        assert entries and all(one["target"] == "t" and one["split"] == "s" for one in entries)


def test_a_result_of_ones_own_is_taken(tmp_path):
    (entry,) = wb.summarise([Mine()], of="here")
    assert entry["metric"] == "mine" and entry["condition"] == "here" and entry["interval"] is None


def test_a_direction_is_built_at_each_scope_from_its_own_rows():
    """The shift of each scope, fine-tune minus base, by the rows that were captured there."""
    rng = np.random.default_rng(0)
    base, shift = rng.standard_normal((10, 6)), {"image": np.eye(6)[0], "text": 3 * np.eye(6)[1]}
    rows = {
        scope: ArrayRows(
            {SITE: np.concatenate([base, base + one])},
            [*map(str, range(10))] * 2,
            variants=["base"] * 10 + ["tuned"] * 10,
        )
        for scope, one in shift.items()
    }
    built = wb.built_at(rows)
    assert list(built) == ["image", "text"]
    for scope, one in shift.items():
        np.testing.assert_allclose(built[scope].vectors[0], one, atol=1e-6)


def test_directions_by_where_they_were_built_are_a_kind_of_their_own():
    """None, where one could not be built, has no entry; the others are named by the place."""
    built = BuiltDirections({"image": direction(), "text": None})
    (entry,) = wb.summarise(built)
    assert (entry["metric"], entry["condition"], entry["value"]) == ("direction_norm", "image", 2.0)
    assert "text: nothing" in str(built) and built["text"] is None and len(built) == 2
