"""Provenance: what is recorded, and that secrets never are."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from store_samples import filled_store, new_store, shards

from stores import ResultTable, provenance

TOKEN = "hf_" + "a" * 30
KEY = "sk-" + "B" * 40
PLANTED = "correct-horse-battery"


@pytest.fixture
def environment(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("MY_API_KEY", PLANTED)
    monkeypatch.setenv("DB_PASSWORD", "p@ss/w0rd!")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("UNRELATED", "not-on-the-list")


def test_facts_versions_and_machine_are_recorded(environment):
    facts = provenance.collect(seed=7, model="tiny", threads=2)
    assert facts["seed"] == 7 and facts["model"] == "tiny"
    assert {"numpy", "h5py", "torch"} <= facts["versions"].keys()
    assert facts["environment"]["OMP_NUM_THREADS"] == "3" and "UNRELATED" not in facts["environment"]
    assert facts["created_utc"].endswith("Z") and facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert json.loads(json.dumps(facts)) == facts


def test_the_commit_of_the_project_is_recorded():
    git = provenance.collect()["git"]
    if not (Path(provenance.__file__).parent.parent / ".git").exists():
        pytest.skip("not a git checkout: clone the repository to run this")
    assert len(git["commit"]) == 40 and isinstance(git["dirty"], bool)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--token", "some-plain-words"],
        ["run", "--hf-token=some-plain-words"],
        ["run", "--api_key", "some-plain-words"],
        ["run", f"model={TOKEN}"],
        ["run", f"--url=https://user:some-plain-words@host/path?key={KEY}"],
        ["run", f"x{PLANTED}y"],
        ["run", "p@ss/w0rd!"],
    ],
)
def test_secrets_in_the_command_line_are_redacted(environment, monkeypatch, arguments):
    monkeypatch.setattr(sys, "argv", arguments)
    text = json.dumps(provenance.collect())
    for secret in ("some-plain-words", TOKEN, KEY, PLANTED, "p@ss/w0rd!"):
        assert secret not in text
    assert '"run"' in text


def test_the_command_line_is_kept_otherwise(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run", "--model", "tiny", "--seed=3", "--max-tokens", "99"])
    assert provenance.collect()["command"] == ["run", "--model", "tiny", "--seed=3", "--max-tokens", "99"]


def test_secrets_in_facts_are_redacted(environment):
    facts = provenance.collect(
        hub={"token": "plain", "url": "https://me:pw@host/x?sig=1", "list": [KEY, "fine"]}, content_key="kept"
    )
    assert facts["hub"] == {"token": "<redacted>", "url": "https://host/x", "list": ["<redacted>", "fine"]}
    assert facts["content_key"] == "kept"
    assert provenance.scrubbed(facts) == facts


def test_the_home_folder_is_not_named():
    assert provenance.scrubbed(str(Path.home() / "runs")) in ("~/runs", "/runs")


def test_nothing_written_holds_a_secret(tmp_path, environment):
    """Provenance that did not pass through collect() is scrubbed on the way to disk all the same."""
    store = filled_store(tmp_path / "s", provenance={"note": f"{TOKEN} {PLANTED}", "password": "plain-text"})
    ResultTable.create(tmp_path / "t", spec={}, plan=["a"], provenance={"k": KEY}).commit("a", [{"x": 1}])
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    for secret in (TOKEN, PLANTED, "plain-text", KEY):
        assert secret.encode() not in written
    assert b"<redacted>" in shards(store.path)[0].read_bytes()  # the meta-test: provenance is in there


def test_a_secret_in_the_spec_is_refused(tmp_path, environment):
    with pytest.raises(ValueError, match=r"secret at model\.path"):
        new_store(tmp_path / "s", spec={"model": {"path": f"https://{TOKEN}@host"}})
    assert not (tmp_path / "s" / "store.json").exists()
