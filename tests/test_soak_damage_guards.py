"""What each check of the readers is for: without it damage passes unnoticed, and the soak counts it; and what the state
machine is for."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from soak_modules import soak_modules
from taken_out import Anything, Without

from stores import columns, commits, folder, publish, sealed_json, seals, shard, verifying


@pytest.fixture(scope="module")
def soak():
    names = ("flips", "machine")
    with soak_modules(*names) as modules:
        yield SimpleNamespace(**dict(zip(names, modules, strict=True)))


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
    monkeypatch.setattr(verifying, "strange_files", lambda store: [])


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
        "shards": lambda: soak.flips.bits(subject, 80, chance, ".h5"),
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
    assert soak.machine.run(12 if guard else 2, tmp_path) == {"bad": int(guard is not None)}
