"""sample_answers: one table of all conditions, every observation with a seed of its own, stopped and resumed."""

import pytest
from conftest import chat, stop_after
from workbench_samples import random_directions

from hooks.model import NothingEdited
from hooks.prompt import Message, Prompt, PromptError
from stores import ResultTable
from stores.errors import StoreMismatch
from workbench.behaviour.answer_faults import faults_of
from workbench.behaviour.answering import sample_answers, seed_of
from workbench.interventions.steer import Steer

SILENT = {"progress": False, "max_new_tokens": 5}


def texts_of(table, **conditions):
    return {(row["condition"], row["prompt"], row["sample"]): row["token_ids"] for row in table.rows(**conditions)}


def test_one_row_for_every_condition_prompt_and_sample(llama, questions):
    push = Steer(random_directions(llama), 1, 3.0)
    named = {"plain": "base", "pushed": push, "twice": ("base", push, push)}
    table = sample_answers(llama, questions, samples=3, conditions=named, **SILENT)
    rows = table.rows()
    keys = [(row["condition"], row["prompt"], row["sample"]) for row in rows]
    assert set(keys) == {(c, q.id, n) for c in named for q in questions for n in range(3)} and len(keys) == 54
    assert all(row["seed"] == seed_of(0, row["prompt"], row["sample"]) for row in rows)
    assert all(row["rendered"] == llama.encoder.rendered(questions[int(row["prompt"][1:])]) for row in rows)
    assert {row["tag_domain"] for row in rows} == {"a", "b"}
    assert all((row["edited"] or 0) > 0 for row in rows if row["condition"] != "plain")
    by_condition = [texts_of(table, condition=name) for name in named]
    assert len({tuple(one.values()) for one in by_condition}) == 3


def test_an_answer_does_not_depend_on_its_company(llama, questions):
    how = dict(temperature=0.8, top_p=0.9, top_k=40, repetition_penalty=1.2)
    whole = texts_of(sample_answers(llama, questions, samples=4, **how, **SILENT))
    few = sample_answers(llama, questions[2:4], samples=2, max_tokens=60, **how, **SILENT)
    found = texts_of(few)
    assert found == {key: whole[key] for key in found} and len(set(whole.values())) > len(questions)
    other = texts_of(sample_answers(llama, questions[2:4], samples=2, seed=1, **how, **SILENT))
    assert other != found


def test_every_observation_has_a_seed_of_its_own():
    keys = [(seed, prompt, n) for seed in range(3) for prompt in ("a", "b", "1", "a1") for n in range(12)]
    assert len({seed_of(*key) for key in keys}) == len(keys), "of the run's seed, the prompt and the sample"
    assert seed_of(0, "a", 1) == seed_of(0, "a", 1)


def test_models_that_are_alike_answer_alike_with_the_same_luck(llama, questions):
    """Common random numbers: an intervention that changes nothing changes no sample either."""
    idle = Steer(random_directions(llama), 1, 0.0)
    table = sample_answers(llama, questions, samples=2, conditions={"a": "base", "b": idle}, **SILENT)
    a, b = texts_of(table, condition="a"), texts_of(table, condition="b")
    assert [*a.values()] == [*b.values()] and len({*a.values()}) > 3


def test_greedy_answers_are_those_of_generate(llama, questions):
    table = sample_answers(llama, questions, temperature=0.0, **SILENT)
    greedy = llama.generate(llama.encode(questions), max_new_tokens=5)
    expected = {q.id: " ".join(map(str, ids)) for q, ids in zip(questions, greedy.token_ids, strict=True)}
    assert {row["prompt"]: row["token_ids"] for row in table.rows()} == expected


def test_variants_are_conditions(tuned_world, world):
    from hooks.prompt import read_prompts

    asked = [prompt for prompt in read_prompts(world.questions) if not prompt.images][:4]
    table = sample_answers(tuned_world, asked, conditions=tuned_world.variants, temperature=0.0, **SILENT)
    for name in tuned_world.variants:
        view = tuned_world.variant(name)
        greedy = [view.generate(view.encode([one]), max_new_tokens=5).texts[0] for one in asked]
        rows = {row["prompt"]: row["text"] for row in table.rows(condition=name)}
        assert [rows[one.id] for one in asked] == greedy


def test_a_stopped_run_goes_on_to_the_same_table(llama, questions, tmp_path, monkeypatch):
    how = dict(samples=3, max_tokens=80, conditions={"a": "base", "b": Steer(random_directions(llama), 1, 2.0)})
    whole = sample_answers(llama, questions, **how, **SILENT)
    assert len(whole.plan) >= 4
    resumed = stop_after(monkeypatch, ResultTable, commits=2)
    with pytest.raises(KeyboardInterrupt):
        sample_answers(llama, questions, to=tmp_path / "t", **how, **SILENT)
    resumed()
    table = sample_answers(llama, questions, to=tmp_path / "t", **how, **SILENT)
    assert table.rows() == whole.rows() and table.verify(deep=True) == []
    with pytest.raises(StoreMismatch, match=r"sampling.temperature: expected 1\.0, came 0\.5"):
        sample_answers(llama, questions, to=tmp_path / "t", temperature=0.5, **how, **SILENT)


def test_a_system_turn_reaches_the_model_or_is_an_error(llama):
    asked = [Prompt("s", (Message("system", ("always in rhymes",)), Message("user", ("hi",))))]
    row = sample_answers(llama, asked, **SILENT).rows()[0]
    assert "always in rhymes" in row["rendered"]
    before = llama.tokenizer.chat_template
    llama.tokenizer.chat_template = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    try:
        with pytest.raises(PromptError, match="drops the system turn 'always in rhymes'"):
            sample_answers(llama, asked, **SILENT)
    finally:
        llama.tokenizer.chat_template = before


@pytest.mark.parametrize(
    ("conditions", "named"),
    [
        ({"a": "tuned"}, "variant 'tuned' is not loaded"),
        ({}, "no conditions"),
        ({"a": ("base", 3.0)}, "condition 'a' holds a float"),
    ],
)
def test_strange_conditions_are_refused(llama, questions, conditions, named):
    with pytest.raises(ValueError, match=named):
        sample_answers(llama, questions, conditions=conditions, **SILENT)


def test_interventions_that_touch_nothing_are_an_error(llama, questions):
    with pytest.raises(NothingEdited, match="condition 'pictures'"):
        push = Steer(random_directions(llama), 1, 1.0, at="image")
        sample_answers(llama, questions, conditions={"pictures": push}, **SILENT)


def test_faults_of_an_answer():
    loop = "the cat sat on the mat and " * 8
    assert faults_of(loop) == {"empty": False, "repeated": True}
    assert faults_of(" \n") == {"empty": True, "repeated": False}
    assert faults_of("one two three four " * 3)["repeated"] is False, "too short to be called so"
    assert faults_of(" ".join(str(n) for n in range(60)))["repeated"] is False
    assert faults_of("猫が座る" * 40)["repeated"] is True


def test_samples_may_differ_by_prompt(llama):
    table = sample_answers(llama, [chat("x", "hi"), chat("y", "so")], samples={"x": 1, "y": 3}, **SILENT)
    assert sorted((row["prompt"], row["sample"]) for row in table.rows()) == [("x", 0), ("y", 0), ("y", 1), ("y", 2)]
