"""SeededSampling draws from what transformers' own processors leave, by a seed of each row."""

import numpy as np
import pytest
import torch
from scipy import stats
from transformers.generation import logits_process as library

from hooks.sampling import SeededSampling

VOCABULARY = 13


def scores_of(rows, seed=0):
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed))


def by_the_library(ids, scores, temperature=1.0, top_k=0, top_p=1.0, penalty=1.0):
    """Probabilities as `generate(do_sample=True)` makes them."""
    if penalty != 1:
        scores = library.RepetitionPenaltyLogitsProcessor(penalty)(ids, scores)
    scores = library.TemperatureLogitsWarper(temperature)(ids, scores)
    if top_k:
        scores = library.TopKLogitsWarper(top_k)(ids, scores)
    if top_p < 1:
        scores = library.TopPLogitsWarper(top_p)(ids, scores)
    return scores.softmax(dim=-1)


def drawn(ids, scores, seeds, **options):
    sampling = SeededSampling(seeds, max_new_tokens=4, real=torch.ones_like(ids, dtype=torch.bool), **options)
    out = sampling(ids, scores)
    assert (out == 0).sum(dim=1).eq(1).all() and torch.isinf(out).sum() == out.numel() - len(out)
    return out.argmax(dim=1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.7},
        {"temperature": 1.3, "top_k": 4},
        {"top_p": 0.8},
        {"temperature": 0.7, "top_k": 5, "top_p": 0.9, "repetition_penalty": 1.4},
    ],
)
def test_tokens_are_drawn_as_often_as_the_library_would(options):
    rows = 4001
    ids = torch.tensor([[1, 5, 2]]).expand(rows, -1)
    scores = scores_of(1).expand(rows, -1)
    given = {("penalty" if name == "repetition_penalty" else name): value for name, value in options.items()}
    expected = by_the_library(ids[:1], scores[:1], **given)[0].double().numpy()
    counts = np.bincount(drawn(ids, scores, range(rows), **options).numpy(), minlength=VOCABULARY)
    possible = expected > 0
    assert counts[~possible].sum() == 0
    assert stats.chisquare(counts[possible], expected[possible] / expected.sum() * rows).pvalue > 1e-3


def test_a_row_draws_the_same_whatever_shares_its_batch():
    ids, scores = torch.ones(5, 3, dtype=torch.long), scores_of(5)
    together = drawn(ids, scores, [11, 12, 13, 14, 15], temperature=2.0)
    alone = drawn(ids[3:4], scores[3:4], [14], temperature=2.0)
    assert together[3] == alone[0]
    seeds = [drawn(ids[3:4], scores[3:4], [seed], temperature=2.0).item() for seed in range(20)]
    assert len(set(seeds)) > 3


def test_each_step_draws_anew_and_another_generation_begins_anew():
    sampling = SeededSampling([3], max_new_tokens=40, temperature=5.0)
    flat = torch.zeros(1, VOCABULARY)

    def written(prompt):
        return [sampling(torch.ones(1, prompt + n, dtype=torch.long), flat).argmax().item() for n in range(40)]

    first = written(prompt=7)
    assert len(set(first)) > 5 and written(prompt=9) == first


def test_cells_as_rows_repeat_the_seeds():
    ids, scores = torch.ones(2, 3, dtype=torch.long), scores_of(2)
    once = drawn(ids, scores, [7, 8])
    sampling = SeededSampling([7, 8], max_new_tokens=4)
    assert sampling(ids.repeat(3, 1), scores.repeat(3, 1)).argmax(dim=1).tolist() == once.tolist() * 3


def test_pads_are_no_repeated_tokens():
    """Where pad and end of turn are one token, the library's penalty makes a padded row end later than it would
    alone."""
    scores = torch.zeros(2, VOCABULARY) + 1.0
    scores[:, 0] = 1.01  # the pad's id: the likeliest, unless it counts as repeated
    ids = torch.tensor([[0, 0, 5], [3, 4, 5]])
    real = torch.tensor([[False, False, True], [True, True, True]])
    sampling = SeededSampling([1, 2], max_new_tokens=2, temperature=0.0, repetition_penalty=2.0, real=real)
    assert sampling(ids, scores).argmax(dim=1).tolist() == [0, 0]
    assert library.RepetitionPenaltyLogitsProcessor(2.0)(ids, scores.clone()).argmax(dim=1).tolist()[0] != 0


def test_temperature_zero_is_greedy():
    scores = scores_of(6)
    assert drawn(torch.ones(6, 2, dtype=torch.long), scores, range(6), temperature=0.0).equal(scores.argmax(dim=1))


@pytest.mark.parametrize(
    "options", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_p": 1.2}, {"top_k": -1}, {"repetition_penalty": 1.2}]
)
def test_impossible_settings_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        SeededSampling([1], max_new_tokens=2, **options)
