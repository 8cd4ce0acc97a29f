"""The section on probes is made from the summary alone, and says what its numbers say; the script runs whole."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import LONG
from matplotlib.figure import Figure
from test_probe_domains import GROUPS, ids, population

from workbench.reporting.blocks import Details, Note, Picture, Table, Text
from workbench.reporting.probe_cells import probe_cells
from workbench.reporting.probe_layers import ProbeLine, probe_layers
from workbench.reporting.probe_section import cells_of, chosen_method, probes
from workbench.reporting.summary import read_summary
from workbench.subspace.probe_domains import probe_domains
from workbench.subspace.probe_means import OTHER, SAME

SCRIPT = Path(__file__).resolve().parent.parent / "experiments" / "probe_matrix.py"
OWN, BASE = "probes, each model reads its own answers", "probes, base reads all answers"


@pytest.fixture(scope="module")
def found():
    rows, verdicts = population()
    verdicts["letter-plain-seed0"] = dict.fromkeys(ids, False)
    return probe_domains(rows, verdicts, GROUPS, methods=["lda", "mass_mean"], draws=99)


@pytest.fixture(scope="module")
def worse():
    """Another reader of the same answers, who sees less in them."""
    return probe_domains(*population(strength=1.0), GROUPS, methods=["lda", "mass_mean"], draws=99)


@pytest.fixture(scope="module")
def summary(found, worse):
    entries = found.entries(split=OWN) + found.entries(split=BASE) + found.minus(worse, split=BASE)
    return read_summary({"results": json.loads(json.dumps(entries))})


@pytest.fixture(scope="module")
def blocks(summary):
    return probes(summary)


def test_the_sentences_are_the_numbers(found, blocks):
    words = " ".join(line for block in blocks if isinstance(block, Text) for line in block.paragraphs)
    own = next(mean for mean in found.best.means if mean.kind == SAME)
    low, high = own.interval.low, own.interval.high
    assert f"The same fine-tune: mean AUROC {own.auroc:.2f} [{low:.2f}, {high:.2f}]" in words
    assert f"exchanged labels {own.null.mean():.2f} (p ≤ 0.01)" in words
    assert "5 of 6 models" in words and "letter-plain-seed0 (0 % of 240)".replace(" %", "\u00a0%") in words
    told = sum(one.corrected <= 0.05 for one in found.best.cells if one.kind == OTHER)
    assert f"another domain: {told} of 6" in words and words.count("Here one model reads") == 1


def test_readers_are_compared_cell_by_cell(found, worse, summary, blocks):
    before = next(one for one in worse.methods if one.method == found.best.method)
    cells = {(c.source, c.target, c.kind): c.found.auroc for c in before.cells}
    by_hand = [
        c.found.auroc - cells[c.source, c.target, c.kind] for c in found.best.cells if c.kind == OTHER
    ]  # fmt: skip
    (one,) = summary.where(metric="mean probe AUROC, own minus another reader's", condition=OTHER)
    assert one.value == pytest.approx(np.mean(by_hand)) and one.interval is not None and one.control.N == 99
    words = " ".join(line for block in blocks if isinstance(block, Text) for line in block.paragraphs)
    assert f"each model's own activations minus these, {'LDA' if one.detail == 'lda' else 'mass-mean'}" in words
    same = found.minus(found)
    assert {entry["value"] for entry in same} == {0.0} and found.minus(type(found)((), (), {}, {}, 0, {})) == []


def test_the_matrix_is_drawn_with_its_numbers(found, summary, blocks):
    figure = next(block.figure for block in blocks if isinstance(block, Picture))
    drawn = [text.get_text() for text in figure.axes[0].texts]
    values = found.best.matrix([*GROUPS])
    assert drawn == [f"{value:.2f}".removeprefix("0") for value in values.flat]
    assert chosen_method(summary, OWN) == found.best.method
    assert len(cells_of(summary, OWN, "lda")) == len(found.methods[0].cells)
    frames = [patch for patch in figure.axes[0].patches if not patch.get_fill()]
    assert len(frames) == sum(one.corrected <= 0.05 for one in found.best.cells if one.kind in (SAME, OTHER))


def test_every_method_and_cell_is_in_a_table(found, blocks):
    table = next(block for block in blocks if isinstance(block, Table))
    assert {row[0] for row in table.rows} == {"LDA", "mass-mean"} and len(table.rows) == 2 * len(found.best.means)
    folded = next(block for block in blocks if isinstance(block, Details))
    assert [len(one.rows) for one in folded.content if isinstance(one, Table)] == [len(found.best.cells)]
    layers = [block for block in blocks if isinstance(block, Picture)][-1].figure
    assert [axis.get_title(loc="left").replace("\n", " ") for axis in layers.axes] == [
        "Each model reads its own answers", "Base reads all answers"
    ]  # fmt: skip


def test_a_page_says_what_could_not_be_measured():
    rows, verdicts = population()
    none = probe_domains(rows, {name: dict.fromkeys(ids, False) for name in verdicts}, GROUPS, draws=99)
    blocks = probes(read_summary({"results": none.entries(split=OWN)}))
    assert any(isinstance(block, Note) and block.text.startswith("Not measurable") for block in blocks)
    assert not any(isinstance(block, Picture) for block in blocks)
    assert probes(read_summary({"results": [{"metric": "probe_auroc", "condition": "a", "value": 0.7}]})) == []


def test_figures_draw_on_the_axis_given():
    mine = Figure().subplots()
    assert probe_cells(["a"], ["b", "c"], np.array([[0.7, np.nan]]), axis=mine) is mine.figure
    assert [text.get_text() for text in mine.texts] == [".70"]
    with pytest.raises(ValueError, match="1 x 2 values"):
        probe_cells(["a"], ["b", "c"], np.eye(2))
    line = ProbeLine([0, 1], np.array([0.6, 0.9]), np.full((2, 2), np.nan), np.array([0.5, 0.5]))
    figure = probe_layers({"own": {"the same": line}})
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["0", "1"]


@LONG
def test_the_script_in_its_smallest_form(tmp_path, monkeypatch):
    few = "--only sound capital --seeds 0 --arms full --samples 3 --draws 99 --methods lda difference_of_means"
    monkeypatch.setattr(sys, "argv", ["probe_matrix.py", *few.split(), "--to", str(tmp_path)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    results = json.loads((tmp_path / "summary.json").read_text())["results"]
    counted = [r for r in results if r["metric"] == "positive" and r["split"] == OWN]
    assert [r["condition"] for r in counted] == ["base", "capital-plain-seed0", "sound-plain-seed0"]
    assert "Probes of one fine-tune, read on another" in (tmp_path / "report.html").read_text()
    assert all(r["n"] > 0 and r["interval"] for r in results if r["metric"] == "probe AUROC")
