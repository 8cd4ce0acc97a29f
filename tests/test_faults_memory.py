"""The device runs out of memory: units are halved, the rows are those of one pass, and the shards say so."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from conftest import chat
from faults import notes
from test_capture_together import population  # noqa: F401
from workbench_samples import by_place, cells_of, random_directions

from hooks.prompt import Prompt
from stores import ActivationStore, ResultTable
from workbench.behaviour.answering import sample_answers
from workbench.behaviour.judges import judge
from workbench.captures.halving import SPLIT, DoesNotFit, in_parts
from workbench.capturing import capture
from workbench.given_answers import capture_answers
from workbench.interventions.generate import generate
from workbench.interventions.steer import Steer
from workbench.interventions.sweep import sweep

SILENT = {"progress": False}
NEAR = 1e-5  # float32 keeps 6e-8 of a number; a batch of another shape sums in another order


@contextmanager
def small_device(model, tokens):
    """Forwards of more tokens than that run out of memory."""

    def refuse(module, arguments, named):
        if named["input_ids"].numel() > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    handle = model.module.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def assert_same_rows(found, truth):
    """In the same order, and the same up to the rounding of another batch."""
    assert found.streams == truth.streams and found.plan == truth.plan
    for stream in truth.streams:
        a, b = found.at(stream), truth.at(stream)
        for column in ("prompt_ids", "variants"):
            assert getattr(a, column) == getattr(b, column)
        assert np.array_equal(a.positions, b.positions) and np.array_equal(a.token_ids, b.token_ids)
    for site in truth.sites:
        size = np.abs(truth.values(site)).max()
        assert np.abs(found.values(site) - truth.values(site)).max() < NEAR * size


@pytest.mark.parametrize(("scope", "together"), [("last", False), ("all", False), ("last", True)])
def test_a_capture_goes_on_in_halves(population, many, tmp_path, scope, together):  # noqa: F811
    model = population
    settings = dict(at=scope, variants=("a1", "base", "a4"), together=together, **SILENT)
    truth = capture(model, many, to=tmp_path / "whole", **settings)
    with small_device(model, 120 if together else 60):
        store = capture(model, many, to=tmp_path / "halves", **settings)
    assert_same_rows(store, truth)
    assert notes(store.path) == {SPLIT} and notes(truth.path) == {""} and store.verify(deep=True) == []


def test_pictures_and_text_are_halved_alike(scene, tmp_path):
    """Some halves have no picture, and so no row of the tower."""
    model, prompts = scene
    if not any(prompt.images for prompt in prompts):
        pytest.skip("no pictures here: the gemma3 case of this very test has them")
    settings = dict(
        sites="resid_post, vision.resid_post", at={"language": "last", "vision": "image"}, max_tokens=10**6, **SILENT
    )
    truth = capture(model, prompts, to=tmp_path / "whole", **settings)
    longest = max(len(model.encoder.encode(prompt)) for prompt in prompts)
    with small_device(model, longest):
        store = capture(model, prompts, to=tmp_path / "halves", **settings)
    assert_same_rows(store, truth)
    assert SPLIT in notes(store.path)


def test_answers_are_written_in_halves(population, many, tmp_path):  # noqa: F811
    """Of two variants, in whose order the rows stand."""
    model, variants = population, ("a1", "base")
    settings = dict(at="response", responses="generate", max_new_tokens=4, variants=variants, **SILENT)
    truth = capture(model, many, to=tmp_path / "whole", **settings)
    with small_device(model, 60):
        store = capture(model, many, to=tmp_path / "halves", **settings)
    assert by_place(store, "resid_post:1").keys() == by_place(truth, "resid_post:1").keys()
    assert_same_rows(store, truth)
    rows = [ResultTable.open(one.path / "answers").rows() for one in (store, truth)]
    assert rows[0] == rows[1] and notes(store.path) == {SPLIT}


def test_answers_that_are_read_come_in_halves(llama, questions, tmp_path):
    answers = sample_answers(llama, questions, samples=3, max_new_tokens=5, temperature=0.7, **SILENT).rows()
    truth = capture_answers(llama, questions, answers, to=tmp_path / "whole", **SILENT)
    with small_device(llama, 60):
        store = capture_answers(llama, questions, answers, to=tmp_path / "halves", **SILENT)
    assert_same_rows(store, truth)
    assert notes(store.path) == {SPLIT}


def test_generate_answers_in_halves(llama, many):
    push = Steer(random_directions(llama), 1, 3.0)
    whole = generate(llama, many, push, max_new_tokens=4)
    with small_device(llama, 60):
        halves = generate(llama, many, push, max_new_tokens=4)
    assert halves == whole


def test_samples_are_the_same_in_halves(llama, questions, tmp_path):
    """Each has a seed of its own, so even draws do not move."""
    push = Steer(random_directions(llama), 1, 3.0)
    how = dict(samples=3, conditions={"plain": "base", "pushed": push}, max_new_tokens=4, temperature=0.8, **SILENT)
    whole = sample_answers(llama, questions, to=tmp_path / "whole", **how)
    with small_device(llama, 80):
        halves = sample_answers(llama, questions, to=tmp_path / "halves", **how)
    assert halves.rows() == whole.rows() and notes(tmp_path / "halves") == {SPLIT}


def test_a_sweep_measures_in_halves(llama, questions, neutral, tmp_path):
    """Batches and the cells that share a pass; the neutral prompts too; and the residuals captured beside."""
    settings = dict(judge=judge("rule:contains"), controls=1, neutral=neutral, max_new_tokens=4, **SILENT)
    whole = sweep(llama, questions, cells_of(llama)[:1], to=tmp_path / "w", capture_to=tmp_path / "w-rows", **settings)
    with small_device(llama, 60):
        halves = sweep(
            llama, questions, cells_of(llama)[:1], to=tmp_path / "h", capture_to=tmp_path / "h-rows", **settings
        )
    rows, truth = halves.rows(), whole.rows()
    assert [*rows[0]] == [*truth[0]] and len(rows) == len(truth)
    for found, expected in zip(rows, truth, strict=True):
        for name, value in expected.items():
            if name in ("proof", "proof_floor"):  # of fewer prompts
                continue
            near = pytest.approx(value, rel=1e-3, abs=1e-4) if isinstance(value, float) else value
            assert found[name] == near, name
    assert_same_rows(ActivationStore.open(tmp_path / "h-rows"), ActivationStore.open(tmp_path / "w-rows"))
    assert SPLIT in notes(tmp_path / "h") & notes(tmp_path / "h-rows") and notes(tmp_path / "w") == {""}


@pytest.mark.parametrize("what", ["capture", "answers", "sweep", "generate"])
def test_one_prompt_that_does_not_fit_is_named(llama, questions, tmp_path, what):
    """Those before it are committed, and stay."""
    long = chat("too long", "word " * 60, tags=questions[0].tags)
    prompts: list[Prompt] = [*questions, long]
    calls = {
        "capture": lambda: capture(llama, prompts, to=tmp_path / "s", max_tokens=200, **SILENT),
        "answers": lambda: capture(
            llama, prompts, at="response", responses="generate", max_new_tokens=4, to=tmp_path / "s", max_tokens=200,
            **SILENT,
        ),
        "sweep": lambda: sweep(
            llama, prompts, cells_of(llama)[:1], judge=judge("rule:contains"), max_new_tokens=4, max_tokens=200,
            to=tmp_path / "s", **SILENT,
        ),
        "generate": lambda: generate(llama, prompts, max_new_tokens=4),
    }  # fmt: skip
    length = len(llama.encoder.encode(long))
    with (
        small_device(llama, length - 1),
        pytest.raises(DoesNotFit, match=r"prompt 'too long' alone does not fit .*Mend: fewer"),
    ):
        calls[what]()
    if what in ("capture", "answers"):
        store = ActivationStore.open(tmp_path / "s")
        assert (
            set(store.prompt_ids) >= {"q0", "q1"}
            and "too long" not in store.prompt_ids
            and store.verify(deep=True) == []
        )


@pytest.mark.parametrize("most", range(1, 9))
def test_parts_come_in_order_and_whole(most):
    done = []

    def run(items):
        if len(items) > most:
            raise torch.OutOfMemoryError("full")
        done.append(list(items))
        return list(items)

    parts = in_parts(range(8), run)
    assert [item for part in parts for item in part] == list(range(8)) == [item for part in done for item in part]
    assert max(map(len, parts)) <= most and (len(parts) == 1) == (most == 8)
    with pytest.raises(ZeroDivisionError):
        in_parts(range(8), lambda items: 1 // 0)
