"""Objects in a notebook and in pandas: what they hold, and hostile text stays text."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from store_samples import block, filled_store, new_store, stream

from hooks.site import Site
from stores import Block, ResultTable, StoreError, Stream, frames
from workbench.subspace.basis import Subspace
from workbench.subspace.directions import Directions

SITES = (Site(0), Site(1))


def directions() -> Directions:
    return Directions.of(SITES, [[3.0, 4.0, 0.0], [0.0, 0.0, 2.0]], reliability=np.array([0.9, 0.8]))


def subspace() -> Subspace:
    basis = np.broadcast_to(np.eye(3)[:2], (2, 2, 3))
    variance = np.array([[3.0, 1.0, 0.0]] * 2)
    return Subspace(SITES, basis, variance, np.zeros((2, 3)), np.array([4.0, 4.0]), n=9)


def test_directions_as_rows():
    rows = directions().rows()
    assert [(row["site"], row["norm"], row["reliability"], row["residual_norm"]) for row in rows] == [
        ("resid_post:0", 5.0, 0.9, None),
        ("resid_post:1", 2.0, 0.8, None),
    ]
    np.testing.assert_array_equal(directions().numpy(), [[3, 4, 0], [0, 0, 2]])


def test_a_subspace_as_rows():
    rows = subspace().rows()
    assert [(row["site"], row["component"], row["explained"]) for row in rows] == [
        ("resid_post:0", 1, 0.75),
        ("resid_post:0", 2, 0.25),
        ("resid_post:1", 1, 0.75),
        ("resid_post:1", 2, 0.25),
    ]


@pytest.mark.parametrize("thing", [directions(), subspace()], ids=["directions", "subspace"])
def test_what_a_notebook_shows(thing):
    shown = thing._repr_html_()
    assert shown.count("<tr>") == 1 + len(thing.rows()) and "resid_post:1" in shown and "d_model 3" in shown


def test_hostile_text_of_a_table_stays_text(tmp_path):
    table = ResultTable.create(None, spec={}, plan=["a"], provenance={})
    table.commit("a", [{"text": "<script>alert(1)</script>", "n": i} for i in range(30)])
    shown = table._repr_html_()
    assert "<script>" not in shown and "&lt;script&gt;" in shown and "and 10 more rows" in shown
    assert "x" * 197 + "..." in frames.html_table("", [{"a": "x" * 900}])


def test_the_same_rows_in_pandas(monkeypatch):
    pandas = pytest.importorskip("pandas")
    assert isinstance(directions().to_pandas(), pandas.DataFrame) and list(subspace().to_pandas()["component"]) == [
        1,
        2,
        1,
        2,
    ]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        directions().to_pandas()


def test_rows_of_a_store_in_pandas_xarray_and_a_notebook(tmp_path):
    pytest.importorskip("pandas")
    store = filled_store(tmp_path / "s", 6)
    frame = store.to_pandas()
    assert list(frame.columns) == ["prompt_id", "variant", "label", "position", "token_id", "tag_kind", "tag_topic"]
    assert list(frame["variant"]) == store.variants and list(frame["position"]) == store.positions.tolist()
    assert list(frame["prompt_id"]) == store.prompt_ids and list(frame["tag_topic"]) == store.tag("topic")
    loud = store.where(label="loud", variant="tuned")
    assert set(loud.to_pandas()["label"]) == {"loud"} and len(loud.to_pandas()) == len(loud) == 3
    for thing in (store, loud):
        shown = thing._repr_html_()
        assert shown.count("<tr>") == 2 and "<td>resid_post</td>" in shown and "<td>24</td>" in shown


def test_a_stream_is_named_where_several_have_rows_of_their_own(tmp_path):
    pytest.importorskip("pandas")
    store = new_store(tmp_path / "s", 4, streams=[stream(), Stream("vision.resid_post", (0,), 3, "float16")])
    zeros = np.zeros(2, int)
    patches = Block(np.zeros((1, 2, 3), np.float16), ["p0"] * 2, ["base"] * 2, np.arange(2), zeros)
    store.commit(store.missing()[0], {"resid_post": block(store.plan[0]), "vision.resid_post": patches})
    with pytest.raises(StoreError, match="expected one list of rows"):
        store.to_pandas()
    assert list(store.to_pandas("vision.resid_post")["position"]) == [0, 1]
