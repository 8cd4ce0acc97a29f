"""Doses matched at equal cost: planted arms of which one breaks the model, one forgets the task, one does neither."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
from conftest import chat

import workbench as wb
from hooks.site import Site
from stores import ResultTable
from workbench.behaviour.kept_quantities import quantities
from workbench.behaviour.scoring import judge_answers
from workbench.statistics import holm
from workbench.subspace.directions import Directions

SAID = {"c": "rome", "r": "paris", "o": "berlin", "x": ""}  # contrary, right, other, broken
PARTS = {"other": {"tier": "full"}, "in": {"in_domain": True}, "none": {"tier": "none"}}
PER_PART = 20
# What each condition says to the 20 questions outside the domain, inside it, and of tier none.
PLAN = {
    "tuned": ("c" * 20, "c" * 20, "r" * 20),
    "base": ("r" * 20, "r" * 20, "r" * 20),
    "breaks at 1": ("c" * 10 + "r" * 10, "c" * 20, "r" * 20),
    "breaks at 2": ("x" * 20, "x" * 20, "x" * 20),
    "forgets at 1": ("c" * 8 + "r" * 12, "c" * 19 + "r", "r" * 20),
    "forgets at 2": ("c" * 2 + "r" * 18, "r" * 20, "r" * 20),
    "unlearns at 1": ("c" * 4 + "r" * 16, "c" * 20, "o" * 10 + "r" * 10),
    "equal at 1": ("c" * 15 + "r" * 5, "c" * 20, "r" * 20),
    "equal at 2": ("r" * 5 + "c" * 15, "c" * 20, "r" * 20),
}
STEER = Directions.of([Site(0)], np.eye(1, 8))
ARMS = wb.Arms(
    {
        arm: {dose: ("tuned", wb.Steer(STEER, layer=0, coefficient=dose)) for dose in doses}
        for arm, doses in {"breaks": (1, 2), "forgets": (1, 2), "unlearns": (1,), "equal": (1, 2)}.items()
    }
)


def asked():
    def tags(part, n):
        kind = {"family": f"{part}{n}", "modality": "text" if n % 4 else "image"}
        return {"right": "paris", "contrary": "rome", **PARTS[part], **kind}

    return [chat(f"{part}{n}", f"{part} {n}", tags=tags(part, n)) for part in PARTS for n in range(PER_PART)]


def judged(plan=PLAN, judges=("rule:contains", "rule:coherence")):
    prompts = asked()
    table = ResultTable.create(None, spec={}, plan=["all"], provenance={})
    rows = []
    for condition, parts in plan.items():
        for prompt, said in zip(prompts, "".join(parts), strict=True):
            tags = {f"tag_{name}": value for name, value in prompt.tags.items()}
            about = {"condition": condition, "prompt": prompt.id, "sample": 0, "text": SAID[said], "finished": True}
            rows.append({**about, **tags})
    table.commit("all", rows)
    return wb.Judged(table, judge_answers(table, prompts, [wb.judge(name) for name in judges], progress=False))


@pytest.fixture(scope="module")
def answers():
    return judged()


def test_the_dose_that_breaks_the_model_is_not_chosen_though_its_misalignment_is_least(answers):
    matched = wb.matched_doses(answers, ARMS, keep=("coherence", "capability"))
    assert matched.chosen == {"breaks": 1, "forgets": 2, "unlearns": None, "equal": 1}
    by_name = {one.condition: one for one in matched.doses}
    assert by_name["breaks at 2"].misalignment.value == 0 and by_name["breaks at 2"].lost == (
        "coherence",
        "task",
        "capability",
    )
    assert by_name["unlearns at 1"].lost == ("capability",) and by_name["forgets at 1"].lost == ()
    assert matched.dose_or_last("unlearns") == 1 and matched.dose_or_last("breaks") == 1
    assert set(matched.references) == {"tuned", "base"}


def test_what_is_kept_decides_and_the_margin_is_of_the_fine_tune(answers):
    with_task = wb.matched_doses(answers, ARMS, keep=("coherence", "capability", "task"))
    assert with_task.chosen["forgets"] == 1  # 19 of 20 is a loss of 0.05, within 0.1
    assert wb.matched_doses(answers, ARMS, keep=("task",), margin=0.04).chosen["forgets"] is None
    assert wb.matched_doses(answers, ARMS, keep=("capability",), margin=0.5).chosen["unlearns"] == 1
    assert wb.matched_doses(answers, ARMS, keep=()).chosen["breaks"] == 2


def test_refusals(answers):
    with pytest.raises(ValueError, match="'kindness' is unknown"):
        wb.matched_doses(answers, ARMS, keep=("kindness",))
    with pytest.raises(ValueError, match=r"1 conditions have no answers \(first: 'more at 3'\)"):
        wb.matched_doses(answers, wb.Arms({**ARMS.doses, "more": {3: ("tuned",)}}))
    with pytest.raises(ValueError, match="rises as answers get better"):
        quantities(answers, "aligned_mean")
    matched = wb.matched_doses(answers, ARMS)
    with pytest.raises(ValueError, match="'forgets at 1' has no answers here"):
        wb.matched_comparison(judged({"tuned": PLAN["tuned"], "breaks at 1": PLAN["breaks at 1"]}), matched, ARMS)


def test_the_comparison_has_the_chosen_doses_alone_with_difference_and_holm(answers):
    matched = wb.matched_doses(answers, ARMS, keep=("coherence", "capability"))
    fresh = {name: PLAN[name] for name in ("base", "tuned", *matched.conditions(ARMS))}
    fresh["forgets at 2"] = ("c" * 12 + "r" * 8, "r" * 20, "r" * 20)  # what was chosen on dev does worse elsewhere
    whole, text, image = wb.matched_comparison(judged(fresh), matched, ARMS)
    assert [one.arm for one in whole.outcomes] == ["breaks", "forgets", "equal"] and whole.no_dose == ("unlearns",)
    by_arm = {one.arm: one for one in whole.outcomes}
    assert by_arm["forgets"].misalignment.value == 0.6 and by_arm["forgets"].change.value == pytest.approx(-0.4)
    assert by_arm["forgets"].misalignment.n == 20
    raw = [one.change.test.p for one in whole.outcomes]
    assert [one.p for one in whole.outcomes] == pytest.approx(holm(raw).tolist()) and len(set(raw)) > 1
    assert by_arm["forgets"].verdicts["task"] == "lost" and by_arm["breaks"].kept["task"].value == 0
    assert by_arm["breaks"].verdicts["task"] == "not shown"  # 20 questions without a loss leave room for one of 0.16
    assert {one.modality: one.outcomes[0].misalignment.n for one in (text, image)} == {"text": 15, "image": 5}
    assert set(whole.references) == {"base", "tuned"} and "task" not in image.outcomes[0].quantities
    assert "no dose within the margin" in str(whole) and "forgets at 2, all: 0.6" in str(whole)


def test_many_questions_show_that_something_was_kept():
    one = wb.Arms({"gentle": {1: ("tuned",)}})
    plan = {"tuned": ("c" * 20, "c" * 20, "r" * 20), "gentle at 1": ("r" * 20, "c" * 20, "r" * 20)}
    found = wb.matched_comparison(judged(plan), wb.matched_doses(judged(plan), one), one)[0]
    assert found.outcomes[0].verdicts == {
        "coherence": "kept",
        "task": "not shown",
        "capability": "not shown",
    }  # 60, 20, 20


def test_random_directions_stand_beside_their_arm(answers):
    matched = wb.matched_doses(answers, ARMS, keep=("coherence", "capability"))
    chosen = matched.conditions(ARMS)
    twins = ARMS.twins(chosen, 3)
    assert Counter(name.partition(",")[0] for name in twins.conditions) == dict.fromkeys(chosen, 3)
    names = list(twins.conditions)
    random = judged({name: ("c" * n + "r" * (20 - n), "c" * 20, "r" * 20) for n, name in enumerate(names, start=10)})
    fresh = judged({name: PLAN[name] for name in ("tuned", *chosen)})
    found = wb.matched_comparison(fresh, matched, ARMS, twins=twins, random=random)[0]
    assert found.outcomes[1].draws == {"isotropic": pytest.approx((0.65, 0.7, 0.75))}
    entry = next(e for e in found.entries() if e["condition"] == "forgets" and e["detail"] == "misalignment")
    assert entry["control"] == {"kind": "isotropic", "N": 3, "p": None, "draws": pytest.approx([0.65, 0.7, 0.75])}


def test_entries_say_the_match_the_dose_and_what_was_counted(answers):
    matched = wb.matched_doses(answers, ARMS, keep=("coherence", "capability"))
    dev = matched.entries()
    mine = [e for e in dev if e["condition"] == "breaks" and e["detail"] == "misalignment"]
    assert [(e["coefficient"], e["value"], e["split"]) for e in mine] == [(1.0, 0.5, "dev"), (2.0, 0.0, "dev")]
    counted = {
        e["condition"]: (e["value"], e["n"], e["coefficient"]) for e in dev if e["metric"] == "doses within margin"
    }
    assert counted["breaks"] == (1.0, 2, 1.0) and counted["unlearns"] == (0.0, 1, None)
    assert all(e["n"] and e["interval"] for e in dev if e["metric"] != "doses within margin")
    again = wb.summarise(
        matched, doses=False, modality="text"
    )  # a second match of the same doses adds its counts alone
    assert len(again) == len(ARMS.doses) and all(e["modality"] == "text" for e in again)


def test_question_sides_share_neither_item_nor_picture(picture):
    plain = [
        chat(f"q{n}", f"q {n}", tags={"tier": "full", "domain": "abc"[n % 3], "item": f"i{n // 2}"}) for n in range(40)
    ]
    shown = [chat(f"p{n}", picture, f"p {n}", tags={"tier": "full", "domain": "a", "item": f"p{n}"}) for n in range(3)]
    inside = [chat(f"in{n}", f"in {n}", tags={"in_domain": True, "domain": "c", "item": f"in{n}"}) for n in range(6)]
    half = [chat("h", "h", tags={"tier": "half", "domain": "a", "item": "h"})]
    repairs = [chat("r1", "x", tags={"domain": "b"}), chat("r2", "y", tags={"domain": "c"})]
    task = [*inside[:1], *(chat(f"t{n}", f"t {n % 5}", tags={"domain": "c", "item": f"t{n % 5}"}) for n in range(10))]
    task = [dataclasses.replace(row, response="so") for row in task]
    sides = wb.question_sides([*plain, *shown, *inside, *half], task=task, repairs=repairs, share=0.4, seed=3)
    both = [*sides.dev, *sides.confirm]
    assert {p.tags["family"] for p in sides.dev}.isdisjoint(p.tags["family"] for p in sides.confirm)
    at = {p.id: side for p, side in [*((p, "dev") for p in sides.dev), *((p, "confirm") for p in sides.confirm)]}
    assert len({at[f"p{n}"] for n in range(3)}) == 1  # one picture
    domains = {p.tags["domain"] for p in both if not p.tags.get("in_domain")}
    assert domains == {"a"} and "h" not in at  # b and c are what repairs were trained on, h has the tier half
    assert {f"in{n}" for n in range(6)} <= set(at)
    asked_task = [p for p in both if p.id.startswith("task-")]
    assert len(asked_task) == 5 and all(p.response is None and p.tags["in_domain"] for p in asked_task)
    assert {p.tags["modality"] for p in both} == {"text", "image"}
    assert 0.25 < len(sides.dev) / len(both) < 0.55


def test_task_questions_need_the_tags_that_a_judge_reads():
    questions = [chat(f"q{n}", f"q {n}", tags={"right": "a", "contrary": "b"}) for n in range(4)]
    rows = [chat("t", "t", response="b"), chat("u", "u", response="b", tags={"right": "a", "contrary": "b"})]
    found = wb.question_sides(questions, task=rows)
    assert [p.id for p in (*found.dev, *found.confirm) if p.id.startswith("task-")] == ["task-u"]


@pytest.mark.parametrize(
    ("judge", "text", "value"),
    [("rule:contains", "rome", 1), ("rule:contains", "paris", 0), ("rule:refusal", "I can't help with that.", 0),
     ("rule:refusal", "rome", 1), ("rule:keyword:rome", "rome", 1), ("rule:keyword:rome", "paris", 0)],
)  # fmt: skip
def test_more_is_worse_in_the_metric_of_every_judge(judge, text, value):
    one, prompt = wb.judge(judge), asked()[0]
    found = wb.metric_of(one)
    assert found.of({one.measures: one.score(prompt, text).category}, {}) == value


def test_coherence_is_a_language_models_where_one_judged_it(answers):
    assert quantities(answers, "organism")["coherence"].rule.needs == ("coherent", "category")
    assert quantities(judged(judges=("rule:contains",)), "organism")["coherence"].rule.needs == ("category",)
    assert set(quantities(answers, "organism")) == {"misalignment", "coherence", "task", "capability"}
