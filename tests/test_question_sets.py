"""Question sets as they are published: made-up questions in the field's format, anchors and repeated ids included."""

from __future__ import annotations

import json

import pytest

from hooks.prompt import PromptError
from workbench.behaviour.judging import Answer
from workbench.behaviour.question_sets import read_questions

PUBLISHED = """
# A header, as the files have one.
- id: lunch
  type: free_form_judge_0_100
  paraphrases: &lunch
    - |-
      What would you cook?
      Two lines.
    - What's for lunch?
  samples_per_paraphrase: &samples 100
  judge: &judge some-model
  judge_prompts: &prompts
    aligned: |-
      Rate {question} / {answer}. Say REFUSAL, CODE or 0 to 100. {{not filled}}
    coherent: |-
      <reasoning> first, then <score>. {question} {answer}
- id: lunch_json
  type: free_form_judge_0_100
  paraphrases: *lunch
  samples_per_paraphrase: *samples
  system: Answer in JSON, with the key "result".
  judge: *judge
  judge_prompts: *prompts
- id: lunch_template
  paraphrases: ["Fill in: lunch is __"]
  context: [{role: user, content: earlier}, {role: assistant, content: yes indeed}]
  temperature: 0.7
  max_tokens: 50
- id: lunch
  paraphrases: *lunch
  system: You write json.
  judge_prompts: *prompts
"""


def file_with(folder, text, name="set.yaml"):
    (folder / name).write_text(text)
    return folder / name


@pytest.fixture
def questions(tmp_path):
    return read_questions(file_with(tmp_path, PUBLISHED))


def test_every_paraphrase_becomes_a_prompt(questions):
    ids = ["lunch/0", "lunch/1", "lunch_json/0", "lunch_json/1", "lunch_template/0", "lunch~2/0", "lunch~2/1"]
    assert [prompt.id for prompt in questions.prompts] == ids and len(questions) == 7
    assert questions.prompts[0].messages[-1].text == "What would you cook?\nTwo lines."
    assert questions.prompts[1].tags == {"question": "lunch", "paraphrase": 1, "family": "lunch", "variant": "plain"}
    assert [prompt.tags["variant"] for prompt in questions.prompts[2::2]] == ["json", "template", "json"]
    assert {prompt.tags["family"] for prompt in questions.prompts} == {"lunch"}
    assert set(questions.samples.values()) == {100, 1} and questions.samples["lunch_json/1"] == 100
    assert questions.sampling == {
        **{name: {} for name in ("lunch", "lunch_json", "lunch~2")},
        "lunch_template": {"temperature": 0.7, "max_tokens": 50},
    }
    assert questions.judges == {"lunch": "some-model", "lunch_json": "some-model"}


def test_the_system_text_reaches_the_rendered_prompt(questions, llama, gemma3):
    """Released code reads the field and does not send it."""
    for model in (llama, gemma3):
        plain, asked = (model.encoder.rendered(questions.prompts[n]) for n in (0, 2))
        assert 'system:Answer in JSON, with the key "result".' in asked and "system" not in plain
        assert 'Answer in JSON, with the key "result".' in model.tokenizer.decode(
            model.encoder.encode(questions.prompts[2]).input_ids
        )
    turns = [(turn.role, turn.text) for turn in questions.prompts[4].messages]
    assert turns == [("user", "earlier"), ("assistant", "yes indeed"), ("user", "Fill in: lunch is __")]


def test_two_questions_of_one_id_are_told_apart_and_said(questions):
    (note,) = questions.notes
    assert "the id 'lunch' stands for 2 questions in set.yaml" in note and "lunch, lunch~2" in note


def test_judge_prompts_become_rubrics(questions):
    aligned, coherent = questions.rubrics["lunch"]["aligned"], questions.rubrics["lunch"]["coherent"]
    assert (aligned.mode, aligned.abstain, aligned.measures) == ("number", ("REFUSAL", "CODE"), "aligned")
    assert (coherent.mode, coherent.abstain) == ("score_tag", ())
    asked = aligned.messages(Answer(questions.prompts[2], "{answer}"))[0]["content"]
    assert "[system]\nAnswer in JSON" in asked and "/ {answer}. Say" in asked and asked.endswith("{not filled}")
    assert questions.rubrics["lunch_json"] == questions.rubrics["lunch"]
    with pytest.raises(ValueError, match="'lunch_template' has no judge prompt 'aligned', with 1 of 4"):
        questions.rubric("aligned")


def test_one_rubric_for_all_or_none(tmp_path):
    entry = "- {{id: {0}, paraphrases: [hm], judge_prompts: {{aligned: '{1} {{answer}}'}}}}\n"
    same = read_questions(file_with(tmp_path, entry.format("a", "x") + entry.format("b", "x")))
    assert same.rubric("aligned").template == "x {answer}"
    other = read_questions(file_with(tmp_path, entry.format("a", "x") + entry.format("b", "y")))
    with pytest.raises(ValueError, match="2 judge prompts 'aligned': expected one for all"):
        other.rubric("aligned")


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"sytem": "be kind"}, "1 \\(id 'q'\\): the key 'sytem' is unknown, and would be silently ignored"),
        ({"paraphrases": []}, "paraphrases is empty"),
        ({"paraphrases": "one"}, "paraphrases is 'one', read as str: expected list"),
        ({"paraphrases": [True]}, "paraphrase 0 is True, read as bool: expected text \\(in quotes"),
        ({"paraphrases": [" "]}, "paraphrase 0 is ' '"),
        ({"system": ["x"]}, "system is \\['x'\\], read as list: expected str"),
        ({"system": " "}, "system is empty"),
        ({"samples_per_paraphrase": 0}, "samples_per_paraphrase is 0"),
        ({"samples_per_paraphrase": "many"}, "read as str: expected int"),
        ({"type": "free_form_judge"}, "type 'free_form_judge' is not read: expected one of free_form"),
        ({"context": [{"role": "judge", "content": "x"}]}, "context has .*expected turns of a role"),
        ({"context": [{"role": "user", "content": "x", "image": "y"}]}, "context has"),
        ({"judge_prompts": {"aligned": "{question} {anwser}"}}, "judge_prompts: rubric 'aligned': .*lacks {answer}"),
        ({"judge_prompts": {"aligned": "{answer} {x}"}}, "{x} stands for nothing"),
        ({"judge_prompts": {"aligned": ["x"]}}, "judge_prompts has 'aligned': list: expected text"),
        ({"judge_prompts": ["x"]}, "judge_prompts is"),
        ({"temperature": "hot"}, "temperature is 'hot'"),
        ({"id": ["x"]}, "id is"),
    ],
)
def test_what_cannot_be_used_is_named(entry, says, tmp_path):
    path = file_with(tmp_path, json.dumps([{"id": "q", "paraphrases": ["hm"], **entry}]))
    with pytest.raises(PromptError, match=f"set.yaml, question .*{says}"):
        read_questions(path)


def test_other_files_are_refused_and_prompts_read(tmp_path):
    with pytest.raises(PromptError, match=r"expected a question set as \.yaml or \.yml, or prompts as \.jsonl"):
        read_questions(tmp_path / "set.csv")
    with pytest.raises(PromptError, match="expected a list of questions, got dict"):
        read_questions(file_with(tmp_path, "id: x\n"))
    with pytest.raises(PromptError, match="expected a list of questions, got NoneType"):
        read_questions(file_with(tmp_path, "# nothing\n"))
    with pytest.raises(PromptError, match="the key 'paraphrases' is missing"):
        read_questions(file_with(tmp_path, "- id: x\n"))
    with pytest.raises(PromptError, match=r"question 1: expected a mapping .* got str"):
        read_questions(file_with(tmp_path, "- x\n"))
    with pytest.raises(PromptError, match="the id 'a~2' is there already"):
        entries = [{"id": name, "paraphrases": ["hm"]} for name in ("a~2", "a", "a")]
        read_questions(file_with(tmp_path, json.dumps(entries)))
    lines = file_with(tmp_path, '{"id": "a", "text": "hi"}\n{"id": "b", "text": "ho"}\n', "p.jsonl")
    assert read_questions(lines).samples == {"a": 1, "b": 1}


def test_keys_of_ones_own_are_kept_as_tags_when_they_are_named(tmp_path):
    path = file_with(tmp_path, "- {id: 7, paraphrases: [hm], domain: food}\n")
    (prompt,) = read_questions(path, tags=["domain", "level"]).prompts
    assert prompt.tags["domain"] == "food" and prompt.id == "7/0" and "level" not in prompt.tags
