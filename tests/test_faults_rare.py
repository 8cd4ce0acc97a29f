"""Rare branches of the stores: what the fenced child allows, file systems that lack a call, races that are lost."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import numpy as np
import pytest
from hostile_files import SOUND
from store_samples import block, filled_store, new_store, planned, prompt_records, shards

from stores import ActivationStore, StoreError, StoreMissing, UnknownName, creating, frames, publish, untrusted
from stores.errors import WriteFailed


@pytest.mark.parametrize("kind", SOUND)
def test_the_child_reads_every_kind_whole(tmp_path, kind):
    assert untrusted._verified(SOUND[kind](tmp_path)) == []


def test_the_child_finds_what_verify_finds(tmp_path):
    path = filled_store(tmp_path / "s").path
    shard = shards(path)[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(StoreError):
        found = untrusted._verified(path)
        raise StoreError("; ".join(found))


@pytest.mark.parametrize(
    ("event", "facts"),
    [
        ("open", ("/x", "w", os.O_WRONLY | os.O_CREAT)), ("open", ("/x", "r+", os.O_RDWR)), ("os.system", ("ls",)),
        ("socket.connect", (None, ("a", 1))), ("subprocess.Popen", ("ls",)), ("os.rename", ("a", "b", -1, -1)),
        ("os.remove", ("a", -1)), ("os.fork", ()),
    ],
)  # fmt: skip
def test_the_child_may_not_write_or_start_anything(event, facts):
    with pytest.raises(PermissionError, match="store from strangers"):
        untrusted._tell(event, facts)


def test_the_child_names_what_it_opens(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(untrusted.os, "write", lambda descriptor, data: said.append((descriptor, data)))
    untrusted._tell("open", ("/some/\nfile", "rb", os.O_RDONLY))
    untrusted._tell("open", (str(tmp_path), None, os.O_RDONLY))  # a folder that is listed
    untrusted._tell("open", (7, "rb", os.O_RDONLY))
    untrusted._tell("import", ("json",))
    assert said == [(1, b"\nat /some/ file\n")]


def test_the_fence_is_as_low_as_asked_and_never_higher_than_it_was(monkeypatch):
    now = {resource.RLIMIT_CPU: (5, 7), resource.RLIMIT_NOFILE: (1024, 4096)}
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda what: now.get(what, unlimited))
    placed = {}
    monkeypatch.setattr(resource, "setrlimit", placed.__setitem__)
    untrusted._fence(1 << 20, 60)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    assert placed[resource.RLIMIT_CPU] == (7, 7) and placed[resource.RLIMIT_CORE] == (0, 0)
    assert placed[resource.RLIMIT_NOFILE] == (64, 64) and abs(placed[resource.RLIMIT_AS][0] - taken) < 64 << 20
    monkeypatch.setattr(untrusted, "_is_linux", lambda: False)
    untrusted._fence(1 << 20, 60)
    assert placed[resource.RLIMIT_AS] == (1 << 20, 1 << 20)


# File systems and races


def test_a_file_system_without_links_and_without_renameat2(tmp_path, monkeypatch):
    class Library:
        pass

    def no_links(*arguments, **named):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(publish.os, "link", no_links)
    monkeypatch.setattr(publish.ctypes, "CDLL", lambda *arguments, **named: Library())
    with pytest.raises(WriteFailed, match="a was not written"):
        publish.publish(b"x", tmp_path / "a", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_another_made_meanwhile_is_no_error(tmp_path, monkeypatch):
    real = Path.mkdir

    def late(self, *arguments, **named):
        real(self)
        raise FileExistsError(17, "File exists")

    monkeypatch.setattr(Path, "mkdir", late)
    publish.make_folder(tmp_path / "a")
    assert (tmp_path / "a").is_dir()


def test_a_folder_above_that_may_not_be_opened_stops_nobody(tmp_path, monkeypatch):
    """Such as /home of mode 711; a disk that fails does."""
    real, number = os.open, [13]

    def refused(path, *more, **named):
        if Path(path) == tmp_path:
            raise OSError(number[0], os.strerror(number[0]))
        return real(path, *more, **named)

    publish.make_folder(tmp_path / "a" / "b")
    monkeypatch.setattr(publish.os, "open", refused)
    new_store(tmp_path / "a" / "b")
    publish.make_folder(tmp_path / "a" / "b", sure=True)
    number[0] = 5
    with pytest.raises(WriteFailed, match="Input/output error"):
        publish.make_folder(tmp_path / "a" / "b", sure=True)


def test_what_may_not_be_removed_stops_no_writer(tmp_path, monkeypatch):
    host = publish.owner_name().split(".")[0]
    (tmp_path / f"a.{host}.{2**22 + 1}.0123abcd").write_text("")
    monkeypatch.setattr(Path, "unlink", lambda self, **named: (_ for _ in ()).throw(PermissionError(13, "no")))
    assert publish.sweep(tmp_path) == []


@pytest.mark.parametrize(("error", "alive"), [(ProcessLookupError, False), (PermissionError, True), (None, True)])
def test_who_is_alive(monkeypatch, error, alive):
    def kill(pid, number):
        if error is not None:
            raise error

    monkeypatch.setattr(publish.os, "kill", kill)
    assert publish._alive(7) is alive


def test_a_store_in_place_of_a_file_is_refused(tmp_path):
    (tmp_path / "s").write_text("")
    with pytest.raises(StoreMissing, match="is a file: expected a folder"):
        new_store(tmp_path / "s")


def test_who_is_late_with_a_new_store_puts_his_plan_behind(tmp_path, monkeypatch):
    """Another writer's store.json and plan stand there just before ours is published."""
    real, first = creating.publish.publish, iter([True])

    def late(content, final, tmp):
        if final.name == "store.json" and next(first, False):
            new_store(tmp_path / "s", 4)
        return real(content, final, tmp)

    monkeypatch.setattr(creating.publish, "publish", late)
    store = new_store(tmp_path / "s", 10)
    assert [unit.prompt_ids for unit in store.plan] == [unit.prompt_ids for unit in planned(10)]
    assert list(store.prompts) == [record["id"] for record in prompt_records(10)]
    for unit in store.missing():
        store.commit(unit, {"resid_post": block(unit)})
    assert ActivationStore.open(tmp_path / "s").verify(deep=True) == []


def test_an_append_that_never_finds_a_place_says_so(tmp_path, monkeypatch):
    new_store(tmp_path / "s", 4)
    tries = []
    monkeypatch.setattr(creating, "_TRIES", 3)
    monkeypatch.setattr(creating.time, "sleep", tries.append)
    monkeypatch.setattr(creating.Manifest, "published_segment", lambda self, segment, path: None)
    with pytest.raises(StoreError, match="3 appends found their place in plan/ taken"):
        new_store(tmp_path / "s", 10)
    assert len(tries) == 3


# Names that are asked for


def test_what_is_not_there_is_named(tmp_path):
    store = filled_store(tmp_path / "s", 4)
    with pytest.raises(ValueError, match="expected at least 1 row a batch"):
        next(iter(store.batches("resid_post:0", size=0)))
    with pytest.raises(UnknownName, match="Layer 3 of resid_post is not stored"):
        store._folder.manifest.streams[0].layer_index(3)
    with pytest.raises(ValueError, match="each name once"):
        new_store(tmp_path / "t", streams=[])
    rows = store.rows()
    assert rows.d_model("resid_post:0") == store.d_model("resid_post:0") == 24 and "resid_post 8 rows" in repr(rows)
    assert len(store.where(prompt_id="p0", position=7, token_id=0)) == 2


def test_rows_as_a_table_of_text():
    rows = [{"a": "<b>", "b": 0.123456, "c": None}, {"a": "x" * 300, "b": 2}]
    text = frames.html_table("two & more", [*rows, *rows], shown=3)
    assert "&lt;b&gt;" in text and "0.1235" in text and "and 1 more rows" in text and "two &amp; more" in text
    assert "x" * 197 + "..." in text and "x" * 198 not in text and frames.html_table("none", []).count("<td>") == 0
    pandas = pytest.importorskip("pandas")
    frame = frames.data_frame([{"a": 1}, {"a": 2}], ["a"])
    assert isinstance(frame, pandas.DataFrame) and np.array_equal(frame["a"], [1, 2])
