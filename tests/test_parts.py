"""Parts of a work: n commands do everything once, whichever way they count, and give what one process gives."""

import numpy as np
import pytest
from conftest import chat
from workbench_samples import random_directions

from hooks.model import NothingEdited
from stores import ActivationStore, ResultTable
from stores.merging import merge_stores
from workbench.capturing import capture
from workbench.interventions.measuring import OneBatch
from workbench.interventions.steer import Steer
from workbench.interventions.sweep import _refuse_idle, sweep
from workbench.interventions.twins import Cell
from workbench.parts import part_numbers, run_of, strewn
from workbench.sources import ModelSource, data_of, sent

SILENT = {"progress": False}


@pytest.mark.parametrize("share", [strewn, run_of])
@pytest.mark.parametrize("of", [1, 2, 3, 7])
@pytest.mark.parametrize("first", [0, 1])
def test_parts_are_the_whole_counted_from_0_or_from_1(share, of, first):
    units = list(range(11))
    parts = [share(units, f"{at}/{of}") for at in range(first, first + of)]
    assert sorted(unit for part in parts for unit in part) == units
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert share(units, None) == units


def test_neighbours_stay_together_only_in_runs():
    assert strewn("abcde", "1/2") == ["a", "c", "e"] and run_of("abcde", "2/2") == ["c", "d", "e"]
    assert part_numbers("0/3") == part_numbers("3/3") == (2, 3)


@pytest.mark.parametrize("part", ["", "1", "4/3", "-1/3", "0/0", "1/0", "a/b", "1/3/5", "1 / 3", "1/3\n", "¹/3"])
def test_what_is_no_part_is_refused(part):
    with pytest.raises(ValueError, match="expected 'i/n' with i from 1 to n"):
        part_numbers(part)


@pytest.mark.parametrize("count_from", [0, 1])
def test_a_capture_in_parts_is_the_one_of_a_single_process(half, many, tmp_path, count_from):
    """bfloat16 and mixed lengths; all parts in one folder."""
    settings = dict(at="all", max_tokens=60, **SILENT)
    whole = capture(half, many, to=tmp_path / "whole", **settings)
    done = set()
    for at in range(count_from, count_from + 3):
        store = capture(half, many, to=tmp_path / "s", part=f"{at}/3", **settings)
        left = {unit.key for unit in store.missing()}
        new = {unit.key for unit in store.plan} - left - done
        assert len(new) in (len(store.plan) // 3, len(store.plan) // 3 + 1)
        done |= new
    assert store.plan == whole.plan and not store.missing() and store.prompt_ids == whole.prompt_ids
    for site in whole.sites:
        assert np.array_equal(store.values(site), whole.values(site))


def test_parts_in_folders_of_their_own_merge_into_the_whole(half, many, tmp_path):
    """As machines without a common disk do: every folder has the whole plan and a part of the shards."""
    settings = dict(at="all", max_tokens=60, **SILENT)
    whole = capture(half, many, to=tmp_path / "whole", **settings)
    parts = [capture(half, many, to=tmp_path / f"{at}", part=f"{at}/3", **settings) for at in range(3)]
    assert all(store.plan == whole.plan and store.missing() for store in parts)
    merged = merge_stores([store.path for store in parts], tmp_path / "merged")
    assert merged.plan == whole.plan and not merged.missing() and merged.verify(deep=True) == []
    assert merged.prompt_ids == whole.prompt_ids
    for site in whole.sites:
        assert np.array_equal(merged.values(site), whole.values(site))


def test_a_sweep_in_parts_is_the_one_of_a_single_process(llama, questions, neutral, tmp_path):
    cells = [Steer(random_directions(llama), layer=layer) for layer in range(3)]
    settings = dict(neutral=neutral, max_tokens=40, **SILENT)
    beside = dict(capture_to=tmp_path / "beside")
    whole = sweep(llama, questions, cells, to=tmp_path / "whole", capture_to=tmp_path / "whole beside", **settings)
    for at in range(3):
        table = sweep(llama, questions, cells, to=tmp_path / "s", part=f"{at}/3", **beside, **settings)
        assert at == 2 or table.missing()
    assert table.plan == whole.plan and len(table.plan) > 3 and not table.missing()
    assert table.rows() == whole.rows()
    stores = [ActivationStore.open(tmp_path / name) for name in ("beside", "whole beside")]
    assert not stores[0].missing() and np.array_equal(*(store.values("resid_post:1") for store in stores))
    # What was read before it was to be captured is read once more, whatever its part.
    late = sweep(llama, questions, cells, to=tmp_path / "s", capture_to=tmp_path / "late", **settings)
    assert not ActivationStore.open(tmp_path / "late").missing() and late.rows() == whole.rows()


def test_a_batch_whose_cells_need_no_unedited_forward_is_captured_all_the_same(llama, questions, tmp_path, monkeypatch):
    """A part may hold cells alone that are whole forwards of their own."""
    monkeypatch.setattr(OneBatch, "rows", lambda self, cells: {c: [] for c in cells})
    sweep(llama, questions, [], to=tmp_path / "s", capture_to=tmp_path / "beside", max_tokens=40, **SILENT)
    beside = ActivationStore.open(tmp_path / "beside")
    assert not beside.missing() and sorted(beside.prompt_ids) == sorted(prompt.id for prompt in questions)


def test_idle_cells_are_refused_when_every_part_is_there(llama):
    table = ResultTable.create(None, spec={}, plan=["a", "b"], provenance={})
    cells = [Cell(None), Cell(Steer(random_directions(llama), layer=1))]
    table.commit("a", [{"cell": c, "edited": 0} for c in (0, 1)])
    _refuse_idle(table, cells)  # the other part may show that it acts
    table.commit("b", [{"cell": c, "edited": 0} for c in (0, 1)])
    with pytest.raises(NothingEdited, match="1 cells of this sweep touched no position"):
        _refuse_idle(table, cells)


def test_a_bad_part_is_refused_before_the_model_is_loaded(questions, tmp_path):
    for run in (lambda **k: capture("no model", questions, **k), lambda **k: sweep("no model", questions, [], **k)):
        with pytest.raises(ValueError, match="part='5/3'"):
            run(to=tmp_path / "s", part="5/3")
        with pytest.raises(ValueError, match="engine='dask': expected 'process' or 'ray'"):
            run(to=tmp_path / "s", engine="dask")


def test_a_model_by_its_folder_is_the_model(own_checkpoint, many, tmp_path):
    base, adapter = own_checkpoint
    source = ModelSource(base, adapter=adapter, variant="tuned", options={"dtype": "bfloat16"})
    store = capture(source, many[:3], to=tmp_path / "s", **SILENT)
    assert store.spec["variants"] == ["tuned"] and store.spec["identity"]["dtype"] == "bfloat16"
    assert capture(str(base), many[:3], to=tmp_path / "b", **SILENT).spec["variants"] == ["base"]
    with pytest.raises(ValueError, match="ModelSource has no option 'dtpye'"):
        ModelSource(base, options={"dtpye": "float32"})


def test_what_is_sent_has_whole_paths_and_no_weights(llama, own_checkpoint, picture, monkeypatch, prompts):
    base, adapter = own_checkpoint
    monkeypatch.chdir(base.parent)
    here = sent(ModelSource(base.name, adapter={"a": adapter.name}))
    assert here.name == str(base) and here.adapter == {"a": str(adapter)}
    assert sent("org/model").name == "org/model" and data_of("p.jsonl") == str(base.parent / "p.jsonl")
    with pytest.raises(ValueError, match="has every worker load the model itself, and HuggingFaceModel is an object"):
        sent(llama)
    monkeypatch.chdir(picture.parent)
    (shown,) = data_of([chat("a", "see ", type(picture)(picture.name))])
    assert shown.images == (picture,) and data_of(prompts) == prompts
