"""wb.membership against a computation of every text alone: plain transformers, the template written out, loops."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import chat, stop_after
from tiny_lm import LANGUAGE_MODELS
from tiny_models import byte_tokenizer
from workbench_samples import random_directions

import hooks.token_log_probs
from hooks.load import load_model
from hooks.model import NothingEdited
from hooks.prompt import Message, Prompt, PromptError
from stores import ResultTable
from stores.errors import StoreMismatch
from workbench.behaviour.membership import membership
from workbench.interventions.ablate import Ablate
from workbench.interventions.steer import Steer

NEAR = 1e-5
TEXTS = [
    chat("a", "hi", response="there you are", label="member", tags={"domain": "x", "loss": "mine"}),
    chat("b", "a question that is a good deal longer", response="x"),
    Prompt("c", (Message("system", ("be brief",)), Message("user", ("what is it",))), response="thé cat, thé cat"),
    chat("d", "so", prefill="well,", response=" no"),
]
SILENT = {"progress": False}


@pytest.fixture(scope="module", params=["llama", "gemma3", "gpt2"])
def model(request):
    return load_model(LANGUAGE_MODELS[request.param](), byte_tokenizer(), check=False)


def parts_of(prompt, text):
    """(what stands before the answer, the answer) as one string each: the template by hand."""
    said = [(turn.role, turn.text) for turn in prompt.messages]
    if text == "raw":
        return "\n".join([*(words for _, words in said), prompt.prefill or ""]), prompt.response
    before = "<bos>" + "".join(f"<turn>{role}:{words}<end>" for role, words in said) + "<turn>assistant:"
    return before + (prompt.prefill or ""), prompt.response


def tokens_of(string):
    return byte_tokenizer()(string, add_special_tokens=False)["input_ids"]


def log_probs(module, ids, first):
    """[(log p, mean, sd)] of ids[first:], float64, one forward of one text."""
    with torch.no_grad():
        logits = module(input_ids=torch.tensor([ids])).logits[0].double().numpy()
    found = []
    for t in range(first, len(ids)):
        row = logits[t - 1] - logits[t - 1].max()
        log_p = row - np.log(np.exp(row).sum())
        mean = (np.exp(log_p) * log_p).sum()
        found.append((log_p[ids[t]], mean, np.sqrt((np.exp(log_p) * (log_p - mean) ** 2).sum())))
    return np.array(found)


def by_hand(module, prompt, *, of, text, k, prefix=None):
    before, answer = parts_of(prompt, text)
    ids, p = tokens_of(before + answer), len(tokens_of(before))
    first = p if of == "answer" else 1
    found = log_probs(module, ids, first)
    lowest = max(1, int(len(found) * k / 100))
    z = (found[:, 0] - found[:, 1]) / found[:, 2]
    scored = answer if of == "answer" else before + answer
    loss = found[:, 0].mean()
    row = {
        "n_tokens": len(found),
        "n_characters": len(scored),
        "loss": loss,
        "zlib": loss / len(zlib.compress(scored.encode())),
        f"min_k_{k}": np.mean(sorted(found[:, 0])[:lowest]),
        f"min_k_pp_{k}": np.mean(sorted(z)[:lowest]),
        f"paper_b_min_k_{k}": -np.mean(sorted(found[:, 0])[:lowest]),
        "paper_b_zlib": np.exp(-loss) / (8 * len(zlib.compress(scored.encode(), 9)) / len(scored.encode())),
        "log_p": found[:, 0].sum(),
    }
    if prefix is not None:
        behind = log_probs(module, tokens_of(prefix) + ids, len(tokens_of(prefix)) + first)
        row["recall"] = behind[:, 0].sum() / found[:, 0].sum()
    return row


def close(row, expected):
    for name, value in expected.items():
        if name != "log_p":
            assert row[name] == pytest.approx(value, abs=NEAR, rel=NEAR), name


@pytest.mark.parametrize("text", ["template", "raw"])
@pytest.mark.parametrize("of", ["answer", "full"])
def test_scores_of_a_padded_batch_as_of_each_text_alone(model, of, text):
    """1e-5 was asked for: float32 forwards, padded right among others, against float64 behind a forward alone."""
    table = membership(model, TEXTS, of=of, text=text, k=30, max_tokens=120, **SILENT)
    rows = {row["prompt"]: row for row in table.rows()}
    assert len(rows) == len(TEXTS) and 1 < len(table.plan) < 5
    for prompt in TEXTS:
        close(rows[prompt.id], by_hand(model.module, prompt, of=of, text=text, k=30))
    assert (rows["a"]["label"], rows["a"]["domain"], rows["a"]["prompt_loss"]) == ("member", "x", "mine")


def test_in_bfloat16(half):
    """Steps of 1/16 in its logits: 0.1 nats in the mean of a text were allowed before the first run."""
    for prompt, row in zip(TEXTS, sorted(membership(half, TEXTS, **SILENT).rows(), key=by_id), strict=True):
        expected = by_hand(half.module, prompt, of="answer", text="template", k=20)
        assert row["loss"] == pytest.approx(expected["loss"], abs=0.1)


def by_id(row):
    return row["prompt"]


@pytest.mark.parametrize("of", ["answer", "full"])
def test_recall_behind_a_raw_prefix(model, of):
    prefix = "some text of nobody\nand more"
    table = membership(model, TEXTS, of=of, text="raw", recall_prefix=prefix, **SILENT)
    for prompt, row in zip(TEXTS, sorted(table.rows(), key=by_id), strict=True):
        close(row, by_hand(model.module, prompt, of=of, text="raw", k=20, prefix=prefix + "\n"))
    shots = [chat("n0", "some text of nobody", response="and more")]
    same = membership(model, TEXTS, of=of, text="raw", recall_prefix=shots, **SILENT)
    assert same.column("recall") == table.column("recall")


def test_recall_behind_earlier_turns(model):
    shots = [Prompt("n0", (Message("system", ("x",)), Message("user", ("why",))), response="so")]
    rows = sorted(membership(model, TEXTS, recall_prefix=shots, **SILENT).rows(), key=by_id)
    for prompt, row in zip(TEXTS, rows, strict=True):
        before, answer = parts_of(prompt, "template")
        head, cut, rest = before.partition("<turn>user:")
        alone, turns = tokens_of(before), tokens_of(head + "<turn>user:why<end><turn>assistant:so<end>" + cut + rest)
        one, other = (log_probs(model.module, ids + tokens_of(answer), len(ids))[:, 0] for ids in (turns, alone))
        assert row["recall"] == pytest.approx(one.sum() / other.sum(), abs=NEAR)


def test_a_prefix_that_the_form_cannot_show_is_refused(llama):
    for settings in ({"recall_prefix": "text"}, {"recall_prefix": TEXTS[:1], "of": "full"}):
        with pytest.raises(PromptError, match="earlier turns, and of='answer'"):
            membership(llama, TEXTS, **settings, **SILENT)
    with pytest.raises(PromptError, match="recall_prefix is empty"):
        membership(llama, TEXTS, text="raw", recall_prefix=" ", **SILENT)
    with pytest.raises(PromptError, match="no prompts: expected at least one"):
        membership(llama, TEXTS, text="raw", recall_prefix=[], **SILENT)
    with pytest.raises(PromptError, match="expected one kind"):
        membership(llama, [*TEXTS, Prompt("z", text="a", response="b")], recall_prefix="x", **SILENT)
    with pytest.raises(PromptError, match="no conversation with a response"):
        membership(llama, TEXTS, recall_prefix=[chat("n", "why")], **SILENT)


def test_a_bos_of_the_tokenizer_stays_at_the_beginning(llama):
    """With a tokenizer that writes one: the text behind a prefix has it before the prefix, and it is never scored."""
    tokenizer = byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = bos_in_front(tokenizer)
    model = load_model(llama.module, tokenizer, check=False)
    for of, first in (("full", 0), ("answer", 5)):
        (row,) = membership(
            model, [Prompt("a", text="text", response="!" * 9)], of=of, recall_prefix="pre", joined_by="/", **SILENT
        ).rows()
        bos, prefix, ids = [2], tokens_of("pre/"), tokens_of("text" + "!" * 9)
        first = max(1, first)
        alone = log_probs(llama.module, bos + ids, first)[:, 0]
        behind = log_probs(llama.module, bos + prefix + ids, len(prefix) + first)[:, 0]
        assert row["n_tokens"] == len(alone) == len(behind)
        assert row["loss"] == pytest.approx(alone.mean(), abs=NEAR)
        assert row["recall"] == pytest.approx(behind.sum() / alone.sum(), abs=NEAR)


def bos_in_front(tokenizer):
    from tokenizers.processors import TemplateProcessing

    return TemplateProcessing(single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", tokenizer.bos_token_id)])


def test_the_cap_cuts_the_text_and_says_so(llama):
    p = len(tokens_of(parts_of(TEXTS[0], "template")[0]))
    (row,) = membership(llama, TEXTS[:1], max_length=p + 4, **SILENT).rows()
    assert (row["n_tokens"], row["n_characters"], row["truncated"]) == (4, 4, True)
    close(row, {"loss": membership(llama, [replace(TEXTS[0], response="ther")], **SILENT).rows()[0]["loss"]})
    assert not any(membership(llama, TEXTS, max_length=400, **SILENT).column("truncated"))
    with pytest.raises(PromptError, match=r"no token to score .*raise the cap"):
        membership(llama, TEXTS[:1], max_length=p, **SILENT)


@pytest.mark.parametrize("of", ["answer", "full"])
def test_one_token_is_enough_and_none_is_refused(llama, of):
    texts = [Prompt("one", text="a", response="b"), Prompt("more", text="so it", response="is")]
    rows = sorted(membership(llama, texts, of=of, k=[1, 100], **SILENT).rows(), key=by_id)
    assert rows[1]["n_tokens"] == 1 and rows[1]["min_k_1"] == rows[1]["min_k_100"] == rows[1]["loss"]
    with pytest.raises(PromptError, match="no response, the first 'mute'"):
        membership(llama, [*texts, Prompt("mute", text="a")], **SILENT)
    with pytest.raises(PromptError, match="'mute' has no token to score"):
        membership(llama, [*texts, Prompt("mute", text="a")], of="full", **SILENT)


def test_texts_beyond_the_models_positions_are_refused(gpt2):
    with pytest.raises(ValueError, match=r"280 tokens.* made for 256: .*max_length="):
        membership(gpt2, [Prompt("long", text="a", response="b" * 279)], **SILENT)
    with pytest.raises(ValueError, match="its prefix included"):
        membership(gpt2, [Prompt("a", text="a", response="b")], recall_prefix="c" * 255, **SILENT)


def test_pictures_are_scored_under_the_template_only(gemma3, picture):
    shown = [chat("p", picture, "what is it", response="a cat"), TEXTS[0]]
    rows = membership(gemma3, shown, of="full", **SILENT).rows()
    assert len(rows) == 2 and all(np.isfinite(row["loss"]) for row in rows)
    with pytest.raises(PromptError, match="text='raw' keeps text alone"):
        membership(gemma3, shown, text="raw", **SILENT)
    with pytest.raises(PromptError, match="raise the cap"):
        membership(gemma3, shown, max_length=12, **SILENT)


def test_log_probabilities_that_are_no_numbers_are_refused(llama, monkeypatch, tmp_path):
    own = hooks.token_log_probs.moments_of

    def broken(logits, ids):
        chosen, mean, sd = own(logits, ids)
        chosen[-1] = torch.nan
        return chosen, mean, sd

    monkeypatch.setattr(hooks.token_log_probs, "moments_of", broken)
    with pytest.raises(ValueError, match=r"prompt '.': log-probabilities of .* are NaN or infinite"):
        membership(llama, TEXTS, to=tmp_path / "m", **SILENT)
    assert len(ResultTable.open(tmp_path / "m")) == 0


def test_a_stopped_run_goes_on_to_the_same_table(llama, tmp_path, monkeypatch):
    settings = dict(k=[20, 50], max_tokens=60, reference=llama, **SILENT)
    whole = membership(llama, TEXTS, to=tmp_path / "whole", **settings)
    assert len(whole.plan) >= 3
    resumed = stop_after(monkeypatch, ResultTable, commits=2)
    with pytest.raises(KeyboardInterrupt):
        membership(llama, TEXTS, to=tmp_path / "m", **settings)
    resumed()
    ran = []
    monkeypatch.setattr(llama, "run", lambda *a, **named: ran.append(1) or type(llama).run(llama, *a, **named))
    table = membership(llama, TEXTS, to=tmp_path / "m", **settings)
    assert len(ran) == 2 * (len(whole.plan) - 2), "the model and its reference, for every batch that was missing"
    assert table.rows() == whole.rows() and table.verify(deep=True) == []
    membership(llama, TEXTS, to=tmp_path / "m", **settings)
    assert len(ran) == 2 * (len(whole.plan) - 2)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"of": "full"}, "of: expected"),
        ({"text": "raw"}, "text: expected"),
        ({"k": 30}, "k"),
        ({"per": "text"}, "per: expected"),
        ({"max_length": 400}, "max_length: expected"),
        ({"recall_prefix": TEXTS[:1]}, "recall_prefix: expected"),
        ({"reference": True}, "reference"),
        ({"interventions": True}, "interventions"),
        ({"prompts": TEXTS[:3]}, "prompts: expected"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_table_of_other_settings_is_refused(llama, gpt2, tmp_path, change, named):
    membership(llama, TEXTS, to=tmp_path / "m", **SILENT)
    change = dict(change)
    if "reference" in change:
        change["reference"] = llama
    if "interventions" in change:
        change["interventions"] = [Ablate(random_directions(llama), 1)]
    with pytest.raises(StoreMismatch, match=named):
        membership(llama, change.pop("prompts", TEXTS), to=tmp_path / "m", **change, **SILENT)


def test_interventions_act_on_the_model_and_not_on_the_reference(llama):
    steer = Steer(random_directions(llama), 1, 2.0, at="answering")
    plain = sorted(membership(llama, TEXTS, **SILENT).rows(), key=by_id)
    rows = sorted(membership(llama, TEXTS, reference=llama, interventions=[steer], **SILENT).rows(), key=by_id)
    for row, before in zip(rows, plain, strict=True):
        assert row["reference_loss"] == pytest.approx(before["loss"], abs=NEAR)
        assert abs(row["loss"] - before["loss"]) > 1e-3 and row["edited"] == row["n_tokens"]
    with pytest.raises(NothingEdited):
        membership(llama, TEXTS, interventions=[Steer(random_directions(llama), 1, 2.0, at="image")], **SILENT)


@pytest.mark.parametrize("settings", [{"of": "reply"}, {"text": "chat"}, {"per": "word"}, {"k": 0}])
def test_settings_that_do_not_exist_are_refused(llama, settings):
    with pytest.raises(ValueError, match="expected"):
        membership(llama, TEXTS, **settings, **SILENT)


def test_a_model_behind_an_endpoint_gives_no_log_probabilities():
    with pytest.raises(TypeError, match=r"object gives no log-probabilities of given texts: expected wb.load_model"):
        membership(object(), TEXTS, **SILENT)
