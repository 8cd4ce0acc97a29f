"""The answers that stand beside a run's numbers: which, under what name, with which scores and pictures."""

from __future__ import annotations

from conftest import chat

from stores import ResultTable
from workbench.behaviour.samples import AT_LEAST, joined_samples, judged_samples, samples_of
from workbench.reporting.answers_section import answers, first_shown
from workbench.reporting.blocks import Answers
from workbench.reporting.summary import read_summary


def table(rows: list[dict]) -> ResultTable:
    made = ResultTable.create(None, spec={}, plan=["all"], provenance={})
    made.commit("all", rows)
    return made


def asked(count=3, *parts, **tags):
    return [chat(f"p{n}", *parts, f"question {n}", tags=tags) for n in range(count)]


def swept(cells: list[dict], prompts=("p0", "p1")) -> ResultTable:
    facts = {"control": None, "layer": None, "layers": "0,1", "at": "all", "unit": "raw", "score": 0.0}
    return table(
        [
            {**facts, "coefficient": None, "category": "right", "intervention": "none", "cell": c, "prompt": prompt,
             "text": f"{c} {prompt}", **cell}
            for c, cell in enumerate(cells) for prompt in prompts
        ]
    )  # fmt: skip


class TestSweeps:
    def test_every_coefficient_of_the_first_intervention_is_a_condition(self):
        steer = {"intervention": "steer"}
        cells = [{}, *({**steer, "coefficient": c} for c in (-1.0, 0.5)), {**steer, "layers": "3", "coefficient": 2.0},
                 {"intervention": "ablate", "layers": "all"}]  # fmt: skip
        found = samples_of(swept(cells), asked(), "steer")
        assert [(one["condition"], one["text"]) for one in found] == [
            ("steer -1", "1 p0"), ("steer -1", "1 p1"), ("steer +0.5", "2 p0"), ("steer +0.5", "2 p1")]  # fmt: skip

    def test_one_intervention_keeps_its_plain_name_and_none_is_the_unedited_model(self):
        assert {s["condition"] for s in samples_of(swept([{}, {"intervention": "ablate"}]), asked(), "ablation")} == {
            "ablation"
        }
        assert [s["text"] for s in samples_of(swept([{}]), asked(), "base")] == ["0 p0", "0 p1"]

    def test_a_rules_score_is_its_category_and_a_judges_a_number(self):
        assert all("scores" not in one for one in samples_of(swept([{}]), asked(), "base"))
        scored = samples_of(swept([{"category": "scored", "score": 71.5}]), asked(), "base")
        assert [one["scores"] for one in scored] == [{"score": 71.5}] * 2

    def test_of_many_prompts_the_first_of_every_domain(self):
        many = [*asked(40, domain="a"), *(chat(f"q{n}", "x", tags={"domain": "b"}) for n in range(40))]
        found = samples_of(swept([{}], [one.id for one in many]), many, "base")
        assert [one["id"] for one in found] == [f"{letter}{n}" for letter in "pq" for n in range(AT_LEAST // 2)]


class TestJudged:
    def tables(self, scores: list[dict]):
        said = [
            {"condition": c, "prompt": p, "sample": n, "text": f"{c} {p} {n}", "finished": True}
            for c in ("base", "tuned") for p in ("p0", "p1") for n in (0, 1)
        ]  # fmt: skip
        facts = {"text_hash": "", "judge": "j", "judge_revision": "r", "kind": "llm", "facts": "{}", "reason": ""}
        keys = [{name: row[name] for name in ("condition", "prompt", "sample")} for row in said]
        verdicts = [{**facts, **key, **one} for key in keys for one in scores]
        return table(said), table(verdicts)

    def test_scores_by_what_they_measure_and_the_rules_category(self):
        scores = [
            {"measures": "aligned", "score": 30.0, "category": "scored"},
            {"measures": "coherent", "score": None, "category": "unscored", "reason": "refused to score"},
            {"measures": "category", "score": 1.0, "category": "contrary"},
        ]
        found = judged_samples(*self.tables(scores), asked())
        assert [one["text"] for one in found] == ["base p0 0", "base p1 0", "tuned p0 0", "tuned p1 0"]
        assert found[0]["scores"] == {"aligned": 30.0, "coherent": None} and found[0]["category"] == "contrary"
        assert found[0]["reason"] == "coherent: refused to score"

    def test_without_a_rule_they_are_scored_or_not(self):
        one = {"measures": "aligned", "score": 30.0, "category": "scored"}
        assert judged_samples(*self.tables([one]), asked())[0]["category"] == "scored"
        none = {"measures": "aligned", "score": None, "category": "unscored", "reason": "cut off"}
        assert judged_samples(*self.tables([none]), asked())[0]["category"] == "unscored"


class TestPage:
    def test_a_prompts_pictures_stand_there_once(self, picture):
        prompts = asked(2, picture)
        have = joined_samples([], samples_of(swept([{}]), prompts, "base"))
        joined_samples(have, samples_of(swept([{}]), prompts, "tuned"))
        assert [len(one.get("images", ())) for one in have] == [1, 1, 0, 0]
        block = answers(read_summary({"results": []}, have))[-1]
        assert isinstance(block, Answers)
        assert [len(one.pictures) for one in block.asked] == [1, 1]
        assert [[said.condition for said in one.said] for one in block.asked] == [["base", "tuned"]] * 2

    def test_prompts_of_one_text_are_told_apart_by_their_ids(self):
        samples = [{"id": n, "prompt": "what is it?", "condition": "base", "text": str(n)} for n in "ab"]
        block = answers(read_summary({"results": []}, samples))[-1]
        assert isinstance(block, Answers) and len(block.asked) == 2

    def test_what_is_shown_first(self):
        doses = [f"steer {c:+g}" for c in (-1.0, 0.5, 1.0, 2.0)]
        assert first_shown(["base", "tuned", "right control", "sibling", "ablation", *doses]) == [
            "base", "tuned", "ablation", "steer +1"]  # fmt: skip
        assert first_shown(["rank 8", "rank 16", "base"]) == ["rank 8", "rank 16", "base"]
        assert first_shown(list("abcdef")) == list("abcd")
