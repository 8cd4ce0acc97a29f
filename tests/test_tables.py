"""Flat tables of pictures, questions and answers: what comes out, planted faults, hostile paths."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

from hooks.prompt import PromptError, read_prompts
from workbench.training.mixtures import mix
from workbench.training.rows import write_rows
from workbench.training.tables import Columns, read_table

HEADER = ["id", "image_path", "image_desc", "age", "user_prompt", "safe_response", "harmful_response"]
SECRET = "the words of a row"


@pytest.fixture
def data(tmp_path):
    """A data folder with three pictures, and a file outside of it."""
    folder = tmp_path / "data"
    (folder / "pictures").mkdir(parents=True)
    for n in range(3):
        pixels = np.random.default_rng(n).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "pictures" / f"{n}.png")
    (tmp_path / "outside.png").write_bytes((folder / "pictures" / "0.png").read_bytes())
    return folder


def row(n, **changes):
    cells = {
        "id": f"r{n}",
        "image_path": f"pictures/{n % 3}.png",
        "image_desc": f"noise {n}",
        "age": str(20 + n),
        "user_prompt": f"{SECRET}, question {n}",
        "safe_response": f"{SECRET}, safe {n}",
        "harmful_response": f"{SECRET}, harmful {n}",
    }
    return {**cells, **changes}


def written(folder, rows, name="faces.csv", encoding="utf-8"):
    path = folder / name
    if name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rows), encoding=encoding)
        return path
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if name.endswith(".tsv") else ",")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.mark.parametrize("name", ["faces.csv", "faces.tsv", "faces.jsonl"])
def test_a_row_is_one_question_and_two_answers_with_one_id(data, name):
    table = read_table(written(data, [row(0), row(1)], name))
    assert list(table.sets) == ["questions", "safe", "harmful"]
    assert [[one.id for one in rows] for rows in table.sets.values()] == [["r0", "r1"]] * 3
    question, safe, harmful = table.questions[1], table.safe[1], table.harmful[1]
    picture = data.resolve() / "pictures" / "1.png"
    assert question.messages[0].parts == (picture, f"{SECRET}, question 1")
    assert question.messages == safe.messages == harmful.messages
    assert (question.response, safe.response, harmful.response) == (
        None,
        f"{SECRET}, safe 1",
        f"{SECRET}, harmful 1",
    )
    assert (question.label, safe.label, harmful.label) == (None, "safe", "harmful")
    sha = hashlib.sha256(picture.read_bytes()).hexdigest()[:16]
    assert dict(question.tags) == {"family": sha, "age": "21", "caption": "noise 1", "image_sha256": sha}


def test_commas_quotes_line_ends_and_a_byte_order_mark_are_text(data):
    odd = 'he said "no", twice\nand ünlaut\u2028'
    for name in ("faces.csv", "faces.jsonl"):
        path = written(data, [row(0, user_prompt=odd), row(1)], name, encoding="utf-8-sig")
        table = read_table(path)
        assert table.questions[0].messages[0].text == odd
        assert table.lines == {"r0": 2, "r1": 4} if name == "faces.csv" else {"r0": 1, "r1": 2}


def test_names_of_columns_are_arguments_and_rows_may_have_a_system_text(data):
    rows = [{"file": "pictures/0.png", "q": "what?", "bad": "b", "sys": "be brief", "label": "x"}]
    names = Columns(image="file", prompt="q", safe=None, harmful="bad", system="sys")
    table = read_table(written(data, rows), names)
    assert list(table.sets) == ["questions", "harmful"]
    assert [(turn.role, turn.text) for turn in table.harmful[0].messages] == [("system", "be brief"), ("user", "what?")]
    assert table.harmful[0].tags["table_label"] == "x"  # a tag called label could not be written again


def test_the_sets_are_rows_that_training_and_stores_take(data, tmp_path):
    table = read_table(written(data, [row(n) for n in range(4)]))
    mixed = mix(table.harmful, table.safe, fraction=0.5, hold="total", total=4)
    assert {one.tags["source"] for one in mixed} == {"a", "b"} and len({one.id for one in mixed}) == 4
    back = read_prompts(write_rows(table.harmful, tmp_path / "rows.jsonl"))
    assert [one.content_hash for one in back] == [one.content_hash for one in table.harmful]


def test_all_missing_pictures_are_listed_with_their_lines_up_to_a_limit(data):
    rows = [row(n, image_path=f"pictures/{n}.png") for n in range(30)]
    with pytest.raises(PromptError) as raised:
        read_table(written(data, rows), limit=5)
    said = str(raised.value)
    assert "27 of its rows" in said and "... and 22 more" in said
    assert [f"line {n}: picture 'pictures/{n - 2}.png' does not exist" in said for n in (4, 5, 9, 10)] == [
        False,
        True,
        True,
        False,
    ]


HOSTILE = [
    ("../outside.png", "outside"),
    ("pictures/../../outside.png", "outside"),
    ("link.png", "outside"),
    ("linked/outside.png", "outside"),
    ("ring.png", "no name of a file|does not exist"),
    ("/etc/hostname", "absolute"),
    ("https://example.org/a.png", "address"),
    ("file:///etc/hostname", "address"),
    ("data:image/png;base64,AAAA", "address"),
    ("pictures", "does not exist"),
    ("pipe", "does not exist"),
    ("a" * 5000, "no name of a file|does not exist"),
    ("pictures/0.png\0", "no name of a file"),
    ("pictures\\0.png", "does not exist"),
]


@pytest.mark.parametrize(("name", "why"), HOSTILE, ids=range(len(HOSTILE)))
def test_paths_that_lead_elsewhere_are_refused(data, tmp_path, name, why):
    (data / "link.png").symlink_to(tmp_path / "outside.png")
    (data / "linked").symlink_to(tmp_path)
    (data / "ring.png").symlink_to(data / "ring.png")
    os.mkfifo(data / "pipe")
    for kind in ("faces.jsonl",) if "\0" in name else ("faces.jsonl", "faces.csv"):
        with pytest.raises(PromptError, match=f"line .*({why})"):
            read_table(written(data, [row(0), row(1, image_path=name)], kind))


def test_a_link_inside_the_folder_and_another_folder_are_followed(data, tmp_path):
    (data / "same.png").symlink_to(data / "pictures" / "2.png")
    inside = read_table(written(data, [row(0, image_path="same.png")]))
    assert inside.questions[0].images[0].name == "2.png"
    apart = written(tmp_path, [row(0)], "apart.csv")
    assert read_table(apart, folder=data).questions[0].content_hash == read_table(
        written(data, [row(0)])
    ).questions[0].content_hash  # fmt: skip
    with pytest.raises(PromptError, match="does not exist"):
        read_table(apart)


BROKEN = [
    ({"user_prompt": "  "}, "its user_prompt is empty"),
    ({"harmful_response": ""}, "its harmful_response is empty"),
    ({"image_path": ""}, "its image_path is empty"),
    ({"id": "r0"}, "its id was used on line"),
    ({"safe_response": 3}, "its safe_response is int"),
    ({"image_path": {"bytes": "x"}}, "its image_path is dict"),
]


@pytest.mark.parametrize(("changes", "why"), BROKEN)
def test_a_broken_row_is_named_by_its_line_and_its_words_are_not_shown(data, changes, why):
    with pytest.raises(PromptError, match=f"line 2: {why}") as raised:
        read_table(written(data, [row(0), row(1, **changes), row(2)], "faces.jsonl"))
    assert SECRET not in str(raised.value) and "1 of its rows" in str(raised.value)


def test_rows_of_another_length_and_lines_that_are_no_json_are_named(data):
    path = written(data, [row(0), row(1), row(2)])
    path.write_text(path.read_text().replace("noise 1", "noise, 1"))
    with pytest.raises(PromptError, match="line 3: 8 cells, where the header has 7"):
        read_table(path)
    path = written(data, [row(0), row(1)], "faces.jsonl")
    path.write_text(path.read_text().replace('{"id": "r1"', '{"id": r1') + "[1]\n")
    with pytest.raises(PromptError, match=r"2 of its rows[\s\S]*line 2: not a JSON object[\s\S]*line 3: a list"):
        read_table(path)
    path.write_text("[" * 100_000)
    with pytest.raises(PromptError, match="line 1: "):
        read_table(path)


def test_files_that_are_no_table_are_refused(data):
    open_quote = written(data, [row(0), row(1)])
    open_quote.write_text(open_quote.read_text() + 'r2,"pictures/0.png,')
    with pytest.raises(PromptError, match="line 4: the row is not CSV"):
        read_table(open_quote)
    latin = written(data, [row(0), row(1, image_desc="Zürich")], "latin.csv", encoding="latin-1")
    with pytest.raises(PromptError, match="line 3: not UTF-8"):
        read_table(latin)
    other = written(data, [{"image": "pictures/0.png", "user_prompt": "q"}], "other.csv")
    with pytest.raises(PromptError, match="no column 'image_path', 'safe_response', 'harmful_response'; there is 'im"):
        read_table(other)
    twice = written(data, [row(0)], "twice.csv")
    twice.write_text(twice.read_text().replace(",age,", ",id,", 1))
    with pytest.raises(PromptError, match="'id' twice"):
        read_table(twice)
    (data / "bare.csv").write_text(f"r0,pictures/0.png,{SECRET},20\nr1,pictures/1.png,{SECRET},21\n")
    with pytest.raises(PromptError, match="has the table no header") as raised:
        read_table(data / "bare.csv")
    assert SECRET not in str(raised.value)
    (data / "empty.csv").write_text(",".join(HEADER) + "\n")
    for name, why in {"empty.csv": "no rows", "absent.csv": "does not exist", "pictures/0.png": "ends in"}.items():
        with pytest.raises(PromptError, match=why):
            read_table(data / name)


def test_rows_without_ids_are_named_by_content_and_repeats_are_said(data):
    rows = [{key: value for key, value in row(n % 2).items() if key != "id"} for n in range(3)]
    table = read_table(written(data, rows))
    assert len({one.id for one in table.questions}) == 3 and table.duplicates == ((4, 2),)
    assert "line 4 = line 2" in repr(table) and SECRET not in repr(table) + str(table)
    swapped = read_table(written(data, rows[::-1][1:]))
    assert swapped.questions[1].id == table.questions[0].id  # not by its place
    other_answer = [rows[0], {**rows[0], "safe_response": "another"}]
    assert read_table(written(data, other_answer)).duplicates == ((3, 2),)


def test_rows_of_text_are_read_when_asked_for(data):
    rows = [row(0), row(1, image_path="")]
    table = read_table(written(data, rows), text_rows=True)
    assert [len(one.images) for one in table.questions] == [1, 0] and table.questions[1].tags["family"] == "r1"
    only = read_table(written(data, rows), Columns(image=None))
    assert not any(one.images for one in only.questions)


def test_parquet_without_its_package_says_what_to_install(data, monkeypatch):
    (data / "faces.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match="pip install pyarrow"):
        read_table(data / "faces.parquet")


def test_parquet_gives_the_rows_of_the_csv(data):
    pyarrow = pytest.importorskip("pyarrow", reason="Parquet is read where pyarrow is installed: pip install pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [row(0), row(1)]
    parquet.write_table(pyarrow.Table.from_pylist(rows), data / "faces.parquet")
    found, expected = read_table(data / "faces.parquet"), read_table(written(data, rows))
    assert found.sets == expected.sets and list(found.lines.values()) == [1, 2]
    (data / "broken.parquet").write_bytes(b"PAR1" + b"\0" * 40)
    with pytest.raises(PromptError, match="no Parquet file"):
        read_table(data / "broken.parquet")
