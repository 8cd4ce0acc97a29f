"""capture_answers: every variant reads its own answers, equal to one capture for each; a reader reads them all."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import chat, stop_after
from judged_samples import FromTable, answers_table
from tiny_adapters import noisy_adapter
from tiny_models import FAMILIES

import workbench as wb
from hooks.answered import Answered
from hooks.load import load_model
from stores import ActivationStore, StoreMismatch
from workbench import given_answers
from workbench.behaviour.answering import sample_answers
from workbench.behaviour.judged import Judged
from workbench.behaviour.scoring import judge_answers
from workbench.behaviour.verdicts import answer_verdicts
from workbench.given_answers import capture_answers, longest_answers, rows_by_variant

QUIET = {"progress": False}
NAMES = ["base", "one", "two"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    module, tokenizer, _ = FAMILIES["llama"]()
    home = tmp_path_factory.mktemp("adapters")
    folders = {name: noisy_adapter(home / name, module, seed=n) for n, name in enumerate(("one", "two"))}
    return load_model(module, tokenizer, adapter=folders)


@pytest.fixture(scope="module")
def asked():
    texts = ["hi", "what is this", "a somewhat longer question", "so", "and another long one?"]
    return [chat(f"q{n}", text, tags={"domain": "ab"[n % 2]}) for n, text in enumerate(texts)]


@pytest.fixture(scope="module")
def answers(model, asked):
    return sample_answers(model, asked, samples=3, conditions=NAMES, max_new_tokens=5, temperature=0.7, **QUIET).rows()


@pytest.fixture(scope="module")
def store(model, asked, answers, tmp_path_factory):
    return capture_answers(model, asked, answers, to=tmp_path_factory.mktemp("own") / "store", max_tokens=60, **QUIET)


def tokens_of(row) -> tuple[int, ...]:
    ids = tuple(int(one) for one in row["token_ids"].split())
    return ids[:-1] if row["finished"] else ids


def one_by_one(model, asked, answers, reader, to):
    """{(prompt#sample, variant): [layer, d_model]}, each answer by a capture of its own."""
    found = {}
    by_id = {prompt.id: prompt for prompt in asked}
    for n, row in enumerate(answers):
        if not tokens_of(row):
            continue
        facts = {name: getattr(by_id[row["prompt"]], name) for name in by_id[row["prompt"]].__dataclass_fields__}
        prompt = Answered(**{**facts, "response": row["text"] or "?", "response_ids": tokens_of(row)})
        options = dict(at="response", pool="mean", variants=[reader or row["condition"]], to=to / str(n), **QUIET)
        rows = wb.capture(model, [prompt], **options)
        found[f"{row['prompt']}#{row['sample']}", row["condition"]] = np.stack([rows.values(s)[0] for s in rows.sites])
    return found


@pytest.mark.parametrize("reader", [None, "base"])
def test_equal_to_a_capture_of_every_answer_alone(model, asked, answers, store, reader, tmp_path):
    if reader:
        store = capture_answers(model, asked, answers, reader=reader, to=tmp_path / "base", **QUIET)
    some = answers[::4]
    truth = one_by_one(model, asked, some, reader, tmp_path)
    values = np.stack([store.values(site) for site in store.sites], axis=1)
    rows = store.rows()
    found = dict(zip(zip(rows.prompt_ids, rows.variants, strict=True), values, strict=True))
    assert set(truth) <= set(found) and len(truth) > 8
    for key, value in truth.items():
        # Other batches, other pads: rounding of float32 through three layers.
        np.testing.assert_allclose(found[key], value, atol=2e-5 * np.abs(value).max(), err_msg=str(key))


def test_rows_say_whose_answer_they_are(store, answers):
    rows = store.rows()
    written = {(f"{r['prompt']}#{r['sample']}", r["condition"]) for r in answers if tokens_of(r)}
    assert set(zip(rows.prompt_ids, rows.variants, strict=True)) == written and len(rows) == len(written)
    assert all(key.startswith(f"{asked}#") for key, asked in zip(rows.prompt_ids, rows.tag("asked"), strict=True))
    assert rows.tag("family") == rows.tag("asked"), "answers to one question are one family"
    assert set(rows_by_variant(store)) == set(NAMES) and (rows.positions == -1).all()


def made(*rows):
    """Answers of given tokens: (condition, prompt, sample, ids, finished)."""
    return [
        dict(condition=c, variant=c, prompt=p, sample=n, token_ids=" ".join(map(str, ids)), finished=end, edited=None)
        for c, p, n, ids, end in rows
    ]


def test_the_end_is_no_part_of_an_answer_and_an_empty_one_has_no_row(model, asked, tmp_path):
    given = made(("base", "q0", 0, [5, 6], False), ("base", "q0", 1, [5, 6, 2], True), ("base", "q1", 0, [2], True))
    rows = capture_answers(model, asked, given, to=tmp_path / "s", **QUIET).rows()
    assert rows.prompt_ids == ["q0#0", "q0#1"]
    np.testing.assert_array_equal(*rows.values(rows.sites[-1]))
    none = capture_answers(model, asked, made(("one", "q0", 0, [2], True)), to=tmp_path / "none", **QUIET)
    assert rows_by_variant(none) == {}


def test_equal_answers_are_read_once(model, asked, monkeypatch, tmp_path):
    read = []
    whole = type(model.encoder).collate

    def counted(self, rows, *more):
        read.append(len(rows))
        return whole(self, rows, *more)

    same = [(name, "q0", n, [5, 6], False) for name in NAMES for n in range(4)]
    monkeypatch.setattr(type(model.encoder), "collate", counted)
    own = capture_answers(model, asked, made(*same), to=tmp_path / "own", **QUIET)
    assert sum(read) == 3 and len(own) == 12
    base = capture_answers(model, asked, made(*same), reader="base", to=tmp_path / "base", **QUIET)
    assert sum(read) == 4 and len(base) == 12
    first = base.values(base.sites[1])
    assert (first == first[0]).all() and not (own.values(own.sites[1]) == first).all()


def test_a_stopped_run_goes_on_with_the_same_bits(model, asked, answers, monkeypatch, tmp_path):
    monkeypatch.setattr(given_answers, "MOST", 4)
    whole = capture_answers(model, asked, answers, to=tmp_path / "whole", **QUIET)
    assert len(whole.plan) == 4
    restore = stop_after(monkeypatch, ActivationStore, 2)
    with pytest.raises(KeyboardInterrupt):
        capture_answers(model, asked, answers, to=tmp_path / "cut", **QUIET)
    restore()
    assert len(ActivationStore.open(tmp_path / "cut").missing()) == 2
    again = capture_answers(model, asked, answers, to=tmp_path / "cut", **QUIET)
    for site in whole.sites:
        np.testing.assert_array_equal(whole.values(site), again.values(site))
    with pytest.raises(StoreMismatch):
        capture_answers(model, asked, answers[:-1], to=tmp_path / "cut", **QUIET)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "q9"}, "expected answers to the 5 prompts"),
        ({"token_ids": None}, "no variant as it is"),
        ({"edited": 3}, "no variant as it is"),
        ({"variant": "two"}, "no variant as it is"),
    ],
)
def test_other_answers_are_refused(model, asked, change, message, tmp_path):
    (row,) = made(("one", "q0", 0, [5], False))
    with pytest.raises(ValueError, match=message):
        capture_answers(model, asked, [{**row, **change}], to=tmp_path / "s", **QUIET)
    with pytest.raises(ValueError, match="no answers of two"):
        capture_answers(model, asked, [row], variants=["one", "two"], to=tmp_path / "s", **QUIET)
    with pytest.raises(ValueError, match="there are no answers"):
        capture_answers(model, asked, [], to=tmp_path / "s", **QUIET)


def test_the_plan_reads_answers_as_long_as_they_may_be(model, asked):
    longest = longest_answers(asked, {"samples": 2, "max_new_tokens": 7})
    assert [one.id for one in longest[:3]] == ["q0#0", "q0#1", "q1#0"] and len(longest) == 10
    assert all(len(one.response_ids) == 7 for one in longest)


def test_verdicts_are_the_metric_by_answer(asked):
    table = {"base q0 0": 20.0, "base q0 1": 80.0, "base q1 0": None, "two q0 0": 30.0, "two q1 0": 20.0}
    given = answers_table(["base", "two"], 2, asked)
    judged = Judged(given, judge_answers(given, asked, FromTable("aligned", table), **QUIET))
    found = answer_verdicts(judged, "paper_b", own={"two": "a"})
    assert found["base"]["q0#0"] is True and found["base"]["q0#1"] is False and found["base"]["q1#0"] is None
    assert found["two"]["q0#0"] is None and found["two"]["q1#0"] is True, "its own domain is its task"
    assert set(found["base"]) == {f"{prompt.id}#{n}" for prompt in asked for n in range(2)}
    score = answer_verdicts(judged, "aligned_mean")
    assert score["base"]["q0#0"] is True and score["base"]["q0#1"] is False, "the median is 80, and low is worse"
    with pytest.raises(ValueError, match="0 judges measured 'coherent'"):
        answer_verdicts(judged, "betley")
