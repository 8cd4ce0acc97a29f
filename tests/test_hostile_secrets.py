"""Secrets reach no file that people pass on: specs, provenance, summaries, samples, pages."""

from __future__ import annotations

import json

import numpy as np
import pytest

import workbench as wb
from stores import StoreError
from stores.files import write_file
from stores.secret_text import SecretFound, names_a_secret, redacted, refuse_secrets, secrets_in

PLANTED = "correct-horse-battery"
SHAPES = ["hf_" + "a" * 30, "sk-" + "B" * 40, "AKIA" + "C" * 16, "ghp_" + "d" * 36, "AIza" + "e" * 35,
          "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcdefgh"]  # fmt: skip


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", PLANTED)


@pytest.mark.parametrize("secret", [*SHAPES, PLANTED])
def test_no_file_for_people_is_written_with_a_secret_in_it(secret, tmp_path):
    (tmp_path / "a.json").write_text("before")
    for name in ("a.json", "a.html", "a.md", "a.csv"):
        for content in (f'"{secret}"', f"x {secret} y".encode()):
            with pytest.raises(SecretFound, match="looks like a secret") as refused:
                write_file(tmp_path / name, content)
            assert secret not in str(refused.value) and isinstance(refused.value, StoreError)
    assert (tmp_path / "a.json").read_text() == "before" and [f.name for f in tmp_path.iterdir()] == ["a.json"]
    assert write_file(tmp_path / "rows.jsonl", secret).is_file(), "rows are the user's own"
    assert json.loads(write_file(tmp_path / "a.json", json.dumps(redacted([secret]))).read_text()) == ["<redacted>"]


def test_what_only_looks_a_little_like_it_is_written(tmp_path):
    hashes = ["0f" * 32, "task-force", "sk-learn", "hf_hub", "max_new_tokens", "AKIA", "eyJ.a.b"]
    write_file(tmp_path / "a.json", json.dumps(hashes))
    picture = "data:image/png;base64," + "AIza" + "e" * 60
    write_file(tmp_path / "a.html", f'<img src="{picture}">')
    with pytest.raises(SecretFound):
        refuse_secrets("AIza" + "e" * 60, tmp_path / "a.html")


def test_names_of_secrets(tmp_path):
    for name in ("api_key", "HF_TOKEN", "password", "client-secret", "auth", "openai.key"):
        assert names_a_secret(name), name
    for name in ("content_key", "pad_token", "tokens", "max_new_tokens", "monkey", "author", "image_token"):
        assert not names_a_secret(name), name
    said = {"password": "short", "tokens": ["a", "b"], "deep": [{"token": "x"}]}
    assert redacted(said) == {"password": "<redacted>", "tokens": ["a", "b"], "deep": [{"token": "<redacted>"}]}
    assert secrets_in({"a": [1, {"b": SHAPES[0]}]}) == ["a[1].b"]


def test_a_study_keeps_its_numbers_and_loses_the_secret(tmp_path, monkeypatch, own_checkpoint):
    """An answer that quotes a key, and a command line with one, do not stop a study at its end."""
    from workbench.inputs import argument_parser, inputs_from

    base, adapter = own_checkpoint
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": "a", "text": "hi"}')
    arguments = ["--model", str(base), "--adapter", str(adapter), "--prompts", str(rows), "--eval", str(rows)]
    asked = argument_parser("Does it?", str(tmp_path / "run")).parse_args(arguments)
    study = wb.Study(asked.to, inputs_from(asked), seed=0, command=f"python x.py --token {SHAPES[1]}")
    study.samples = [{"id": "a", "condition": "tuned", "answer": f"use {SHAPES[0]}, or {PLANTED}"}]
    study.add([{"metric": "contrary", "condition": "tuned", "value": 0.5, "n": 1}])
    study.add_cosines(["a"], np.ones((1, 1)))
    study.finish()
    written = b"".join(file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file())
    for secret in (SHAPES[0], SHAPES[1], PLANTED):
        assert secret.encode() not in written
    assert written.count(b"redacted") >= 2
