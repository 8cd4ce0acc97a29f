"""What each guard of the stores is for: without it, a count of the soak rises that is zero with it.

A guard is taken out by `monkeypatch`, in the process in which the part of the soak runs. Those against several writers
at once and against plain kills are taken out in test_soak.py.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from soak_modules import soak_modules
from taken_out import Without, folders_only

from stores import commits, creating, files, folder, merging, publish


@pytest.fixture(scope="module")
def soak():
    names = ("power", "scenes", "scene_files", "scene_merges")
    with soak_modules(*names) as modules:
        yield SimpleNamespace(**dict(zip(names, modules, strict=True)))


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


def a_part_linked_before_it_is_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "sync_file", lambda path: None)


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
    a_part_linked_before_it_is_safe: "merge",
}


def cut(soak: SimpleNamespace, kind: str, scratch: Path, first: bool) -> dict[str, int]:
    scene = {
        "store": lambda: soak.scenes.Activations(1),
        "table": lambda: soak.scenes.Results(1),
        "files": lambda: soak.scene_files.Files(2),
        "merge": lambda: soak.scene_merges.Merge(2),
    }[kind]()
    every = 1_000 if first else 5
    return soak.power.one_run(scene, scratch / "run", 0, random.Random(0), every=every, first=first)


@pytest.mark.parametrize("guard", POWER, ids=lambda guard: guard.__name__)
def test_power_cuts_find_what_was_not_made_safe(soak, tmp_path, monkeypatch, guard):
    guard(monkeypatch)
    assert cut(soak, POWER[guard], tmp_path, first=True)["bad"] > 0


@pytest.mark.parametrize("kind", ["store", "table", "files", "merge"])
def test_with_all_guards_nothing_is_found(soak, tmp_path, kind):
    """The meta-test of the one above; from some places the run goes on to the same end."""
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


@pytest.mark.parametrize("accident", ["killed", "interrupted"])
def test_with_all_guards_what_goes_on_is_safe(soak, tmp_path, accident):
    cuts, bad = cut_after(soak, accident, tmp_path, first=False)
    assert cuts > 40 and bad == 0
