"""stores.files: a file or a folder is whole under its name, or what was there stays; refusals of the disk by name."""

from __future__ import annotations

import errno
import os
import resource
import signal
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
from faults import calls, leftovers, places
from store_samples import new_store

from stores import publish
from stores.array_file import array_file
from stores.errors import StoreError, WriteFailed
from stores.files import append, drafted_folder, locked, open_log, sync_tree, write_file
from stores.safe_h5 import opened


def filled(folder: Path, text: str = "new") -> Path:
    with drafted_folder(folder) as draft:
        (draft / "sub").mkdir()
        write_file(draft / "sub" / "a.txt", text)
    return folder


WRITERS = {
    "file": lambda home: write_file(home / "deep" / "a.txt", "new"),
    "fast": lambda home: write_file(home / "deep" / "a.txt", "new", durable=False),
    "folder": lambda home: filled(home / "deep" / "folder"),
    "arrays": lambda home: write_file(home / "deep" / "m.h5", array_file({"format": "f"}, {"0/a": np.arange(5.0)})),
}


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("name", WRITERS)
def test_a_call_that_fails_leaves_nothing(tmp_path, name, number):
    (whole := tmp_path / "whole").mkdir()
    with calls(whole) as seen:
        final = WRITERS[name](whole)
    assert final.exists() and (name == "fast" or ("fsync" in {call for call, _ in seen}))
    for n, place in enumerate(places(seen)):
        if place.call == "fsync" and number == errno.EACCES:
            continue  # folders above, of others, are passed over: see test_faults_rare
        (home := tmp_path / str(n)).mkdir()
        with calls(home, place, number), pytest.raises(WriteFailed, match=os.strerror(number)) as raised:
            WRITERS[name](home)
        assert raised.value.errno == number and str(home) in str(raised.value) and "Mend: " in str(raised.value)
        assert leftovers(home) == []
        there = home / final.relative_to(whole)
        assert not there.exists() or place.call == "fsync", "only the fsync of the folder comes after the name"
        if name != "folder" or not there.exists():  # a folder is never replaced
            WRITERS[name](home)
        assert there.exists() and leftovers(home) == []


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = write_file(tmp_path / "a.txt", "old")
    with calls(tmp_path) as seen:
        write_file(path, "old")
    for place in places(seen):
        with calls(tmp_path, place), pytest.raises(WriteFailed):
            write_file(path, "new")
        assert path.read_text() == ("new" if place.call == "fsync" and place.kind == "." else "old"), place
        write_file(path, "old")
    with pytest.raises(ZeroDivisionError):
        write_file(path, lambda descriptor: 1 // 0)
    assert path.read_text() == "old" and [one.name for one in tmp_path.iterdir()] == ["a.txt"]


def test_what_dead_writers_left_is_swept(tmp_path):
    host = publish.owner_name().split(".")[0]
    dead, alive = f".a.txt.{host}.{2**22 + 1}.0123abcd", f".a.txt.{host}.{os.getpid()}.0123abcd"
    another = f".a.txt.bak.{host}.{2**22 + 1}.0123abcd"  # of a file whose name begins alike
    others = [f".b.txt.{host}.{2**22 + 1}.0123abcd", another, ".a.txt.elsewhere.7.0123abcd", "a.txt.notes"]
    for name in (dead, alive, *others):
        (tmp_path / name).write_text("")
    (tmp_path / f".f.{host}.{2**22 + 1}.0123abcd" / "deep").mkdir(parents=True)
    write_file(tmp_path / "a.txt", "x")
    filled(tmp_path / "f")
    assert {path.name for path in tmp_path.iterdir()} == {"a.txt", "f", alive, *others}
    publish.sweep(tmp_path)
    assert not (tmp_path / others[0]).exists() and (tmp_path / others[2]).exists()


def test_a_file_is_durable_before_it_has_its_name_and_its_name_after(tmp_path):
    draft = ".a.txt.OWNER"
    with calls(tmp_path) as seen:
        write_file(tmp_path / "a.txt", "x")
    written = [("open", draft), ("pwrite", draft), ("fsync", draft), ("replace", "a.txt"), ("fsync", ".")]
    assert list(seen) == written
    with calls(tmp_path) as seen:
        write_file(tmp_path / "a.txt", "x", durable=False)
    assert list(seen) == [call for call in written if call[0] != "fsync"]


def test_a_folder_is_durable_before_it_has_its_name_and_its_name_after(tmp_path):
    """What a library wrote into it without a sync, too."""
    publish.make_folder(tmp_path / "deep")
    with calls(tmp_path) as seen, drafted_folder(tmp_path / "deep" / "f") as draft:
        (draft / "sub").mkdir()
        (draft / "sub" / "theirs").write_text("")
    draft_of = "deep/.f.OWNER"
    order = [("fsync", "."), ("mkdir", draft_of), ("mkdir", f"{draft_of}/sub"), ("fsync", f"{draft_of}/sub/theirs")]
    order += [("fsync", f"{draft_of}/sub"), ("fsync", draft_of), ("rename", "deep/f"), ("fsync", "deep")]
    assert list(seen) == order


def test_a_folder_that_is_taken_is_left_alone(tmp_path):
    filled(tmp_path / "f", "first")
    with pytest.raises(FileExistsError, match="holds something already"):
        filled(tmp_path / "f", "second")
    assert (tmp_path / "f" / "sub" / "a.txt").read_text() == "first" and leftovers(tmp_path) == []
    (tmp_path / "empty").mkdir()
    assert (filled(tmp_path / "empty") / "sub" / "a.txt").read_text() == "new"
    with pytest.raises(RuntimeError, match="no errno here"), drafted_folder(tmp_path / "g") as draft:
        (draft / "a").write_text("")
        raise RuntimeError("no errno here")
    assert not (tmp_path / "g").exists() and leftovers(tmp_path) == []


@pytest.mark.parametrize("kind", ["rust", "pwrite"])
def test_a_disk_that_is_full_indeed(tmp_path, kind):
    """By the kernel's own limit on the size of a file, in a process of its own: safetensors writes past Python."""
    from safetensors.numpy import save_file

    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            if kind == "pwrite":
                write_file(tmp_path / "a", bytes(10_000))
            with drafted_folder(tmp_path / "a") as draft:
                save_file({"a": np.zeros(10_000)}, draft / "a.safetensors")
            os._exit(1)
        except WriteFailed as error:
            os._exit(0 if error.errno == errno.EFBIG and "make room" in str(error) else 2)
        except BaseException:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_log_grows_line_by_line_and_says_when_it_cannot(tmp_path):
    path = tmp_path / "deep" / "log"
    descriptor = open_log(path)
    append(descriptor, b"one\n", path)
    again = open_log(path)
    append(again, b"two\n", path)
    assert path.read_bytes() == b"one\ntwo\n" and path.stat().st_mode & 0o777 == 0o600
    with calls(tmp_path) as seen:
        append(descriptor, b"three\n", path)
    assert list(seen) == [("write", "deep/log"), ("fsync", "deep/log")]
    for place in places(seen):
        with calls(tmp_path, place), pytest.raises(WriteFailed, match=r"deep/log was not written: No space left"):
            append(descriptor, b"four\n", path)
    for one in (descriptor, again):
        os.close(one)


def test_one_holder_at_a_time(tmp_path):
    order = []

    def second():
        with locked(tmp_path / ".lock"):
            order.append("second")

    with locked(tmp_path / ".lock"):
        other = threading.Thread(target=second)
        other.start()
        other.join(0.05)
        order.append("first")
    other.join()
    assert order == ["first", "second"]


def test_an_error_that_is_no_refusal_keeps_its_class(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match="is a file: expected a folder"):
        write_file(tmp_path / "file" / "a", "x")
    failed = WriteFailed.of(Path("a"), OSError("a disk that went away"))
    assert failed.errno == errno.EIO and "a disk that went away" in str(failed) and isinstance(failed, StoreError)


def test_a_folder_whose_name_is_there_is_made_sure_of(tmp_path):
    with calls(tmp_path.parent) as seen:
        publish.make_folder(tmp_path)
    assert not seen
    with calls(tmp_path.parent) as seen:
        publish.make_folder(tmp_path, sure=True)
    assert [call for call, _ in seen] == ["fsync"]
    sync_tree(new_store(tmp_path / "s").path)


@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<i8", "|u1", "?"])
@pytest.mark.parametrize("shape", [(3, 5), (0, 4), (1,)])
def test_arrays_come_back_as_they_were(tmp_path, dtype, shape):
    array = (np.random.default_rng(0).normal(size=shape) * 9).astype(dtype)
    arrays = {"top": array, "0/in/side": array.T, "0/in/more": array + array}
    path = write_file(tmp_path / "m.h5", array_file({"format": "ü"}, arrays, {"sum": lambda one: str(one.sum())}))
    with h5py.File(path, "r") as file:
        for name, value in arrays.items():
            assert np.array_equal(file[name][()], value) and file[name].dtype == value.dtype
    with opened(path) as safe:
        assert safe.text("format") == "ü" and safe.text("sum", "/top") == str(array.sum())
        assert np.array_equal(safe.array("/0/in/side"), array.T)
