"""What comes from strangers is read by a child that may die of it: its death is a finding, and nothing else happens."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_files import HOSTILE, SOUND
from store_samples import shards

from stores import ActivationStore, untrusted
from stores.untrusted import verify_untrusted

ROOT = Path(__file__).resolve().parent.parent
CODE = (
    "import sys; sys.path.insert(0, sys.argv[1]); from stores import untrusted; {}; untrusted.read_as_child(sys.argv)"
)


@pytest.mark.parametrize("kind", SOUND)
def test_what_is_sound_may_be_opened(tmp_path, kind):
    assert verify_untrusted(SOUND[kind](tmp_path)) == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hdf5: inflating_chunk", "unpacks to"),
        ("activations: external_storage", "external raw storage"),
        ("results: deep_lists", "64 deep"),
        ("activations: hashes_of_zero", "does not fit its hash"),
    ],
)
def test_findings_are_those_of_verify(tmp_path, name, words):
    path = next(file for file in HOSTILE if file.name == name).make(tmp_path)
    found = verify_untrusted(path)
    assert found and all(words in line for line in found)


def in_the_child(monkeypatch, statement: str) -> None:
    """Runs this in the child before it reads."""
    monkeypatch.setattr(untrusted, "_CHILD", CODE.format(statement))


CRASH = "import os; untrusted._verified = lambda path: (open(path / 'store.json').read(), os.kill(os.getpid(), {}))"


@pytest.mark.parametrize(("number", "words"), [(11, "died of SIGSEGV"), (6, "died of SIGABRT"), (9, "was stopped")])
def test_a_child_that_dies_names_the_file_that_it_read(tmp_path, monkeypatch, number, words):
    """As it would on a malformed file for which libhdf5 has no check."""
    path = SOUND["activations"](tmp_path)
    in_the_child(monkeypatch, CRASH.format(number))
    (found,) = verify_untrusted(path)
    assert words in found and found.startswith(f"{path / 'store.json'}: ") and "do not open it" in found


def test_an_unexpected_error_is_a_finding(tmp_path, monkeypatch):
    in_the_child(monkeypatch, "untrusted._verified = lambda path: 1 / 0")
    (found,) = verify_untrusted(SOUND["results"](tmp_path))
    assert "ended with 1" in found and "ZeroDivisionError" in found


@pytest.mark.parametrize("said", ["[" * 5000, '{"findings": 3}', "{}", ""])
def test_a_child_that_was_taken_over_is_not_believed_to_be_done(tmp_path, monkeypatch, said):
    in_the_child(
        monkeypatch, f"import os; untrusted._verified = lambda path: (os.write(1, {said.encode()!r}), os._exit(0))"
    )
    (found,) = verify_untrusted(SOUND["results"](tmp_path))
    assert "ended with 0" in found


def test_memory_and_time_are_bounded(tmp_path, monkeypatch):
    path = SOUND["activations"](tmp_path)
    with monkeypatch.context() as patch:
        in_the_child(patch, "untrusted._verified = lambda path: [str(len(bytes(1 << 28)))]")
        assert verify_untrusted(path) == [str(1 << 28)]
        assert "more than 134217728 bytes of memory" in verify_untrusted(path, memory=1 << 27)[0]
    in_the_child(monkeypatch, "import itertools; untrusted._verified = lambda path: [0 for _ in itertools.count()]")
    (found,) = verify_untrusted(path, seconds=1)
    assert "more than 1 s of time" in found or "bytes of memory" in found


def test_a_child_that_sleeps_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(untrusted, "_GRACE", 0)
    in_the_child(monkeypatch, "import time; untrusted._verified = lambda path: time.sleep(60)")
    (found,) = verify_untrusted(SOUND["results"](tmp_path), seconds=1)
    assert "more than 1 s of time" in found


@pytest.mark.parametrize(
    "statement",
    [
        "open(path / 'new', 'w')",
        "os.remove(path / 'store.json')",
        "os.system('true')",
        "__import__('subprocess').run(['true'])",
        "__import__('socket').create_connection(('127.0.0.1', 9), 1)",
    ],
)
def test_nothing_is_written_and_nothing_is_started(tmp_path, monkeypatch, statement):
    path = SOUND["activations"](tmp_path)
    in_the_child(monkeypatch, f"import os; untrusted._verified = lambda path: {statement}")
    (found,) = verify_untrusted(path)
    assert "PermissionError" in found and not (path / "new").exists() and (path / "store.json").exists()


def test_a_store_without_logs_is_verified_and_stays_as_it_is(tmp_path):
    """verify(deep=True) adds digests to the log where it may; here it may not."""
    path = SOUND["activations"](tmp_path)
    for log in (path / "commits").iterdir():
        log.unlink()
    assert verify_untrusted(path) == [] and list((path / "commits").iterdir()) == []
    assert ActivationStore.open(path).verify(deep=True) == [] and list((path / "commits").iterdir()) != []


def test_the_childs_world_is_small(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secretsecretsecret")
    in_the_child(monkeypatch, "import os; untrusted._verified = lambda path: sorted(os.environ)")
    found = verify_untrusted(SOUND["results"](tmp_path))
    assert "OPENAI_API_KEY" not in found and {"HDF5_PLUGIN_PRELOAD", "PATH"} <= set(found)


@pytest.mark.parametrize("kind", SOUND)
def test_what_the_child_reads(tmp_path, kind):
    """In this process, where coverage sees it."""
    assert untrusted._verified(SOUND[kind](tmp_path)) == []


def test_what_the_child_tells_and_refuses(tmp_path, capfd):
    (tmp_path / "file").write_text("")
    for event, facts in (("open", (str(tmp_path / "file"), "r", os.O_RDONLY)), ("open", (3, "r", 0)), ("import", ())):
        untrusted._tell(event, facts)
    untrusted._tell("open", (str(tmp_path), None, os.O_RDONLY))
    assert capfd.readouterr().out == f"\nat {tmp_path / 'file'}\n"
    for event, facts in (("open", ("new", "w", os.O_WRONLY | os.O_CREAT)), ("os.system", (b"true",))):
        with pytest.raises(PermissionError):
            untrusted._tell(event, facts)


def test_the_command(tmp_path):
    path = SOUND["results"](tmp_path)
    command = [sys.executable, "-m", "stores.untrusted"]
    run = subprocess.run([*command, str(path)], cwd=ROOT, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "sound\n")
    shards(path)[0].write_bytes(b"")
    run = subprocess.run([*command, str(path)], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1 and "0 bytes" in run.stdout
    assert verify_untrusted(tmp_path / "nothing") == [
        f"{tmp_path / 'nothing'} is not there: expected a store folder or an HDF5 file."
    ]


def test_a_path_is_taken_from_where_the_caller_stands(tmp_path, monkeypatch):
    SOUND["results"](tmp_path)
    monkeypatch.chdir(tmp_path)
    assert verify_untrusted("store") == [] and os.getcwd() == str(tmp_path)
