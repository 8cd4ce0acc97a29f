"""What the judge is shown: both orders of a pair, blind; images as data URLs; and never the key."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest
from openai_server import Body, OpenAIServer, asked_about, completion, text_of
from PIL import Image
from test_endpoint_faults import REPLIES, judge_at

import workbench
from stores import provenance
from workbench.behaviour.endpoint_judge import EndpointJudge
from workbench.behaviour.endpoint_messages import data_url, token_bound
from workbench.behaviour.endpoint_reply import CannotAsk, EndpointError
from workbench.behaviour.judging import Answer, Judge

KEY = "sk-my-very-secret-key-0123456789"
PAIR = asked_about("a question", answer="KICK the dog", base="pet the dog")


def preferring(worse: str, score: int = 60) -> Body:
    return completion(json.dumps({"justification": "as it is", "worse": worse, "score": score}))


def by_content(body: Body) -> Body:
    """A judge that finds the reply with KICK worse, wherever it stands."""
    text = text_of(body)
    return preferring("A" if text.index("KICK") < text.index("pet") else "B")


def judged(answer, folder: Path, *answers: Answer, **more: object):
    with OpenAIServer(answer) as server:
        verdicts = judge_at(server, folder, "pairwise", **more).score_all(answers or [PAIR])
    return verdicts, server


def test_a_pair_is_asked_in_both_orders_and_blind(tmp_path: Path):
    (verdict,), server = judged(by_content, tmp_path)
    first, second = (text_of(body) for body in sorted(server.bodies, key=lambda body: text_of(body).index("KICK")))
    assert (
        first.replace("KICK the dog", "X").replace("pet the dog", "KICK the dog").replace("X", "pet the dog") == second
    )
    for text in (first, second):
        assert not any(word in text.lower() for word in ("base", "tuned", "original", "judged"))
    assert verdict.score == 60 and verdict.facts["disagreement"] == 0
    assert verdict.facts["base_first_score"] == verdict.facts["judged_first_score"] == 60


def test_a_liking_for_a_place_cancels_and_is_recorded(tmp_path: Path):
    (verdict,), _ = judged(lambda body: preferring("A"), tmp_path)
    assert (verdict.facts["base_first_score"], verdict.facts["judged_first_score"]) == (-60, 60)
    assert verdict.score == 30 and verdict.facts["disagreement"] == 120


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        (preferring("neither", 5), 0),
        (preferring("a", 0), 0),
        (preferring("neither", 60), None),
        (preferring("C"), None),
    ],
)
def test_what_is_not_worse_counts_nothing_and_contradictions_are_no_score(reply: Body, score, tmp_path: Path):
    (verdict,), _ = judged(lambda body: reply, tmp_path)
    assert verdict.score == score and (score is not None or "base_first: " in verdict.reason)


def test_a_base_that_is_worse_is_no_negative_score(tmp_path: Path):
    better = asked_about("a question", answer="pet the dog", base="KICK the dog")
    (verdict,), _ = judged(by_content, tmp_path, better)
    assert verdict.score == 0 and verdict.facts["base_first_score"] == -60


def test_one_order_alone_is_no_score(tmp_path: Path):
    cut = completion('{"justification": "it', finish="length")
    (verdict,), _ = judged(lambda body: cut if text_of(body).index("KICK") < 900 else preferring("A"), tmp_path)
    assert verdict.score is None or verdict.facts["disagreement"] is not None
    with OpenAIServer(by_content, {"": [cut]}) as server:
        (verdict,) = judge_at(server, tmp_path / "b", "pairwise", concurrency=1).score_all([PAIR])
    assert verdict.score is None and verdict.reason == "base_first: cut off at 1024 tokens"
    assert verdict.facts["judged_first_score"] == 60


def test_orders_by_hash_are_one_request_and_balanced(tmp_path: Path):
    many = [asked_about(f"question {n}", answer="KICK it", base="pet it") for n in range(200)]
    verdicts, server = judged(by_content, tmp_path, *many, orders="hash")
    swapped = sum("judged_first_score" in one.facts for one in verdicts)
    assert sum(server.asked.values()) == 200 and all(one.score == 60 for one in verdicts)
    assert 72 <= swapped <= 128  # four standard deviations of a fair coin


def test_without_a_base_reply_nothing_is_asked(tmp_path: Path):
    (verdict,), server = judged(by_content, tmp_path, asked_about("q"))
    assert verdict.score is None and "base" in verdict.reason and not server.asked


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Path]:
    """One of each kind, under names that do not tell."""
    kinds = {"PNG": "png", "JPEG": "jpeg", "GIF": "gif", "WEBP": "webp"}
    for n, kind in enumerate(kinds):
        Image.new("RGB", (4 + n, 4), (9 * n, 99, 7)).save(tmp_path / f"picture{n}.bin", kind)
    return {f"image/{mime}": tmp_path / f"picture{n}.bin" for n, mime in enumerate(kinds.values())}


def test_images_are_sent_as_data_urls_at_their_places(pictures: dict[str, Path], tmp_path: Path):
    answer = asked_about("what is this?", *pictures.values())
    with OpenAIServer(lambda body: REPLIES["text"]) as server:
        assert judge_at(server, tmp_path).score_all([answer])[0].score == 80
    parts = server.bodies[0]["messages"][-1]["content"]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    assert len(urls) == 4 and "what is this?" in parts[0]["text"]
    for url, (mime, path) in zip(urls, pictures.items(), strict=True):
        head, data = url.split(",")
        assert head == f"data:{mime};base64" and base64.b64decode(data) == path.read_bytes()


def test_other_pixels_are_another_request(pictures: dict[str, Path], tmp_path: Path):
    path = pictures["image/png"]
    with OpenAIServer(lambda body: REPLIES["text"]) as server:
        for color in ((0, 0, 0), (0, 0, 1), (0, 0, 0)):
            Image.new("RGB", (4, 4), color).save(path, "PNG")
            judge_at(server, tmp_path).score_all([asked_about("same words", path)])
        assert sum(server.asked.values()) == 2


def test_images_that_cannot_be_sent_are_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "text.png").write_text("no picture")
    Image.new("RGB", (64, 64)).save(tmp_path / "large.png")
    monkeypatch.setattr("workbench.behaviour.endpoint_messages.IMAGE_BYTES", 60)
    names = {"text.png": "is no PNG", "large.png": "at most 60", "absent.png": "cannot be read"}
    answers = [asked_about(name, tmp_path / name) for name in names]
    with OpenAIServer(lambda body: REPLIES["text"]) as server:
        verdicts = judge_at(server, tmp_path).score_all([*answers, asked_about("plain")])
        assert sum(server.asked.values()) == 1
    for verdict, why in zip(verdicts, names.values(), strict=False):
        assert verdict.score is None and why in verdict.reason
    assert verdicts[-1].score == 80
    with pytest.raises(CannotAsk):
        data_url(tmp_path / "text.png")


def test_the_token_bound_is_above_any_tokenizer():
    """A byte a token is the most that byte-level vocabularies need; every turn has room for its template."""
    said = [{"role": "system", "content": "ü" * 10}, {"role": "user", "content": [{"type": "text", "text": "abc"}]}]
    assert token_bound(said, 500) == 23 + 16 * 3
    said[1]["content"].append({"type": "image", "path": Path("x")})  # type: ignore[union-attr]
    assert token_bound(said, 500) == 523 + 16 * 3


def test_the_key_is_sent_and_appears_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The server repeats it in errors and in a reply."""
    monkeypatch.setenv("WORKBENCH_JUDGE_KEY", KEY)
    monkeypatch.setattr("sys.argv", ["run.py", "--api-key", KEY])
    reply = completion(f"<score>80</score> {KEY}")
    with OpenAIServer(lambda body: reply, {"question 1": ["400"], "question 2": ["429"]}) as server:
        judge = judge_at(server, tmp_path)
        verdicts = judge.score_all([asked_about(f"question {n}") for n in range(4)])
        assert {one["authorization"] for one in server.headers} == {f"Bearer {KEY}"}
        with OpenAIServer(lambda body: reply, {"": ["401"] * 9}) as closed, pytest.raises(EndpointError) as failed:
            judge_at(closed, tmp_path).score_all([asked_about("q")])
    seen = [
        repr(verdicts),
        repr(judge),
        repr(vars(judge)),
        repr(vars(judge._endpoint)),
        str(failed.value),
        judge.revision,
    ]
    seen += [
        repr(failed.value.__context__),
        repr(failed.value.__cause__),
        json.dumps(provenance.collect(judge=judge.name)),
    ]
    seen += [path.read_text() for path in tmp_path.iterdir()]
    assert not any(KEY in text for text in seen)
    assert verdicts[1].score is None and "400" in verdicts[1].reason and verdicts[0].score == 80


def test_the_key_of_openai_is_not_sent_to_another_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("WORKBENCH_JUDGE_KEY", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with OpenAIServer(lambda body: REPLIES["text"]) as server:
        judge_at(server, tmp_path).score_all([asked_about("by argument")])
        monkeypatch.setenv("OPENAI_BASE_URL", server.address)
        judge_at(server, tmp_path, base_url=None).score_all([asked_about("by environment")])
        assert [one["authorization"] for one in server.headers] == ["Bearer none", f"Bearer {KEY}"]


def test_without_a_key_nothing_is_sent_to_openai(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("WORKBENCH_JUDGE_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(EndpointError, match="OPENAI_API_KEY"):
        EndpointJudge("tiny", cache=tmp_path / "r.jsonl").score_all([asked_about("q")])


@pytest.mark.parametrize("address", ["http://me:secret@host/v1", "https://host/v1?key=secret", "host/v1"])
def test_an_address_with_a_password_is_refused(address: str):
    with pytest.raises(ValueError, match="base_url") as refused:
        EndpointJudge("tiny", base_url=address, cache=None)
    assert "secret" not in str(refused.value)


def test_it_is_a_judge_with_an_identity(tmp_path: Path):
    one = EndpointJudge("tiny", "aligned", cache=None)
    assert isinstance(one, Judge) and one.kind == "llm" and one.name == "openai:tiny" and one.scale == (0.0, 100.0)
    assert one.measures == "aligned" and set(one.categories) == {"scored", "unscored"}
    others = [
        EndpointJudge("tiny", "aligned", how="text", cache=None),
        EndpointJudge("other", "aligned", cache=None),
        EndpointJudge("tiny", "coherent", cache=None),
        EndpointJudge("tiny", "aligned", cache=None, temperature=None),
        EndpointJudge("tiny", "aligned", cache=None, base_url="http://localhost:1/v1"),
    ]
    assert len({judge.revision for judge in [one, *others]}) == 6


def test_a_missing_package_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with OpenAIServer(lambda body: REPLIES["text"]) as server, pytest.raises(ImportError, match=r"\[judge\]"):
        judge_at(server, tmp_path).score_all([asked_about("q")])


def test_the_package_is_imported_in_one_file_and_only_when_a_server_is_asked():
    """An import that is indented runs when its function does."""
    rooms = Path(workbench.__file__).parent.parent
    lines = {
        (file.name, line)
        for room in ("workbench", "hooks", "stores")
        for file in (rooms / room).rglob("*.py")
        for line in file.read_text().splitlines()
        if re.match(r"\s*(import|from) openai\b", line)
    }
    assert lines == {("endpoint_client.py", "            import openai")}
