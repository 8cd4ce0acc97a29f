"""Writers that make or extend one store at the same moment, on whatever hosts: no lock, nothing lost, one plan."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from store_samples import block, everything, filled_store, new_store, planned, prompt_records

from stores import ActivationStore, StoreMismatch, creating, publish
from stores.segments import Segment


def at_once(jobs) -> list[object]:
    """Runs the jobs in threads that start together; what each returned or raised."""
    results: list[object] = [None] * len(jobs)
    start = threading.Barrier(len(jobs))

    def run(i: int) -> None:
        start.wait()
        try:
            results[i] = jobs[i]()
        except Exception as error:
            results[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(jobs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def part_of(path: Path, i: int) -> ActivationStore:
    """Writer i brings prompts of its own."""
    return new_store(path, prompts=prompt_records(32)[4 * i : 4 * i + 4], plan=planned(32)[i : i + 1])


@pytest.mark.parametrize("trial", range(3))
def test_prompts_that_are_appended_at_once_are_all_there(tmp_path, trial):
    """Eight writers, one a unit, into a store that none of them has made yet."""
    stores = at_once([lambda i=i: part_of(tmp_path / "s", i) for i in range(8)])
    assert all(isinstance(store, ActivationStore) for store in stores), stores
    store = ActivationStore.open(tmp_path / "s")
    assert sorted(store.prompts) == sorted(f"p{i}" for i in range(32)) and len(store.plan) == 8
    assert sorted(p.name for p in (tmp_path / "s" / "plan").iterdir()) == [f"{n:06d}.json" for n in range(8)]
    for unit in store.missing():
        store.commit(unit, {"resid_post": block(unit)})
    assert sorted(everything(tmp_path / "s")["ids"]) == sorted(f"p{i}" for i in range(32) for _ in range(2))
    assert store.verify(deep=True) == []


def test_writers_of_one_plan_plan_it_once(tmp_path):
    at_once([lambda: new_store(tmp_path / "s", 12) for _ in range(8)])
    store = ActivationStore.open(tmp_path / "s")
    assert store.plan == planned(12) and len(list((tmp_path / "s" / "plan").iterdir())) == 1
    assert store.verify() == []


def interrupted(monkeypatch, at: str, act) -> None:
    """Lets another writer act right before the `at` step of the next one, once."""
    published = publish.publish

    def slow(content, final, tmp):
        if final.name == at:
            monkeypatch.setattr(publish, "publish", published)
            act()
        return published(content, final, tmp)

    monkeypatch.setattr(publish, "publish", slow)


@pytest.mark.parametrize("at", ["store.json", "000000.json"])
def test_who_comes_second_adds_to_what_the_first_wrote(tmp_path, monkeypatch, at):
    """The other writer acts after we have looked, and before we publish."""
    interrupted(monkeypatch, at, lambda: part_of(tmp_path / "s", 0))
    second = part_of(tmp_path / "s", 1)
    assert [unit.prompt_ids[0] for unit in second.plan] == ["p0", "p4"]
    assert ActivationStore.open(tmp_path / "s").plan == second.plan


@pytest.mark.parametrize("at", ["store.json", "000000.json"])
def test_who_comes_second_with_other_things_is_told_so(tmp_path, monkeypatch, at):
    other = [{**prompt_records(4)[0], "label": "changed"}, *prompt_records(4)[1:]]
    interrupted(monkeypatch, at, lambda: filled_store(tmp_path / "s", 4, prompts=other))
    with pytest.raises(StoreMismatch, match="'p0' differs"):
        new_store(tmp_path / "s", 4)
    if at == "store.json":
        interrupted(monkeypatch, at, lambda: new_store(tmp_path / "t", spec={"model": "other"}))
        with pytest.raises(StoreMismatch, match=r"spec\.model"):
            new_store(tmp_path / "t", 4)


def test_a_disk_that_never_gives_a_place_is_an_error_and_no_endless_loop(tmp_path, monkeypatch):
    new_store(tmp_path / "s", 4)
    monkeypatch.setattr(creating, "_TRIES", 3)
    monkeypatch.setattr(Segment, "published", lambda *_: "")
    with pytest.raises(Exception, match="3 appends found their place"):
        new_store(tmp_path / "s", 8)
