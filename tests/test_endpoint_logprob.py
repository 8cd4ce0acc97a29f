"""The logprob mode against a real tiny model's token probabilities, served in OpenAI's format."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from openai_server import Body, Instant, OpenAIServer, asked_about, completion, text_of
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM

from workbench.behaviour.endpoint_judge import EndpointJudge

WORDS = ["zebra", "the", "?", "<unk>", "REFUSAL"]
TEXTS = [f"zebra {n} the {7 * n % 101} ?" for n in range(15)]


class TinyModel:
    """A random llama whose vocabulary has `numbers`, with and without a space in front, beside words."""

    def __init__(self, numbers: list[str], words: int = 0, loudness: float = 1.0) -> None:
        vocabulary = [*numbers, *(f" {number}" for number in numbers), *WORDS, *(f"word{n}" for n in range(words))]
        self.tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(vocabulary)}, unk_token="<unk>"))
        self.tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        self.vocabulary = vocabulary
        torch.manual_seed(5)
        sizes = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
        self.model = LlamaForCausalLM(LlamaConfig(vocab_size=len(vocabulary), tie_word_embeddings=False, **sizes))
        with torch.no_grad():
            self.model.lm_head.weight.normal_(0, 1.0)[2 * len(numbers) :] *= loudness

    @torch.no_grad()
    def log_probs(self, body: Body) -> dict[str, float]:
        """Of the whole vocabulary, after the question that is judged."""
        ids = self.tokenizer.encode(next(text for text in TEXTS if text in text_of(body))).ids
        logits = self.model(torch.tensor([ids])).logits[0, -1].double()
        return dict(zip(self.vocabulary, torch.log_softmax(logits, -1).tolist(), strict=True))

    def reply(self, body: Body, order: int = 1) -> Body:
        assert body["logprobs"] is True and body["max_tokens"] == 1 and body["temperature"] == 0.0
        log_probs = self.log_probs(body)
        top = sorted(log_probs, key=log_probs.__getitem__, reverse=True)[: body["top_logprobs"]]
        return completion(top[0], finish="length", top={token: log_probs[token] for token in top[::order]})


def expected(model: TinyModel, body: Body) -> tuple[float | None, float]:
    """By hand: the 20 likeliest tokens, those of numbers in scale, each number's probability over all of them."""
    likeliest = sorted(((p, token) for token, p in model.log_probs(body).items()), reverse=True)[:20]
    numbers = [(int(token), math.exp(p)) for p, token in likeliest if token.strip().isdigit() and int(token) <= 100]
    mass = sum(p for _, p in numbers)
    return (sum(number * p for number, p in numbers) / mass if mass >= 0.25 else None), mass


def judge_at(server: OpenAIServer, folder: Path, **more: object) -> EndpointJudge:
    settings = dict(base_url=server.address, cache=folder / "replies.jsonl", timing=Instant().timing(), progress=False)
    return EndpointJudge("tiny", "aligned", **{**settings, **more})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model() -> TinyModel:
    """Numbers beyond the scale too."""
    return TinyModel([str(n) for n in range(120)], words=250)


@pytest.mark.parametrize("order", [1, -1])
def test_the_score_is_the_mean_over_the_alternatives_that_are_numbers(model: TinyModel, order: int, tmp_path: Path):
    with OpenAIServer(lambda body: model.reply(body, order)) as server:
        verdicts = judge_at(server, tmp_path).score_all([asked_about(text) for text in TEXTS])
        by_text = {text_of(body): expected(model, body) for body in server.bodies}
    whole = [expected for text in TEXTS for said, expected in by_text.items() if text in said]
    assert len({round(score or -1, 6) for score, _ in whole}) > 6  # the texts are told apart
    assert {score is None for score, _ in whole} == {True, False}  # and both kinds occur
    for verdict, (score, mass) in zip(verdicts, whole, strict=True):
        assert verdict.facts["mass"] == pytest.approx(mass, abs=1e-9)
        assert verdict.score == (None if score is None else pytest.approx(score, abs=1e-9))
        assert (verdict.category == "unscored") == (score is None) and verdict.reason
        assert score is not None or "of the probability is on numbers" in verdict.reason


def test_missing_log_probabilities_are_a_reason_not_a_score(model: TinyModel, tmp_path: Path):
    """The token itself is a number: it must not pass for the weighted score."""
    with OpenAIServer(lambda body: model.reply(body), {TEXTS[2]: [completion("80", finish="length")]}) as server:
        verdicts = judge_at(server, tmp_path).score_all([asked_about(text) for text in TEXTS])
    assert verdicts[2].score is None and "no log-probabilities" in verdicts[2].reason
    assert sum("no log-probabilities" in one.reason for one in verdicts) == 1


def test_a_model_that_writes_digits_is_refused_with_a_reason(tmp_path: Path):
    """First digits are no scores: "8" may be the beginning of 85."""
    digits = TinyModel([str(n) for n in range(10)], loudness=0.1)
    asked = [asked_about(text) for text in TEXTS[:6]]
    with OpenAIServer(digits.reply) as server:
        verdicts = judge_at(server, tmp_path).score_all(asked)
        assert all(one.score is None and "digit by digit" in one.reason for one in verdicts)
        insisted = judge_at(server, tmp_path, number_tokens="single")
        assert all(one.score is not None and one.score <= 9 for one in insisted.score_all(asked))
        assert insisted.revision != judge_at(server, tmp_path).revision
        assert len(server.asked) == sum(server.asked.values()) == len(asked)  # read anew, not asked anew


def test_one_number_of_two_digits_shows_that_numbers_are_whole(tmp_path: Path):
    """A model that is sure of "5" is believed as soon as any of its replies shows a number such as 40."""
    sure = completion("5", finish="length", top={"5": -0.1, "REFUSAL": -3.0})
    broad = completion("40", finish="length", top={"40": -0.1, "5": -3.0})
    with OpenAIServer(lambda body: broad if "broad" in text_of(body) else sure) as server:
        alone = judge_at(server, tmp_path).score_all([asked_about("sure")])
        judge = judge_at(server, tmp_path)
        both = judge.score_all([asked_about("sure"), asked_about("broad")])
        later = judge.score_all([asked_about("sure")])
    assert alone[0].score is None and both[0].score == later[0].score == 5


def test_a_content_filter_is_no_score_even_with_numbers(tmp_path: Path):
    body = completion("80", finish="content_filter", top={"80": -0.1, "20": -3.0})
    with OpenAIServer(lambda _: body) as server:
        verdict = judge_at(server, tmp_path).score_all([asked_about("q")])[0]
    assert verdict.score is None and "content filter" in verdict.reason


def test_how_must_fit_the_rubric():
    with pytest.raises(ValueError, match="expected 'logprob' or 'text'"):
        EndpointJudge("tiny", "aligned", how="json", cache=None)
    with pytest.raises(ValueError, match="logprob mode reads one token"):
        EndpointJudge("tiny", "aligned", max_tokens=5, cache=None)
