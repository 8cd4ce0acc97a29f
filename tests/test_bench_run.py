"""All benchmarks as one table, and that table in docs/performance.md: run on scripts that are planted here."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from bench_modules import FOLDER, bench_modules
from conftest import LONG

ROOT = FOLDER.parent.parent
PAGE = ROOT / "docs" / "performance.md"
bench = pytest.fixture(scope="module")(bench_modules)

SCRIPT = """
import json, sys
at = sys.argv.index("--json")
if {code} == 3:
    sys.exit("ours differs")
open(sys.argv[at + 1], "w").write(json.dumps({document}))
sys.exit({code})
"""


def line(identifier: str, verdict: str, **more) -> dict:
    fields = dict(id=identifier, what="a thing", peer="theirs", direction=">=", gate=1.5, goal=2.0, verdict=verdict)
    measured = dict(note="", ratio=1.73, interval=[1.7, 1.8], ours_s=0.5, peer_s=1.0, pairs=15, floor=[1.0, 0.99, 1.01])
    return fields | measured | more


def document(name: str, *lines: dict, device: str = "one core of X", **more) -> dict:
    facts = dict(date="2026-01-02", command=f"python tests/bench/{name}.py", torch="2", transformers="5", commit="abc")
    return dict(benchmark=name, device=device, lines=list(lines), **(facts | more))


@pytest.fixture
def planted(bench, tmp_path, monkeypatch):
    """Puts scripts of these names and exit codes where `run` looks for them."""
    monkeypatch.setattr(bench["run"], "HERE", tmp_path)
    monkeypatch.setattr(bench["run"], "RESULTS", tmp_path / "results")

    def plant(**codes: int):
        for name, code in codes.items():
            verdict = {0: "pass", 1: "short", 2: "too noisy", 3: ""}[code]
            found = document(name, line(bench["run"].BENCHMARKS[name].split(",")[0], verdict))
            (tmp_path / f"{name}.py").write_text(SCRIPT.format(code=code, document=found))

    return plant


@pytest.mark.parametrize(
    ("codes", "worst"),
    [
        (dict(capture=0, plan=0), 0),
        (dict(capture=2, plan=0), 2),
        (dict(capture=2, plan=1), 1),
        (dict(capture=3, plan=1), 3),
    ],
)
def test_one_table_and_the_worst_verdict(bench, planted, capfd, codes, worst):
    planted(**codes)
    assert bench["run"].main(["--quick"]) == worst
    out, err = capfd.readouterr()
    assert ("capture (B1) broke" in out and "ours differs" in err) == (codes["capture"] == 3)
    assert out.count("1.73x") == sum(code != 3 for code in codes.values())
    assert "sweep (B3, B4): not written yet" in err, "what is not there is said, and skipped"


def test_numbers_are_kept_a_file_a_benchmark_and_device(bench, planted, tmp_path, capfd):
    planted(capture=0, plan=1)
    bench["run"].main(["--save", "--only", "capture"])
    bench["run"].main(["--save", "--only", "capture", "--device", "cuda"])
    kept = sorted(path.name for path in (tmp_path / "results").iterdir())
    assert kept == ["capture-cpu.json", "capture-gpu.json"]
    assert json.loads((tmp_path / "results" / "capture-cpu.json").read_text())["lines"][0]["id"] == "B1"
    with pytest.raises(SystemExit, match="judges nothing"):
        bench["run"].main(["--tiny", "--save"])


def test_every_listed_gpu_benchmark_is_listed(bench):
    """B1 to B15 without a GPU; all but what the disk and the planner decide with one."""
    run = bench["run"]

    def numbers(names):
        return {int(part[1:]) for name in names for part in run.BENCHMARKS[name].split(", ")}

    assert numbers(run.BENCHMARKS) == {*range(1, 16)}
    assert numbers(run.ON_GPU) == {*range(1, 10), 11, 13, 14, 15}


def test_the_readmes_table_says_device_day_command_and_every_line_with_a_gate(bench, tmp_path):
    table = bench["table"]
    for name, device, lines in [
        ("plan-cpu", "one core of X", [line("B12", "pass", direction="<=", note="worst of 20")]),
        (
            "capture-cpu",
            "one core of X",
            [
                line("B1", "short"),
                line("B2", "not installed", what="absent"),
                line("B2", "reported", what="beside", gate=None),
            ],
        ),
        ("capture-gpu", "H100", [line("B1", "pass", ratio=3.25)]),
    ]:
        found = document(name.split("-")[0], *lines, device=device, date=f"2026-01-0{len(lines)}")
        (tmp_path / f"{name}.json").write_text(json.dumps(found))
    text = table.written(table.documents(tmp_path))
    assert text.index("On one core of X, 2026-01-01 to 2026-01-03, torch 2, transformers 5:") < text.index("On H100")
    assert text.index("| B1 | a thing | theirs | 1.73x [1.70, 1.80] | ≥ 1.5 | ≥ 2 | short |") < text.index("| B12 |")
    assert "| ≤ 1.5 | ≤ 2 | pass |" in text and "B12: worst of 20" in text and "3.25x" in text
    assert "`python tests/bench/capture.py`; `python tests/bench/plan.py`" in text
    assert "absent" not in text, "what was not measured is no number"
    assert "beside" not in text and "1 more lines, without a gate, are in tests/bench/results/" in text


def test_the_table_goes_between_its_marks(bench):
    table = bench["table"]
    readme = f"above\n{table.BEGIN}\nold\n{table.END}\nbelow\n"
    new = table.replaced(readme, "new\n")
    assert new == f"above\n{table.BEGIN}\nnew\n{table.END}\nbelow\n"
    assert table.replaced(new, "new\n") == new
    for wrong in ("no marks", f"{table.END}{table.BEGIN}", readme + readme):
        with pytest.raises(ValueError, match="once"):
            table.replaced(wrong, "new")


def test_the_readmes_numbers_are_those_that_were_kept(bench):
    """`python tests/bench/table.py` writes them."""
    table, text = bench["table"], PAGE.read_text()
    kept = table.documents(bench["run"].RESULTS)
    if kept or table.BEGIN in text:
        assert table.replaced(text, table.written(kept)) == text


def test_kept_numbers_name_no_path_of_a_machine(bench):
    for path in bench["run"].RESULTS.glob("*"):
        text = path.read_text()
        assert "/home/" not in text and "/root/" not in text and str(ROOT) not in text, path.name


@LONG
def test_benchmarks_run_from_a_bare_checkout():
    """The parts that others stand on: models, a capture, a plan; in sizes that say nothing."""
    command = [sys.executable, "tests/bench/run.py", "--tiny", "--only", "capture", "plan"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "bare forward" in done.stdout and "padded / real tokens" in done.stdout
