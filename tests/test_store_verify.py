"""What `verify` finds: fast by names and sizes, deep by every byte."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from store_samples import block, filled_store, new_store, reseal_log, shards

from stores import ActivationStore, Block, ResultTable, StoreError


def log_of(path: Path) -> Path:
    (log,) = (path / "commits").iterdir()
    return log


def filled_table(path: Path, n: int = 3) -> ResultTable:
    table = ResultTable.create(path, spec={}, plan=[f"u{i}" for i in range(n)], provenance={})
    for key in table.missing():
        table.commit(key, [{"key": key, "x": 1.5}])
    return table


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


FAST = {
    "a shard is gone": (lambda path: shards(path)[1].unlink(), "committed .* and gone"),
    "a shard is shorter": (lambda path: os.truncate(shards(path)[1], 1000), "has 1000 bytes, expected"),
    "store.json changed": (lambda path: flipped(path / "store.json"), r"store\.json"),
    "store.json is a link": (
        lambda path: (path / "store.json").rename(path / "x") and (path / "store.json").symlink_to(path / "x"),
        "regular file",
    ),
    "the plan changed": (lambda path: flipped(path / "plan" / "000000.json"), r"plan/000000\.json"),
    "the plan is gone": (lambda path: (path / "plan" / "000000.json").unlink(), "units that are not in the plan"),
    "a log line changed": (lambda path: flipped(log_of(path)), "line 2: .*Mend"),
    "a stray copy": (lambda path: shutil.copy(shards(path)[0], path / "shards" / "copy.h5"), r"copy\.h5 is no file of"),
    "a shard of something else": (
        lambda path: shutil.copy(shards(path)[0], shards(path)[0].parent / "b.h5"),
        "no file",
    ),
    "a file among the logs": (lambda path: (path / "commits" / "x.txt").write_text(""), r"x\.txt is no file"),
    "a file in the plan": (lambda path: (path / "plan" / "1.json").write_text("{}"), r"1\.json is no file"),
    "a linked shard": (
        lambda path: shards(path)[0].rename(path / "x") and shards_link(path, path / "x"),
        "not a regular file",
    ),
    "a linked folder": (
        lambda path: (path / "shards").rename(path / "x") and (path / "shards").symlink_to(path / "x"),
        "symbolic link",
    ),
    "a linked log": (
        lambda path: log_of(path).rename(path / "x") and (path / "commits" / "x.jsonl").symlink_to(path / "x"),
        "regular file",
    ),
    "a pipe among the logs": (lambda path: os.mkfifo(path / "commits" / "x.jsonl"), "not a regular file"),
}


def shards_link(path: Path, to: Path) -> None:
    names = {unit: new_store(path)._folder.shard_path(unit) for unit in ActivationStore.open(path).plan}
    for place in names.values():
        if not place.exists():
            place.symlink_to(to)


@pytest.mark.parametrize("kind", ["activations", "results"])
@pytest.mark.parametrize("what", FAST)
def test_fast_finds_what_names_and_sizes_tell(tmp_path, what, kind):
    store = filled_store(tmp_path / "s") if kind == "activations" else filled_table(tmp_path / "s")
    if kind == "results" and what == "a linked shard":
        pytest.skip("the same code; the helper above knows activations")
    assert store.verify() == []
    damage, says = FAST[what]
    damage(tmp_path / "s")
    for found in (store.verify(), store.verify(deep=True)):
        assert found and any(re.search(says, line) for line in found), found


def test_fast_reads_no_values_and_deep_all_of_them(tmp_path):
    store = filled_store(tmp_path / "s", 40)
    flipped(shards(tmp_path / "s")[3])
    assert store.verify() == []
    (line,) = store.verify(deep=True)
    assert shards(tmp_path / "s")[3].name in line and "not those that were committed" in line and "Mend" in line


def test_deep_parses_no_file_whose_hash_is_wrong(tmp_path, monkeypatch):
    store = filled_store(tmp_path / "s", 4)
    flipped(shards(tmp_path / "s")[0])
    monkeypatch.setattr(ActivationStore, "checked", lambda *_: pytest.fail("parsed before it was hashed"))
    assert len(store.verify(deep=True)) == 1


@pytest.mark.parametrize("allowed", [False, True])
def test_deep_counts_what_is_not_finite(tmp_path, allowed):
    """Written by a caller who claimed to have looked."""
    store = new_store(tmp_path / "s", 4, spec={"allow_nonfinite": True} if allowed else {})
    (unit,) = store.missing()
    good = block(unit)
    good.values[0, 0, :3] = np.nan, np.inf, -np.inf
    store.commit(unit, {"resid_post": Block(**{**good.__dict__, "finite": True})})
    assert store.verify() == []
    found = store.verify(deep=True)
    assert found == [] if allowed else "3 values of resid_post are NaN or infinite" in found[0]


def test_a_store_that_may_not_be_written_is_verified_all_the_same(tmp_path, monkeypatch):
    store = filled_store(tmp_path / "s", bulk=True)

    def refused(*_, **__):
        raise PermissionError(13, "read-only")

    monkeypatch.setattr("stores.commits._append", refused)
    assert store.verify(deep=True) == []
    flipped(shards(tmp_path / "s")[0])
    assert len(store.verify(deep=True)) == 1


def test_a_log_of_units_that_were_never_planned_is_no_silence(tmp_path):
    """As after the loss of the last file of the plan: opening says so, and so does an open store."""
    store = filled_store(tmp_path / "s")
    log = log_of(tmp_path / "s")
    log.write_text(log.read_text().replace(store.plan[0].key, "another"))
    reseal_log(log)
    assert any("'another'" in line for line in store.verify())
    with pytest.raises(StoreError, match="1 units that are not in the plan"):
        ActivationStore.open(tmp_path / "s")


def test_verify_is_as_fast_as_it_says(tmp_path, monkeypatch):
    """No shard is opened when all are in the log."""
    store = filled_store(tmp_path / "s", 40)
    monkeypatch.setattr("stores.safe_h5.opened", lambda *_: pytest.fail("a shard was opened"))
    assert store.verify() == [] and store.verify() == []
