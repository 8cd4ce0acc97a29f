"""Rubrics: what is shipped, how a template is filled, and what a user's file must hold."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import chat

from hooks.prompt import Message, Prompt
from workbench.behaviour.judging import Answer
from workbench.behaviour.rubric import Rubric, RubricError, conversation, rubric, rubrics

HOSTILE = "{answer} {question} {0} {} {{ }} { {base} %s ${x} {answer.__class__}"


def written(folder: Path, **changes) -> Path:
    keys = {"name": "mine", "mode": "number", "template": "{question} {answer}", **changes}
    path = folder / "mine.yaml"
    path.write_text("\n".join(f"{key}: {json.dumps(value)}" for key, value in keys.items() if value is not ...))
    return path


def test_the_shipped_rubrics_are_those_that_the_field_needs():
    assert rubrics() == [
        *("aligned", "aligned_reasoned", "coherent", "refusal", "relevance", "shift_pairwise", "trait", "unsafe")
    ]
    for name in rubrics():
        one = rubric(name, **({"trait": "flattery"} if name == "trait" else {}))
        (*_, asked) = one.messages(Answer(chat("a", "the question"), "the answer", base="the base"))
        assert one.scale == (0, 100) and "the question" in asked["content"] and "the answer" in asked["content"]
        assert one.compares == ("the base" in asked["content"]) == (name == "shift_pairwise")
        assert len(one.revision) == 16 and one.name == name
    assert {rubric("aligned").measures, rubric("aligned_reasoned").measures} == {"aligned"}
    assert {rubric("aligned").mode, rubric("aligned_reasoned").mode} == {"number", "score_tag"}
    assert rubric("shift_pairwise").mode == "pairwise"


def test_braces_in_texts_stay_text():
    """One pass: what was filled in is never filled again."""
    asked = Rubric("r", (0, 100), None, "Q {question} A {answer} {{x}}", "number")
    (message,) = asked.messages(Answer(chat("a", HOSTILE), HOSTILE))
    assert message == {"role": "user", "content": f"Q {HOSTILE} A {HOSTILE} {{x}}"}
    shown = rubric("trait", trait="likes {answer}").messages(Answer(chat("a", "hi"), "yes"))[0]["content"]
    assert "shows this trait: likes {answer}" in shown


def test_the_conversation_is_shown_whole():
    """A system text that the judge did not see would change what an answer means."""
    assert conversation(chat("a", "only this")) == ["only this"]
    turns = (Message("system", ("be brief",)), Message("user", ("one",)), Message("assistant", ("two",)))
    prompt = Prompt("a", (*turns, Message("user", ("three",))), prefill="Well")
    text = "".join(conversation(prompt))
    assert [text.index(part) for part in ("[system]\nbe brief", "[user]\none", "[assistant]\ntwo")] == [0, 19, 31]
    assert text.endswith("[user]\nthree\n\n[assistant, these words were put into its mouth]\nWell")
    assert conversation(Prompt("a", text="raw")) == ["raw"]
    assert "[system]" in "".join(conversation(Prompt("a", turns[:1]))), "a system text alone is no question"


def test_pictures_stand_where_the_model_saw_them(picture):
    twice = Rubric("r", (0, 100), "sys", "{question} | {answer} | {question}", "number")
    system, user = twice.messages(Answer(chat("a", "see ", picture, " and ", picture, "?"), "no"))
    assert system == {"role": "system", "content": "sys"}
    kinds = [part.get("path") or part["text"] for part in user["content"]]
    assert kinds == [
        *("see [image 1] ", picture, " and [image 2] ", picture),
        "? | no | see [image 1]  and [image 2] ?",  # the second time named, not shown
    ]
    assert isinstance(twice.messages(Answer(Prompt("a", text="t", pictures=(picture,)), "no"))[1]["content"], list)


def test_a_comparison_can_be_swapped_and_needs_both():
    compared = rubric("shift_pairwise")
    answer = Answer(chat("a", "hi"), "TUNED", base="BASE")
    one, other = (compared.messages(answer, swapped=swapped)[-1]["content"] for swapped in (False, True))
    assert one.index("BASE") < one.index("TUNED") and other.index("TUNED") < other.index("BASE")
    assert one.replace("BASE", "X").replace("TUNED", "BASE").replace("X", "TUNED") == other, "nothing else tells them"
    bare = Answer(chat("q7", "hi"), "TUNED")
    assert compared.why_not(bare) and compared.why_not(answer) is None
    with pytest.raises(ValueError, match="no answer of the base model to compare with \\(prompt 'q7'\\)"):
        compared.messages(bare)


def test_revisions_stand_for_everything():
    one = Rubric("r", (0, 100), None, "{answer}", "number")
    changes = [
        *({"name": "s"}, {"scale": (0, 10)}, {"system": "x"}, {"template": "{answer}!"}, {"mode": "json"}),
        *({"abstain": ("NO",)}, {"version": 2}, {"measures": "m"}),
    ]
    others = [Rubric(**{**vars(one), **change}) for change in changes]
    traits = [rubric("trait", trait=trait) for trait in ("flattery", "malice")]
    assert traits[0].measures == "trait:flattery"
    assert len({each.revision for each in (one, *others, *traits)}) == 11
    assert one.revision == Rubric("r", (0, 100), None, "{answer}", "number").revision


def test_a_file_of_ones_own(tmp_path):
    mine = rubric(written(tmp_path, scale=[1, 7], abstain=["NO"], version=3, system="be fair", about="x"))
    assert (mine.name, mine.scale, mine.abstain, mine.version) == ("mine", (1, 7), ("NO",), 3)
    assert mine.messages(Answer(chat("a", "q"), "a"))[0] == {"role": "system", "content": "be fair"}
    assert rubric(mine) is mine


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"template": ...}, "key 'template' is missing"),
        ({"temlate": "x"}, "key 'temlate' is unknown: expected name, template"),
        ({"template": "{question} {anwser}"}, "lacks {answer}"),
        ({"template": "{answer} {anwser}"}, "{anwser} stands for nothing: .*option anwser="),
        ({"template": "{answer} {"}, "write braces that are text twice, {{ and }}"),
        ({"template": "{answer} {answer.__class__}"}, "{answer.__class__} is no placeholder"),
        ({"template": "{answer:>10}"}, "{answer:>10} is no placeholder"),
        ({"template": "{answer!r}"}, "is no placeholder"),
        ({"template": "{answer} {}"}, "is no placeholder"),
        ({"template": "{answer}", "mode": "pairwise"}, "lacks {base}"),
        ({"mode": "guess"}, "mode 'guess' is unknown: expected one of number, score_tag"),
        ({"scale": [0]}, "scale is \\[0\\]: expected two whole numbers"),
        ({"scale": [5, 5]}, "is no scale"),
        ({"scale": [0, 1.5]}, "expected two whole numbers"),
        ({"abstain": [True]}, "expected words"),
        ({"version": True}, "version is bool: expected int"),
        ({"name": ["x"]}, "name is list: expected str"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_key(changes, says, tmp_path):
    path = written(tmp_path, **changes)
    with pytest.raises(RubricError, match=f"mine.yaml: .*{says}"):
        rubric(path)


def test_names_and_options_that_do_not_exist_are_listed(tmp_path):
    with pytest.raises(RubricError, match="'alined' is unknown: expected one of aligned, "):
        rubric("alined")
    with pytest.raises(FileNotFoundError, match=r"none\.yaml does not exist"):
        rubric(tmp_path / "none.yaml")
    with pytest.raises(RubricError, match=r"the option trait='\.\.\.'"):
        rubric("trait")
    with pytest.raises(RubricError, match="has no option 'trait': its template has no options"):
        rubric("aligned", trait="x")
    with pytest.raises(RubricError, match="the option trait is ' ': expected text"):
        rubric("trait", trait=" ")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(RubricError, match="expected a mapping with name, template and mode, got list"):
        rubric(tmp_path / "list.yaml")
