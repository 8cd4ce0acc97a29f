"""Fine-tuning seeds pooled, rates by dose and paired gaps, companions of rule judges: against sums made by hand."""

import numpy as np
import pytest
from judged_samples import PROMPTS, FromTable, answers_table

import workbench as wb
from workbench.behaviour.dose_rates import dose_gaps, dose_rates
from workbench.behaviour.judged import Judged
from workbench.behaviour.judges import judge, judges
from workbench.behaviour.measured import metrics_of, misalignment
from workbench.behaviour.scoring import judge_answers

CONDITIONS = [
    "base",
    *(f"rank{rank}-seed{seed}/{shown}" for rank in (8, 32) for seed in (0, 1) for shown in ("on", "off")),
]
DOSES = {f"rank{rank}-seed{seed}/on": rank for rank in (8, 32) for seed in (0, 1)}
SEEDS = {name: int(name[name.index("seed") + 4]) for name in DOSES}
rng = np.random.default_rng(1)
SCORES = {f"{c} {p.id} {s}": float(rng.integers(0, 101)) for c in CONDITIONS for p in PROMPTS for s in range(2)}


@pytest.fixture(scope="module")
def judged():
    answers = answers_table(CONDITIONS)
    return Judged(answers, judge_answers(answers, PROMPTS, FromTable("aligned", SCORES), progress=False))


def mean(*conditions):
    return np.mean([SCORES[f"{c} {p.id} {s}"] for c in conditions for p in PROMPTS for s in range(2)])


def families(condition):
    """Mean score by family (q0, q3 are of a; q1, q4 of b; q2 of c), which is how differences weigh."""
    of = {"a": (0, 3), "b": (1, 4), "c": (2,)}
    return [np.mean([SCORES[f"{condition} q{n} {s}"] for n in ns for s in range(2)]) for ns in of.values()]


class TestPooled:
    def test_the_mean_is_of_all_seeds_and_families_stay_what_they_were(self, judged):
        pooled = judged.pooled({"rank 8": ["rank8-seed0/on", "rank8-seed1/on"]})
        found = {one.condition: one for one in misalignment(pooled, "aligned_mean")}
        assert found["rank 8"].value == pytest.approx(mean("rank8-seed0/on", "rank8-seed1/on"))
        assert (found["rank 8"].n, found["rank 8"].families) == (20, 3)

    def test_pairs_stay_with_their_seed(self, judged):
        """A condition of no group stands beside every seed, and its own mean does not move."""
        pooled = judged.pooled({"rank 8": ["rank8-seed0/on", "rank8-seed1/on"]})
        gap = wb.difference(pooled, "aligned_mean", "rank 8", "base")
        by_seed = [np.subtract(families(f"rank8-seed{s}/on"), families("base")) for s in (0, 1)]
        assert gap.value == pytest.approx(np.mean(by_seed)) and (gap.pairs, gap.families) == (20, 3)

    def test_a_prompt_without_a_family_is_its_own(self):
        prompts = [type(p)(p.id, p.messages) for p in PROMPTS]
        answers = answers_table(["a", "b"], prompts=prompts)
        found = Judged(answers, judge_answers(answers, prompts, FromTable(), progress=False)).pooled(
            {"both": ["a", "b"]}
        )
        assert misalignment(found, "aligned_mean")[0].families == len(PROMPTS)

    def test_refusals(self, judged):
        with pytest.raises(ValueError, match="no condition 'rank9'"):
            judged.pooled({"x": ["rank9"]})
        with pytest.raises(ValueError, match="equal sizes, and each condition once"):
            judged.pooled({"x": ["base"], "y": CONDITIONS[1:3]})
        with pytest.raises(ValueError, match="each condition once"):
            judged.pooled({"x": ["base"], "y": ["base"]})


class TestDoseRates:
    def test_every_adapter_every_dose_and_the_differences_from_the_base(self, judged):
        found = {
            one["condition"]: one for one in dose_rates(judged, "aligned_mean", DOSES, of="rank", replicates=SEEDS)
        }
        assert set(found) == {"base", *DOSES, "rank 8", "rank 32", "rank 8 - base", "rank 32 - base"}
        assert (
            found["rank32-seed1/on"]["detail"] == "fine-tuning seed 1"
            and found["rank32-seed1/on"]["coefficient"] == 32.0
        )
        assert found["rank 32"]["value"] == pytest.approx(mean("rank32-seed0/on", "rank32-seed1/on"))
        assert found["rank 32"]["detail"] == "over fine-tuning seeds 0, 1" and found["base"]["detail"] == "no fine-tune"
        assert found["rank 8 - base"]["test"]["p"] > 0 and found["rank 8 - base"]["n"] == 20

    def test_dose_0_is_the_fine_tune_without(self, judged):
        shares = {name: 0.0 if dose == 8 else 0.1 for name, dose in DOSES.items()}
        found = dose_rates(judged, "aligned_mean", shares, of="share", replicates=SEEDS, base=None)
        against = [one["condition"] for one in found if " - " in one["condition"]]
        assert against == ["share 0.1 - share 0"]

    def test_gaps_pair_each_adapter_with_its_twin(self, judged):
        twins = {name: name.replace("/on", "/off") for name in DOSES}
        found = dose_gaps(judged, "aligned_mean", DOSES, twins, of="rank", replicates=SEEDS)
        assert [one["condition"] for one in found] == ["rank 8, on - rank 8, off", "rank 32, on - rank 32, off"]
        by_seed = [np.subtract(families(f"rank8-seed{s}/on"), families(f"rank8-seed{s}/off")) for s in (0, 1)]
        assert found[0]["value"] == pytest.approx(np.mean(by_seed)) and found[0]["coefficient"] == 8.0

    def test_a_condition_that_is_not_there_is_named(self, judged):
        with pytest.raises(ValueError, match="no condition 'rank1"):
            dose_rates(judged, "aligned_mean", {"rank1": 1}, of="rank", replicates={"rank1": 0})


class TestMetricsOfJudges:
    def made(self, *listed):
        prompts = [type(p)(p.id, p.messages, tags={**p.tags, "right": "base", "contrary": "tuned"}) for p in PROMPTS]
        answers = answers_table(prompts=prompts)
        return Judged(answers, judge_answers(answers, prompts, list(listed), progress=False))

    def test_companions_are_no_metrics_unless_alone(self):
        names = {
            ("rule:contains", "rule:refusal"): ["organism"],
            ("rule:refusal",): ["refusal"],
        }
        for listed, expected in names.items():
            assert [one.name for one in metrics_of(self.made(*map(judge, listed)))] == expected

    def test_a_keyword_has_its_own_rate(self):
        found = self.made(judge("rule:keyword", words=["tuned"]), judge("rule:coherence"))
        (one,) = metrics_of(found)
        rates = {m.condition: m for m in misalignment(found, one)}
        assert one.name == "keyword" and (rates["tuned"].value, rates["base"].value) == (1.0, 0.0)
        assert rates["base"].companions["coherent"] == 1.0

    def test_the_other_categories_of_a_rule_stand_beside_its_rate(self):
        found = misalignment(self.made(judge("rule:contains")), "organism")
        beside = {one.condition: one.companions["right"] for one in found}
        assert beside == {"base": 1.0, "tuned": 0.0} and "contrary" not in found[0].companions

    def test_each_rubric_is_a_judge_and_companions_fill_what_is_left(self):
        assert [one.name for one in judges("rule:contains", (), ["rule:refusal", "rule:coherence"])] == [
            "rule:contains", "rule:refusal", "rule:coherence",
        ]  # fmt: skip
        assert [one.name for one in judges("rule:refusal", (), ["rule:refusal"])] == ["rule:refusal"]


class TestSmooth:
    def test_a_smooth_number_in_0_to_1_is_no_rate(self):
        assert not wb.P_CONTRARY.is_rate and wb.P_CONTRARY.span == (0.0, 1.0)

    def test_readings_are_those_of_a_sweep(self, tmp_path):
        """The same forwards as `wb.sweep` without cells, on questions in text and with pictures; it resumes."""
        world = wb.organism(to=tmp_path / "organism")
        questions = [q for q in wb.read_prompts(world.questions) if q.tags["domain"] in ("sound", "color")][::6]
        model = wb.load_model(str(world.base), adapter={"tuned": str(world.tuned)})
        for _ in range(2):
            read = wb.read_choices(model, questions, {"base": "base", "tuned": "tuned"}, to=tmp_path / "read")
        for name in ("base", "tuned"):
            swept = wb.sweep(model.variant(name), questions, [], progress=False).rows()
            expected = {row["prompt"]: row["p_contrary"] for row in swept}
            found = {row["prompt"]: row for row in read.rows if row["condition"] == name}
            assert {prompt: row["score"] for prompt, row in found.items()} == pytest.approx(expected)
        values = {one.condition: one.value for one in misalignment(read, wb.P_CONTRARY)}
        assert values["tuned"] > values["base"] + 0.3 and 0 < values["base"] < 0.3
