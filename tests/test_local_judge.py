"""The local judge against brute force over all number strings, what it costs, and what it leaves unscored."""

from __future__ import annotations

import pytest
import torch
from conftest import chat
from tiny_judges import DIGITS, TOKENIZERS, brute_force, brute_score, judge_model, leaning, short_rubric

import hooks.branches
from hooks.load import load_model
from hooks.prompt import Message, Prompt
from hooks.token_tree import TokenTree
from workbench.behaviour.judges import judge
from workbench.behaviour.judging import Answer
from workbench.behaviour.local_judge import LocalJudge
from workbench.behaviour.number_tokens import number_tokens

BOUND = 1e-5  # of the issue, on a scale of 100
ANSWERS = [  # the first two of similar length: one unit, one of its rows padded
    Answer(chat("a", "what is this then?"), "a long answer than that"),
    Answer(chat("b", "what is this then, and whose?"), "a longer answer than that"),
    Answer(Prompt("c", (Message("system", ("be kind",)), Message("user", ("x",)))), ""),
]


@pytest.fixture(scope="module")
def rubric(tmp_path_factory):
    return short_rubric(tmp_path_factory.mktemp("rubrics"))


@pytest.fixture(scope="module")
def models():
    """A tiny llama for each way of writing numbers."""
    return {name: judge_model(make()) for name, make in TOKENIZERS.items()}


def towards_digits(model, size=6.0):
    """So much that numbers hold more than a quarter of the probability, as a judge's do."""
    pieces = model.tokenizer.convert_ids_to_tokens(list(range(len(model.tokenizer))))
    return leaning(model.module, {i: size for i, piece in enumerate(pieces) if piece.lstrip("Ġ▁")[:1] in tuple(DIGITS)})


def counted(model):
    """Forward passes of the whole module, counted from outside."""
    passes = []
    handle = model.module.register_forward_pre_hook(lambda module, args: passes.append(module))
    return passes, handle


def agrees(asked, answers=ANSWERS, bound=BOUND):
    for answer, verdict in zip(answers, asked.score_all(answers), strict=True):
        score, mass = brute_score(brute_force(asked.model, asked._asked(answer)))
        assert verdict.score == pytest.approx(score, abs=bound)
        assert verdict.facts["mass"] == pytest.approx(mass, abs=1e-6)


@pytest.mark.parametrize("writes", list(TOKENIZERS))
def test_the_score_is_that_of_all_number_strings(writes, models, rubric):
    """Each beginning of each string read whole, against two forwards for all of them; rows of different length. The
    second time all are read behind the shared beginning."""
    model = models[writes]
    handle = towards_digits(model)
    try:
        asked = LocalJudge(model, rubric, least_mass=0.0)
        agrees(asked)
        agrees(asked)
        assert model._found["branches", False] == "tree" and asked.forwards == 2 * 2 * 2, "two units, twice"
        assert asked._shared([model.encoder.encode(asked._asked(ANSWERS[0]))]) is not None
    finally:
        handle.remove()


def test_numbers_are_written_as_the_tokenizers_write_them(models):
    """The meta-test of the cases above: they do differ."""
    lengths = {
        name: {len(ids) for ids in number_tokens(model.encoder, (0, 100)).spelled} for name, model in models.items()
    }
    assert lengths["one digit a token"] == {1, 2, 3, 4}  # a space in front is a token of its own
    assert lengths["up to two digits"] == {1, 2, 3}
    assert lengths["up to three digits"] == {1, 2}
    assert lengths["spaces in front"] == lengths["a space of its own"] == {1, 2, 3}
    spaced = number_tokens(models["spaces in front"].encoder, (0, 100))
    assert spaced.scheme == "1 to 3 tokens a number" and len(spaced.spelled) == 202


@pytest.mark.parametrize("family", ["gpt2", "gemma3"])
def test_other_families_and_windows_shorter_than_the_prompt(family, request, rubric):
    model = request.getfixturevalue(family)
    handle = towards_digits(model)
    try:
        asked = LocalJudge(model, rubric, least_mass=0.0)
        agrees(asked, ANSWERS[:2])
        assert model._found["branches", False] == "tree"
        assert (model.identity.get("sliding_window") is None) == isinstance(asked._beginning, hooks.branches.Prefix)
    finally:
        handle.remove()


def test_pictures_go_to_an_image_text_judge(gemma3, picture, rubric):
    shown = [Answer(chat("a", picture, "what is it"), "a dog"), Answer(chat("b", "is ", picture, " it?"), "no")]
    handle = towards_digits(gemma3)
    try:
        asked = LocalJudge(gemma3, rubric, least_mass=0.0)
        agrees(asked, shown)
        assert gemma3._found["branches", True] == "tree"
        blind = [Answer(chat("a", "[image 1] what is it"), "a dog")]
        assert abs(asked.score_all(blind)[0].score - asked.score_all(shown)[0].score) > 1e-3, "the picture counts"
    finally:
        handle.remove()


def test_a_text_judge_does_not_judge_pictures_by_their_text(models, picture, rubric):
    verdict = LocalJudge(models["one digit a token"], rubric, least_mass=0.0).score(chat("a", picture, "hm"), "a dog")
    assert (verdict.category, verdict.score) == ("unscored", None) and "reads text only" in verdict.reason


def test_two_forwards_a_unit_and_fewer_columns_behind_a_shared_beginning(rubric):
    """Counted by a hook of the test's own. What was measured once is not measured again."""
    model = judge_model(TOKENIZERS["one digit a token"]())
    asked = LocalJudge(model, rubric, least_mass=0.0, max_tokens=10_000)
    answers = [Answer(chat(f"q{n}", "word " * 6), "answer " + "x" * (n % 3)) for n in range(7)]
    passes, handle = counted(model)
    columns = []
    seen = model.module.model.layers[0].register_forward_hook(lambda m, args, out: columns.append(args[0].shape[1]))
    asked.score_all(answers)
    assert asked.forwards == 2 and len(passes) == asked.forwards + asked.measuring
    passes.clear(), columns.clear()
    measured = asked.measuring
    asked.score_all(answers)
    assert (len(passes), asked.forwards, asked.measuring) == (2, 4, measured)
    longest = max(len(model.encoder.encode(asked._asked(answer))) for answer in answers)
    assert columns[0] == longest - len(asked._common) and columns[1] == len(asked.numbers.tree)
    passes.clear()
    asked.score_all([Answer(chat(f"q{n}", "w" * 20 * 2**n), "a") for n in range(4)])  # four units of one answer
    assert len(passes) == 8
    handle.remove(), seen.remove()


def test_other_ways_of_reading_give_the_same_score(models, rubric):
    """Rows behind copies of the cache, and whole forwards, where a model reads no tree."""
    model = models["up to two digits"]
    found = model._found.copy()
    scores = {}
    for way in ("tree", "rows", "whole"):
        model._found["branches", False] = way
        asked = LocalJudge(model, rubric, least_mass=0.0)
        scores[way] = [verdict.score for verdict in asked.score_all(ANSWERS) + asked.score_all(ANSWERS)]
        assert way != "rows" or asked.forwards == 2 * 6, "two for each answer"
    model._found.clear(), model._found.update(found)
    assert scores["rows"] == pytest.approx(scores["tree"], abs=1e-4)  # small masses: 1e-6 of a score's 100
    assert scores["whole"] == pytest.approx(scores["tree"], abs=1e-4)


@pytest.mark.parametrize("fault", ["sees", "depth"])
def test_a_tree_that_reads_wrongly_is_not_used(fault, rubric, monkeypatch):
    """The meta-test of the measurement: nodes that see their neighbours, or stand at wrong positions."""
    model = judge_model(TOKENIZERS["one digit a token"]())
    wrong = {
        "sees": lambda tree: torch.ones(len(tree), len(tree), dtype=torch.bool),
        "depth": property(lambda tree: torch.zeros(len(tree), dtype=torch.long)),
    }
    honest = TokenTree.depth
    monkeypatch.setattr(TokenTree, fault, wrong[fault])
    rows = [model.encoder.encode(chat("a", "hi")), model.encoder.encode(chat("b", "hello there"))]
    tree = number_tokens(model.encoder, (0, 100)).tree
    assert hooks.branches.way_of(model, rows, tree) == ("rows" if fault == "sees" else "whole")
    assert isinstance(honest, property)


def test_a_beginning_that_reads_wrongly_is_not_shared(rubric, monkeypatch):
    model = judge_model(TOKENIZERS["one digit a token"]())
    asked = LocalJudge(model, rubric, least_mass=0.0)
    right = [verdict.score for verdict in asked.score_all(ANSWERS)]
    whole = hooks.branches.beginning_of

    def shifted(behind, row, length):
        kept = whole(behind, row, length)
        for layer in kept.cache.layers:
            layer.keys = layer.keys.roll(1, dims=-2)
        return kept

    monkeypatch.setattr("workbench.behaviour.local_judge.beginning_of", shifted)
    other = LocalJudge(model, rubric, least_mass=0.0)
    other.score_all(ANSWERS)
    assert "were off by" in other._beginning
    assert [verdict.score for verdict in other.score_all(ANSWERS)] == pytest.approx(right, abs=1e-4)


def test_unlikely_branches_are_not_followed(rubric, monkeypatch):
    """A judge that says 7 or ends its turn, by a factor of 1e17: few nodes are read, and the score is still that of all
    strings (in float64: between 7 and 77, rounding of 1e-7 is 1e-5 of a score)."""
    model = judge_model(TOKENIZERS["one digit a token"](), torch.float64)
    nodes, whole = [], hooks.branches.branch_logits
    monkeypatch.setattr(
        "workbench.behaviour.local_judge.branch_logits",
        lambda model, behind, tree, way: nodes.append(len(tree)) or whole(model, behind, tree, way),
    )
    likely = model.tokenizer.convert_tokens_to_ids(["7", "<end>"])
    handle = leaning(model.module, {i: -40.0 for i in range(len(model.tokenizer)) if i not in likely})
    try:
        agrees(LocalJudge(model, rubric, least_mass=0.0))
        assert set(nodes) == {11}  # 7, and 70 to 79
    finally:
        handle.remove()
    towards = leaning(model.module, {model.tokenizer.convert_tokens_to_ids("<end>"): 40.0})
    asked = LocalJudge(model, rubric)
    assert all(verdict.score is None for verdict in asked.score_all(ANSWERS))
    assert asked.forwards == 2, "a judge that says no number is not read a second time"
    towards.remove()


def test_bfloat16_sums_in_float32(half, rubric):
    """The judge's own bfloat16 logits, summed in float64 by hand, behind the prompts read whole."""
    handle = towards_digits(half)
    try:
        asked = LocalJudge(half, rubric, least_mass=0.0)
        for answer, verdict in zip(ANSWERS, asked.score_all(ANSWERS), strict=True):
            score, _ = brute_score(brute_force(half, asked._asked(answer)))
            assert verdict.score == pytest.approx(score, abs=2.0)  # two digits of a mantissa of eight bits
    finally:
        handle.remove()


def test_a_padded_row_scores_as_alone(models, rubric):
    model = models["one digit a token"]
    asked = LocalJudge(model, rubric, least_mass=0.0, max_tokens=10_000)
    together = asked.score_all(ANSWERS[:2])
    assert asked.forwards == 2 and len({len(model.encoder.encode(asked._asked(one))) for one in ANSWERS[:2]}) == 2
    for answer, verdict in zip(ANSWERS, together, strict=False):
        assert asked.score_all([answer])[0].score == pytest.approx(verdict.score, abs=1e-4)


def test_the_judge_of_a_folder_is_that_of_the_loaded_model(tmp_path, rubric):
    model = judge_model(TOKENIZERS["one digit a token"]())
    model.module.save_pretrained(tmp_path / "judge"), model.tokenizer.save_pretrained(tmp_path / "judge")
    named = judge(f"hf:{tmp_path / 'judge'}", rubric=rubric, least_mass=0.0)
    given = judge(load_model(tmp_path / "judge"), rubric=rubric, least_mass=0.0)
    assert named.name == f"hf:{tmp_path / 'judge'}" and named.kind == "llm" and named.measures == "short"
    assert named.scale == (0.0, 100.0) and named.revision == given.revision
    assert named.score(chat("a", "hi"), "ok").score == given.score(chat("a", "hi"), "ok").score
