"""judge_answers: every answer gets one row of every judge, and scores are never joined with another text."""

from dataclasses import dataclass

import pytest
from conftest import stop_after
from judged_samples import PROMPTS, FromTable, answers_table

from stores import ResultTable
from workbench.behaviour.judged import Judged
from workbench.behaviour.judging import Verdict
from workbench.behaviour.scoring import ScoresMissing, judge_answers

QUIET = {"progress": False}


def test_every_answer_has_one_row_of_every_judge():
    answers = answers_table()
    judges = [FromTable("aligned", {"tuned q1 1": 12.0, "base q0 0": None}), FromTable("coherent")]
    table = judge_answers(answers, PROMPTS, judges, **QUIET)
    rows = table.rows()
    assert len(rows) == 2 * len(answers.rows())
    (low,) = table.rows(condition="tuned", prompt="q1", sample=1, measures="aligned")
    assert (low["score"], low["judge"], low["judge_revision"], low["kind"]) == (12.0, "hf:stand-in", "r1", "llm")
    (none,) = table.rows(condition="base", prompt="q0", sample=0, measures="aligned")
    assert none["score"] is None and none["reason"] == "refused to score" and none["category"] == "unscored"


def test_a_comparing_judge_sees_the_base_answer_of_the_same_draw():
    judge = FromTable("shift_pairwise", compares=True)
    judge_answers(answers_table(samples=3), PROMPTS, judge, **QUIET)
    compared = {one.text: one.base for one in judge.seen}
    assert compared["tuned q2 1"] == "base q2 1"
    assert [compared[f"base q2 {n}"] for n in range(3)] == ["base q2 1", "base q2 2", "base q2 0"], "the floor"


def test_a_base_with_one_sample_has_no_floor():
    judge = FromTable("shift_pairwise", compares=True)
    table = judge_answers(answers_table(samples=1), PROMPTS, judge, **QUIET)
    assert {row["reason"] for row in table.rows(condition="base")} == {"no answer of the base model to compare with"}
    assert all(row["score"] == 80.0 for row in table.rows(condition="tuned"))


def test_a_stopped_judging_goes_on_and_asks_nothing_twice(tmp_path, monkeypatch):
    prompts = [type(PROMPTS[0])(f"p{n}", PROMPTS[0].messages) for n in range(70)]
    answers = answers_table(prompts=prompts)
    whole = judge_answers(answers, prompts, FromTable(), **QUIET)
    resumed = stop_after(monkeypatch, ResultTable, commits=1)
    with pytest.raises(KeyboardInterrupt):
        judge_answers(answers, prompts, FromTable(), to=tmp_path / "s", **QUIET)
    resumed()
    second = FromTable()
    table = judge_answers(answers, prompts, second, to=tmp_path / "s", **QUIET)
    assert table.rows() == whole.rows() and len(second.seen) == len(answers.rows()) - 64
    third = FromTable()
    judge_answers(answers, prompts, third, to=tmp_path / "s", **QUIET)
    assert third.seen == []


def test_what_cannot_be_judged_is_refused():
    answers = answers_table()
    with pytest.raises(ValueError, match="1 batches of the answers are not written yet"):
        judge_answers(ResultTable.create(None, spec={}, plan=["a"], provenance={}), PROMPTS, FromTable(), **QUIET)
    with pytest.raises(ValueError, match="1 answered prompts are not among those given, the first 'q4'"):
        judge_answers(answers, PROMPTS[:4], FromTable(), **QUIET)
    with pytest.raises(ValueError, match="no judges"):
        judge_answers(answers, PROMPTS, [], **QUIET)
    with pytest.raises(ValueError, match="two of the judges are the same"):
        judge_answers(answers, PROMPTS, [FromTable(), FromTable()], **QUIET)
    with pytest.raises(ValueError, match="does not say which judge it is"):
        judge_answers(answers, PROMPTS, FromTable(revision=""), **QUIET)
    with pytest.raises(RuntimeError, match=r"scored 140\.0 where its scale is 0 to 100"):
        judge_answers(answers, PROMPTS, FromTable(default=140.0), **QUIET)


@dataclass
class Forgetful(FromTable):
    def score_all(self, answers) -> list[Verdict]:
        return super().score_all(answers)[:-1]


def test_a_judge_that_loses_an_answer_is_an_error():
    with pytest.raises(RuntimeError, match="gave 19 verdicts on 20 answers"):
        judge_answers(answers_table(), PROMPTS, Forgetful(), **QUIET)


def changed(table, **facts):
    other = ResultTable.create(None, spec={}, plan=["all"], provenance={})
    other.commit("all", [{**row, **facts} for row in table.rows()])
    return other


def test_scores_join_with_their_own_texts_alone():
    answers = answers_table()
    scores = judge_answers(answers, PROMPTS, FromTable(), **QUIET)
    assert Judged(answers, scores).judges_of("aligned") == ["hf:stand-in@r1"]
    with pytest.raises(ValueError, match="of another text than the answer"):
        Judged(changed(answers, text="another"), scores)
    with pytest.raises(ValueError, match="does not say which judge gave it"):
        Judged(answers, changed(scores, judge_revision=None))
    fewer = ResultTable.create(None, spec={}, plan=["all"], provenance={})
    fewer.commit("all", scores.rows()[:-3])
    with pytest.raises(ValueError, match="3 of 20 answers have no row of hf:stand-in@r1"):
        Judged(answers, fewer)


@dataclass
class Busy(FromTable):
    """Cannot be reached about some answers, for now."""

    late: tuple[str, ...] = ()

    def score_all(self, answers) -> list[Verdict]:
        verdicts = super().score_all(answers)
        gone = Verdict("unscored", None, "spend cap", {"temporary": True})
        return [gone if one.text in self.late else v for one, v in zip(answers, verdicts, strict=True)]


def test_scores_that_another_run_may_give_are_not_sealed(tmp_path):
    prompts = [type(PROMPTS[0])(f"p{n}", PROMPTS[0].messages) for n in range(70)]
    answers = answers_table(prompts=prompts)
    with pytest.raises(ScoresMissing, match=r"2 answers have no score .* \(most often: spend cap\)"):
        judge_answers(answers, prompts, Busy(late=("base p0 0", "base p1 1")), to=tmp_path / "s", **QUIET)
    second = Busy()
    table = judge_answers(answers, prompts, second, to=tmp_path / "s", **QUIET)
    assert len(second.seen) == 64 and len(table.rows()) == len(answers.rows())
    assert all(row["score"] == 80.0 for row in table.rows())
    kept = judge_answers(answers, prompts, Busy(late=("base p0 0",)), accept_missing=True, **QUIET)
    (row,) = kept.rows(prompt="p0", condition="base", sample=0)
    assert row["score"] is None and row["reason"] == "spend cap"
