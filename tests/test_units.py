"""Units of work: what stands in one batch, within which budget; and the lines that follow the work."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import chat
from hypothesis import given
from hypothesis import strategies as st

from workbench import progress
from workbench.capturing import capture
from workbench.progress import Progress, followed
from workbench.units import (
    MOST_BATCHES,
    MOST_BYTES,
    SIMILAR,
    budget_on,
    joined,
    kinds_of,
    length_sorted,
    tokens_of_units,
)

lists = st.lists(st.tuples(st.integers(1, 300), st.booleans()), max_size=60)


@given(lists, st.integers(1, 2000))
def test_every_prompt_is_in_one_unit_within_the_budget(prompts, budget):
    lengths, images = [length for length, _ in prompts], [image for _, image in prompts]
    units = length_sorted(lengths, budget, images)
    assert sorted(i for unit in units for i in unit) == list(range(len(prompts)))
    for unit in units:
        longest, shortest = max(lengths[i] for i in unit), min(lengths[i] for i in unit)
        assert len(unit) == 1 or longest * len(unit) <= budget, "padded size"
        assert len(unit) == 1 or shortest >= SIMILAR * longest, "little of a batch is padding"
        assert len({images[i] for i in unit}) == 1, "text and images in batches of their own"


@given(lists, st.integers(1, 2000))
def test_a_plan_is_a_pure_function_and_knows_no_names(prompts, budget):
    """Equal input, equal plan; and the multiset of lengths a unit holds does not depend on the order of the file."""
    lengths = [length for length, _ in prompts]
    once = length_sorted(lengths, budget)
    assert once == length_sorted(list(lengths), budget)
    turned = lengths[::-1]
    shapes = [[lengths[i] for i in unit] for unit in once]
    assert shapes == [[turned[i] for i in unit] for unit in length_sorted(turned, budget)]


def test_a_plan_by_hand():
    assert length_sorted([10, 3, 9, 50, 10], max_tokens=30) == [[1], [2, 0, 4], [3]]
    assert length_sorted([10, 10, 10], 20) == [[0, 1], [2]]
    assert length_sorted([10, 10, 10], 30, separate=[True, False, True]) == [[1], [0, 2]]
    assert length_sorted([], 30) == []
    assert length_sorted([10, 7], 100) == [[1], [0]], "7 is less than 0.8 of 10"
    assert length_sorted([10, 8], 100) == [[1, 0]]


@pytest.mark.parametrize(
    ("crosses", "pads", "expected"),
    [
        (False, True, [0, 1, 1, 0]),  # text and pictures apart, however many pictures
        (True, True, [0, 1, 2, 0]),  # each number of pictures by itself
        (False, False, [0, 1, 2, 3]),  # and each length by itself
    ],
    ids=["pictures", "cross-attention", "no padding"],
)
def test_prompts_that_may_not_share_a_batch_are_of_different_kinds(crosses, pads, expected):
    """As partitions: which of four prompts with 0, 1, 2, 0 pictures and 5, 5, 9, 9 tokens are of one kind."""
    prompts = [chat(str(n), "what", *[Path("a.png")] * count) for n, count in enumerate((0, 1, 2, 0))]
    encoder = SimpleNamespace(batch_kind=lambda one: len(one.images) if crosses else 0)
    for side in ("right", "left"):  # padding on either side counts: a unit is both run and generated from
        model = SimpleNamespace(encoder=encoder, pads={"right": True, "left": True, side: pads})
        kinds = kinds_of(model, prompts, [5, 5, 9, 9])
        assert [kinds.index(kind) for kind in kinds] == [expected.index(kind) for kind in expected]


def test_a_log_gets_a_line_now_and_then(monkeypatch, capsys):
    """No terminal here, so no bar: a line each EVERY seconds, which counts what an earlier run has done."""
    clock = iter([0.0, 4.0, 20.0, 24.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with Progress("capture x", 5, done=2) as bar:
        for _ in range(3):
            bar.update()
    # 20 seconds after the start two of three new batches are done, so one is left, which takes 10.
    assert capsys.readouterr().err == "  capture x: 4 of 5 batches, 10 s left\n"


def test_silence_where_it_is_asked_for(monkeypatch, capsys):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    assert list(followed([1, 2, 3], "work", show=False)) == [1, 2, 3]
    assert capsys.readouterr().err == ""
    assert list(followed([1, 2, 3], "work")) == [1, 2, 3]
    assert "work: 3 of 3 batches" in capsys.readouterr().err, "the meta-test"


def test_an_error_in_the_work_passes_through():
    with pytest.raises(ArithmeticError, match="here"):
        for item in followed([1, 2], "work", show=False):
            raise ArithmeticError(f"here at {item}")


def test_tokens_are_said_with_their_rate(monkeypatch, capsys):
    """20 seconds after the start 600 new tokens of 1,500 are done: 30 a second, and 900 - 200 left take 23 seconds."""
    clock = iter([0.0, 4.0, 20.0, 24.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert list(followed("abc", "capture x", tokens=[100, 500, 700], done=200)) == ["a", "b", "c"]
    assert capsys.readouterr().err == "  capture x: 800 of 1,500 tokens, 30 tokens/s, 23 s left\n"


def test_a_bar_counts_tokens_on_a_terminal(monkeypatch):
    made = []

    class Bar(SimpleNamespace):
        def update(self, n):
            self.initial += n

        def close(self):
            made.append(self)

    monkeypatch.setattr(progress, "tqdm", Bar)
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True)
    list(followed("ab", "x", tokens=[100, 500], done=200))
    list(followed("ab", "x"))
    assert [(bar.total, bar.initial, bar.unit, bar.unit_scale) for bar in made] == [
        (800, 800, "token", True),
        (2, 2, "batch", False),
    ]


@pytest.mark.parametrize(("prompts", "budget", "gate"), [(256, 2048, 1.10), (1024, 2048, 1.03), (1024, 8192, 1.12)])
def test_little_of_what_passes_the_model_is_padding(prompts, budget, gate):
    """Lengths of a usual prompt set: lognormal around 90 tokens, 20 to 400."""
    for seed in range(5):
        drawn = np.random.default_rng(seed).lognormal(np.log(90), 0.7, prompts)
        lengths = np.clip(np.round(drawn), 20, 400).astype(int).tolist()
        padded = sum(max(lengths[i] for i in unit) * len(unit) for unit in length_sorted(lengths, budget))
        assert padded <= gate * sum(lengths)


def test_the_budget_is_the_devices(llama, many, tmp_path, monkeypatch):
    """Where none is asked for; a plan that is stored stays as it is."""
    assert [budget_on(torch.device(name)) for name in ("cpu", "cuda", "mps")] == [2048, 8192, 8192]
    monkeypatch.setattr("workbench.units.CPU_BUDGET", 60)
    small = capture(llama, many, to=tmp_path / "s", progress=False)
    monkeypatch.undo()
    large = capture(llama, many, to=tmp_path / "other", progress=False)
    assert len(small.plan[0].batches) > len(large.plan[0].batches) == 3
    assert capture(llama, many, to=tmp_path / "s", progress=False).plan == small.plan


@given(st.lists(st.tuples(st.integers(1, 300), st.integers(0, MOST_BYTES)), max_size=40), st.integers(0, 5000))
def test_units_are_neighbouring_batches_as_far_as_both_limits_go(prompts, most):
    lengths, nbytes = [length for length, _ in prompts], [size for _, size in prompts]
    batches = length_sorted(lengths, 600)
    units = joined(batches, lengths, nbytes, most)
    assert [batch for unit in units for batch in unit] == batches, "in order, none twice"

    def held(unit, of):
        return sum(of[i] for batch in unit for i in batch)

    for n, unit in enumerate(units):
        assert len(unit) == 1 or (held(unit, lengths) <= most and held(unit, nbytes) <= MOST_BYTES)
        if n + 1 < len(units):
            more = [*unit, units[n + 1][0]]
            assert held(more, lengths) > most or held(more, nbytes) > MOST_BYTES, "no unit is smaller than it need be"


def test_a_unit_is_about_a_second_of_work():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert tokens_of_units(cpu, 4_000_000_000) == 62, "one forward of a large model: batches stay units"
    assert tokens_of_units(cpu, 25_000_000) == 10_000
    assert tokens_of_units(gpu, 4_000_000_000) == 25_000
    assert tokens_of_units(cpu, 1000) == MOST_BATCHES * 2048 and tokens_of_units(gpu, 0) == MOST_BATCHES * 8192
