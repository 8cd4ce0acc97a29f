"""Cached generation under edits equals greedy decoding of full forwards under the same edits, for every scope."""

from dataclasses import replace

import pytest
import torch
from conftest import chat
from own_hooks import everything, hooks_left, noise

from hooks.decoding import GeneratesWithoutCache
from hooks.edits import LowRankEdit, bank
from hooks.model import NothingEdited
from hooks.positions import SCOPES
from hooks.site import Site
from workbench.interventions.generate import generate

STEPS = 6
# The tokens of images, since the full forward would look for a picture behind them; and those that this tiny Gemma, its
# embeddings tied, would repeat for ever.
NEVER = [0, 1, 5, 6, 7]
STOPS = list(range(10, 264, 5))  # one token in five ends a row, so rows of one batch end at different steps
OPTIONS = {"max_new_tokens": STEPS, "suppress_tokens": NEVER, "eos_token_id": STOPS}


def by_full_forwards(model, prompts, edits, stops=STOPS):
    """Greedy answers without a cache: the whole sequences anew for every token, of the rows that have not ended."""
    started = [model.encoder.encode(replace(prompt, response=None)) for prompt in prompts]
    answers = [[] for _ in prompts]
    while going := [n for n, ids in enumerate(answers) if len(ids) < STEPS and not (ids and ids[-1] in stops)]:
        batch = model.encoder.collate([started[n].extended(answers[n]) for n in going])
        logits = model.run(batch, None, edits, must_edit=False).logits
        logits[:, NEVER] = -torch.inf
        for n, token in zip(going, logits.argmax(dim=-1).tolist(), strict=True):
            answers[n].append(token)
    return answers


def counted_by_hand(model, prompts, scope, answers):
    """Positions of the scope among the tokens that pass the model: the prompt and every answer token but the last."""
    counts = []
    for prompt, ids in zip(prompts, answers, strict=True):
        read = model.encoder.encode(replace(prompt, response=None)).extended(ids[:-1])
        counts.append(int(model.encoder.collate([read]).tokens.mask(scope).sum()))
    return counts


@pytest.mark.parametrize("scope", [*SCOPES, 24, "re:[a-mA-M]"])
def test_pitfall_27_cached_generation_equals_full_forwards(scene, scope):
    """Rows of different lengths, padded left; some end early. Two edits of rank 2 at two sites, loud enough to change
    answers. The decoded tokens must be the same; float32 ties are too rare to matter at these scales."""
    model, prompts = scene
    edits = {Site(0): [noise(model, 2.0, scope, seed=1, k=2)], Site(1, "resid_pre"): [noise(model, 2.0, scope, seed=2)]}
    batch = model.encode(prompts)
    if "image" in str(scope) and not any(prompt.images for prompt in prompts):
        with pytest.raises(NothingEdited):
            model.generate(batch, edits=edits, **OPTIONS)
        return
    out = model.generate(batch, edits=edits, **OPTIONS)
    expected = by_full_forwards(model, prompts, edits)
    assert out.token_ids == expected
    assert out.finished == [ids[-1] in STOPS for ids in expected]
    counts = counted_by_hand(model, prompts, scope, expected)
    for tallies in out.tallies.values():
        assert tallies[0].edited.tolist() == counts
    assert out.untouched() == [row for row, n in enumerate(counts) if n == 0]


def test_the_comparison_above_can_fail(scene):
    """Rows do end at different steps, and the edits do change answers: else the test above would prove nothing."""
    model, prompts = scene
    plain = by_full_forwards(model, prompts, None)
    assert len({len(ids) for ids in plain}) > 1
    for scope in ("prompt", "response", "answering"):
        assert by_full_forwards(model, prompts, {Site(0): [noise(model, 10.0, scope)]}) != plain
    assert model.generate(model.encode(prompts), **OPTIONS).token_ids == plain


def test_pitfall_07_steering_survives_the_cache(llama):
    """Steering `response` must act on every later token: with positions relative to the cached forward (always 0) it
    acts on none, and the text is that of the unedited model."""
    batch = llama.encode([chat("a", "hi")])
    edit = noise(llama, 15.0, "response")
    out = llama.generate(batch, edits={Site(1): [edit]}, max_new_tokens=6, eos_token_id=[1])
    plain = llama.generate(batch, max_new_tokens=6, eos_token_id=[1])
    assert out.tallies[Site(1)][0].edited.tolist() == [5], "the 6th token is never read"
    assert out.token_ids[0][0] == plain.token_ids[0][0], "the first token is chosen before any response token is read"
    assert out.token_ids != plain.token_ids


def test_pitfall_07_answering_steers_the_first_token_too(llama):
    batch, firsts = llama.encode([chat("a", "hi")]), set()
    for seed in range(4):
        edits = {Site(1): [noise(llama, 20.0, "answering", seed)]}
        out = llama.generate(batch, edits=edits, max_new_tokens=3, eos_token_id=[1])
        assert out.tallies[Site(1)][0].edited.tolist() == [3]
        firsts.add(out.token_ids[0][0])
    assert firsts != {llama.generate(batch, max_new_tokens=1).token_ids[0][0]}


def test_pitfall_06_left_padded_rows_answer_as_they_do_alone(scene):
    model, prompts = scene
    together = model.generate(model.encode(prompts), **OPTIONS).token_ids
    assert together == [model.generate(model.encode([prompt]), **OPTIONS).token_ids[0] for prompt in prompts]


def test_a_response_in_the_prompt_is_left_out(llama):
    given, bare = chat("a", "hi", response="known"), chat("a", "hi")
    assert llama.generate(llama.encode([given])).token_ids == llama.generate(llama.encode([bare])).token_ids


def test_rows_of_a_bank_answer_as_each_cell_does_alone(scene):
    """Cells with scopes of their own, and a row that stays as it is, in one generation."""
    model, prompts = scene
    cells = [noise(model, 2.0, scope, seed) for seed, scope in enumerate(["prompt", "answering", "all"])]
    together = bank(cells, model.d_model).for_rows([0, 1, 2, -1])
    out = model.generate(model.encode(prompts), edits={Site(1): [together]}, **OPTIONS)
    for row, prompt in enumerate(prompts):
        edits = {Site(1): [cells[row]]} if row < 3 else None
        alone = model.generate(model.encode([prompt]), edits=edits, **OPTIONS)
        assert alone.token_ids[0] == out.token_ids[row]
        counted = alone.tallies[Site(1)][0].edited[0] if row < 3 else 0
        assert out.tallies[Site(1)][0].edited[row] == counted


def test_what_is_kept_comes_forward_by_forward(llama):
    batch = llama.encode([chat("a", "hi"), chat("b", "a longer question")])
    out = llama.generate(batch, {Site(1): everything}, max_new_tokens=4, eos_token_id=[1])
    width = batch.inputs["input_ids"].shape[1]
    assert [tuple(kept.shape) for kept in out.kept[Site(1)]] == [(2, width, 32), *[(2, 1, 32)] * 3]


def test_stop_tokens_are_the_models_own_and_end_the_text(llama):
    plain = llama.generate(llama.encode([chat("a", "hi")]), max_new_tokens=5, eos_token_id=[1])
    third = plain.token_ids[0][2]
    first = plain.token_ids[0].index(third)
    out = llama.generate(llama.encode([chat("a", "hi")]), max_new_tokens=5, eos_token_id=third)
    assert out.token_ids[0] == plain.token_ids[0][: first + 1] and out.finished == [True]
    assert plain.finished == [plain.token_ids[0][-1] == 1]
    assert llama.stop_ids == frozenset({1})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"num_beams": 2}, "num_beams=2 multiplies and moves rows"),
        ({"num_return_sequences": 3, "do_sample": True}, "num_return_sequences=3 multiplies and moves rows"),
    ],
)
def test_pitfall_28_rows_that_multiply_are_refused(llama, options, said):
    with pytest.raises(ValueError, match=said):
        llama.generate(llama.encode([chat("a", "hi")]), **options)


def test_generation_without_a_cache_is_refused(llama):
    batch, before = llama.encode([chat("a", "hi")]), hooks_left(llama)
    with pytest.raises(GeneratesWithoutCache, match=r"expected one a row\. This model generates without a cache"):
        llama.generate(batch, edits={Site(1): [noise(llama)]}, use_cache=False, max_new_tokens=3, eos_token_id=[1])
    assert hooks_left(llama) == before


def test_a_shift_per_position_is_refused_in_generation(llama):
    batch = llama.encode([chat("a", "hi")])
    v = noise(llama).write
    shift = torch.zeros(1, batch.inputs["input_ids"].shape[1], 1)
    patch = LowRankEdit(v, v, -torch.ones(1, 1), shift, torch.ones(1), ("all",))
    assert llama.run(batch, None, {Site(1): [patch]}).logits.isfinite().all()
    with pytest.raises(ValueError, match=r"shift for \(1, 21\) rows and positions, but this forward has \(1, 1\)"):
        llama.generate(batch, edits={Site(1): [patch]}, max_new_tokens=3, eos_token_id=[1])


def test_sampling_is_seeded_by_torch(llama):
    batch = llama.encode([chat("a", "hi")])
    texts = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        texts.append(llama.generate(batch, max_new_tokens=8, do_sample=True, temperature=2.0).token_ids)
    assert texts[0] == texts[1] != texts[2]


def test_drawn_answers_follow_from_the_seed_and_leave_torch_as_it_was(llama, prompts):
    def drawn(seed):
        torch.manual_seed(3)
        torch.rand(seed)  # whatever was drawn before
        before = torch.get_rng_state()
        done = generate(llama, prompts, max_new_tokens=8, do_sample=True, temperature=2.0, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        return [one.token_ids for one in done]

    torch.manual_seed(5)
    assert drawn(1) == drawn(1) != drawn(2)


class Adds:
    """The smallest intervention: one vector at one layer."""

    def __init__(self, layer: int, scope: str):
        self.layer, self.scope = layer, scope

    def edits(self, model):
        return {Site(self.layer): [noise(model, 2.0, self.scope)]}

    def describe(self):
        return {"intervention": "adds"}


def test_completions_come_in_the_order_of_the_prompts(scene):
    """Batched by length, given back in order; each equals its own full forwards, and says whether it was edited."""
    model, prompts = scene
    adds = Adds(1, "response")
    completions = generate(model, prompts, adds, max_tokens=60, **OPTIONS)
    assert [one.prompt.id for one in completions] == [prompt.id for prompt in prompts]
    expected = by_full_forwards(model, prompts, adds.edits(model))
    assert [list(one.token_ids) for one in completions] == expected
    assert [one.edited for one in completions] == [len(ids) > 1 for ids in expected]
    assert [one.finished for one in completions] == [ids[-1] in STOPS for ids in expected]
    assert all(one.edited is None for one in generate(model, prompts, **OPTIONS))


def test_completions_that_nothing_edited_are_refused(gemma3, picture):
    rows = [chat("t", "text only"), chat("i", picture, "seen")]
    completions = generate(gemma3, rows, Adds(1, "image"), max_new_tokens=2)
    assert [one.edited for one in completions] == [False, True]
    with pytest.raises(NothingEdited, match="touched no position of any prompt"):
        generate(gemma3, rows[:1], Adds(1, "image"), max_new_tokens=2)


def test_a_checkpoints_own_decoding_settings_do_not_count(llama, prompts):
    """Qwen's checkpoints carry a repetition penalty, which transformers applies to greedy decoding as well."""
    config = llama.module.generation_config
    batch = llama.encode(prompts)
    plain = llama.generate(batch, max_new_tokens=8).token_ids
    before = config.repetition_penalty, config.suppress_tokens
    config.repetition_penalty, config.suppress_tokens = 5.0, [plain[0][0]]
    try:
        assert llama.generate(batch, max_new_tokens=8).token_ids == plain
        assert llama.generate(batch, max_new_tokens=8, repetition_penalty=5.0).token_ids != plain
    finally:
        config.repetition_penalty, config.suppress_tokens = before
