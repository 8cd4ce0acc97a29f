"""The joined page: no evidence said first, claims, every number side by side across base seeds, runs folded, inert."""

import inspect
import json
import re

import pytest
from judged_entries import rank_study

import workbench as wb
from workbench.reporting import paper_a_claims
from workbench.reporting.experiment_report import report
from workbench.reporting.joined_numbers import side_by_side
from workbench.reporting.joined_report import read_runs, script_of
from workbench.reporting.summary import read_summary


def folder(base, summary):
    """A run folder as the scripts leave it."""
    base.mkdir(parents=True)
    (base / "summary.json").write_text(json.dumps(summary))
    return base


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    base = tmp_path_factory.mktemp("runs")
    texts = (0.9, 0.8, 0.95)
    return [folder(base / "lora_rank" / f"seed{s}", rank_study(s, text=text)) for s, text in enumerate(texts)]


@pytest.fixture(scope="module")
def html(three):
    return wb.joined_report(three, three[0].parent / "all.html", title="All", claims=paper_a_claims()).read_text()


def test_it_says_first_that_it_is_no_evidence(html):
    body = html[html.index("</nav>") :]
    assert body.index("no evidence about real models") < body.index("Which of the claims")
    assert body.count("no evidence about real models") == 1  # each run's own note would say it again


def test_claims_carry_their_verdict_and_lead_to_their_runs(html):
    row = next(row for row in re.findall(r"<tr>.*?</tr>", html, re.DOTALL) if "grows with the rank" in row)
    assert "<td>shown</td>" in row and '<a href="#lora-rank">lora_rank</a>' in row
    assert "Of 16 readings of the paper&#39;s claims: 2 shown, 0 not shown, 1 against, 13 not measured." in html


def test_numbers_stand_side_by_side_with_interval_n_and_spread(html):
    row = next(row for row in re.findall(r"<tr>.*?</tr>", html, re.DOTALL) if "rank 32, text questions" in row)
    cells = [re.sub(r"<[^>]+>|\s+", " ", cell).strip() for cell in re.findall(r"<td.*?</td>", row)]
    assert cells[1:4] == ["90 % (85–95 %)", "80 % (75–85 %)", "95 % (90–100 %)"]
    assert cells[4:] == ["80 %", "95 %", "100"]


def test_runs_are_folded_and_their_headings_stay_out_of_the_contents(html):
    nav = re.search(r"<nav.*?</nav>", html, re.DOTALL).group()
    assert re.findall(r'href="#([^"]+)"', nav) == [
        "which-of-the-claims-these-runs-show", "lora-rank", "where-each-run-comes-from",
    ]  # fmt: skip
    assert html.count("the run&#39;s own sections") == 3 and "<h3>Trends over doses</h3>" in html
    ids = re.findall(r'\sid="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def test_every_run_says_where_it_comes_from(html):
    for seed in range(3):
        assert f"python experiments/lora_rank.py --seed {seed}" in html
    assert "All runs are of one version of the code." in html and "c0de" * 16 in html


def test_nothing_is_fetched_and_it_stays_small(html):
    assert html.count("<script") == 1
    assert "http" not in re.sub(r'xmlns[^"]*"[^"]*"', "", html[html.index("<main") :])
    assert len(html) < 2_000_000


def test_two_runs_of_one_seed_are_refused(three, tmp_path):
    twice = folder(tmp_path / "lora_rank" / "again", rank_study(0))
    with pytest.raises(ValueError, match="both runs of lora_rank with base seed 0"):
        wb.joined_report([*three, twice], tmp_path / "x.html")
    with pytest.raises(ValueError, match="no runs to join"):
        read_runs([])


def test_a_script_is_known_by_its_command_or_its_folder(tmp_path):
    assert script_of(read_summary(rank_study())) == "lora_rank"
    bare = rank_study() | {"command": ""}
    assert list(read_runs([folder(tmp_path / "other" / "seed0", bare)])) == ["other"]


def test_a_number_that_one_seed_lacks_is_a_dash_there():
    lacking = rank_study(1) | {"results": [r for r in rank_study(1)["results"] if r["condition"] != "rank 32"]}
    blocks = side_by_side("lora_rank", {0: read_summary(rank_study(0)), 1: read_summary(lacking)})
    rows = [row for block in blocks for row in getattr(block, "rows", ()) if "rank 32, text questions" in str(row[0])]
    assert len(rows) == 1 and rows[0][1] is not None and rows[0][2] is None


def test_other_scripts_show_their_first_results(tmp_path):
    others = [rank_study(seed) | {"command": "python mine.py"} for seed in (0, 1)]
    folders = [folder(tmp_path / "mine" / f"seed{seed}", other) for seed, other in enumerate(others)]
    assert "First results" in wb.joined_report(folders, tmp_path / "mine.html").read_text()


def test_one_base_seed_has_its_sections_open_and_decides_where_one_is_enough(tmp_path):
    """Of a population of fine-tunes there is one run; the fine-tuning seeds are within it."""
    one = [folder(tmp_path / "lora_rank" / "seed0", rank_study(0))]
    options = {"claims": paper_a_claims(), "written_before": "this run"}
    page = wb.joined_report(one, tmp_path / "three.html", **options).read_text()
    assert "before this run" in page and "0 shown" in page and "of at least 3" in page
    page = wb.joined_report(one, tmp_path / "one.html", least_seeds=1, **options).read_text()
    assert "2 shown" in page and "of at least 1" in page and "not of the base" in page
    assert "the run&#39;s own sections" not in page and "<h3>Trends over doses</h3>" in page


def test_one_page_of_several_runs_has_a_call_of_its_own():
    """Under the tests' type checker the call is refused sooner; this is what a user reads."""
    with pytest.raises(TypeError, match=r"report\(list\): expected one run, .* wb\.joined_report"):
        inspect.unwrap(report)(["runs/a", "runs/b"])
