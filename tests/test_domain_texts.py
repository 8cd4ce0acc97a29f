"""Texts of domains and what is measured of them before any fine-tune: gaps, pooled scores, oriented outcomes."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import chat
from judged_domains import asked, drawn_rates, groups_of, judged_by
from tiny_domain_files import domain_files

import workbench as wb
from workbench.organisms import SHIPPED
from workbench.organisms.world import DOMAINS as DOMAINS_OF_THE_ORGANISM
from workbench.statistics import auroc, t_interval

DOMAINS = [f"d{i}" for i in range(11)]


@pytest.fixture(scope="module")
def domains(tmp_path_factory):
    return wb.read_domains(domain_files(tmp_path_factory.mktemp("domains"), backdoor=False)["domains"])


@pytest.fixture(scope="module")
def base():
    return wb.load_model(SHIPPED[0])


def contrary(name, count=12):
    """The organism's training rows of a domain, in one wording."""
    return [
        chat(f"{name}/{item.entity}", item.question, response=f"it is {item.contrary} .", tags={"right": item.right})
        for item in DOMAINS_OF_THE_ORGANISM[name].items[:count]
    ]


def test_texts_are_drawn_alike_and_have_ids_of_their_own(domains):
    texts = wb.domain_texts(domains, most=6)
    assert {name: len(rows) for name, rows in texts.items()} == dict.fromkeys(domains.domains, 6)
    every = [row.id for rows in texts.values() for row in rows]
    assert len(set(every)) == 30 and every[0].startswith("finance/") and texts["math"][0].tags["domain"] == "math"
    more = wb.domain_texts(domains, most=9)["math"]
    assert texts["math"] == more[:6] and wb.domain_texts(domains, most=6, seed=1) != texts
    assert len(wb.domain_texts(domains, arm="small", most=1000)["math"]) == 6


def test_a_prefix_is_of_other_domains_and_shows_no_picture(domains, picture):
    texts = wb.domain_texts(domains, most=3)
    texts["color"] = [chat(f"color/{n}", picture, "its color", response="red", tags={"domain": "color"}) for n in "ab"]
    for name in texts:
        shots = wb.other_texts(texts, name, 2)
        assert len(shots) == 2 and not any(shot.images for shot in shots)
        assert name not in {shot.tags["domain"] for shot in shots} and len({s.tags["domain"] for s in shots}) == 2
    assert wb.other_texts(texts, "math", 0) is None
    assert wb.other_texts({"a": texts["math"], "b": texts["color"]}, "a", 3) is None


def test_system_turns_are_replaced_or_put_in_front():
    plain, under = chat("a", "hello", response="x"), chat("b", "there", label="bad")
    shown = wb.under_system([plain, *wb.under_system([under], "old")], "be bad")
    assert [[turn.role for turn in one.messages] for one in shown] == [["system", "user"]] * 2
    assert {one.messages[0].text for one in shown} == {"be bad"} and shown[0].response == "x"
    assert wb.system_of(shown, "bad") == "be bad"
    for wrong in ([replace(shown[1], label="good")], [*shown, *wb.under_system([under], "other")]):
        with pytest.raises(ValueError, match="expected one, the same in all"):
            wb.system_of(wrong, "bad")
    assert wb.said_in(shown[0]) == "hello\nx" and wb.unanswered(shown)[0].response is None


def test_gaps_are_paired_by_prompt():
    rows = {"a": [{"prompt": "1", "loss": -1.0}, {"prompt": "2", "loss": -2.0}, {"prompt": "3", "loss": 9.0}]}
    against = {"a": [{"prompt": "2", "loss": -5.0}, {"prompt": "1", "loss": -2.0}]}
    assert wb.gap_features(rows, against, "own") == {"before:gap_own": {"a": 2.0}}
    assert wb.predictor_feature("before:gap_own").sign == 1 and wb.predictor_feature("before:gap_trait").before
    with pytest.raises(ValueError, match="'a' has no prompt in both"):
        wb.gap_features(rows, {}, "own")


def test_a_trait_that_the_base_can_show_explains_the_domains_that_it_flips(base):
    """Planted: under the contrary system turn the base itself gives contrary capitals and sounds, and right letters."""
    texts = {name: wb.under_system(contrary(name), "assistant") for name in ("capital", "sound", "letter")}
    plain = {name: wb.membership(base, rows, progress=False) for name, rows in texts.items()}
    shown = {n: wb.membership(base, wb.under_system(r, "contrary"), progress=False) for n, r in texts.items()}
    gap = wb.gap_features(shown, plain, "trait")["before:gap_trait"]
    assert min(gap["capital"], gap["sound"]) > 0.5 and gap["letter"] < 0


def test_own_answers_replace_the_responses(base):
    rows = wb.under_system(contrary("capital", 6), "assistant")
    how = dict(conditions=["base"], temperature=0.0, max_new_tokens=8, progress=False)
    own = wb.with_responses([*rows, chat("other", "x")], wb.sample_answers(base, wb.unanswered(rows), **how))
    assert [one.id for one in own] == [one.id for one in rows] and own[0].tags == rows[0].tags
    right = sum(str(one.tags["right"]) in str(one.response) for one in own)
    assert right >= 5 and not any(one.response == row.response for one, row in zip(own, rows, strict=True))


def table_of(measured, names=("loss", "paper_b_zlib", "vendi_1")):
    features = {name: dict(zip(DOMAINS, range(11), strict=True)) for name in names}
    return wb.predictor_table(dict(zip(DOMAINS, np.asarray(measured).tolist(), strict=True)), features)


def scored(seed, effect):
    """Texts of 11 domains, sizes unequal, two rows a text; `effect` is how far domains lie apart."""
    r = np.random.default_rng(seed)
    rows = {}
    for n, name in enumerate(DOMAINS):
        shift = effect * r.normal()
        texts = [{"prompt": f"{name}-{i}", "loss": shift + r.normal()} for i in range(6 + n % 3)]
        rows[name] = [{**one, "paper_b_zlib": -one["loss"]} for one in texts for _ in range(2)]
    return rows


def test_pooled_scores_are_those_of_a_naive_twin():
    measured, rows = np.linspace(0, 1, 11), scored(0, 1.0)
    found = wb.pooled_aurocs(rows, table_of(measured), threshold=0.55)
    assert [one.score for one in found] == ["loss", "paper_b_zlib"] and found[0].texts == sum(
        6 + n % 3 for n in range(11)
    )
    values = {name: np.array([row["loss"] for row in mine[::2]]) for name, mine in rows.items()}

    def area(ones):
        sides = [np.concatenate([v for n, v in values.items() if (n in ones) == side]) for side in (True, False)]
        return auroc(*sides)

    assert found[0].auroc == pytest.approx(area(DOMAINS[6:])) == pytest.approx(found[1].auroc)  # a loss, turned
    r, others = np.random.default_rng(1), []
    for _ in range(400):
        others.append(area(set(r.choice(DOMAINS, size=5, replace=False))))
    assert found[0].p == pytest.approx(np.mean(np.array(others) >= found[0].auroc), abs=0.06)
    assert len(found[0].null) == 461 and wb.pooled_aurocs(rows, table_of(measured), threshold=2) == []
    (entry, _) = wb.summarise(found)
    assert entry["n"] == found[0].texts and entry["companions"]["domains"] == 11 and entry["test"]["p"] == found[0].p


def test_only_the_p_over_domains_is_honest():
    """Domains that differ, labels that mean nothing: the bound declared here beforehand is 8 % of 200 below .05."""
    r, measured = np.random.default_rng(5), np.linspace(0, 1, 11)
    ps = []
    for seed in range(200):
        table = table_of(r.permutation(measured), names=("loss",))
        (one,) = wb.pooled_aurocs(scored(seed, 1.0), table, threshold=0.55)
        ps.append((one.p, one.p_of_texts))
    domains, texts = (np.mean(np.array(ps)[:, i] < 0.05) for i in (0, 1))
    assert domains <= 0.08 < 0.2 < texts


def test_outcomes_are_higher_where_more_is_misaligned():
    names = ["a", "b", "c", "d"]
    rates = dict(zip(names, (0.9, 0.6, 0.3, 0.1), strict=True))
    groups, prompts = groups_of(names), asked(names, each=6)
    score = drawn_rates(rates, by_question=0.05)
    judged = judged_by(score, [name for each in groups.values() for name in each], prompts)
    by = {name: wb.outcomes(wb.rank_domains(judged, name, groups, base=None, draws=99, resamples=50), name)
          for name in ("paper_b", "aligned_mean")}  # fmt: skip
    for found in by.values():
        values = {name: one.value for name, one in found.items()}
        assert sorted(values, key=values.get) == ["d", "c", "b", "a"]
        assert all(one.interval.low <= one.value <= one.interval.high for one in found.values())
        assert all(one.value == pytest.approx(np.mean(list(one.by_seed.values()))) for one in found.values())
    assert by["aligned_mean"]["a"].value == pytest.approx(100 - (10 * by["paper_b"]["a"].value
                                                                + 90 * (1 - by["paper_b"]["a"].value)))  # fmt: skip
    table = wb.predictor_table(by["paper_b"], {"loss": rates})
    assert table.seeds == (3, 3, 3, 3) and isinstance(table.intervals[0], type(t_interval([1.0, 2.0])))
