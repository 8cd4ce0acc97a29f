"""Diversity of texts: planted numbers of topics, a naive twin, the size effect, and the coverage of its intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from store_samples import filled_store
from tiny_models import byte_tokenizer
from transformers import BertConfig, BertModel

import workbench as wb
from workbench.behaviour.diversity import diversity, diversity_features, diversity_table
from workbench.behaviour.text_embeddings import embeddings_by, encoded_texts
from workbench.statistics.vendi import at_size, half_sample_intervals, mean_distance, vendi_scores
from workbench.subspace.directions import Directions

rng = np.random.default_rng
ALL = (0.5, 1, 2, math.inf)


@pytest.mark.parametrize("kernel", ["shifted", "cosine"])
@pytest.mark.parametrize(("n", "d"), [(12, 5), (5, 12)])
def test_vendi_scores_are_those_of_the_whole_kernel_matrix(n, d, kernel):
    x = rng(0).normal(size=(n, d)) + 0.5
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosine = unit @ unit.T
    shares = np.linalg.eigvalsh((cosine + 1) / 2 if kernel == "shifted" else cosine) / n
    shares = shares[shares > 1e-12]
    half, one, two, most = vendi_scores(x, ALL, kernel)
    assert one == pytest.approx(math.exp(-sum(s * math.log(s) for s in shares)))
    assert half == pytest.approx(sum(math.sqrt(s) for s in shares) ** 2)
    assert two == pytest.approx(1 / sum(s * s for s in shares)) and most == pytest.approx(1 / max(shares))
    assert half >= one >= two >= most >= 1


def test_planted_topics_are_counted():
    """Four unlike topics of five texts each are 4 by the cosine kernel, at every order; one topic is 1 by both."""
    topics = np.repeat(np.eye(7)[:4], 5, axis=0) * rng(1).uniform(1, 9, size=(20, 1))
    assert vendi_scores(topics, ALL, "cosine") == pytest.approx([4.0] * 4)
    assert vendi_scores(topics[:5], ALL) == pytest.approx([1.0] * 4)
    assert mean_distance(topics) == pytest.approx(300 / 380) and mean_distance(topics[:5]) == pytest.approx(
        0, abs=1e-12
    )
    uneven = np.repeat(np.eye(3), (16, 2, 2), axis=0)  # rare topics count less at higher orders
    assert np.all(np.diff(vendi_scores(uneven, ALL, "cosine")) < -0.2)
    # (cos + 1) / 2 calls unrelated texts half alike: with many of them order 2 stays below 4, infinity below 2.
    shifted = vendi_scores(np.eye(200), (2, math.inf))
    assert shifted[0] == pytest.approx(4, rel=0.03) and shifted[1] == pytest.approx(2, rel=0.02)


def test_scores_do_not_depend_on_lengths_and_refuse_what_has_none():
    x = rng(2).normal(size=(9, 4))
    assert vendi_scores(x * rng(3).uniform(0.1, 50, size=(9, 1))) == pytest.approx(vendi_scores(x))
    for bad in (x[:1], np.zeros((4, 2)), np.full((4, 2), np.nan)):
        with pytest.raises(ValueError, match="2 vectors or more"):
            vendi_scores(bad)
    with pytest.raises(ValueError, match="order=0"):
        vendi_scores(x, (0,))


def test_all_domains_are_measured_at_one_size():
    """The same topics with 3 times as many texts: the whole set scores higher, at one size both agree."""
    x = rng(4).normal(size=(240, 30))
    small, large = x[:80], x
    assert vendi_scores(large, (1,), "cosine")[0] > vendi_scores(small, (1,), "cosine")[0] + 2
    found = {(each.domain, each.measure): each for each in diversity({"small": small, "large": large}, kernel="cosine")}
    one, other = found["small", "vendi_1_cosine"], found["large", "vendi_1_cosine"]
    assert one.size == other.size == 80 and (one.texts, other.texts) == (80, 240)
    assert other.value == pytest.approx(one.value, abs=1.0) and one.value in other.interval
    assert one.grows > 1.1 and found["small", "mean_distance"].grows == pytest.approx(1, abs=0.05)
    assert {measure for _, measure in found} == {f"vendi_{o:g}_cosine" for o in ALL} | {"mean_distance"}
    with pytest.raises(ValueError, match="expected 16 to 80"):
        diversity({"small": small, "large": large}, size=81)


def test_intervals_hold_the_value_of_the_source():
    """Texts of ten topics in unequal shares; truth: the mean score of many sets of 60 texts."""
    centres = rng(5).normal(size=(10, 12)) * 2

    def texts(seed, n):
        r = rng([6, seed])
        return centres[r.choice(10, size=n, p=np.arange(1, 11) / 55)] + r.normal(size=(n, 12))

    def scores(x):
        return np.array([vendi_scores(x, (1,), "cosine")[0], mean_distance(x)])

    truth = np.mean([scores(texts(seed, 60)) for seed in range(1000, 2000)], axis=0)
    for n in (60, 150):
        held = np.zeros(2)
        for seed in range(120):
            x = texts(seed, n)
            found = half_sample_intervals(x, scores, at_size(x, scores, 60, draws=8), 60, draws=40, seed=seed)
            held += [value in each for value, each in zip(truth, found, strict=True)]
        assert (held / 120 > 0.88).all() and (held / 120 <= 1).all(), held


def test_a_bootstrap_with_replacement_would_repeat_texts():
    """Why half-samples: resampled sets score far below the set itself, so their quantiles miss it."""
    x = rng(7).normal(size=(60, 40))
    own = vendi_scores(x, (1,), "cosine")[0]
    resampled = [vendi_scores(x[rng([8, i]).integers(60, size=60)], (1,), "cosine")[0] for i in range(50)]
    assert max(resampled) < own


def test_a_common_component_hides_the_topics_until_it_is_subtracted():
    topics = np.repeat(np.eye(8), 4, axis=0)
    domains = {"many": topics + 20, "few": np.repeat(topics[:8], 4, axis=0) + 20}
    plain = {each.domain: each.value for each in diversity(domains, orders=(2,), kernel="cosine", draws=5)[::2]}
    found = diversity(domains, orders=(2,), kernel="cosine", centre=True, draws=5)
    centred = {each.domain: each.value for each in found[::2]}
    assert found[0].measure == "vendi_2_cosine_centred" and wb.predictor_feature(found[0].measure).sign == 0
    assert plain["many"] - plain["few"] < 0.01 and centred["many"] - centred["few"] > 1


def test_measures_become_features_without_a_sign():
    domains = {f"d{i}": rng([9, i]).normal(size=(20, 4)) + 2 * i for i in range(5)}
    found = diversity(domains, orders=(1, 2), draws=5)
    assert list(diversity_features(found)) == ["vendi_1", "vendi_2", "mean_distance"]
    table = diversity_table(found, {name: 0.1 * i for i, name in enumerate(domains)})
    assert [each.sign for each in table.features] == [0, 0, 0] and all(each.before for each in table.features)


def test_vectors_come_from_a_store_by_tag(tmp_path):
    store = filled_store(tmp_path / "store", 9)
    found = embeddings_by(store.where(variant="tuned"), "topic", "resid_post:1")
    rows = store.where(variant="tuned", topic=2)
    assert sorted(found) == ["0", "1", "2"] and np.array_equal(found["2"], rows.values("resid_post:1"))
    with pytest.raises(ValueError, match="one row a text"):
        embeddings_by(store, "topic", "resid_post:1")


def test_texts_are_projected_on_a_known_direction(tmp_path):
    store, vector = filled_store(tmp_path / "store", 9), rng(10).normal(size=24)
    v = Directions.of(["resid_post:1"], vector[None])
    found = wb.projection_features(store.where(variant="tuned"), v, "resid_post:1", "topic", name="persona")
    unit = vector / np.linalg.norm(vector)
    values = {t: store.where(variant="tuned", topic=t).values("resid_post:1") @ unit for t in range(3)}
    assert list(found) == ["projection_persona"]
    assert found["projection_persona"] == pytest.approx({str(t): each.mean() for t, each in values.items()}, rel=1e-5)
    tuned, base = store.where(variant="tuned"), store.where(variant="base")
    apart = wb.projection_features(tuned, v, "resid_post:1", "topic", baseline=base)["projection"]
    assert apart["1"] == pytest.approx(
        found["projection_persona"]["1"] - (base.where(topic=1).values("resid_post:1") @ unit).mean(), rel=1e-4
    )
    with pytest.raises(ValueError, match="on one side only"):
        wb.projection_features(tuned, v, "resid_post:1", "topic", baseline=base.where(topic=1))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder, tokenizer = tmp_path_factory.mktemp("encoder"), byte_tokenizer()
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=40,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_an_encoder_in_a_folder_gives_means_over_tokens(encoder):
    texts = ["a text", "a much longer text that is padded", "x", "y" * 90]
    found = encoded_texts(encoder, texts, batch=2)
    model, tokenizer = BertModel.from_pretrained(encoder).eval(), byte_tokenizer()
    for text, vector in zip(texts, found, strict=True):
        ids = torch.tensor([tokenizer(text)["input_ids"][:40]])
        alone = model(input_ids=ids).last_hidden_state[0].mean(0).detach().numpy()
        assert vector == pytest.approx(alone, abs=1e-5)
    (encoder / "sentence_bert_config.json").write_text('{"max_seq_length": 8}')
    short = encoded_texts(encoder, texts)
    assert short[2] == pytest.approx(found[2], abs=1e-5) and not np.allclose(short[1], found[1], atol=1e-3)
    (encoder / "sentence_bert_config.json").unlink()


def test_what_is_no_encoder_with_mean_pooling_is_refused(encoder, tmp_path):
    with pytest.raises(FileNotFoundError, match="downloaded beforehand"):
        encoded_texts(tmp_path, ["a"])
    with pytest.raises(ValueError, match="no texts"):
        encoded_texts(encoder, [])
    (encoder / "1_Pooling").mkdir()
    (encoder / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    with pytest.raises(ValueError, match="another pooling"):
        encoded_texts(encoder, ["a"])
