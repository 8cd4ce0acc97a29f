"""A fault, and a kill, at every single write and fsync of a commit: a clean error, and whole rows."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from store_samples import block, everything, filled_store, new_store, shards

from stores import ActivationStore, Block, Stream, Unit

TESTS = Path(__file__).resolve().parent
CALLS = ["ftruncate", "pwrite", "fsync", "link", "write"]


class Failing:
    """A system call whose `at`-th use (from 0) fails; those before it do their work."""

    def __init__(self, call: str, at: int, number: int) -> None:
        self.real, self.at, self.number, self.used = getattr(os, call), at, number, 0

    def __call__(self, *arguments, **more):
        self.used += 1
        if self.used == self.at + 1:
            raise OSError(self.number, os.strerror(self.number))
        return self.real(*arguments, **more)


@pytest.mark.parametrize("bulk", [False, True])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("call", CALLS)
def test_every_call_of_a_commit_may_fail(tmp_path, monkeypatch, call, number, bulk):
    """Once each call has failed in its turn, the rows are those of a store that saw no fault."""
    truth = everything(filled_store(tmp_path / "truth", 4, "bfloat16").path)
    failed = 0
    for at in range(100):
        store = new_store(tmp_path / f"{at}", 6, "bfloat16", bulk=bulk)
        first, second = store.missing()
        store.commit(second, {"resid_post": block(second, "bfloat16")})
        with monkeypatch.context() as patch:
            patch.setattr(os, call, fault := Failing(call, at, number))
            try:
                store.commit(first, {"resid_post": block(first, "bfloat16")})
            except OSError as error:
                assert error.errno == number
        if fault.used <= at:
            break
        failed += 1
        for again in (store, ActivationStore.open(store.path)):
            assert again.verify(deep=True) == [] and second not in again.missing()
            np.testing.assert_array_equal(again.where(prompt_id={"p4", "p5"}).values("resid_post:0")[0], truth_of("p4"))
        assert list((store.path / "tmp").iterdir()) == []
        if first in store.missing():
            assert store.commit(first, {"resid_post": block(first, "bfloat16")})
        assert store.missing() == [] and store.verify(deep=True) == []
        rows = store.where(prompt_id=lambda name: name < "p4")
        assert {site: rows.values(site).tobytes() for site in rows.sites} == {site: truth[site] for site in rows.sites}
    # one a chunk and one a piece of metadata; the shard, its folder, the folder of folders and the log
    assert failed >= {"ftruncate": 1, "pwrite": 10, "fsync": 3, "link": 1, "write": 1}[call] and failed < 100


def truth_of(prompt: str) -> np.ndarray:
    from store_samples import expected

    return expected(prompt, "base", 0)


def test_nothing_is_named_before_it_is_durable(tmp_path, monkeypatch):
    """Power loss cannot be played here; the order of the calls that guard against it can be read."""
    store, done = new_store(tmp_path / "s"), []

    def noted(name: str):
        real = getattr(os, name)

        def call(target, *more):
            path = Path(target if isinstance(target, str | Path) else os.readlink(f"/proc/self/fd/{target}"))
            done.append((name, path.relative_to(store.path).parts[0], path.is_dir()))
            return real(target, *more)

        monkeypatch.setattr(os, name, call)

    for name in ("pwrite", "fsync", "link", "write"):
        noted(name)
    unit = store.missing()[0]
    store.commit(unit, {"resid_post": block(unit)})
    calls = [call for i, call in enumerate(done) if call != done[i - 1]]
    folders = [("fsync", "shards", True)]  # the new folder's own name first, in its parent
    written = [("pwrite", "tmp", False), ("fsync", "tmp", False), ("link", "tmp", False), ("fsync", "shards", True)]
    logged = [("write", "commits", False), ("fsync", "commits", False), ("fsync", "commits", True)]
    assert calls == folders + written + logged


@pytest.mark.parametrize("most", [1, 100, 4096])
def test_a_disk_that_takes_less_than_was_asked(tmp_path, monkeypatch, most):
    """pwrite may write a part of what it is given."""
    wanted = shards(filled_store(tmp_path / "a", 4).path)[0].read_bytes()
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: real(file, memoryview(data)[:most], offset))
    assert shards(filled_store(tmp_path / "b", 4).path)[0].read_bytes() == wanted


def test_a_log_line_that_was_cut_is_an_error_and_spoils_no_other(tmp_path, monkeypatch):
    store = new_store(tmp_path / "s")
    first, second, third = store.missing()
    store.commit(first, {"resid_post": block(first)})
    real = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: real(file, data[:20]))
        with pytest.raises(OSError, match="No space left"):
            store.commit(second, {"resid_post": block(second)})
    store.commit(third, {"resid_post": block(third)})
    logs = [log.read_text() for log in (store.path / "commits").iterdir()]
    assert sorted(log.count("\n") for log in logs) == [1, 1] and store.verify(deep=True) == [] and store.missing() == []


LIMITED = """
import os, resource, sys
sys.path.insert(0, {tests!r})
from store_samples import block, new_store
store = new_store(sys.argv[1])
first, second, _ = store.missing()
store.commit(first, {{"resid_post": block(first)}})
size = next(store.path.glob("shards/*/*.h5")).stat().st_size
os.ftruncate = lambda file, size: None  # otherwise this call meets the limit, before a byte is written
resource.setrlimit(resource.RLIMIT_FSIZE, (size - {lacking}, resource.RLIM_INFINITY))
try:
    store.commit(second, {{"resid_post": block(second)}})
except OSError as error:
    print(error.errno)
"""


@pytest.mark.parametrize("lacking", [1, 500, 5000])
def test_a_file_that_may_not_grow_is_a_clean_error(tmp_path, lacking):
    """The kernel's own refusal, after a part was written; the process lives, and what was committed is there."""
    code = LIMITED.format(tests=str(TESTS), lacking=lacking)
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "s")], cwd=TESTS.parent, capture_output=True, text=True
    )
    assert (run.returncode, run.stdout.strip()) == (0, str(errno.EFBIG)), run.stderr
    store = ActivationStore.open(tmp_path / "s")
    assert store.verify(deep=True) == [] and len(store) == 8 and list((tmp_path / "s" / "tmp").iterdir()) == []


KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from store_samples import block, new_store
calls = ("open", "ftruncate", "pwrite", "fsync", "link", "unlink", "write")

def killing(at, behind):
    used = 0
    def patched(real):
        def call(*arguments, **more):
            nonlocal used
            used += 1
            if used == at and not behind:
                os.kill(os.getpid(), signal.SIGKILL)
            out = real(*arguments, **more)
            if used == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return out
        return call
    for name in calls:
        setattr(os, name, patched(getattr(os, name)))

done = 0
for at in range(1, 200):
    store = new_store(sys.argv[1] + f"/{{at}}", 8, bulk=at % 2 == 0)
    first, second = store.missing()
    store.commit(second, {{"resid_post": block(second)}})
    child = os.fork()
    if child == 0:
        killing(at, behind=at % 3 == 0)
        store.commit(first, {{"resid_post": block(first)}})
        os._exit(0)
    done = os.waitpid(child, 0)[1]
    if done == 0:
        break
print(at, flush=True)
"""


def test_a_kill_at_every_system_call_leaves_a_whole_store(tmp_path):
    """SIGKILL before or behind each call of a commit that touches the disk, one process for each."""
    code = KILLED.format(tests=str(TESTS))
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=TESTS.parent, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    kills = int(run.stdout) - 1
    assert 20 < kills < 198, "at least one for each piece of metadata, and the last child finished"
    truth, published = everything(filled_store(tmp_path / "truth", 8).path), 0
    for at in range(1, kills + 1):
        store = ActivationStore.open(tmp_path / f"{at}")
        assert store.verify(deep=True) == [] and len(store.missing()) <= 1, at
        assert all(len(name.split(".")) == 5 for name in os.listdir(store.path / "tmp"))
        published += not store.missing()
        resumed = filled_store(store.path, 8)
        assert everything(resumed.path) == truth and resumed.verify(deep=True) == []
        assert os.listdir(store.path / "tmp") == [], "what the dead left is swept by whoever goes on"
    assert 0 < published < kills


def test_threads_commit_different_units_at_once(tmp_path):
    units = [Unit(f"u{i}", (f"p{i}",)) for i in range(24)]
    streams = [Stream("resid_post", (0, 1), 64, "float32")]
    store = new_store(tmp_path / "s", 24, streams=streams, plan=units)
    failed: list[Exception] = []

    def work(part: int) -> None:
        for i in range(part, 24, 4):
            values = np.full((2, 300, 64), i, np.float32)
            ids = units[i].prompt_ids * 300
            try:
                assert store.commit(
                    units[i], {"resid_post": Block(values, ids, ["base"] * 300, range(300), range(300))}
                )
            except Exception as error:
                failed.append(error)

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and store.missing() == [] and store.verify(deep=True) == []
    assert [int(row[0]) for row in store.values("resid_post:1")[::300]] == list(range(24))
