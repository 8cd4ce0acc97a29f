"""capture while generating, against plain decoding and against teacher forcing of the very answers it stored."""

import json

import numpy as np
import pytest
import torch
from conftest import chat
from own_hooks import own_hooks
from workbench_samples import by_place, random_directions

from hooks.answer_slab import AnswerSlab
from hooks.answered import Answered
from hooks.model import NothingEdited
from hooks.prompt import read_prompts
from hooks.site import Site
from stores import ResultTable
from workbench.captures.answers import with_answers
from workbench.capturing import capture
from workbench.interventions.generate import generate
from workbench.interventions.steer import Steer

SILENT = {"progress": False}
# One token at a time through the cache, or all of them at once: other sums. In float32 1e-5 of a residual's size; in
# bfloat16 (8 bits) a handful of roundings, through three layers.
TOLERANCE = {"float32": 1e-5, "bfloat16": 4 * 2**-8}


def written(store):
    """{(prompt, variant): (token ids, finished)} of the table beside the shards."""
    rows = ResultTable.open(store.path / "answers").rows()
    return {(row["prompt_id"], row["variant"]): (json.loads(row["token_ids"]), row["finished"]) for row in rows}


def assert_equal_rows(store, forced, tolerance):
    assert store.sites == forced.sites
    for site in store.sites:
        found, truth = by_place(store, site), by_place(forced, site)
        assert found.keys() == truth.keys() and found
        size = max(np.abs(value).max() for value in truth.values())
        assert max(np.abs(found[key] - truth[key]).max() for key in truth) < tolerance * size


def endless(model):
    """The same model, which stops at another token: tiny Gemma3 says its usual one at once."""
    view = model.variant("base")
    view.stop_ids = frozenset({3})
    return view


@pytest.fixture
def ending(llama, many):
    """A model that ends some answers by itself within eight tokens, and others not."""
    view = llama.variant("base")
    counts = {}
    for one in generate(view, many, max_new_tokens=8):
        for token in one.token_ids[2:6]:
            counts[token] = counts.get(token, 0) + 1
    view.stop_ids = frozenset({*view.stop_ids, min(counts, key=lambda token: (abs(counts[token] - 4), token))})
    return view


@pytest.mark.parametrize("pool", ["none", "mean"])
@pytest.mark.parametrize("scope", ["response", "answering"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma3", "half"])
def test_equal_to_teacher_forcing_of_what_was_written(request, family, scope, pool, many, tmp_path):
    model = endless(request.getfixturevalue(family))
    settings = dict(sites="resid_pre, resid_post", at=scope, pool=pool, max_tokens=200, **SILENT)
    store = capture(model, many, responses="generate", max_new_tokens=5, to=tmp_path / "written", **settings)
    answered = with_answers(many, store)
    assert len(store.plan) > 1 and [one.id for one in answered] == [one.id for one in many]
    forced = capture(model, answered, to=tmp_path / "forced", **settings)
    key = lambda rows: sorted(zip(rows.prompt_ids, rows.positions.tolist(), rows.token_ids.tolist(), strict=True))  # noqa: E731
    assert key(store) == key(forced) and store.verify(deep=True) == []
    assert len(store) == (10 if pool == "mean" else sum(len(ids) for ids, _ in written(store).values()))
    kind = "bfloat16" if family == "half" else "float32"
    assert_equal_rows(store, forced, TOLERANCE[kind])


def test_rows_are_those_of_plain_hooks_at_the_positions_of_the_answer(llama, many, tmp_path):
    """Independent of capture: the whole text through the module by hand, rows cut out by counting."""
    store = capture(llama, many, at="response", responses="generate", max_new_tokens=4, to=tmp_path / "s", **SILENT)
    found, answers = by_place(store, "resid_post:2"), written(store)
    for prompt in many:
        one = llama.encoder.encode(prompt)
        ids, finished = answers[prompt.id, "base"]
        truth = own_hooks(llama, llama.encoder.collate([one.extended(ids)]))[Site(2)][0].numpy()
        assert not finished and len(ids) == 4, "cut off, and the last token has a row all the same"
        for step in range(4):
            value = found[prompt.id, "base", len(one) + step]
            assert np.abs(value - truth[len(one) + step]).max() < 1e-5 * np.abs(truth).max()


@pytest.mark.parametrize("scope", ["response", "answering"])
def test_answers_that_end_by_themselves_are_whole_and_without_their_end(ending, many, scope, tmp_path):
    store = capture(ending, many, at=scope, responses="generate", max_new_tokens=8, to=tmp_path / "s", **SILENT)
    plain = {one.prompt.id: one for one in generate(ending, many, max_new_tokens=8)}
    answers = written(store)
    assert {finished for _, finished in answers.values()} == {True, False}
    for prompt in many:
        ids, finished = answers[prompt.id, "base"]
        expected = plain[prompt.id].token_ids
        assert ids == list(expected[:-1] if plain[prompt.id].finished else expected)
        assert finished == plain[prompt.id].finished
        rows = store.where(prompt_id=prompt.id) if ids or scope == "answering" else []
        assert len(rows) == max(len(ids), scope == "answering")
    forced = capture(ending, with_answers(many, store), at=scope, to=tmp_path / "forced", **SILENT)
    assert_equal_rows(store, forced, TOLERANCE["float32"])


def test_steps_that_no_answer_reached_are_no_part_of_a_mean(monkeypatch):
    """All answers end before the limit: what fresh memory holds behind them, NaN for instance, is not averaged in."""
    monkeypatch.setattr(torch, "empty", lambda size, **how: torch.full(size, float("nan"), **how))
    slab = AnswerSlab("response", 1, 2, 6, 4, torch.float32, torch.device("cpu"))
    monkeypatch.undo()
    slab.values[0, :, 0], slab.values[0, :, 1], slab._forwards = torch.tensor(1.0), torch.tensor(2.0), [3]
    picked = slab.picked([], [[5, 6], [5]], "mean")
    assert slab.kept(picked).tolist() == [[[1.5] * 4, [1.0] * 4]]


def test_an_answer_that_ends_before_it_begins_was_chosen_by_the_prompt(llama, many, tmp_path):
    """No response, so no row there; at `answering` the position that chose the end, as for an open response."""
    view = llama.variant("base")
    view.stop_ids = frozenset({generate(llama, many[:1], max_new_tokens=1)[0].token_ids[0]})
    for scope, rows in (("answering", 1), ("response", 0)):
        settings = dict(at=scope, **SILENT)
        store = capture(view, many, responses="generate", max_new_tokens=4, to=tmp_path / scope, **settings)
        assert written(store)["p0", "base"] == ([], True)
        assert store.prompt_ids.count("p0") == rows
        forced = capture(view, with_answers(many, store), to=tmp_path / f"forced {scope}", **settings)
        assert_equal_rows(store, forced, TOLERANCE["float32"])


def test_the_token_beyond_the_limit_is_no_end(ending, many, tmp_path):
    """At `response` one token more is asked for, which may be the one that ends: cut off all the same."""
    plain = {one.prompt.id: one for one in generate(ending, many, max_new_tokens=8)}
    length = next(len(one.token_ids) for one in plain.values() if one.finished) - 1
    store = capture(ending, many, at="response", responses="generate", max_new_tokens=length, to=tmp_path, **SILENT)
    cut = {one.prompt.id: one for one in generate(ending, many, max_new_tokens=length)}
    for (identifier, _), (ids, finished) in written(store).items():
        assert finished == cut[identifier].finished
        assert ids == [token for token in cut[identifier].token_ids if token not in ending.stop_ids]


def test_each_variant_writes_its_own_answers(world, tuned_world, tmp_path):
    prompts = read_prompts(world.questions)[:12]
    settings = dict(variants=("base", "tuned"), at="response", max_tokens=100, **SILENT)
    store = capture(tuned_world, prompts, responses="generate", max_new_tokens=6, to=tmp_path / "s", **settings)
    answers = written(store)
    assert any(answers[p.id, "base"] != answers[p.id, "tuned"] for p in prompts), "else nothing is shown"
    for variant in ("base", "tuned"):
        listed = with_answers(prompts, store, variant)
        assert [list(one.response_ids) for one in listed] == [answers[p.id, variant][0] for p in prompts]
        settings["variants"] = (variant,)
        forced = capture(tuned_world, listed, to=tmp_path / variant, **settings)
        assert_equal_rows(store.where(variant=variant), forced, TOLERANCE["float32"])
    with pytest.raises(ValueError, match="has answers of base, tuned: expected variant= one of them, got None"):
        with_answers(prompts, store)
    with pytest.raises(ValueError, match="got 'other'"):
        with_answers(prompts, store.path, "other")


def test_interventions_act_while_the_answer_is_written(llama, many, tmp_path):
    steer = Steer(random_directions(llama), 0, 4.0, at="answering")
    settings = dict(interventions=[steer], at="answering", **SILENT)
    store = capture(llama, many, responses="generate", max_new_tokens=4, to=tmp_path / "s", **settings)
    plain = {one.prompt.id: list(one.token_ids) for one in generate(llama, many, steer, max_new_tokens=4)}
    assert {name: ids for (name, _), (ids, _) in written(store).items()} == plain
    forced = capture(llama, with_answers(many, store), to=tmp_path / "forced", **settings)
    assert_equal_rows(store, forced, TOLERANCE["float32"])
    at_response = Steer(random_directions(llama), 0, 4.0, at="response")  # in no prompt, but in every answer
    capture(llama, many[:2], at="response", responses="generate", interventions=[at_response], to=tmp_path / "r")
    with pytest.raises(NothingEdited, match="touched no position of any prompt"):
        images = Steer(random_directions(llama), 0, 4.0, at="image")
        capture(llama, many, at="response", responses="generate", interventions=[images], to=tmp_path / "i", **SILENT)


def test_pictures_are_answered(gemma3, picture, tmp_path):
    prompts = [chat("a", picture, "what is this"), chat("b", "no picture"), chat("c", "in ", picture, " or ", picture)]
    model, settings = endless(gemma3), dict(responses="generate", max_new_tokens=3, **SILENT)
    store = capture(model, prompts, at="response", to=tmp_path / "s", **settings)
    assert len(store) == 9
    forced = capture(model, with_answers(prompts, store), at="response", to=tmp_path / "forced", **SILENT)
    assert_equal_rows(store, forced, TOLERANCE["float32"])


# What cannot be.


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"at": "last"}, ValueError, "at 'response' or 'answering', got language 'last'"),
        ({"responses": "write"}, ValueError, "responses 'write' is unknown: expected 'given' or 'generate'"),
        ({"together": True}, ValueError, "expected together=False"),
        ({"max_new_tokens": 0}, ValueError, "max_new_tokens=0: expected at least 1"),
        ({"responses": "given"}, TypeError, "no argument 'max_new_tokens', unless responses='generate'"),
        ({"num_beams": 2}, ValueError, "num_beams=2 multiplies and moves rows"),
    ],
)
def test_what_cannot_be_is_refused(llama, many, arguments, error, says, tmp_path):
    settings = {"at": "response", "responses": "generate", "max_new_tokens": 3} | arguments
    with pytest.raises(error, match=says):
        capture(llama, many, to=tmp_path / "s", **settings, **SILENT)


def test_a_forward_that_was_left_out_is_noticed(llama, many, tmp_path, monkeypatch):
    """Every answer has all of its rows, or there is an error: never a row that nobody wrote."""
    monkeypatch.setattr(AnswerSlab, "asks_for", property(lambda self: self.steps))  # the last token never passes
    with pytest.raises(RuntimeError, match="an answer has 4 positions at 'response', and 3 passed every layer"):
        capture(llama, many, at="response", responses="generate", max_new_tokens=4, to=tmp_path / "s", **SILENT)


def test_an_answer_is_part_of_what_its_prompt_is():
    plain = chat("a", "hi", response="yes")
    facts = {name: getattr(plain, name) for name in plain.__dataclass_fields__}
    one, two = (Answered(**facts, response_ids=ids) for ids in ((5, 6), (5, 7)))
    assert len({plain.content_hash, one.content_hash, two.content_hash}) == 3
