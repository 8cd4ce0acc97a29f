"""`repair`: what is damaged is moved away and never deleted; the same command then makes the store whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from store_samples import block, everything, filled_store, new_store, reseal, shards

from stores import ActivationStore, ResultTable, StoreCorrupted, publish
from stores.repairing import repair_store


def flipped(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 1
    path.write_bytes(data)


def logs(path: Path) -> list[Path]:
    return sorted((path / "commits").iterdir())


def quarantined(path: Path) -> list[str]:
    return sorted(entry.name for entry in (path / "quarantine").glob("*"))


def made_anew(path: Path) -> ActivationStore:
    store = new_store(path)
    for unit in store.missing():
        store.commit(unit, {"resid_post": block(unit)})
    return ActivationStore.open(path)


def dead_writer() -> str:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return f"{publish.owner_name().split('.')[0]}.{done.pid}.00000000"


def test_a_sound_store_is_left_alone(tmp_path):
    path = filled_store(tmp_path / "s").path
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    assert repair_store(path) == []
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before


@pytest.mark.parametrize("at", [0.02, 0.5, 0.9])
def test_a_damaged_shard_is_moved_away_and_made_anew(tmp_path, at):
    store = filled_store(tmp_path / "s")
    truth, shard = everything(store.path), shards(store.path)[1]
    flipped(shard, at)
    damaged = shard.read_bytes()
    moved, missing = repair_store(store.path)
    assert "moved shards/" in moved and "quarantine" in moved
    assert "missing: unit" in missing and "4 prompts" in missing and "the same command makes it anew" in missing
    (name,) = quarantined(store.path)
    assert (store.path / "quarantine" / name).read_bytes() == damaged
    again = made_anew(store.path)
    assert everything(store.path) == truth and again.verify(deep=True) == [] and repair_store(store.path) == []


def test_lost_logs_are_written_anew_from_the_shards(tmp_path):
    store = filled_store(tmp_path / "s", bulk=True)
    truth = everything(store.path)
    for log in logs(store.path):
        log.unlink()
    done = repair_store(store.path)
    assert len(done) == 3 and all("which no log had" in line for line in done)
    shards(store.path)[0].unlink()
    (missing,) = repair_store(store.path)
    assert "whose shard was committed and is gone; the same command makes it anew" in missing
    assert "and gone" in ActivationStore.open(store.path).verify()[0]  # so the log knows again
    made_anew(store.path)
    assert everything(store.path) == truth and ActivationStore.open(store.path).verify(deep=True) == []


def test_a_damaged_log_line_costs_no_shard(tmp_path):
    """Its line carries a hash of its own, so the shard is not blamed for it."""
    store = filled_store(tmp_path / "s")
    truth, (log,) = everything(store.path), logs(store.path)
    flipped(log)
    assert everything(store.path) == truth
    done = repair_store(store.path)
    assert "1 damaged line; 2 kept" in done[0] and "which no log had" in done[1] and len(done) == 2
    assert log not in logs(store.path) and len(quarantined(store.path)) == 1
    assert ActivationStore.open(store.path).verify(deep=True) == [] and everything(store.path) == truth


def test_a_log_torn_by_a_dead_writer_is_mended_and_that_of_a_living_one_left(tmp_path):
    store = filled_store(tmp_path / "s")
    (log,) = logs(store.path)
    log.write_bytes(log.read_bytes()[:-20])
    assert store.verify() == [] and all("torn" not in line for line in repair_store(store.path))
    assert log in logs(store.path)
    torn = log.rename(log.with_name(f"{dead_writer()}.jsonl"))
    done = repair_store(store.path)
    assert "torn at its end; 2 kept" in done[0] and torn not in logs(store.path)
    assert ActivationStore.open(store.path).verify(deep=True) == []


def test_leftovers_links_and_strange_files_go(tmp_path):
    store = filled_store(tmp_path / "s")
    truth = everything(store.path)
    link = shards(store.path)[2]
    (store.path / "tmp" / f"x.h5.{dead_writer()}").write_bytes(b"half")
    shutil.copy(shards(store.path)[0], store.path / "shards" / "copy.h5")
    (store.path / "commits" / "notes.txt").write_text("mine")
    outside = tmp_path / "outside.h5"
    link.rename(outside)
    link.symlink_to(outside)
    done = repair_store(store.path)
    assert done[0].startswith("swept x.h5") and len(quarantined(store.path)) == 3
    assert sum("no file of this store" in line for line in done) == 3 and "missing" in done[-1]
    assert outside.exists() and any((store.path / "quarantine" / name).is_symlink() for name in quarantined(store.path))
    assert everything(made_anew(store.path).path) == truth
    assert ActivationStore.open(store.path).verify(deep=True) == []


def test_what_is_in_quarantine_is_never_overwritten(tmp_path):
    store = filled_store(tmp_path / "s", 4)
    for round in range(3):
        flipped(shards(store.path)[0])
        repair_store(store.path)
        for unit in new_store(store.path, 4).missing():
            new_store(store.path, 4).commit(unit, {"resid_post": block(unit)})
        assert len(quarantined(store.path)) == round + 1


def test_tables_are_repaired_alike(tmp_path):
    table = ResultTable.create(tmp_path / "t", spec={}, plan=["a", "b"], provenance={})
    for key in table.plan:
        table.commit(key, [{"key": key}])
    flipped(table._folder.shard_path(table._folder.units["a"]))
    done = repair_store(table.path)
    assert len(done) == 2 and done[1] == "missing: unit 'a'; the same command makes it anew"
    table.commit("a", [{"key": "a"}])
    assert table.verify(deep=True) == [] and table.column("key") == ["a", "b"]


def test_what_cannot_be_repaired_is_refused_before_anything_moves(tmp_path):
    """The plan is in no shard."""
    store = filled_store(tmp_path / "s")
    flipped(shards(store.path)[0])
    manifest = store.path / "store.json"
    whole = manifest.read_text()
    manifest.write_text(whole.replace("tiny", "tidy"))
    with pytest.raises(StoreCorrupted, match="restore this file from a copy"):
        repair_store(store.path)
    reseal(manifest)
    with pytest.raises(StoreCorrupted):
        repair_store(store.path)
    assert not (store.path / "quarantine").exists()
    manifest.write_text(whole)
    assert len(repair_store(store.path)) == 2


def test_a_repair_that_is_stopped_goes_on(tmp_path, monkeypatch):
    store = filled_store(tmp_path / "s", 20)
    truth = everything(store.path)
    for shard in shards(store.path):
        flipped(shard)
    rename, calls = os.rename, []

    def failing(*names):
        calls.append(names)
        if len(calls) == 3:
            raise OSError(5, "Input/output error")
        rename(*names)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="was not written"):
        repair_store(store.path)
    assert len(quarantined(store.path)) == 2
    repair_store(store.path)
    assert len(quarantined(store.path)) == 5
    for unit in (again := new_store(store.path, 20)).missing():
        again.commit(unit, {"resid_post": block(unit)})
    assert everything(store.path) == truth and again.verify(deep=True) == []
