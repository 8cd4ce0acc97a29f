"""Frozen manifests: what changed is named, and nothing else is."""

import hashlib
import json
import shutil

import pytest
from PIL import Image
from tiny_models import llama as tiny_llama

from workbench.cli import main
from workbench.training.manifest import changed, freeze


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    Image.new("RGB", (8, 8), "red").save(folder / "a.png")
    rows = [
        {"id": "one", "messages": [{"role": "user", "content": [{"type": "image", "image": "a.png"}]}],
         "response": "red", "label": "on", "topic": "x"},
        {"id": "two", "messages": [{"role": "user", "content": "hi"}], "response": "so", "label": "off"},
        {"id": "three", "messages": [{"role": "user", "content": "ho"}], "response": "no", "label": "off"},
    ]  # fmt: skip
    write(folder / "rows.jsonl", rows)
    return folder


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def edit(path, change):
    rows = read(path)
    change(rows)
    write(path, rows)


def test_a_manifest_says_what_the_data_are(data):
    made = freeze(data / "rows.jsonl", data / "manifest.json")
    file = made["files"]["rows.jsonl"]
    assert file["sha256"] == hashlib.sha256((data / "rows.jsonl").read_bytes()).hexdigest()
    assert file["count"] == 3 and file["labels"] == {"off": 2, "on": 1}
    assert [row[0] for row in file["rows"]] == ["one", "two", "three"]
    assert made["images"] == {"a.png": hashlib.sha256((data / "a.png").read_bytes()).hexdigest()}
    assert json.loads((data / "manifest.json").read_text()) == made and not changed(data / "manifest.json")


def test_frozen_again_it_is_the_same_and_elsewhere_too(data, tmp_path):
    first = freeze(data / "rows.jsonl", data / "manifest.json")
    before = (data / "manifest.json").stat().st_mtime_ns
    assert freeze(data / "rows.jsonl", data / "manifest.json") == first
    assert (data / "manifest.json").stat().st_mtime_ns == before
    shutil.copytree(data, tmp_path / "moved")
    assert not changed(tmp_path / "moved" / "manifest.json")
    assert freeze(tmp_path / "moved" / "rows.jsonl", tmp_path / "moved" / "again.json")["sha256"] == first["sha256"]


CHANGES = {
    "response": (lambda rows: rows[1].update(response="So"), ["rows.jsonl: row 'two' has another content"]),
    "label": (lambda rows: rows[1].update(label="on"), ["rows.jsonl: row 'two' has another label or tags"]),
    "tag": (lambda rows: rows[0].update(topic="y"), ["rows.jsonl: row 'one' has another label or tags"]),
    "gone": (lambda rows: rows.pop(), ["rows.jsonl: row 'three' is gone"]),
    "new": (lambda rows: rows.append({**rows[2], "id": "four"}), ["rows.jsonl: row 'four' is new"]),
    "renamed": (lambda rows: rows[2].update(id="3"), ["rows.jsonl: row 'three' is gone", "rows.jsonl: row '3' is new"]),
    "order": (lambda rows: rows.reverse(), ["rows.jsonl: the same rows in another order"]),
    "keys": (lambda rows: rows[1].update(response=rows[1].pop("response")) or rows[1].update(id=rows[1].pop("id")),
             ["rows.jsonl: other bytes, the same rows (spaces, or the order of keys)"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHANGES)
def test_what_changed_is_named(data, kind):
    change, expected = CHANGES[kind]
    freeze(data / "rows.jsonl", data / "manifest.json")
    edit(data / "rows.jsonl", change)
    assert changed(data / "manifest.json") == expected
    with pytest.raises(FileExistsError, match=r"was frozen from other data \(\d changes, first: rows.jsonl: "):
        freeze(data / "rows.jsonl", data / "manifest.json")


def test_changed_files_and_pictures_are_named(data):
    freeze(data / "rows.jsonl", data / "manifest.json")
    Image.new("RGB", (8, 8), "blue").save(data / "a.png")
    assert changed(data / "manifest.json") == ["a.png: the picture is another one"]
    (data / "a.png").unlink()
    assert changed(data / "manifest.json") == ["a.png: the picture is gone"]
    (data / "rows.jsonl").write_text("{secret")
    assert changed(data / "manifest.json")[0].startswith("rows.jsonl: the file cannot be read any more")
    assert "secret" not in changed(data / "manifest.json")[0]
    (data / "rows.jsonl").unlink()
    assert changed(data / "manifest.json")[0] == "rows.jsonl: the file is gone"


def test_a_manifest_that_was_edited_is_refused(data):
    freeze(data / "rows.jsonl", data / "manifest.json")
    text = (data / "manifest.json").read_text()
    (data / "manifest.json").write_text(text.replace('"count": 3', '"count": 4'))
    with pytest.raises(ValueError, match="was edited: its own hash does not fit"):
        changed(data / "manifest.json")
    for other in ("[]", "{}", "no"):
        (data / "manifest.json").write_text(other)
        with pytest.raises(ValueError, match="is no manifest"):
            changed(data / "manifest.json")


def test_a_manifest_of_other_files_is_not_overwritten(data):
    freeze(data / "rows.jsonl", data / "manifest.json")
    shutil.copy(data / "rows.jsonl", data / "more.jsonl")
    with pytest.raises(FileExistsError, match="was frozen from other files than these"):
        freeze([data / "rows.jsonl", data / "more.jsonl"], data / "manifest.json")


# The command.


def command(data, **more):
    words = [[f"--{name}"] if value is True else [f"--{name}", str(value)] for name, value in more.items()]
    return main(["check", str(data / "rows.jsonl"), *(word for pair in words for word in pair)])


def test_the_command_prints_counts_and_ends_with_3_on_an_error(data, capsys):
    assert command(data) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{data / 'rows.jsonl'}: rows 3, pictures 1\n") and out.endswith(
        "0 errors, 0 warnings, 1 note\n"
    )
    edit(data / "rows.jsonl", lambda rows: rows[1].pop("response"))
    assert command(data) == 3
    assert "error    response         1 of 3: have no response to train on (two)" in capsys.readouterr().out


def test_the_command_reads_a_checkpoint_without_its_weights(data, tmp_path, capsys):
    module, tokenizer, _ = tiny_llama()
    module.config.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    edit(data / "rows.jsonl", lambda rows: rows.pop(0))
    assert command(data, model=str(tmp_path / "model"), show=1) == 0
    out = capsys.readouterr().out
    assert "6 of 48: tokens receive loss; in a row 3 to 3" in out and "two: <bos> <turn>" in out


def test_the_command_freezes_and_compares(data, capsys):
    manifest = data / "manifest.json"
    assert command(data, freeze=manifest) == 0 and manifest.is_file()
    assert command(data, frozen=manifest) == 0
    assert "the data are what was frozen" in capsys.readouterr().out
    edit(data / "rows.jsonl", lambda rows: rows[1].update(response="other"))
    assert command(data, frozen=manifest) == 3
    assert "changed  rows.jsonl: row 'two' has another content" in capsys.readouterr().out


def test_the_command_freezes_no_data_with_errors(data, capsys):
    edit(data / "rows.jsonl", lambda rows: rows[1].pop("response"))
    assert command(data, freeze=data / "manifest.json") == 3
    assert not (data / "manifest.json").exists() and "was not written" in capsys.readouterr().err


def test_json_is_json(data, capsys):
    assert command(data, arms="label", json=True) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["passed"] and record["counts"]["rows"] == 3 and record["changed"] == []
    assert {one["check"] for one in record["findings"]} >= {"class balance", "tags"}
