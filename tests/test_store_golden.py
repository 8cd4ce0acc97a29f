"""Stores of every released format version are read for ever, and go on as new ones do."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from store_samples import LAYERS, VARIANTS, block, expected, new_store, prompt_records, reseal
from write_golden_store import ROWS, SPEC

from stores import ActivationStore, ResultTable, StoreCorrupted, StoreError, Unit

GOLDEN = Path(__file__).parent / "golden"
ACTIVATIONS = {GOLDEN / "store_1": 6, GOLDEN / "store_2" / "activations": 10}


@pytest.fixture(params=ACTIVATIONS, ids=lambda path: str(path.relative_to(GOLDEN)))
def golden(request, tmp_path) -> tuple[Path, int]:
    """A copy, and how many prompts it holds."""
    shutil.copytree(request.param, tmp_path / "s")
    return tmp_path / "s", ACTIVATIONS[request.param]


def check_rows(store: ActivationStore, prompts: int) -> None:
    assert {(*row,) for row in zip(store.prompt_ids, store.variants, strict=True)} == {
        (f"p{i}", variant) for i in range(prompts) for variant in VARIANTS
    }
    for layer in LAYERS:
        truth = [expected(*row, layer) for row in zip(store.prompt_ids, store.variants, strict=True)]
        np.testing.assert_array_equal(store.values(f"resid_post:{layer}"), np.stack(truth))


def test_activations_of_every_version_are_read(golden):
    path, prompts = golden
    store = ActivationStore.open(path)
    assert store.missing() == [] and store.verify() == [] and store.verify(deep=True) == []
    assert list(store.prompts.values()) == prompt_records(prompts)
    check_rows(store, prompts)


def test_activations_of_every_version_go_on(golden):
    path, prompts = golden
    store = new_store(path, prompts + 3, "bfloat16")
    assert sum(len(unit.prompt_ids) for unit in store.missing()) == 3
    for unit in store.missing():
        store.commit(unit, {"resid_post": block(unit, "bfloat16")})
    again = ActivationStore.open(path)
    assert again.verify(deep=True) == [] and again.missing() == []
    check_rows(again, prompts + 3)


def test_shards_of_one_spec_have_one_name_in_every_version():
    """So that stores of different versions merge."""
    first, second = ({p.name for p in (path / "shards").rglob("*.h5")} for path in ACTIVATIONS)
    assert first < second


def test_a_table_of_every_version_is_read_and_goes_on(tmp_path):
    shutil.copytree(GOLDEN / "store_2" / "table", tmp_path / "t")
    table = ResultTable.open(tmp_path / "t")
    assert table.verify(deep=True) == [] and table.missing() == ["3-missing"] and table.spec == SPEC
    assert table.rows() == [row for rows in ROWS.values() for row in rows]
    more = ResultTable.create(tmp_path / "t", spec=SPEC, plan=[*ROWS, "3-missing", "4"], provenance={})
    for key in more.missing():
        more.commit(key, [{"prompt": key}])
    assert len(ResultTable.open(tmp_path / "t").rows()) == 5 and more.verify(deep=True) == []


def test_a_store_without_its_digest_is_refused_unless_it_is_of_the_first_version(tmp_path):
    """A digest that is taken away must not take the check away."""
    for version, path in ((1, "store_1"), (2, "store_2/activations")):
        shutil.copytree(GOLDEN / path, tmp_path / str(version))
        manifest = tmp_path / str(version) / "store.json"
        lines = manifest.read_text().splitlines(keepends=True)
        manifest.write_text("".join(line for line in lines if '"digest"' not in line))
    assert len(ActivationStore.open(tmp_path / "1")) == 12
    with pytest.raises(StoreCorrupted, match=r"store\.json carries no digest, as files of version 2 do"):
        ActivationStore.open(tmp_path / "2")


def test_no_flipped_bit_of_store_json_or_plan_is_read(tmp_path):
    """Of the first version, flips in the spec alone are found; since the second, every flip of every byte."""
    path = tmp_path / "s"
    shutil.copytree(GOLDEN / "store_2" / "activations", path)
    for file in (path / "store.json", *sorted((path / "plan").iterdir())):
        whole = file.read_bytes()
        for place in range(0, len(whole), 7):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << place % 8
            file.write_bytes(damaged)
            with pytest.raises(StoreError):
                ActivationStore.open(path)
        file.write_bytes(whole)
    assert ActivationStore.open(path).missing() == []


def test_a_store_that_lost_the_end_of_its_plan_is_not_read(tmp_path):
    """Nothing in the files that are left misses it; the logs do."""
    shutil.copytree(GOLDEN / "store_2" / "activations", tmp_path / "s")
    lost = tmp_path / "s" / "plan" / "000001.json"
    whole = lost.read_bytes()
    lost.unlink()
    with pytest.raises(StoreCorrupted, match=r"(?s)2 units that are not in the plan.*leave rows out.*Mend: restore"):
        ActivationStore.open(tmp_path / "s")
    again = new_store(tmp_path / "s", 10, "bfloat16", plan=lambda fresh: [Unit.of(fresh[:2]), Unit.of(fresh[2:])])
    assert again.missing() == [] and again.verify(deep=True) == [] and lost.read_bytes() != whole
    check_rows(ActivationStore.open(tmp_path / "s"), 10)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda plan: (plan / "000000.json").unlink(), r"000000\.json is gone, and 000001\.json is there"),
        (lambda plan: (plan / "000000.json").rename(plan / "000002.json"), "is gone"),
        (lambda plan: shutil.copy(plan / "000000.json", plan / "000001.json"), "it is segment 0"),
        (lambda plan: shutil.copy(plan / "000001.json", plan / "000002.json"), "it is segment 1"),
        (lambda plan: edited(plan / "000000.json", '"loud"', '"lout"'), "does not follow the file before it"),
        (lambda plan: edited(plan / "000001.json", '"p6"', '"p0"'), "plans a unit or a prompt twice"),
        (lambda plan: edited(plan / "000001.json", "fa7839e441381bf6", "dbe7c2f22ece8dae"), "twice"),
        (lambda plan: edited(plan / "000001.json", '"units": [', '"units": [3,'), "cannot be read"),
        (lambda plan: edited(plan / "000001.json", '{"id": "p6"', '{"id": 6'), "cannot be read"),
        (lambda plan: edited(plan.parent / "store.json", '"seed": 0', '"seed": 1'), "does not follow"),
    ],
)
def test_segments_are_one_chain(tmp_path, damage, says):
    """With digests that fit: each file names the one before it, and says itself which it is."""
    shutil.copytree(GOLDEN / "store_2" / "activations", tmp_path / "s")
    damage(tmp_path / "s" / "plan")
    with pytest.raises(StoreCorrupted, match=says):
        ActivationStore.open(tmp_path / "s")


def edited(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    reseal(file)
