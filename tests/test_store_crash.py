"""Killed writers, torn and lost logs, two writers at once, full disks: what was acknowledged is there, and
nothing else."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from store_samples import block, expected, filled_store, new_store, shards

from stores import ActivationStore, StoreCorrupted, StoreMissing, publish

TESTS = Path(__file__).resolve().parent
WRITER = """
import sys
sys.path.insert(0, {tests!r})
from store_samples import block, new_store
store = new_store(sys.argv[1], 400)
print("ready", flush=True)
for unit in store.missing():
    store.commit(unit, {{"resid_post": block(unit)}})
    print(unit.key, flush=True)
"""


def writer(path: Path) -> subprocess.Popen[str]:
    code = WRITER.format(tests=str(TESTS))
    return subprocess.Popen(
        [sys.executable, "-c", code, str(path)], cwd=TESTS.parent, stdout=subprocess.PIPE, text=True
    )


def check_content(store: ActivationStore) -> None:
    for layer in (0, 5):
        values = store.values(f"resid_post:{layer}")
        for i, (prompt, variant) in enumerate(zip(store.prompt_ids, store.variants, strict=True)):
            np.testing.assert_array_equal(values[i], expected(prompt, variant, layer))


def test_sigkill_loses_nothing_that_was_acknowledged(tmp_path):
    """Ten kills at random moments of a capture; each run resumes the last, and none repeats a finished unit. A signal
    is sent so long after so many units, so that there are some however slow the disk is. A writer that was done before
    is no kill: then the next store is begun, so a fast machine counts as well."""
    stores = (tmp_path / str(n) for n in range(200))
    path, acknowledged, kills, in_all = next(stores), set[str](), 0, 0
    chance = random.Random(0)
    while kills < 10:
        process = writer(path)
        assert process.stdout is not None and process.stdout.readline().strip() == "ready"
        said = "".join(process.stdout.readline() for _ in range(chance.randrange(4)))
        time.sleep(chance.uniform(0.0, 0.06))
        process.send_signal(signal.SIGKILL)
        said = (said + process.stdout.read()).split("\n")
        process.wait()
        told = {key for key in said[:-1] if key}
        assert not told & acknowledged, "a finished unit was done again"
        acknowledged |= told
        in_all += len(told)
        store = ActivationStore.open(path)
        assert acknowledged <= {unit.key for unit in store.plan} - {unit.key for unit in store.missing()}
        if acknowledged:
            check_content(store)
        if process.returncode == -signal.SIGKILL:
            kills += 1
        else:
            assert process.returncode == 0 and store.missing() == []
            path, acknowledged = next(stores), set()
    assert in_all
    process = writer(path)
    process.communicate(timeout=300)
    finished = ActivationStore.open(path)
    assert finished.missing() == [] and finished.verify(deep=True) == [] and len(finished) == 800
    check_content(finished)
    assert not [entry for entry in (path / "tmp").iterdir() if f".{process.pid}." in entry.name]


def test_leftovers_of_the_dead_are_swept_and_of_the_living_kept(tmp_path):
    store = filled_store(tmp_path / "s")
    tmp = tmp_path / "s" / "tmp"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = publish.owner_name().split(".")[0]
    for name in (
        f"a.h5.{host}.{dead.pid}.00",
        f"b.h5.{host}.{os.getpid()}.00",
        "c.h5.elsewhere.1.00",
        "d.h5.elsewhere.2.00",
    ):
        (tmp / name).write_bytes(b"x")
    os.utime(tmp / "d.h5.elsewhere.2.00", (0, 0))
    new_store(tmp_path / "s")
    assert sorted(entry.name for entry in tmp.iterdir()) == [f"b.h5.{host}.{os.getpid()}.00", "c.h5.elsewhere.1.00"]
    assert store.verify(deep=True) == []


def test_a_torn_log_line_is_ignored(tmp_path):
    filled_store(tmp_path / "s")
    log = next((tmp_path / "s" / "commits").iterdir())
    whole = log.read_bytes()
    for cut in range(1, len(whole), 97):
        log.write_bytes(whole[:-cut])
        store = ActivationStore.open(tmp_path / "s")
        assert store.missing() == [] and len(store) == 20 and store.verify(deep=True) == []
    log.write_bytes(b'{"unit": 3}\n[]\n\xff\xfe\n' + whole)
    store = ActivationStore.open(tmp_path / "s")
    assert store.missing() == [] and len(store) == 20
    assert [f"line {n}: " in line for n, line in enumerate(store.verify(deep=True), 1)] == [True] * 3


def test_deleted_logs_are_rebuilt_from_the_shards(tmp_path):
    before = filled_store(tmp_path / "s").values("resid_post:1")
    for log in (tmp_path / "s" / "commits").iterdir():
        log.unlink()
    (tmp_path / "s" / "commits").rmdir()
    store = ActivationStore.open(tmp_path / "s")
    np.testing.assert_array_equal(store.values("resid_post:1"), before)
    assert store.missing() == [] and store.verify(deep=True) == []


def test_a_shard_of_another_unit_is_not_taken_for_this_one(tmp_path):
    filled_store(tmp_path / "s")
    first, second, *_ = shards(tmp_path / "s")
    second.write_bytes(first.read_bytes())
    with pytest.raises(StoreCorrupted, match=second.name):
        ActivationStore.open(tmp_path / "s").values("resid_post:0")
    for log in (tmp_path / "s" / "commits").iterdir():
        log.unlink()
    with pytest.raises(StoreCorrupted, match=r"unit is '.*', expected '.*delete this shard and run the same command"):
        ActivationStore.open(tmp_path / "s").missing()


def test_a_read_only_store_opens(tmp_path):
    before = filled_store(tmp_path / "s").values("resid_post:1")
    folders = [entry for entry in (tmp_path / "s").rglob("*") if entry.is_dir()] + [tmp_path / "s"]
    for folder in folders:
        folder.chmod(0o555)
    try:
        np.testing.assert_array_equal(ActivationStore.open(tmp_path / "s").values("resid_post:1"), before)
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_two_writers_of_one_unit_leave_one_shard(tmp_path):
    one, two = new_store(tmp_path / "s"), new_store(tmp_path / "s")
    unit = one.missing()[0]
    assert one.commit(unit, {"resid_post": block(unit)}) is True
    first = shards(tmp_path / "s")[0].read_bytes()
    changed = block(unit)
    changed.values[:] += 1
    assert two.commit(unit, {"resid_post": changed}) is False  # the first stays, whatever the second has
    assert [path.read_bytes() for path in shards(tmp_path / "s")] == [first]
    assert list((tmp_path / "s" / "tmp").iterdir()) == [] and two.verify(deep=True) == []


def test_the_second_writer_verifies_the_first(tmp_path):
    one, two = new_store(tmp_path / "s"), new_store(tmp_path / "s")
    unit = one.missing()[0]
    one.commit(unit, {"resid_post": block(unit)})
    shard = shards(tmp_path / "s")[0]
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(StoreCorrupted):
        two.commit(unit, {"resid_post": block(unit)})


def test_four_processes_share_one_capture(tmp_path):
    path = tmp_path / "s"
    processes = [writer(path) for _ in range(4)]
    for process in processes:
        process.communicate(timeout=300)
        assert process.returncode == 0
    store = ActivationStore.open(path)
    assert store.missing() == [] and store.verify(deep=True) == [] and len(store) == 800 and len(shards(path)) == 100
    assert list((path / "tmp").iterdir()) == []
    check_content(store)


def test_equal_numbers_give_equal_files(tmp_path):
    """In whatever second, and with whatever seal: HDF5 would write the time into each object."""
    a = filled_store(tmp_path / "a")
    time.sleep(1.1)
    b = filled_store(tmp_path / "b", bulk=True)
    assert [p.read_bytes() for p in shards(a.path)] == [p.read_bytes() for p in shards(b.path)]


def test_without_hard_links_nothing_is_overwritten_either(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    final = tmp_path / "final"
    assert publish.publish(b"first", final, tmp_path) is True
    assert publish.publish(b"second", final, tmp_path) is False
    assert final.read_bytes() == b"first" and [entry.name for entry in tmp_path.iterdir()] == ["final"]


def test_a_lost_shard_is_not_read_past(tmp_path):
    store = filled_store(tmp_path / "s")
    lost = shards(tmp_path / "s")[1]
    lost.unlink()
    with pytest.raises(StoreMissing, match=rf"(?s){lost.name} was committed.*run the same command again"):
        store.values("resid_post:0")
    assert "and gone" in store.verify(deep=True)[0]
    again = new_store(tmp_path / "s")
    (unit,) = again.missing()
    again.commit(unit, {"resid_post": block(unit)})
    assert again.verify(deep=True) == [] and len(again) == 20


def test_an_open_store_sees_what_others_commit(tmp_path):
    one, two = new_store(tmp_path / "s"), new_store(tmp_path / "s")
    first, second, *_ = one.missing()
    one.commit(first, {"resid_post": block(first)})
    view = two.rows()
    assert len(view) == 8
    one.commit(second, {"resid_post": block(second)})
    assert len(two) == 16 and len(view) == 8  # a view stays as it was taken
    assert two.info["units"] == "2 of 3"
