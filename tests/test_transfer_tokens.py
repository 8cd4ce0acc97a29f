"""Rows paired token by token: by equal ids within one tokenizer, by what has been read between two."""

from __future__ import annotations

import re
import zlib

import numpy as np
import pytest
from conftest import chat
from planted_maps import SITE, frame
from tiny_models import byte_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from hooks.encode import Encoder
from hooks.prompt import Message, Prompt
from workbench.capturing import capture
from workbench.interventions.transfer import fit_transfer
from workbench.interventions.transfer_tokens import TokenPairs, ends_read, squeezed, token_pairs
from workbench.subspace.arrays import ArrayRows

TEXTS = [
    "the capital of france is rome and not paris",
    "a cat says woof, a user says: user",
    "ein größeres Wort mit Überlänge",
    "日本の首都 is tokyo",
    "two\nlines of the same words the same words",
]
TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}]\n{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)


def merged_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes merged into pieces of words, with a template of plain text instead of special tokens."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    core.train_from_iterator(
        TEXTS * 3, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, special_tokens=["<eos>"])
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def word_pieces() -> PreTrainedTokenizerFast:
    """Small letters only, spaces lost: what a WordPiece tokenizer gives back is not what was typed."""
    core = Tokenizer(models.WordPiece(unk_token="<unk>"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.decoder = decoders.WordPiece()
    core.train_from_iterator(
        [*TEXTS, TEMPLATE, "assistant user"] * 3,
        trainers.WordPieceTrainer(vocab_size=150, special_tokens=["<unk>", "<eos>"]),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<eos>", unk_token="<unk>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@pytest.fixture(scope="module")
def encoders() -> dict[str, Encoder]:
    return {
        name: Encoder(each())
        for name, each in {"bytes": byte_tokenizer, "merged": merged_tokenizer, "words": word_pieces}.items()
    }


PROMPTS = [chat(f"p{i}", text, response="it is " + text[:9]) for i, text in enumerate(TEXTS)] + [
    Prompt("raw", text=TEXTS[0], prefill=" or", response=" so"),
    Prompt("talk", (Message("user", ("hi",)), Message("assistant", ("hello user",)), Message("user", ("hi",)))),
]


TEMPLATES = re.compile(r"<bos>|<turn>(user|assistant):|<end>|\[(user|assistant)\]")


def read_so_far(encoder: Encoder, one, position: int) -> str:
    """What the tokens up to this one say, without what the templates write, white space and case."""
    return TEMPLATES.sub("", squeezed(encoder.tokenizer.decode(one.input_ids[: position + 1].tolist())))


@pytest.mark.parametrize(
    ("a", "b"), [("bytes", "merged"), ("merged", "bytes"), ("merged", "words"), ("bytes", "words")]
)
def test_paired_tokens_have_read_the_same_words(encoders, a, b):
    """The whole text up to there is the same on both sides, at every pair and of every turn."""
    found = token_pairs(encoders[a], encoders[b], PROMPTS)
    assert len(found) > 60 and set(found.pairs) == {prompt.id for prompt in PROMPTS}
    for prompt in PROMPTS:
        one, other = encoders[a].encode(prompt), encoders[b].encode(prompt)
        for here, there in found.pairs[prompt.id].tolist():
            left, right = read_so_far(encoders[a], one, here), read_so_far(encoders[b], other, there)
            assert left == right and left
        assert len({tuple(pair) for pair in found.pairs[prompt.id].tolist()}) == len(found.pairs[prompt.id])
        assert found.pairs[prompt.id].min() > 0, "never a first token"


def test_every_token_of_the_coarser_tokenizer_pairs_with_the_last_byte_of_it(encoders):
    """Bytes end wherever merged pieces end, so each piece of the turn has its partner, and by its own text."""
    prompt = PROMPTS[0]
    one, other = encoders["merged"].encode(prompt), encoders["bytes"].encode(prompt)
    text = "the capital of france is rome and not paris"
    pairs = dict(token_pairs(encoders["merged"], encoders["bytes"], [prompt]).pairs["p0"].tolist())
    pieces = [encoders["merged"].tokenizer.decode([i]) for i in one.input_ids.tolist()]
    start = len("[user]\n")
    first = next(i for i in range(len(pieces)) if len("".join(pieces[: i + 1])) > start)
    in_turn = [i for i in range(first, one.instruction_end) if pieces[i].strip()]
    assert len(in_turn) < len(text) / 2, "the meta-test: pieces are longer than bytes"
    for i in in_turn:
        said = "".join(pieces[: i + 1])[start:].strip("\n")
        assert pairs[i] == 2 + len("user:") - 1 + len(said), pieces[i]
    assert max(pairs.values()) < len(other)
    assert pairs[len(one) - 1] == len(other) - 1 > other.prompt_length, "of the response too"
    assert pairs[one.prompt_length - 1] == other.prompt_length - 1, "the last tokens of both prompts pair"


def test_a_turn_that_stands_in_the_template_too_is_found_at_its_place(encoders):
    """Asked "user" or "assistant": the words stand in both templates too."""
    for word in ("user", "assistant"):  # the one stands in front of the turn, the other behind it
        prompt = chat("a", word)
        (pairs,) = token_pairs(encoders["bytes"], encoders["bytes"], [prompt]).pairs.values()
        one = encoders["bytes"].encode(prompt)
        inside = [i for i, _ in pairs.tolist() if i != one.prompt_length - 1]
        assert inside == list(range(one.instruction_end - len(word), one.instruction_end))
    talk = ends_read(encoders["bytes"].encode(PROMPTS[-1]), PROMPTS[-1], encoders["bytes"].tokenizer)
    assert talk[0, 1] < talk[1, 1] < talk[2, 1], "equal turns keep their order"


def test_a_token_within_a_character_pairs_with_nothing(encoders):
    """日 is three bytes: only the third has read it."""
    prompt = chat("a", "日本")
    one = encoders["bytes"].encode(prompt)
    found = ends_read(one, prompt, encoders["bytes"].tokenizer)
    start = one.instruction_end - 6
    assert (found[0, 1], found[0, 2]) == (start + 2, start + 5) and len(found) == 3


def test_what_a_tokenizer_cannot_give_back_pairs_nothing(encoders):
    lost = [chat("a", "zzz qqq xxx"), *PROMPTS[:1]]
    found = token_pairs(encoders["words"], encoders["bytes"], lost)
    assert len(found.pairs["a"]) == 1, "the last tokens alone"
    assert "TokenPairs(" in repr(found) and found.tokens[0] < found.tokens[1]


def test_a_first_token_never_pairs(encoders):
    """Its norm drowns the others; a prompt of one token has no other."""
    with pytest.raises(ValueError, match="no token of one model ends where"):
        token_pairs(encoders["bytes"], encoders["bytes"], [Prompt("a", text="h")])


def test_at_most_so_many_a_prompt_are_drawn_by_seed(encoders):
    few, again, other = (
        token_pairs(encoders["bytes"], encoders["merged"], PROMPTS, per_prompt=4, seed=s) for s in (0, 0, 1)
    )
    assert all(len(pairs) <= 4 for pairs in few.pairs.values()) and len(few) > 20
    assert all((few.pairs[name] == again.pairs[name]).all() for name in few.pairs)
    assert any((few.pairs[name] != other.pairs[name]).any() for name in few.pairs)


def spoken(encoder: Encoder, prompts: list[Prompt], turn: np.ndarray | None = None) -> ArrayRows:
    """Rows at every position that say what has been read of the turn: the same vector wherever that is the same."""
    values, ids, positions = [], [], []
    for prompt in prompts:
        one = encoder.encode(prompt)
        said = {position: key for key, position in ends_read(one, prompt, encoder.tokenizer).items()}
        for position in range(len(one)):
            key = (prompt.id, said.get(position, ("only here", position, len(one))))
            values.append(np.random.default_rng(zlib.crc32(str(key).encode())).standard_normal(6))
            ids.append(prompt.id)
            positions.append(position)
    rows = np.stack(values)
    return ArrayRows({SITE: rows if turn is None else rows @ turn}, ids, positions=positions)


def test_a_map_between_models_with_other_tokenizers_is_found_token_by_token(encoders):
    turn = frame(6, 9, 1)
    prompts = [chat(f"q{i}{j}", f"{TEXTS[i]} {j}") for i in range(3) for j in range(4)]
    source, target = spoken(encoders["merged"], prompts), spoken(encoders["bytes"], prompts, turn)
    pairs = token_pairs(encoders["merged"], encoders["bytes"], prompts)
    found = fit_transfer(source, target, pair_by=pairs)
    np.testing.assert_allclose(found.maps[SITE].matrix, turn, atol=1e-9)
    assert found.matched == len(pairs) and found.prompts == 12
    assert found.only_source == len(source) - len(pairs)
    wrong = TokenPairs({name: np.c_[each[:, 0], np.roll(each[:, 1], 1)] for name, each in pairs.pairs.items()}, (0, 0))
    assert fit_transfer(source, target, pair_by=wrong).r2[SITE] < 0.3, "the test can fail"


def test_tokens_of_one_tokenizer_pair_by_prompt_position_and_id(llama, gpt2, tmp_path):
    """Two models that read the same bytes; the last prompt differs in one token, which then has no partner."""
    prompts = [chat(f"p{i}", f"{text} {i}") for i, text in enumerate(TEXTS * 2)]
    here = capture(llama, prompts, sites="resid_post:1", at="all", to=tmp_path / "a", progress=False)
    there = capture(
        gpt2,
        [*prompts[:-1], chat("p9", f"{TEXTS[4]} x")],
        sites="resid_post:1",
        at="all",
        to=tmp_path / "b",
        progress=False,
    )
    found = fit_transfer(here, there, pair_by="token", method="ridge")
    tokens = sum(len(llama.encoder.encode(prompt)) for prompt in prompts)
    assert found.matched == tokens - len(prompts) - 1, "all but position 0, and the token that differs"
    assert found.n_train + found.n_held_out == found.matched and found.prompts == 10
    assert found.pair_by == "token" and 0 < found.rank[found.sites[0]] <= llama.d_model
    with pytest.raises(ValueError, match="more than once"):
        fit_transfer(here, there)
    pooled = capture(gpt2, prompts, sites="resid_post:1", at="all", pool="mean", to=tmp_path / "c", progress=False)
    with pytest.raises(ValueError, match="the target's rows are pooled"):
        fit_transfer(here, pooled, pair_by="token")
    with pytest.raises(ValueError, match="do not know their token ids"):
        fit_transfer(spoken(llama.encoder, prompts), there, pair_by="token")


def test_variants_of_one_token_pair_by_name():
    ids, positions = [f"p{i}" for i in range(10) for _ in range(3)], [1, 2, 3] * 10
    values = np.random.default_rng(0).standard_normal((60, 5))
    both = ArrayRows({SITE: values}, ids * 2, positions=positions * 2, variants=["base"] * 30 + ["tuned"] * 30)
    order = np.r_[30:60, 0:30]
    turned = ArrayRows(
        {SITE: values[order] @ frame(5, 5, 1)},
        ids * 2,
        positions=positions * 2,
        variants=["tuned"] * 30 + ["base"] * 30,
    )
    pairs = TokenPairs({f"p{i}": np.array([[1, 1], [2, 2], [3, 3]]) for i in range(10)}, (30, 30))
    found = fit_transfer(both, turned, pair_by=pairs)
    assert found.matched == 60 and found.r2[SITE] == pytest.approx(1)
