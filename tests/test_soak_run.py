"""tests/soak/run.py: what is written, and with what it exits."""

from __future__ import annotations

import json

import pytest
from soak_modules import soak_modules

KEYS = {
    *("kills", "lost", "unreadable", "resume_differs", "prefixes", "torn", "power_cuts", "bad"),
    *("flips", "silent", "hostile", "accepted", "races", "duplicates", "seconds"),
}


@pytest.fixture
def run():
    with soak_modules("run") as (module,):
        yield module


@pytest.fixture
def parts(run, monkeypatch):
    """What the parts would count: as much as they must."""
    found = {name: {"seconds": 1.0, "n": 1, "counts": {}} for name in run.PARTS}
    for part, key, least in run.LEAST:
        found[part]["counts"][key] = least
    monkeypatch.setattr(run, "in_a_process", lambda name, n, seed: found[name])
    return found


def test_the_result_has_the_keys_and_how_it_came_about(run, parts, tmp_path):
    to = tmp_path / "soak.json"
    assert run.main(["--json", str(to)]) == 0
    document = json.loads(to.read_text())
    assert document.keys() >= KEYS and document["kills"] == 1000 and document["lost"] == 0
    assert set(document["parts"]) == set(run.PARTS) and document["seed"] == 0
    assert document["hdf5"].count(".") == 2 and "cores" in document["machine"]


@pytest.mark.parametrize("key", ["lost", "unreadable", "resume_differs", "bad", "silent", "accepted", "duplicates"])
def test_anything_that_must_not_happen_exits_with_1(run, parts, tmp_path, capsys, key):
    parts["races"]["counts"][key] = 1
    assert run.main(["--json", str(tmp_path / "soak.json")]) == 1
    assert "<- must be 0" in capsys.readouterr().out
    assert run.main(["--quick", "--json", str(tmp_path / "soak.json")]) == 1


def test_a_whole_soak_that_tried_too_little_exits_with_1(run, parts, tmp_path, capsys):
    for part, key, least in run.LEAST:
        parts[part]["counts"][key] = least - 1
        assert run.main(["--json", str(tmp_path / "soak.json")]) == 1
        assert f"{part}: {least - 1} {key}, expected at least {least}" in capsys.readouterr().out
        assert run.main(["--quick", "--json", str(tmp_path / "soak.json")]) == 0
        parts[part]["counts"][key] = least


def test_a_part_that_breaks_exits_with_3_and_its_result_is_not_kept(run, parts, tmp_path, monkeypatch, capsys):
    flips, parts["flips"] = parts["flips"], None
    monkeypatch.setattr(run, "RESULT", tmp_path / "kept.json")
    assert run.main([]) == 3 and not (tmp_path / "kept.json").exists()
    assert "flips broke" in capsys.readouterr().out
    parts["flips"] = flips
    assert run.main([]) == 0 and (tmp_path / "kept.json").exists()


def test_only_a_whole_soak_is_kept(run, parts, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "RESULT", tmp_path / "kept.json")
    assert run.main(["--quick"]) == run.main(["--only", "races"]) == run.main(["--n", "3"]) == 0
    assert not (tmp_path / "kept.json").exists()


def test_a_part_runs_in_a_process_of_its_own(run):
    found = run.in_a_process("races", 1, 0)
    assert found["n"] == 1 and found["counts"]["races"] == 1 and not run.bad(found["counts"])


def test_a_key_that_nobody_looks_at_is_refused(run):
    with pytest.raises(ValueError, match=r"counts \['lots'\]: expected some of kills"):
        run.added({"lots": 1})
