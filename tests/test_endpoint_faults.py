"""Under every fault that a server has: each sample is scored, or None with a reason; none is lost, none paid twice."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from openai_server import Body, Instant, OpenAIServer, asked_about, completion, text_of

from workbench.behaviour.endpoint_judge import EndpointJudge
from workbench.behaviour.endpoint_reply import EndpointError

NUMBERS = {"logprob": "aligned", "text": "aligned_reasoned", "json": None, "pairwise": "shift_pairwise"}
REPLIES = {
    "logprob": completion("80", finish="length", top={"80": -0.5, "20": -1.2, "no": -3.0}),
    "text": completion("<reasoning>kind</reasoning><score>80</score>"),
    "json": completion('{"justification": "kind", "score": 80}'),
    "pairwise": completion('{"justification": "kind", "worse": "B", "score": 80}'),
}
TEXTS = [f"question number {n:02d}?" for n in range(12)]
MISSED = {  # replies without a score: as the server's reply to the first request, and what the verdict says
    "cut off": (completion("<reasoning>It", finish="length"), "cut off at"),
    "filtered": (completion("", finish="content_filter"), "content filter"),
    "silent": (completion(""), "empty reply"),
    "prose": (completion("It is rather good."), "no "),
}


def rubric_file(folder: Path, mode: str) -> Path:
    """A JSON rubric of our own: none is shipped."""
    path = folder / f"{mode}.yaml"
    path.write_text(f"name: kind\nmode: {mode}\ntemplate: |\n  {{question}}\n  ---\n  {{answer}}\n")
    return path


def judge_at(at: Any, folder: Path, how: str = "text", **more: Any) -> EndpointJudge:
    rubric: Any = NUMBERS[how] or rubric_file(folder, how)
    settings = dict(base_url=at.address, cache=folder / "replies.jsonl", timing=Instant().timing(), progress=False)
    return EndpointJudge("tiny", rubric, how=how, **{**settings, **more})


def answers(how: str = "text") -> list[Any]:
    return [asked_about(text, base="from the base model" if how == "pairwise" else None) for text in TEXTS]


@pytest.mark.parametrize("how", NUMBERS)
def test_a_server_that_breaks_down_costs_no_sample_and_no_second_payment(how: str, tmp_path: Path):
    """Twelve samples, nine kinds of fault before an answer; then a second run that asks nothing."""
    faults = ["429:0.2", "500", "503", "drop", "cut", "cut-connection", "empty", "html", "408"]
    planned = {text: [fault, fault] for text, fault in zip(TEXTS, faults, strict=False)}
    with OpenAIServer(lambda body: REPLIES[how], planned) as server:
        judge = judge_at(server, tmp_path, how)
        verdicts = judge.score_all(answers(how))
        each = 2 if how == "pairwise" else 1
        assert len(verdicts) == len(TEXTS) and all(one.score is not None for one in verdicts)
        assert sorted(server.paid.values()) == [1] * each * len(TEXTS)
        assert sum(server.asked.values()) == each * len(TEXTS) + 2 * len(faults) == judge.usage.tries
        before = sum(server.asked.values())
        again = judge_at(server, tmp_path, how)
        assert again.score_all(answers(how)) == verdicts
        assert sum(server.asked.values()) == before and again.usage.cached == each * len(TEXTS)
        assert again.revision == judge.revision


@pytest.mark.parametrize("how", ["text", "json"])
@pytest.mark.parametrize("kind", MISSED)
def test_a_reply_without_a_score_is_paid_once_and_has_its_reason(how: str, kind: str, tmp_path: Path):
    body, why = MISSED[kind]
    with OpenAIServer(lambda body: REPLIES[how], {TEXTS[3]: [body]}) as server:
        for _ in range(2):
            verdicts = judge_at(server, tmp_path, how).score_all(answers(how))
            assert [n for n, one in enumerate(verdicts) if one.score is None] == [3]
            assert why in verdicts[3].reason and verdicts[3].category == "unscored"
            assert verdicts[3].facts["reply"] == body["choices"][0]["message"]["content"]
        assert sum(server.asked.values()) == len(TEXTS)


def test_a_server_that_stays_broken_leaves_none_with_a_reason_and_asks_again_later(tmp_path: Path):
    with OpenAIServer(lambda body: REPLIES["text"], {TEXTS[0]: ["500"] * 3, TEXTS[1]: ["400"]}) as server:
        first = judge_at(server, tmp_path, tries=3).score_all(answers())
        assert "500" in first[0].reason and "tried 3 times" in first[0].reason and first[0].facts["temporary"]
        assert "refused (400)" in first[1].reason and "temporary" not in first[1].facts
        assert all(one.score == 80 for one in first[2:])
        second = judge_at(server, tmp_path).score_all(answers())
        assert all(one.score == 80 for one in second)
        assert max(server.paid.values()) == 1


def test_a_request_that_times_out_is_asked_again_and_its_cost_is_at_risk(tmp_path: Path):
    with OpenAIServer(lambda body: REPLIES["text"], {TEXTS[0]: ["hang"]}) as server:
        judge = judge_at(server, tmp_path, timeout=3.0, prices=(1.0, 1.0))
        assert all(one.score == 80 for one in judge.score_all(answers()))
        # On a busy machine others may be late as well, and are asked again.
        assert judge.budget.at_risk > 0 and judge.usage.tries >= len(TEXTS) + 1
        assert sum(TEXTS[0] in text_of(body) for body in server.bodies) >= 2


def test_a_refusal_is_never_at_risk(tmp_path: Path):
    with OpenAIServer(lambda body: REPLIES["text"], {TEXTS[0]: ["429", "500"]}) as server:
        judge = judge_at(server, tmp_path, prices=(1.0, 1.0))
        judge.score_all(answers())
        assert judge.budget.at_risk == 0 and judge.budget.spent == pytest.approx(len(TEXTS) * 11 / 1e6)


@pytest.mark.parametrize("status", ["401", "404", "quota"])
def test_a_server_that_serves_nobody_ends_the_run_at_once(status: str, tmp_path: Path):
    with (
        OpenAIServer(lambda body: REPLIES["text"], {"": [status] * 99}) as server,
        pytest.raises(EndpointError, match=status.replace("quota", "429")),
    ):
        judge_at(server, tmp_path, concurrency=2).score_all(answers())
    assert sum(server.asked.values()) <= 2


def test_a_key_that_is_withdrawn_meanwhile_loses_nothing(tmp_path: Path):
    with OpenAIServer(lambda body: REPLIES["text"], {TEXTS[5]: ["401"]}) as server:
        verdicts = judge_at(server, tmp_path, concurrency=1).score_all(answers())
        assert [one.score for one in verdicts].count(80) == len(TEXTS) - 1
        assert "401" in verdicts[5].reason and verdicts[5].facts["temporary"]


def test_no_server_at_all_is_a_reason(tmp_path: Path):
    with socket.socket() as nobody:  # a port that is held, and where nobody listens: no other test can be given it
        nobody.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}/v1"
        judge = judge_at(SimpleNamespace(address=address), tmp_path, tries=2, prices=(1.0, 1.0))
        verdicts = judge.score_all(answers())
    assert all("connection failed" in one.reason and one.facts["temporary"] for one in verdicts)
    assert judge.budget.at_risk == 0  # nothing was ever sent


def test_a_change_of_the_served_model_is_a_warning(tmp_path: Path):
    def answer(body: Body) -> Body:
        later = text_of(body).find("number 0") < 0
        return {**REPLIES["text"], "system_fingerprint": "fp_2" if later else "fp_1"}

    with OpenAIServer(answer) as server:
        verdicts = judge_at(server, tmp_path).score_all(answers())
    assert [n for n, one in enumerate(verdicts) if "warning" in one.facts] == [10, 11]
    assert verdicts[11].facts["warning"] == (
        "the server answered as tiny-2026-01-01 (fp_2), before as tiny-2026-01-01 (fp_1)"
    )
    assert verdicts[0].facts["model"] == "tiny-2026-01-01" and verdicts[0].facts["fingerprint"] == "fp_1"


def test_equal_answers_are_asked_once(tmp_path: Path):
    with OpenAIServer(lambda body: REPLIES["text"], seconds=0.02) as server:
        verdicts = judge_at(server, tmp_path).score_all([asked_about("same")] * 20)
        assert [one.score for one in verdicts] == [80] * 20 and list(server.asked.values()) == [1]


def test_no_answers_ask_nothing(tmp_path: Path):
    with OpenAIServer(lambda body: REPLIES["text"]) as server:
        assert judge_at(server, tmp_path).score_all([]) == []
        assert not server.asked
