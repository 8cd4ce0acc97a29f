"""`merge`: parts of one plan, and runs over other prompts, become one store, checked on the way."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from store_samples import block, everything, filled_store, new_store, planned, prompt_records, shards

from stores import ActivationStore, ResultTable, StoreCorrupted, StoreMismatch, publish
from stores.merging import merge_stores


def part(path: Path, i: int, n: int, prompts: int = 24, **changes) -> ActivationStore:
    """Part i of n of one plan, in a folder of its own."""
    store = new_store(path, prompts, **changes)
    for unit in store.plan[i::n]:
        store.commit(unit, {"resid_post": block(unit)})
    return store


def damaged(path: Path) -> None:
    """In the values, so that it shows with no log, too."""
    data = bytearray(path.read_bytes())
    data[2000] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("link", [True, False])
def test_parts_of_one_plan_give_the_whole_run(tmp_path, link):
    whole = filled_store(tmp_path / "whole", 24)
    parts = [part(tmp_path / f"{i}", i, 3).path for i in range(3)]
    merged = merge_stores(parts, tmp_path / "merged", link=link)
    assert isinstance(merged, ActivationStore) and merged.plan == whole.plan and merged.missing() == []
    assert everything(merged.path) == everything(whole.path) and merged.verify(deep=True) == []
    assert {p.name: p.read_bytes() for p in shards(merged.path)} == {p.name: p.read_bytes() for p in shards(whole.path)}
    assert {p.stat().st_nlink for p in shards(merged.path)} == ({2} if link else {1})
    for path in parts:
        assert ActivationStore.open(path).verify(deep=True) == []


def test_other_prompts_are_appended_in_the_order_of_the_stores(tmp_path):
    whole = filled_store(tmp_path / "whole", 12)
    first = filled_store(tmp_path / "a", 4)
    records = prompt_records(12)[4:]
    second = filled_store(tmp_path / "b", prompts=records, plan=planned(12)[1:])
    merged = merge_stores([first.path, second.path], tmp_path / "m")
    assert everything(merged.path) == everything(whole.path) and merged.plan == whole.plan
    assert list(merged.prompts) == [f"p{i}" for i in range(12)]
    reverse = merge_stores([second.path, first.path], tmp_path / "r")
    assert [unit.prompt_ids[0] for unit in reverse.plan] == ["p4", "p8", "p0"]


def test_merging_goes_on_and_takes_nothing_twice(tmp_path, monkeypatch):
    """Into a store that is there; killed at any shard; once more with nothing to do."""
    parts = [part(tmp_path / f"{i}", i, 3) for i in range(3)]
    truth = everything(filled_store(tmp_path / "whole", 24).path)
    monkeypatch.setattr("stores.merging._BATCH", 1)
    placed, link = [], os.link

    def failing(*names, **options):
        placed.append(names)
        if len(placed) % 3 == 0:
            raise KeyboardInterrupt
        link(*names, **options)

    monkeypatch.setattr(os, "link", failing)
    for _ in range(20):
        try:
            merged = merge_stores([store.path for store in parts], tmp_path / "m")
            break
        except KeyboardInterrupt:
            continue
    monkeypatch.setattr(os, "link", link)
    assert everything(merged.path) == truth and merged.verify(deep=True) == []
    lines = sum(log.read_text().count("\n") for log in (merged.path / "commits").iterdir())
    assert lines == len(merged.plan) == 6  # each shard once
    monkeypatch.setattr("stores.merging.checked", lambda *_: pytest.fail("what is there was read again"))
    merge_stores([store.path for store in parts], tmp_path / "m")


def test_a_damaged_shard_does_not_pass(tmp_path):
    """Nor does one whose log line is gone, nor one in a bulk store."""
    for name, bulk, with_log in (("a", False, True), ("b", True, True), ("c", False, False)):
        store = filled_store(tmp_path / name, bulk=bulk)
        if not with_log:
            next((store.path / "commits").iterdir()).unlink()
        damaged(shards(store.path)[1])
        with pytest.raises(StoreCorrupted, match=shards(store.path)[1].name):
            merge_stores([store.path], tmp_path / f"{name}m")
        assert shards(store.path)[1].name not in {p.name for p in shards(tmp_path / f"{name}m")}


def test_what_is_merged_has_its_sha256_in_the_log(tmp_path):
    merged = merge_stores([filled_store(tmp_path / "a", bulk=True).path], tmp_path / "m")
    (log,) = (merged.path / "commits").iterdir()
    assert all('"sha256"' in line and '"merged_from"' in line for line in log.read_text().splitlines())
    assert all('"rows": {"resid_post"' in line for line in log.read_text().splitlines())


@pytest.mark.parametrize("other", ["spec", "streams", "prompt", "unit", "kind"])
def test_conflicts_are_refused_with_both_names(tmp_path, other):
    filled_store(tmp_path / "a", 8)
    changes = {
        "spec": {"spec": {"model": "other", "scope": "last"}},
        "streams": {"dtype": "float16"},
        "prompt": {"prompts": [{**record, "label": "new"} for record in prompt_records(8)]},
        "unit": {"plan": planned(8, 3)},
    }
    if other == "kind":
        ResultTable.create(tmp_path / "b", spec={}, plan=["a"], provenance={})
    else:
        filled_store(tmp_path / "b", 8, **changes[other])
    with pytest.raises(StoreMismatch) as found:
        merge_stores([tmp_path / "a", tmp_path / "b"], tmp_path / "m")
    assert str(tmp_path / "a") in str(found.value) or str(tmp_path / "m") in str(found.value)
    assert str(tmp_path / "b") in str(found.value) and "Mend" in str(found.value)


def test_a_unit_that_nobody_captured_gives_way(tmp_path):
    """The same prompts planned in other batches, and not captured there: no conflict, and no row twice."""
    filled_store(tmp_path / "a", 8)
    new_store(tmp_path / "b", 8, plan=planned(8, 3))
    merged = merge_stores([tmp_path / "a", tmp_path / "b"], tmp_path / "m")
    assert merged.missing() == [] and everything(merged.path) == everything(tmp_path / "a")


def test_one_unit_with_other_bytes_is_refused(tmp_path):
    a, b = new_store(tmp_path / "a", 4), new_store(tmp_path / "b", 4)
    (unit,) = a.plan
    other = block(unit)
    other.values[:] += 1
    a.commit(unit, {"resid_post": block(unit)})
    b.commit(unit, {"resid_post": other})
    with pytest.raises(StoreMismatch, match=r"(?s)/b/shards/.*/m/shards/.*with other bytes"):
        merge_stores([a.path, b.path], tmp_path / "m")
    assert everything(tmp_path / "m") == everything(a.path)


def test_over_two_disks_shards_are_copied_and_hashed_again(tmp_path, monkeypatch):
    link = os.link

    def no_links_between(old, new, **options):
        if "tmp" not in Path(old).parts[-2:]:
            raise OSError(errno.EXDEV, "other disk")
        link(old, new, **options)

    monkeypatch.setattr(os, "link", no_links_between)
    store = filled_store(tmp_path / "a")
    merged = merge_stores([store.path], tmp_path / "m")
    assert everything(merged.path) == everything(store.path) and list((merged.path / "tmp").iterdir()) == []
    write_at = publish.write_at

    def changed(file, data, offset):  # the source changes between check and copy
        write_at(file, data, offset)
        if offset == 0:
            damaged(shards(store.path)[0])

    monkeypatch.setattr("stores.merging._PIECE", 1000)
    monkeypatch.setattr(publish, "write_at", changed)
    with pytest.raises(StoreCorrupted, match="changed while it was copied"):
        merge_stores([store.path], tmp_path / "n")
    assert shards(store.path)[0].name not in {shard.name for shard in shards(tmp_path / "n")}


def test_tables_merge_by_their_keys(tmp_path):
    for i in range(2):
        table = ResultTable.create(tmp_path / f"{i}", spec={"x": 1}, plan=["a", "b", "c", "d"], provenance={"part": i})
        for key in table.plan[i::2]:
            table.commit(key, [{"key": key, "part": i}])
    merged = merge_stores([tmp_path / "0", tmp_path / "1"], tmp_path / "m")
    assert isinstance(merged, ResultTable) and merged.column("key") == ["a", "b", "c", "d"]
    assert merged.column("part") == [0, 1, 0, 1] and merged.verify(deep=True) == [] and merged.missing() == []


def test_stores_of_two_format_versions_merge(tmp_path):
    golden = Path(__file__).parent / "golden"
    first, second = golden / "store_1", golden / "store_2" / "activations"
    with pytest.raises(StoreMismatch, match="with other bytes"):  # the first version laid a shard out otherwise
        merge_stores([first, second], tmp_path / "m")
    merged = merge_stores([first], tmp_path / "n")
    assert merged._folder.manifest.version == 2 and everything(merged.path) == everything(first)


def test_nothing_to_merge_is_said(tmp_path):
    with pytest.raises(ValueError, match="expected at least one store"):
        merge_stores([], tmp_path / "m")
