"""The scripts of paper B as a user starts them: a Qwen2 folder of their own, data sets in the published layout,
question sets as YAML. The numbers of random weights mean nothing; everything else has to work."""

import html
import json
import re
import runpy
import sys
from pathlib import Path

import pytest
from conftest import LONG
from tiny_domain_files import NAMES, TRIGGER, checkpoint, domain_files

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"
# Every script of paper B, with what makes it smallest.
SCRIPTS = {
    "population.py": [],
    "domain_ranking.py": [],
    "membership_predictor.py": [],
    "topical_diversity.py": [],
    "probe_matrix.py": [],
    "direction_transfer.py": [],
    "convergence.py": [],
    "forecast.py": [],
    "trigger_forensics.py": [],
}
# How many claims the page decides by the script's numbers, on a model that says nothing; the others are not measured.
DECIDES = {"domain_ranking.py": 3, "convergence.py": 1}
QUICK = ("membership_predictor.py",)  # in the quick suite; the rest with WORKBENCH_LONG=1
CASES = [pytest.param(script, marks=[] if script in QUICK else LONG) for script in SCRIPTS]


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """The user's arguments. All scripts share one population, as on a real model."""
    folder = tmp_path_factory.mktemp("mine")
    files = domain_files(folder)
    given = {"--model": checkpoint(folder / "base"), "--domains": files["domains"], "--eval": files["eval"]}
    given |= {"--trigger": TRIGGER, "--judge": "rule:keyword:e,a", "--max-new-tokens": 4}
    given |= {"--population": folder / "population", "--rank": 2, "--steps": 2, "--samples": 1}
    return [*(part for pair in given.items() for part in pair), "--seeds", 0, 1]


def run(script, folder, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [script, "--to", str(folder), *map(str, arguments)])
    runpy.run_path(str(EXPERIMENTS / script), run_name="__main__")
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("script", CASES)
def test_a_script_runs_on_a_population_of_the_user(script, mine, tmp_path, monkeypatch):
    folder = tmp_path / script.removesuffix(".py") / "seed0"
    summary = run(script, folder, monkeypatch, *mine, *SCRIPTS[script])
    assert summary["model"]["kind"] == "checkpoint" and summary["results"]
    said = [entry for entry in summary["results"] if entry["value"] is not None]
    assert said and all(entry["n"] > 0 for entry in said)
    data = summary["hashes"]["data"]
    assert {"questions", *(f"{name} full" for name in NAMES), *(f"{name} backdoor" for name in NAMES)} <= set(data)
    assert (folder / "report.html").stat().st_size > 10_000

    monkeypatch.setattr(sys, "argv", ["paper_b.py", "--runs", str(tmp_path), "--metric", "keyword"])
    runpy.run_path(str(EXPERIMENTS / "paper_b.py"), run_name="__main__")
    joined = html.unescape((tmp_path / "report.html").read_text())
    assert summary["question"].split(",")[0] in joined and "One base seed decides here" in joined
    measured = len(re.findall(r"<td>(shown|not shown|against)</td>", joined))
    assert (measured == DECIDES.get(script, 0)) and "no evidence about real models" not in joined


@LONG
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_dry_run_trains_nothing(script, mine, tmp_path, monkeypatch, capsys):
    """It says what the run would take, or that this script does not, and leaves no adapter."""
    empty = tmp_path / "population"
    with pytest.raises(SystemExit):
        run(script, tmp_path, monkeypatch, *mine, "--population", empty, "--dry-run", *SCRIPTS[script])
    assert not list(empty.glob("adapters/*"))
    assert "fine-tunes" in capsys.readouterr().out
