"""The sections on diversity and on forecasts are made from the summary alone, and say what the numbers say."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import LONG
from matplotlib.figure import Figure

import workbench as wb
from workbench.behaviour.diversity import Diversity
from workbench.organisms import SHIPPED
from workbench.reporting.blocks import Details, Note, Picture, Table, Text
from workbench.reporting.diversity_correlations import correlation_rows
from workbench.reporting.diversity_section import diversities
from workbench.reporting.forecast_intervals import ForecastRow, forecast_intervals
from workbench.reporting.forecast_section import domain_forecasts
from workbench.reporting.summary import Result, read_summary
from workbench.statistics import Interval

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
DOMAINS = [f"d{i}" for i in range(11)]
MEASURED = np.linspace(0.05, 0.95, 11)


def by_domain(values):
    return dict(zip(DOMAINS, np.asarray(values).tolist(), strict=True))


def read(entries):
    return read_summary({"results": json.loads(json.dumps(entries, allow_nan=False))})


def words_of(blocks):
    return " ".join(line for block in blocks if isinstance(block, Text) for line in block.paragraphs)


@pytest.fixture(scope="module")
def foretold():
    r = np.random.default_rng(0)
    features = {"before:gap_trait": by_domain(2 * MEASURED + 0.05 * r.normal(size=11))}
    features["before:loss"] = by_domain(r.normal(size=11))
    table = wb.predictor_table(by_domain(MEASURED), features)
    new = {"unseen": {"before:gap_trait": 1.0, "before:loss": 0.0}}
    entries = wb.summarise(table, of="organism")
    entries += wb.summarise(wb.predictors(table, draws=99), condition="before")
    return wb.forecast_domains(table, new=new, draws=99), entries


def test_forecast_mean_and_measured_stand_together(foretold):
    found, entries = foretold
    blocks = domain_forecasts(read(entries + wb.summarise(found)))
    words = words_of(blocks)
    assert words.startswith(str(found)) and "better than the mean" in words and "90.9%" in words
    assert "chosen in folds: before:gap_trait 11" in words
    assert "strongest in its stated direction is before: gap under the trait's system turn" in words
    assert "Against the direction" not in words
    assert f"inside their intervals: {found.covered / 11:.2f}" in words
    picture = next(block for block in blocks if isinstance(block, Picture))
    labels = [tick.get_text() for tick in picture.figure.axes[0].get_yticklabels()]
    assert labels == [*reversed(DOMAINS), "unseen"] and picture.caption.endswith("unseen: nobody fine-tuned on it.")
    table = next(block for block in blocks if isinstance(block, Table) and block.columns[0] == "domain")
    rows = {row[0]: row for row in table.rows}
    assert rows["unseen"][1] is None and rows["unseen"][3] is None and rows["d4"][1] == pytest.approx(0.41)
    assert sum(row[3] == "yes" for row in table.rows) == found.covered
    assert "Mean width" in table.caption


def test_flat_domains_have_no_skill_and_say_so():
    flat = wb.predictor_table(dict.fromkeys(DOMAINS, 0.0), {"before:loss": by_domain(range(11))})
    entries = wb.summarise(flat) + wb.summarise(wb.predictors(flat), condition="before")
    blocks = domain_forecasts(read(entries + wb.summarise(wb.forecast_domains(flat, draws=9))))
    assert "nothing could be foretold" in words_of(blocks) and "No correlation is defined for before:" in words_of(
        blocks
    )
    assert domain_forecasts(read([])) == []


def test_few_domains_show_their_features_without_a_forecast(foretold):
    blocks = domain_forecasts(read(foretold[1]))
    assert not any(isinstance(block, Picture) for block in blocks)
    assert any(isinstance(block, Table) and block.columns[0] == "feature" for block in blocks)


def measures(values, name="vendi_1"):
    within = Interval(0.0, 9.0, "half-samples")
    return [Diversity(d, name, v, within, 250, 120, 1.5) for d, v in zip(DOMAINS, values, strict=True)]


def test_diversity_stands_against_misalignment():
    r = np.random.default_rng(2)
    found = measures((3 - MEASURED).tolist()) + measures(r.normal(size=11).tolist(), "mean_distance")
    table = wb.diversity_table(found, by_domain(MEASURED))
    entries = wb.summarise(found) + wb.summarise(table)
    entries += wb.summarise(wb.predictors(table, draws=99), condition="diversity")
    blocks = diversities(read(entries))
    words = words_of(blocks)
    assert "Of 2 measures, 1 goes with misalignment" in words and "Vendi, order 1 (−1.00 (−1.00 to 1.00))" in words
    assert "is more than the best of as many" in words and "at 120 rows" in words and "up to 50%" in words
    rows, scatter = (block.figure for block in blocks if isinstance(block, Picture))
    assert [tick.get_text() for tick in rows.axes[0].get_yticklabels()] == ["mean distance", "Vendi, order 1"]
    assert len(scatter.axes) == 2
    values = next(block for block in blocks if isinstance(block, Details))
    assert len(values.content[0].rows) == 11 and values.content[0].columns[1] == "Vendi, order 1"
    assert diversities(read([])) == []


def test_diversity_without_spread_is_a_note():
    found = measures(np.arange(11.0).tolist())
    table = wb.diversity_table(found, dict.fromkeys(DOMAINS, 0.5))
    entries = wb.summarise(found) + wb.summarise(wb.predictors(table), condition="diversity")
    blocks = diversities(read(entries))
    assert any(isinstance(block, Note) and "same in all domains" in block.text for block in blocks)
    assert not any(isinstance(block, Picture) for block in blocks)


def test_figures_draw_on_the_axis_given():
    mine = Figure().subplots()
    result = Result("predictor_spearman", 0.4, "diversity", interval=(0.1, 0.7))
    assert correlation_rows({"Vendi": result}, 0.6, mine) is mine.figure
    assert {round(line.get_xdata()[0], 2) for line in mine.lines} == {0.4, 0.0, -0.6, 0.6}
    mine = Figure().subplots()
    rows = [ForecastRow("a", 0.3, (0.1, 0.5), 0.4, None, 0.6), ForecastRow("b", 0.2, None)]
    assert forecast_intervals(rows, mine) is mine.figure and [row.held for row in rows] == [False, None]


@pytest.fixture(scope="module")
def organism_files(tmp_path_factory):
    """Seven domains with the plain arm alone, one more that nobody is fine-tuned on, and a population to share."""
    folder = tmp_path_factory.mktemp("organism")
    domains = ["sound", "capital", "region", "tint", "color", "opposite", "letter"]
    for name, written in {"data": domains, "new": ["ground"]}.items():
        wb.organism_domains(folder / name, domains=written)
        for arm in ("backdoor", "backdoor-small"):
            shutil.rmtree(folder / name / arm)
    return folder, domains


@LONG
@pytest.mark.parametrize("script", ["membership_predictor.py", "topical_diversity.py", "forecast.py"])
def test_the_scripts_on_the_organism(script, organism_files, tmp_path, monkeypatch):
    folder, domains = organism_files
    given = ["--population", folder / "population", "--domains", folder / "data", "--seeds", 0]
    given += ["--texts", 20, "--each", 4]
    if script == "forecast.py":
        given += ["--new", folder / "new", "--reference", SHIPPED[1]]
    monkeypatch.setattr(sys, "argv", [script, "--to", str(tmp_path), *map(str, given)])
    runpy.run_path(str(EXPERIMENTS / script), run_name="__main__")
    results = json.loads((tmp_path / "summary.json").read_text())["results"]
    assert {r["condition"] for r in results if r["metric"] == "predictor_outcome"} == set(domains)
    critical = next(r for r in results if r["metric"] == "predictor_critical_r")
    assert critical["n"] == 7 and critical["value"] == pytest.approx(0.754, abs=1e-3)
    extra = {"membership_predictor.py": "fitted_skill", "topical_diversity.py": "diversity", "forecast.py": "forecast"}
    assert any(r["metric"] == extra[script] for r in results) and (tmp_path / "figures").is_dir()
    if script == "forecast.py":
        (new,) = (r for r in results if r["metric"] == "forecast" and r["condition"] == "ground")
        assert new["companions"]["measured"] is None and 0 <= new["value"] <= 1
        names = {r["detail"] for r in results if r["metric"] == "predictor_feature"}
        assert {"before:gap_own", "before:gap_trait", "projection_trait_over_own", "before:adjusted_loss"} <= names
