"""ResultTable: rows come back equal, None included; a sweep resumes; the same commit protocol as activations."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_samples import shards

from stores import ActivationStore, ResultTable, StoreCorrupted, StoreError, StoreMismatch, Unit, UnknownName

SPEC = {"model": "tiny", "judge": "rule"}
ROWS = [
    {"cell": 0, "prompt": "p0", "score": 0.5, "right": True, "layer": "all", "text": "ü\0\n", "coefficient": None},
    {"cell": 0, "prompt": "p1", "score": None, "right": None, "layer": 3, "text": "", "coefficient": None},
    {"cell": 1, "prompt": "p0", "score": -math.inf, "right": False, "layer": 3, "text": None, "coefficient": None},
]


def new_table(path, plan=("a", "b", "c"), **changes) -> ResultTable:
    return ResultTable.create(path, **{"spec": SPEC, "plan": list(plan), "provenance": {}, **changes})


@pytest.fixture(params=["disk", "memory"])
def table(request, tmp_path) -> ResultTable:
    return new_table(tmp_path / "t" if request.param == "disk" else None)


def test_rows_come_back_equal_in_plan_order(table):
    table.commit("b", ROWS[2:])
    table.commit("a", ROWS[:2])
    assert table.rows() == ROWS and len(table) == 3
    assert [[type(value) for value in row.values()] for row in table.rows()] == [
        [type(value) for value in row.values()] for row in ROWS
    ]
    assert table.missing() == ["c"] and table.columns == list(ROWS[0])
    assert table.column("score") == [0.5, None, -math.inf]
    assert table.verify(deep=True) == []


def test_selection(table):
    table.commit("a", ROWS)
    assert table.rows(prompt="p0", right=True) == ROWS[:1]
    assert table.rows(score=None) == ROWS[1:2]
    assert table.rows(cell={0, 7}, layer=lambda layer: layer == 3) == ROWS[1:2]
    assert table.rows(prompt="nobody") == []
    with pytest.raises(UnknownName, match="No column 'colour': there are cell, prompt"):
        table.rows(colour=1)
    with pytest.raises(UnknownName):
        table.column("colour")


def test_a_column_that_a_unit_lacks_is_none_there(table):
    table.commit("a", [{"x": 1}])
    table.commit("b", [{"x": 2, "y": "new"}, {"y": "only"}])
    table.commit("c", [])
    assert table.rows() == [{"x": 1, "y": None}, {"x": 2, "y": "new"}, {"x": None, "y": "only"}]
    assert table.column("y") == [None, "new", "only"]


def test_pandas(table):
    pandas = pytest.importorskip("pandas", reason="an optional reader; comes with transformer-lens")
    table.commit("a", ROWS)
    frame = table.to_pandas()
    assert isinstance(frame, pandas.DataFrame) and list(frame.columns) == list(ROWS[0]) and len(frame) == 3


def test_what_does_not_fit_is_refused(table):
    with pytest.raises(ValueError, match="column 'x': a list in row 1"):
        table.commit("a", [{"x": 1}, {"x": [1]}])
    with pytest.raises(ValueError, match="column name"):
        table.commit("a", [{"x/y": 1}])
    with pytest.raises(ValueError, match="'z' is not in the plan"):
        table.commit("z", ROWS)
    assert table.missing() == ["a", "b", "c"] and len(table) == 0 and table.rows() == []


def test_numpy_numbers_are_numbers(table):
    table.commit("a", [{"i": np.int64(3), "f": np.float32(0.5), "b": np.bool_(True), "s": np.str_("x")}])
    assert table.rows() == [{"i": 3, "f": 0.5, "b": True, "s": "x"}]


def test_the_first_commit_of_a_unit_stays(table):
    assert table.commit("a", ROWS[:1]) is True
    assert table.commit("a", ROWS[1:]) is False
    assert table.rows() == ROWS[:1]


def test_resume_on_disk(tmp_path):
    new_table(tmp_path / "t").commit("b", ROWS)
    again = new_table(tmp_path / "t")
    assert again.missing() == ["a", "c"] and again.rows() == ROWS
    assert new_table(tmp_path / "t", plan=["a", "b", "c", "d"]).missing() == ["a", "c", "d"]
    assert ResultTable.open(tmp_path / "t").plan == ["a", "b", "c", "d"]
    assert new_table(tmp_path / "t", plan=[Unit("a", ())]).missing() == ["a", "c", "d"]
    with pytest.raises(StoreMismatch, match=r"spec\.judge: expected 'rule', came 'other'"):
        new_table(tmp_path / "t", spec={**SPEC, "judge": "other"})
    with pytest.raises(StoreMismatch, match="a store of results: expected one of activations"):
        ActivationStore.open(tmp_path / "t")


def test_lost_logs_and_damage(tmp_path):
    table = new_table(tmp_path / "t")
    table.commit("a", ROWS)
    for log in (tmp_path / "t" / "commits").iterdir():
        log.unlink()
    assert ResultTable.open(tmp_path / "t").rows() == ROWS
    shard = shards(tmp_path / "t")[0]
    whole, chance, found = shard.read_bytes(), np.random.default_rng(0), 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[int(chance.integers(len(whole)))] ^= 1 << int(chance.integers(8))
        shard.write_bytes(damaged)
        try:
            assert ResultTable.open(tmp_path / "t").rows() == ROWS, "other rows, and no error"
        except StoreError:
            found += 1
    assert found > 50
    shard.write_bytes(whole[:-7])
    with pytest.raises(StoreCorrupted, match=shard.name):
        table.rows()
    assert len(table.verify(deep=True)) == 1  # without a log, too


def test_equal_rows_give_equal_files(tmp_path):
    new_table(tmp_path / "a").commit("a", ROWS)
    time.sleep(1.1)  # HDF5 would write the second into each group
    new_table(tmp_path / "b").commit("a", ROWS)
    assert [p.read_bytes() for p in shards(tmp_path / "a")] == [p.read_bytes() for p in shards(tmp_path / "b")]


def test_a_large_spec_fits(tmp_path):
    """A sweep's spec lists all cells: beyond HDF5's 64 KiB for plain attributes, and beyond what the door lets in."""
    spec = {"cells": [{"layer": i, "text": "x" * 100} for i in range(20_000)]}
    table = new_table(tmp_path / "t", spec=spec)
    table.commit("a", ROWS)
    assert ResultTable.open(tmp_path / "t").spec == spec and table.verify(deep=True) == [] and table.rows() == ROWS


CELLS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(st.characters(codec=None), max_size=20))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["a", "b", "ü c"]), CELLS, min_size=1), max_size=5))
def test_any_rows_survive(tmp_path_factory, rows):
    """Whatever the mixture of types in a column, big integers, NaN and lone surrogates included."""
    table = new_table(tmp_path_factory.mktemp("t") / "t", plan=["a"])
    table.commit("a", rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    came = ResultTable.open(table.path).rows()
    assert len(came) == len(rows)
    for row, back in zip(rows, came, strict=True):
        for name in names:
            assert type(back[name]) is type(row.get(name))
            assert back[name] == row.get(name) or (back[name] != back[name] and row[name] != row[name])
