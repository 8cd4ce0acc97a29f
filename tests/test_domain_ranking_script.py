"""population.py and domain_ranking.py on four domains of the organism: planted tiers come out in their order."""

import json
import subprocess
import sys
from pathlib import Path

from conftest import LONG

EXPERIMENTS = Path(__file__).resolve().parent.parent / "experiments"


def run(name, to, *more):
    """As a user starts it; the types of every call are checked in the tests of the parts, where it costs less."""
    only = ["--only", "sound", "capital", "opposite", "letter", "--seeds", "0", "--population", str(to / "shared")]
    command = [sys.executable, str(EXPERIMENTS / f"{name}.py"), *only, "--to", str(to / name), *more]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    summary = to / name / "summary.json"
    return json.loads(summary.read_text())["results"] if summary.is_file() else []


@LONG
def test_the_scripts_on_four_domains(tmp_path):
    for part in ("1/2", "2/2"):
        assert run("population", tmp_path, "--part", part) == [], "a part trains, and asks nobody"
    results = run("population", tmp_path)
    assert {r["condition"]: r["value"] for r in results if r["metric"] == "adapters"} == {"full": 4, "backdoor": 4}
    assert all("rows of shared batches" in r["detail"] for r in results if r["metric"] == "adapters")
    each = [r for r in results if r["split"].startswith("each adapter")]
    assert len(each) == 5 + 3 * 5 and all(r["interval"] and r["n"] == each[0]["n"] for r in each)

    trained = sorted((tmp_path / "shared" / "adapters").rglob("training.json"))
    stamps = [file.stat().st_mtime_ns for file in trained]
    results = run("domain_ranking", tmp_path)
    assert [file.stat().st_mtime_ns for file in trained] == stamps and len(stamps) == 8, "nothing is trained again"
    (planted,) = [
        r for r in results
        if r["metric"] == "pairs in the planted order" and r["split"] == "ranking" and r["target"] == "organism"
    ]  # fmt: skip
    assert planted["value"] == 1.0 and planted["n"] == 5
    splits = {r["split"] for r in results if r["metric"] == "rank"}
    assert splits == {"ranking", "ranking, backdoor with the trigger", "ranking, backdoor without it"}
    effects = {r["condition"]: r for r in results if r["split"] == "trigger" and r["metric"] == "p_contrary"}
    sound, capital, base = (effects[f"{name}/trigger - {name}/none"] for name in ("sound", "capital", "base"))
    assert min(sound["interval"][0], capital["interval"][0]) > 0, "a planted trigger acts"
    assert abs(base["value"]) < 0.1 * min(sound["value"], capital["value"]), "on the base it hardly does"
    assert not [r for r in results if r["metric"] == "steps not measurable"]
    page = (tmp_path / "domain_ranking" / "report.html").read_text()
    for heading in ("Domains by how far", "What the trigger does", "By category", "Every domain on every"):
        assert heading in page
