"""Plain decoding: whatever a checkpoint's generation config holds, an answer is the argmax, and a sample is drawn from
the model's own distribution."""

from types import SimpleNamespace

import pytest
import torch

from hooks.decoding import stop_ids_of, until_stop

# Settings of a checkpoint's generation_config.json, each strong enough to change an answer by itself; `first` is the
# token that plain decoding begins with.
GREEDY = {
    "no_repeat_ngram_size": lambda first: 1,
    "min_length": lambda first: 60,
    "min_new_tokens": lambda first: 7,
    "bad_words_ids": lambda first: [[first]],
    "begin_suppress_tokens": lambda first: [first],
    "forced_eos_token_id": lambda first: 61,
    "guidance_scale": lambda first: 3.0,
    "num_beams": lambda first: 3,
    "do_sample": lambda first: True,
    "sequence_bias": lambda first: [[[first], -50.0]],
    "encoder_repetition_penalty": lambda first: 5.0,
    "exponential_decay_length_penalty": lambda first: [1, 50.0],
    "max_time": lambda first: 1e-6,
    "use_cache": lambda first: False,
}
SAMPLED = {
    "temperature": 0.01,
    "top_p": 0.01,
    "top_k": 1,
    "min_p": 0.99,
    "typical_p": 0.01,
    "top_h": 0.01,
    "epsilon_cutoff": 0.5,
    "eta_cutoff": 0.9,
}


OPTIONS = {"max_new_tokens": 12, "eos_token_id": list(range(10, 264, 9))}  # some rows end early, one repeats itself


@pytest.mark.parametrize("name", GREEDY)
def test_no_setting_of_a_checkpoint_changes_a_greedy_answer(llama, prompts, name, monkeypatch):
    batch = llama.encode(prompts)
    plain = llama.generate(batch, **OPTIONS).token_ids
    monkeypatch.setattr(llama.module.generation_config, name, GREEDY[name](plain[0][0]))
    assert llama.generate(batch, **OPTIONS).token_ids == plain


@pytest.mark.parametrize("name", GREEDY)
def test_a_setting_that_was_asked_for_does_change_a_greedy_answer(llama, prompts, name):
    """The meta-test of the one above: each of these is strong enough to be seen, or refused by name."""
    batch = llama.encode(prompts)
    plain = llama.generate(batch, **OPTIONS).token_ids
    try:
        changed = llama.generate(batch, **OPTIONS, **{name: GREEDY[name](plain[0][0])}).token_ids != plain
    except (ValueError, RuntimeError) as error:
        changed = {"num_beams": "multiplies", "use_cache": "without a cache"}.get(name, "-") in str(error)
    assert changed


@pytest.mark.parametrize("fails", [False, True])
def test_the_checkpoints_own_settings_are_its_own_again_afterwards(llama, prompts, fails):
    """A user who calls the module's own generate gets what the checkpoint asks for, after an error too."""
    own, before = llama.module.generation_config, llama.module.generation_config.to_dict()
    if fails:
        with pytest.raises(ValueError):
            llama.generate(llama.encode(prompts), max_new_tokens=2, top_p=-1.0, do_sample=True)
    else:
        llama.generate(llama.encode(prompts), max_new_tokens=2)
    assert llama.module.generation_config is own and own.to_dict() == before


def test_a_sample_is_drawn_from_all_tokens(llama, prompts):
    """transformers' own default takes the 50 likeliest: these flat logits give others as well, as often as they say."""
    batch = llama.encode(prompts[:1])
    chance = llama.run(batch).logits[0].softmax(-1)
    outside = set(chance.argsort(descending=True)[50:].tolist())
    many = batch.rows([0] * 400)
    torch.manual_seed(0)
    drawn = [ids[0] for ids in llama.generate(many, max_new_tokens=1, do_sample=True).token_ids]
    share, expected = sum(token in outside for token in drawn) / 400, float(chance[list(outside)].sum())
    assert expected > 0.02 and abs(share - expected) < 4 * (expected / 400) ** 0.5


@pytest.mark.parametrize("name", SAMPLED)
def test_no_setting_of_a_checkpoint_changes_a_sample(llama, prompts, name, monkeypatch):
    """A sample is drawn from the model's own distribution: the same seed gives the same tokens."""

    def sample():
        torch.manual_seed(0)
        return llama.generate(llama.encode(prompts), max_new_tokens=6, do_sample=True).token_ids

    plain = sample()
    monkeypatch.setattr(llama.module.generation_config, name, SAMPLED[name])
    assert sample() == plain


@pytest.mark.parametrize("name", SAMPLED)
def test_a_setting_that_was_asked_for_does_change_a_sample(llama, prompts, name):
    """The meta-test of the one above: each of these is strong enough to be seen."""

    def sample(**options):
        torch.manual_seed(0)
        return llama.generate(llama.encode(prompts), max_new_tokens=6, do_sample=True, **options).token_ids

    assert sample(**{name: SAMPLED[name]}) != sample()


def test_stop_tokens_of_a_checkpoint_and_of_its_tokenizer_both_end_a_text():
    """A list (Gemma, Llama 3), one number, or none: the tokenizer's own is always among them."""

    def of(stated, own):
        module = torch.nn.Module()
        module.generation_config = SimpleNamespace(eos_token_id=stated)
        return stop_ids_of(module, SimpleNamespace(eos_token_id=own))

    assert of([5, 6], 1) == {1, 5, 6} and of(5, 1) == {1, 5} and of(None, 1) == {1} and of(5, None) == {5}
    assert until_stop([3, 5, 4], of(5, 1)) == [3, 5] and until_stop([3, 4], of(5, 1)) == [3, 4]
