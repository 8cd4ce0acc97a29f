"""The section on mitigations is made from the summary alone, and says what the numbers say."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from conftest import LONG
from matplotlib.figure import Figure
from test_mitigation import ARMS, judged
from test_mitigation_relocation import MOVED, change, planted

import workbench as wb
from workbench.behaviour.relocation import decided
from workbench.reporting.blocks import Picture, Table, Text
from workbench.reporting.mitigation import mitigations
from workbench.reporting.mitigation_figure import Chosen, Mark, chosen_doses, cost_of_mitigation
from workbench.reporting.summary import read_summary

SCRIPT = Path(__file__).resolve().parent.parent / "experiments" / "mitigation.py"


@pytest.fixture(scope="module")
def blocks():
    answers = judged()
    matched = wb.matched_doses(answers, ARMS, keep=("coherence", "capability"))
    found = [e for part in wb.matched_comparison(answers, matched, ARMS) for e in part.entries()]
    effects = dict(left=change(0.0), old=change(0.8), new=change(0.5))
    after = decided(wb.rediscovered(*planted(MOVED)), 3, **effects, draws=(0.1,))
    return mitigations(read_summary({"results": json.loads(json.dumps(matched.entries() + found + after.entries()))}))


def test_the_table_has_every_arm_with_its_numbers(blocks):
    table = next(block for block in blocks if isinstance(block, Table))
    rows = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert list(rows) == ["base", "harmful fine-tune", "breaks", "forgets", "equal"]
    assert rows["forgets"]["dose"] == "2" and rows["forgets"]["all"].startswith("10 %".replace(" ", "\u00a0"))
    assert rows["forgets"]["change"].startswith("-0.90 [") and rows["forgets"]["The fine-tuned task"].endswith("lost")
    assert float(rows["breaks"]["p, Holm"]) <= 0.05 < 1 and rows["harmful fine-tune"]["change"] is None


def test_the_sentences_are_the_numbers(blocks):
    words = " ".join(line for block in blocks if isinstance(block, Text) for line in block.paragraphs)
    assert "2 of 3 arms lower misalignment" in words and "forgets (to 10\u00a0%), breaks (to 50\u00a0%)" in words
    assert "No dose within the margin: unlearns." in words and "The harmful fine-tune has 100\u00a0%." in words
    assert "Relocated: misalignment left over the base's +0.00" in words
    costs, _ = (block.figure for block in blocks if isinstance(block, Picture))
    drawn = [
        line for line in costs.axes[0].lines if len(line.get_xdata()) == 1 and line.get_marker() not in ("+", "None")
    ]
    filled = [line for line in drawn if line.get_markerfacecolor() != "white"]
    assert len(drawn) == 7 and len(filled) == 3  # the doses of all arms, and the chosen ones


def test_other_summaries_have_no_such_section():
    assert mitigations(read_summary({"results": [{"metric": "contrary", "condition": "base", "value": 0.1}]})) == []


def test_figures_draw_on_the_axis_given():
    mine = Figure().subplots()
    marks = {"repair": [Mark(0.9, 0.5, (0.8, 1.0), (0.4, 0.6)), Mark(0.7, 0.1, chosen=True)]}
    figure = cost_of_mitigation({"Coherent": marks}, {"Coherent": {"base": Mark(1.0, 0.0)}}, mine)
    assert figure is mine.figure and mine.get_title(loc="left") == "Coherent"
    faces = [line.get_markerfacecolor() for line in mine.lines if line.get_marker() == "o"]
    assert faces[0] == "white" and faces[1] != "white"  # the chosen dose is filled
    own = chosen_doses({"all": {"repair": Chosen(0.1, (0.0, 0.2), (0.5, 0.7))}}, {"all": {"base": 0.0}})
    assert [tick.get_text() for tick in own.axes[0].get_yticklabels()] == ["repair"]


@LONG
def test_the_script_in_its_smallest_form(tmp_path, monkeypatch):
    few = dict(steps=10, coefficients=0.5, shares=0.2, factors=0.5, samples=1, controls=2, to=tmp_path)
    given = [word for name, value in few.items() for word in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", ["mitigation.py", *given])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    results = json.loads((tmp_path / "summary.json").read_text())["results"]
    counted = {r["condition"] for r in results if r["metric"] == "doses within margin"}
    assert len(counted) == 11 and {"repair, same domain", "repair, other domain", "scaled adapter"} <= counted
    confirm = [r for r in results if r["split"] == "confirm" and r["detail"] == "misalignment"]
    assert {r["modality"] for r in confirm} == {"all", "text", "image"}
    bare = ("norm", "reliability", "doses within margin")  # no clusters
    assert all(r["n"] > 0 and (r["clusters"] or r["metric"] in bare) for r in results)
    assert any(r["control"] and len(r["control"]["draws"]) == 2 for r in confirm)
    changes = [r for r in confirm if r["condition"].endswith(" - tuned")]
    assert changes and all(r["test"]["p"] > 0 and r["interval"] for r in changes)
    verdict = [r for r in results if r["metric"] == "verdict after the repair"]
    assert len(verdict) == 1 and "Mitigations at matched cost" in (tmp_path / "report.html").read_text()
