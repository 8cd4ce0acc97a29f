"""`info`, and the commands on stores as a user types them."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
from store_samples import block, filled_store, new_store, planned, prompt_records, shards

from stores import ActivationStore, ResultTable
from stores.about import store_info
from stores.merging import merge_stores
from stores.opening import open_store, verify_store
from workbench.cli import main


def run(*arguments) -> int:
    return main([str(argument) for argument in arguments])


def test_info_says_what_whose_how_much_and_when(tmp_path):
    store = filled_store(tmp_path / "s", provenance={"seed": 3})
    more = new_store(tmp_path / "s", 14, provenance={"seed": 4})
    facts = store_info(tmp_path / "s")
    assert facts["kind"] == "activations" and facts["format_version"] == 2
    assert facts["spec"] == {"model": "tiny", "scope": "last"} and facts["content_key"] in store.origin.values()
    assert facts["prompts"] == 14 and facts["units"] == {"planned": 5, "committed": 3, "appends": 2}
    assert len(more.missing()) == 2
    (stream,) = facts["streams"]
    assert stream["rows"] == 20 and stream["variants"] == {"base": 10, "tuned": 10}
    assert stream["labels"] == {"calm": 10, "loud": 10} and stream["layers"] == [0, 1, 5]
    assert facts["bytes"] == sum(shard.stat().st_size for shard in shards(store.path))
    assert facts["commits"]["writers"] == 1 and facts["commits"]["first"] <= facts["commits"]["last"]
    assert facts["provenance"]["seed"] == 3 and [origin["seed"] for origin in facts["appended_by"]] == [4]
    json.dumps(facts, allow_nan=False)


def test_info_of_an_empty_store_of_a_table_and_of_a_merge(tmp_path):
    new_store(tmp_path / "e")
    assert (
        store_info(tmp_path / "e")["streams"][0]["rows"] == 0 and store_info(tmp_path / "e")["commits"]["first"] is None
    )
    table = ResultTable.create(tmp_path / "t", spec={}, plan=["a"], provenance={})
    table.commit("a", [{"x": 1, "y": "b"}])
    facts = store_info(tmp_path / "t")
    assert facts["kind"] == "results" and facts["rows"] == 1 and facts["columns"] == ["x", "y"]
    filled_store(tmp_path / "a", 4)
    filled_store(tmp_path / "b", prompts=prompt_records(8)[4:], plan=planned(8)[1:])
    merge_stores([tmp_path / "a", tmp_path / "b"], tmp_path / "m")
    facts = store_info(tmp_path / "m")
    assert [path.rsplit("/")[-1] for path in facts["commits"]["merged_from"]] == ["a", "b"]
    assert [origin["merged_from"].rsplit("/")[-1] for origin in facts["appended_by"]] == ["b"]


def with_answers(path, n: int, part: int, of: int) -> None:
    """A store with a table inside of it, as a capture of generated answers leaves it; one part of the work."""
    store = new_store(path, n)
    answers = ResultTable.create(path / "answers", spec={}, plan=[unit.key for unit in store.plan], provenance={})
    for unit in store.plan[part::of]:
        store.commit(unit, {"resid_post": block(unit)})
        answers.commit(unit.key, [{"key": unit.key}])


def test_stores_inside_a_store_are_merged_verified_and_mended_with_it(tmp_path):
    for part in range(2):
        with_answers(tmp_path / f"{part}", 12, part, 2)
    assert run("merge", tmp_path / "0", tmp_path / "1", "--to", tmp_path / "m") == 0
    answers = open_store(tmp_path / "m" / "answers")
    assert isinstance(answers, ResultTable) and answers.column("key") == [
        unit.key for unit in open_store(tmp_path / "m").plan
    ]
    (tmp_path / "m" / "linked").symlink_to(tmp_path / "nothing of ours")
    filled_store(tmp_path / "nothing of ours", 4)
    (tmp_path / "nothing of ours" / "commits" / "x.txt").write_text("")  # a store outside is not looked into
    shard = shards(tmp_path / "m" / "answers")[0]
    shard.write_bytes(b"x" * shard.stat().st_size)
    assert verify_store(tmp_path / "m") == [] and len(verify_store(tmp_path / "m", deep=True)) == 1
    assert run("repair", tmp_path / "m") == 3 and not shard.exists()  # 3: its rows are missing now


def test_verify_ends_with_3_and_names_the_fault(tmp_path, capsys):
    filled_store(tmp_path / "s")
    assert run("verify", tmp_path / "s") == 0
    assert "by names and sizes; --deep reads every byte" in capsys.readouterr().out
    assert run("verify", tmp_path / "s", "--deep", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {
        "store": str(tmp_path / "s"),
        "sound": True,
        "deep": True,
        "faults": [],
    }
    data = bytearray(shards(tmp_path / "s")[0].read_bytes())
    data[2000] ^= 1
    shards(tmp_path / "s")[0].write_bytes(data)
    assert run("verify", tmp_path / "s") == 0 and run("verify", tmp_path / "s", "--deep") == 3
    assert shards(tmp_path / "s")[0].name in capsys.readouterr().out
    (tmp_path / "s" / "store.json").write_text("{}")
    assert run("verify", tmp_path / "s", "--json") == 3
    assert "store.json" in json.loads(capsys.readouterr().out)["faults"][0]
    assert run("verify", tmp_path / "nothing") == 1


def test_repair_says_what_it_did(tmp_path, capsys):
    filled_store(tmp_path / "s")
    assert run("repair", tmp_path / "s") == 0 and "nothing to mend" in capsys.readouterr().out
    shards(tmp_path / "s")[0].write_bytes(b"")
    assert run("repair", tmp_path / "s", "--json") == 3
    told = json.loads(capsys.readouterr().out)
    done = told["done"]
    assert len(told["left"]) == 1 and "committed" in told["left"][0] and "and gone" in told["left"][0]
    assert len(done) == 2 and "quarantine" in done[0] and "makes it anew" in done[1]
    assert run("info", tmp_path / "s") == 1  # committed rows are gone: said, not read past
    assert "run the same command again" in capsys.readouterr().err


def test_merge_export_and_info_from_the_command_line(tmp_path, capsys):
    filled_store(tmp_path / "a", 4)
    filled_store(tmp_path / "b", prompts=prompt_records(8)[4:], plan=planned(8)[1:])
    assert run("merge", tmp_path / "a", tmp_path / "b", "--to", tmp_path / "m", "--copy", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"store": str(tmp_path / "m"), "planned": 2, "missing": 0}
    assert {shard.stat().st_nlink for shard in shards(tmp_path / "m")} == {1}
    assert run("export", tmp_path / "m", "--to", tmp_path / "m.h5", "--dtype", "float16") == 0
    assert run("export", tmp_path / "m", "--to", tmp_path / "arrays", "--format", "numpy") == 0
    assert run("export", tmp_path / "m", "--format", "index") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [str(tmp_path / name) for name in ("m.h5", "arrays", "m/index.h5")]
    values = ActivationStore.open(tmp_path / "m").values("resid_post:1")
    np.testing.assert_array_equal(np.load(tmp_path / "arrays" / "resid_post.1.npy"), values)
    for name in ("m.h5", "m/index.h5"):
        with h5py.File(tmp_path / name, locking=False) as file:
            np.testing.assert_array_equal(file["activations/resid_post/values"][1], values)
    assert run("info", tmp_path / "m") == 0
    out = capsys.readouterr().out
    for said in (
        "2 of 2 committed",
        "16 rows (base 8, tuned 8)",
        "labels calm 8, loud 8",
        'model = "tiny"',
        "merged from",
    ):
        assert said in out
    assert run("merge", tmp_path / "a", tmp_path / "m.h5", "--to", tmp_path / "n") == 1


@pytest.mark.parametrize("arguments", [["--format", "index", "--to", "x"], ["--format", "hdf5"]])
def test_an_export_needs_a_name_and_an_index_has_one(tmp_path, arguments, capsys):
    filled_store(tmp_path / "s")
    assert run("export", tmp_path / "s", *arguments) == 1
    assert "expected --to FILE for hdf5 and numpy" in capsys.readouterr().err
