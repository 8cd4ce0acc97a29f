"""Reading a broken file, rows in memory, what a report shows, and the file that rows are written to."""

import json
from dataclasses import replace

import pytest
from conftest import chat
from tiny_models import byte_tokenizer

from hooks.encode import Encoder
from hooks.prompt import Message, Prompt, PromptError, read_prompts
from workbench.training.check import check_data
from workbench.training.findings import LISTED
from workbench.training.row_checks import read_rows
from workbench.training.rows import write_rows

SECRET = "nobody may read this in a report"
GOOD = {"id": "good", "messages": [{"role": "user", "content": "hi"}], "response": "yes"}


def user(content, **more):
    return {"messages": [{"role": "user", "content": content}], **more}


BROKEN = {
    "not JSON": ("{" + SECRET, "not a JSON object"),
    "a list": ([SECRET], "expected a JSON object, got list"),
    "nothing": ({"label": SECRET}, "neither messages nor text"),
    "a turn": ({"messages": [{"says": SECRET}]}, "a turn is something else: expected"),
    "a part": (user([{"type": "text", "words": f"it's {SECRET}"}]), "a part is something else: expected"),
    "a role": ({"messages": [{"role": SECRET, "content": "hi"}]}, "role '...' is unknown"),
    "empty": (user("  "), "the user turn is empty"),
    "no picture": (user([{"type": "image", "image": f"{SECRET}.png"}]), "image path does not exist"),
    "an address": (user([{"type": "image", "image": f"https://{SECRET}"}]), "image path is an address"),
    "both": ({"messages": [*user("a")["messages"], {"role": "assistant", "content": "b"}], "response": SECRET},
             "both a final assistant turn and a response"),
    "a number": (user("hi", response=7), "response is int"),
}  # fmt: skip


def lines_of(path, records):
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in records))
    return path


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_line_is_found_without_what_it_says(tmp_path, kind):
    record, reason = BROKEN[kind]
    path = lines_of(tmp_path / "rows.jsonl", [GOOD, "", record])
    with pytest.raises(PromptError, match="line 3"):
        read_prompts(path)
    report = check_data(path)
    [fault] = report.of("error")
    assert fault.check == "schema" and fault.says.startswith(reason) and fault.where == ("line 3",) and fault.of == 2
    assert SECRET not in str(report) and SECRET not in json.dumps(report.record())
    assert report.counts["rows"] == 1, "the good row is kept"


def test_all_broken_lines_are_counted_and_the_first_are_named(tmp_path):
    path = lines_of(tmp_path / "rows.jsonl", [GOOD, *["{"] * 15, user("")])
    [many, one] = check_data(path).of("error")
    assert (many.count, len(many.where), many.where[0]) == (15, LISTED, "line 2")
    assert (one.count, one.where) == (1, ("line 17",))
    assert "15 of 17: not a JSON object" in str(many) and "line 11, ...)" in str(many)


def test_a_file_that_reads_is_read_as_read_prompts_reads_it(tmp_path):
    path = lines_of(tmp_path / "rows.jsonl", [GOOD, user("so", label=1, topic="x", response="no")])
    assert read_rows(path) == (read_prompts(path), [])


def test_bytes_that_are_no_text_and_an_empty_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\xff\xfe\n")
    assert [one.says for one in check_data(path).of("error")] == ["not UTF-8 text (invalid start byte)"]
    path.write_text("\n")
    assert [one.check for one in check_data(path).of("error")] == ["schema"]
    with pytest.raises(PromptError, match="does not exist"):
        check_data(tmp_path / "none.jsonl")


def test_empty_turns_of_rows_in_memory_are_found(picture):
    clean = [chat("a", "hi", response="yes"), chat("b", picture, response="no"), Prompt("c", text="so", response="x")]
    assert check_data(clean).passed
    for empty in (chat("e", " ", response="yes"), chat("e", "hi", response=" "), Prompt("e", text="\n", response="x")):
        [fault] = check_data([*clean, empty]).of("error")
        assert (fault.check, fault.where) == ("empty turns", ("e",))


@pytest.mark.parametrize(
    ("roles", "fault"),
    [
        ("user", None),
        ("system user", None),
        ("user assistant user", None),
        ("user assistant tool", None),
        ("user assistant tool tool", None),
        ("assistant user", "have an assistant turn first"),
        ("tool", "have a tool turn first"),
        ("user user", "have a user turn behind a user turn"),
        ("user system", "have a system turn behind a user turn"),
        ("system system user", "have a system turn behind a system turn"),
        ("system", "have a system turn before the response"),
        ("user assistant", "have an assistant turn before the response"),
    ],
)
def test_the_order_of_roles(roles, fault):
    row = Prompt("r", tuple(Message(role, (role,)) for role in roles.split()), response="yes")
    assert [one.says for one in check_data([row]).of("error")] == ([fault] if fault else [])


def test_rows_are_shown_only_when_asked_for():
    rows = [chat("a", SECRET, response="yes"), chat("b", "hi", response="no")]
    encoder = Encoder(byte_tokenizer())
    assert SECRET not in str(check_data(rows, encoder)) and not check_data(rows, encoder).shown
    shown = check_data(rows, encoder, show=1).shown
    assert shown.startswith("a: ") and "«y» «e» «s» «<end>»" in shown and "b: " not in shown


def test_what_was_not_asked_for_is_said():
    skipped = check_data([chat("a", "hi", response="yes")]).not_checked
    assert len(skipped) == 6 and str(check_data([chat("a", "hi", response="yes")])).count("\nskipped") == 6


def test_several_files_keep_their_rows_apart(tmp_path):
    one = lines_of(tmp_path / "one.jsonl", [GOOD, {**GOOD, "id": "x", "messages": [{"role": "user", "content": "a"}]}])
    two = lines_of(tmp_path / "two.jsonl", [{**GOOD, "response": "no"}])
    report = check_data([one, two], arms="file")
    assert report.counts["rows"] == 3 and report.passed
    assert not report.of(check="conflicts"), "another answer in another arm is a twin"
    assert [(one.count, one.of) for one in report.of(check="twins")] == [(1, 2)]
    assert [one.where for one in check_data([one, two]).of(check="conflicts")] == [("good", f"{two}:good")]


def test_written_rows_read_back_the_same(tmp_path, picture):
    rows = [
        chat("a", "see ", picture, " it", response="yes", label="on", tags={"n": 3, "topic": "x"}),
        Prompt("b", (Message("system", ("so",)), Message("user", ("ö\nhi",))), prefill="it"),
        Prompt("c", text="<img>caption", pictures=(picture,), response=" more"),
    ]
    back = read_prompts(write_rows(rows, tmp_path / "sub" / "rows.jsonl"))
    assert [row.content_hash for row in back] == [row.content_hash for row in rows]
    assert [row.record() for row in back] == [row.record() for row in rows]
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["rows.jsonl"]
    with pytest.raises(PromptError, match="tags named label"):
        write_rows([replace(rows[0], tags={"label": "x"})], tmp_path / "no.jsonl")
    assert not (tmp_path / "no.jsonl").exists()
