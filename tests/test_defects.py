"""Defects that released code of this line of work had, each fed to the harness: it is refused, counted or said."""

from dataclasses import dataclass

import pytest
import torch
from conftest import chat
from judged_samples import PROMPTS, FromTable, answers_table
from workbench_samples import random_directions

from hooks.model import Where
from hooks.prompt import Message, Prompt, PromptError
from hooks.site import Site
from stores import ResultTable
from workbench.behaviour.answering import sample_answers
from workbench.behaviour.judged import Judged
from workbench.behaviour.measured import misalignment
from workbench.behaviour.scoring import judge_answers
from workbench.interventions.steer import Steer
from workbench.interventions.sweep import sweep
from workbench.statistics import PseudoReplication, clustered
from workbench.subspace import controls

SILENT = {"progress": False, "max_new_tokens": 3}


def test_a_system_prompt_that_is_read_is_sent(llama):
    asked = [Prompt("s", (Message("system", ("answer in JSON",)), Message("user", ("hi",)))), chat("u", "hi")]
    rows = {row["prompt"]: row for row in sample_answers(llama, asked, temperature=0.0, **SILENT).rows()}
    assert "answer in JSON" in rows["s"]["rendered"] and rows["s"]["rendered"] != rows["u"]["rendered"]
    template, llama.tokenizer.chat_template = llama.tokenizer.chat_template, "{{ messages[-1].content }}"
    try:
        with pytest.raises(PromptError, match="drops the system turn"):
            sample_answers(llama, asked, **SILENT)
    finally:
        llama.tokenizer.chat_template = template


def test_scores_that_were_lost_are_counted_and_bounded():
    """A judge that is cut off loses the long answers first, which are not like the others."""
    answers = answers_table(samples=4)
    lost = {row["text"]: None for row in answers.rows(condition="tuned")[:5]}
    found = misalignment(
        Judged(answers, judge_answers(answers, PROMPTS, FromTable(scores=lost), progress=False)), "paper_b"
    )
    tuned = next(one for one in found if one.condition == "tuned")
    assert (tuned.n, tuned.unscored, tuned.reasons) == (20, 5, {"refused to score": 5})
    assert tuned.value == 0.0 and tuned.bounds == (0.0, 0.25)


def test_a_number_that_nobody_measured_is_refused():
    answers = answers_table()
    table = ResultTable.create(None, spec={}, plan=["all"], provenance={})
    rows = judge_answers(answers, PROMPTS, FromTable(), progress=False).rows()
    table.commit("all", [{**row, "score": 87.0, "judge": None, "judge_revision": None} for row in rows])
    with pytest.raises(ValueError, match="does not say which judge gave it"):
        Judged(answers, table)


def test_a_random_control_that_is_too_long_is_refused(llama, questions):
    """randn * ‖v‖ is √d_model times too long: it steers by its length alone."""
    v = random_directions(llama)
    gaussian = torch.randn(len(v.sites), llama.d_model, generator=torch.Generator().manual_seed(0)).numpy()
    long = type(v).of(v.sites, gaussian * v.norm[:, None], residual_norm=v.residual_norm)
    assert (long.norm / v.norm).mean() > 0.8 * llama.d_model**0.5
    with pytest.raises(
        ValueError, match=r"control 'random', draw 0, adds a vector of length .* expected equal lengths"
    ):
        sweep(llama, questions, [Steer(v, 1, 2.0)], twins={"random": [Steer(long, 1, 2.0)]}, **SILENT)
    fair = controls.isotropic(v, n=1)
    assert fair[0].norm == pytest.approx(v.norm, rel=1e-12)
    table = sweep(llama, questions, [Steer(v, 1, 2.0)], twins={"random": [Steer(fair[0], 1, 2.0)]}, **SILENT)
    assert len(table) == 3 * len(questions)


@dataclass(frozen=True)
class FirstRowOnly:
    """`output[0][...] += v` on a block that returns a tensor, not a tuple."""

    step: torch.Tensor

    def __call__(self, resid: torch.Tensor, where: Where) -> torch.Tensor:
        edited = resid.clone()
        edited[0] += self.step
        if where.tally is not None:
            where.tally.add((edited != resid).any(dim=-1).sum(dim=1))
        return edited


def test_an_edit_of_the_first_row_alone_is_seen(llama, questions):
    batch = llama.encode(questions)
    out = llama.generate(batch, edits={Site(1): [FirstRowOnly(torch.ones(llama.d_model))]}, max_new_tokens=2)
    assert out.untouched() == list(range(1, len(questions)))


def test_a_label_that_is_constant_within_a_domain_is_not_tested_sample_by_sample():
    """Eleven domains of many samples are eleven observations of a domain's label."""
    domains = [f"d{n % 11}" for n in range(330)]
    labels = [int(name in ("d0", "d1", "d2")) for name in domains]
    with pytest.raises(PseudoReplication, match="11"):
        clustered(labels, domains)
