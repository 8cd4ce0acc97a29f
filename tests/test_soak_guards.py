"""What each guard of the stores is for: without it, a count of the soak rises that is zero with it.

A guard is taken out by `monkeypatch`, in the process in which the part of the soak runs. Those against several writers
at once and against plain kills are taken out in test_soak.py.
"""

from __future__ import annotations

import os
import random
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from soak_modules import soak_modules

from stores import columns, commits, creating, files, folder, publish, sealed_json, seals, shard, verifying


@pytest.fixture(scope="module")
def soak():
    names = ("power", "flips", "machine", "scenes", "scene_files")
    with soak_modules(*names) as modules:
        yield SimpleNamespace(**dict(zip(names, modules, strict=True)))


class Without:
    """A module as another module sees it, but for a few names."""

    def __init__(self, module: Any, **changes: Any) -> None:
        self.__dict__.update(changes, _module=module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)  # looked up anew each time: a recorder may have taken its place


class Anything:
    """Equal to whatever it is compared with."""

    __hash__ = None

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False


def folders_only(descriptor: int) -> None:
    """fsync of folders, and of no file."""
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.fsync(descriptor)


def unsynced(monkeypatch: pytest.MonkeyPatch, forgotten: Callable[[Path], bool]) -> None:
    """No fsync of these folders."""
    real = publish.sync_folder
    monkeypatch.setattr(publish, "sync_folder", lambda path: None if forgotten(Path(path)) else real(path))


# Power cuts and kills


def no_fsync_of_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "os", Without(os, fsync=folders_only))


def no_fsync_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "os", Without(os, fsync=folders_only))


def no_fsync_of_a_shards_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    unsynced(monkeypatch, lambda path: path.parent.name == "shards")


def no_fsync_of_the_folder_of_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    unsynced(monkeypatch, lambda path: path.name == "shards")


def no_fsync_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    unsynced(monkeypatch, lambda path: path.name == "store")


def no_fsync_of_the_folder_it_is_in(monkeypatch: pytest.MonkeyPatch) -> None:
    unsynced(monkeypatch, lambda path: path.name == "runs")


def no_fsync_of_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    unsynced(monkeypatch, lambda path: path.name == "plan")


def no_fsync_of_the_folder_of_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    unsynced(monkeypatch, lambda path: path.name == "commits")


def the_log_before_the_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting: list[tuple[Any, ...]] = []
    real, append = publish.publish, folder.ShardFolder.append

    def later(content: Any, final: Path, tmp: Path) -> bool:
        if final.suffix != ".h5":
            return real(content, final, tmp)
        with tempfile.TemporaryFile() as file:  # so that the seal is known
            content(file.fileno())
        waiting.append((content, final, tmp))
        return True

    def first(self: Any, *arguments: Any) -> None:
        append(self, *arguments)
        real(*waiting.pop())

    monkeypatch.setattr(publish, "publish", later)
    monkeypatch.setattr(folder.ShardFolder, "append", first)


def a_folder_named_before_it_is_synced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "sync_tree", lambda folder: None)


POWER = {
    no_fsync_of_files: "store",
    no_fsync_of_the_log: "store",
    no_fsync_of_a_shards_folder: "store",
    no_fsync_of_the_folder_of_folders: "store",
    no_fsync_of_the_store: "store",
    no_fsync_of_the_folder_it_is_in: "store",
    no_fsync_of_the_plan: "store",
    no_fsync_of_the_folder_of_logs: "store",
    the_log_before_the_shard: "store",
    a_folder_named_before_it_is_synced: "files",
}


def cut(soak: SimpleNamespace, kind: str, scratch: Path, first: bool) -> dict[str, int]:
    scene = soak.scene_files.Files(2) if kind == "files" else soak.scenes.Activations(1)
    return soak.power.one_run(scene, scratch / "run", 0, random.Random(0), every=1_000, first=first)


@pytest.mark.parametrize("guard", POWER, ids=lambda guard: guard.__name__)
def test_power_cuts_find_what_was_not_made_safe(soak, tmp_path, monkeypatch, guard):
    guard(monkeypatch)
    assert cut(soak, POWER[guard], tmp_path, first=True)["bad"] > 0


@pytest.mark.parametrize("kind", ["store", "files"])
def test_with_all_guards_nothing_is_found(soak, tmp_path, kind):
    """The meta-test of the one above."""
    counts = cut(soak, kind, tmp_path, first=False)
    assert counts["bad"] == 0 and counts["prefixes"] > 20 and counts["power_cuts"] == 3 * counts["prefixes"]


# An accident first, then a power cut


def what_another_named_is_taken_for_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(creating, "_sync", lambda path: None)


def the_second_writer_syncs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    by_another, real = set[Path](), publish.sync_folder

    def link(source: Any, final: Any) -> None:
        try:
            os.link(source, final)
        except FileExistsError:
            by_another.add(Path(final).parent)
            raise

    monkeypatch.setattr(publish, "os", Without(os, link=link))
    monkeypatch.setattr(publish, "sync_folder", lambda path: None if path in by_another else real(path))


def a_log_that_is_there_is_taken_for_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(commits.CommitLog):
        @property
        def _own(self) -> Any:
            return self.__dict__.get("own")

        @_own.setter
        def _own(self, value: Any) -> None:
            if value is not None or "own" not in self.__dict__:
                self.__dict__["own"] = value

    monkeypatch.setattr(folder, "CommitLog", Forgetful)


AFTER = {
    what_another_named_is_taken_for_safe: "killed",
    the_second_writer_syncs_nothing: "killed",
    a_log_that_is_there_is_taken_for_safe: "interrupted",
}


def cut_after(soak: SimpleNamespace, accident: str, scratch: Path, first: bool) -> tuple[int, int]:
    scene, names = soak.scenes.Activations(1, again=True), soak.power.NAMING
    return soak.power.cut_after(accident, scene, scratch / "after", random.Random(0), names, first)


@pytest.mark.parametrize("guard", AFTER, ids=lambda guard: guard.__name__)
def test_a_power_cut_after_an_accident_finds_what_was_left_to_the_next(soak, tmp_path, monkeypatch, guard):
    guard(monkeypatch)
    assert cut_after(soak, AFTER[guard], tmp_path, first=True)[1] > 0


@pytest.mark.parametrize("accident", ["killed", "refused", "interrupted"])
def test_with_all_guards_what_goes_on_is_safe(soak, tmp_path, accident):
    cuts, bad = cut_after(soak, accident, tmp_path, first=False)
    assert cuts > 40 and bad == 0


# Damage


def no_chunk_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard, "xxhash", Without(shard.xxhash, xxh3_128_digest=lambda data: Anything()))


def no_index_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard, "index_hash", lambda columns: Anything())


def no_column_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_hash", lambda order, stored: Anything())


def no_digest_of_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed_json, "_check_digest", lambda raw, path: True)


def no_check_of_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder.ShardFolder, "check_identity", lambda self, file, unit: None)


def no_check_of_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder.ShardFolder, "check_present", lambda self, unit, status, logged: None)


def no_logged_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seals, "algorithms_of", lambda facts: set())
    monkeypatch.setattr(seals, "fits", lambda came, logged: True)


def no_check_inside_a_log_line(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = SimpleNamespace(encode=Anything)
    monkeypatch.setattr(commits, "xxhash", Without(commits.xxhash, xxh3_64_hexdigest=lambda text: hashed))


def no_word_of_damaged_log_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits.CommitLog, "damaged", lambda self: [])


def no_word_of_lost_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    real = folder.ShardFolder._survey
    monkeypatch.setattr(folder.ShardFolder, "_survey", lambda self: (real(self)[0], []))


def no_word_of_strange_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verifying, "_strange", lambda store, units: [])


DAMAGE = {
    no_chunk_hash: ("activations", "shards"),
    no_index_hash: ("activations", "words"),
    no_column_hash: ("results", "words"),
    no_digest_of_documents: ("activations", "documents"),
    no_check_of_identity: ("activations", "files"),
    no_check_of_sizes: ("activations", "files"),
    no_logged_digest: ("activations", "shards"),
    no_check_inside_a_log_line: ("activations", "logs"),
    no_word_of_damaged_log_lines: ("activations", "logs"),
    no_word_of_lost_shards: ("results", "files"),
    no_word_of_strange_files: ("results", "files"),
}


@pytest.fixture(scope="module")
def subjects(soak, tmp_path_factory) -> dict[str, Any]:
    return {subject.path.parts[-3]: subject for subject in soak.flips.subjects_in(tmp_path_factory.mktemp("flips"))}


def silent(soak: SimpleNamespace, subject: Any, kind: str) -> Iterator[bool]:
    """Whether each of some damages passes unnoticed."""
    chance = random.Random(0)
    damages = {
        "files": lambda: soak.flips.whole_files(subject, chance),
        "words": lambda: soak.flips.words(subject, 60, chance),
        "shards": lambda: soak.flips.bits(subject, 120, chance, ".h5"),
        "documents": lambda: soak.flips.bits(subject, 40, chance, ".json"),
        "logs": lambda: soak.flips.bits(subject, 40, chance, ".jsonl"),
    }[kind]()
    for damage in damages:
        found = subject.tried(damage)
        assert not found.get("bad")
        yield bool(found)


@pytest.mark.parametrize("guard", DAMAGE, ids=lambda guard: guard.__name__)
def test_damage_passes_unnoticed_without_its_guard(soak, subjects, monkeypatch, guard):
    name, kind = DAMAGE[guard]
    guard(monkeypatch)
    assert any(silent(soak, subjects[name], kind))


@pytest.mark.parametrize(("name", "kind"), sorted(set(DAMAGE.values())))
def test_with_all_guards_no_damage_passes(soak, subjects, name, kind):
    """The meta-test of the one above."""
    tried = list(silent(soak, subjects[name], kind))
    assert len(tried) >= 40 and not any(tried)


# Anything in any order


def a_link_that_replaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "os", Without(os, link=os.replace))


def a_unit_without_its_shard_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "publish", lambda content, final, tmp: True)


@pytest.mark.parametrize("guard", [a_link_that_replaces, None], ids=["a link that replaces", "all guards"])
def test_the_state_machine_finds_it(soak, tmp_path, monkeypatch, guard):
    if guard:
        guard(monkeypatch)
    assert soak.machine.run(8, tmp_path) == {"bad": int(guard is not None)}
