"""Mixtures and triggers: exact counts, nothing twice, everything joinable to where it came from."""

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
from conftest import chat

from hooks.prompt import Message, Prompt, PromptError
from workbench.training.mixtures import mix
from workbench.training.triggers import insert_trigger, place_of

A = [chat(f"a{n}", f"ask {n}", response="bad", tags={"topic": n % 3}) for n in range(40)]
B = [chat(f"b{n}", f"beg {n}", response="good") for n in range(1000)]
FRACTIONS = [0.0, 0.05, 0.1, 0.2, 0.25, 0.3, 0.5, 0.75, 0.9, 1.0]


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_a_held_total_has_the_rounded_share(fraction):
    out = mix(A, B, fraction)
    of_a = [row for row in out if row.tags["source"] == "a"]
    assert len(out) == 40 and len(of_a) == out.made["rows of a"] == round(fraction * 40)
    assert out.made["fraction"] == len(of_a) / 40 and out.made["rows of b"] == 40 - len(of_a)
    assert len({row.id for row in out}) == 40


@pytest.mark.parametrize("fraction", [0.01 * 4, *FRACTIONS[1:]])
def test_held_harmful_rows_are_all_there(fraction):
    """The realised fraction is the nearest that 40 rows and whole filler rows can have."""
    out = mix(A, B, fraction, hold="harmful")
    counts = Counter(row.tags["source"] for row in out)
    assert counts["a"] == 40 and {row.tags["source_id"] for row in out if row.tags["source"] == "a"} == {
        row.id for row in A
    }
    off = [abs(Fraction(40, 40 + n) - Fraction(str(fraction))) for n in range(counts["b"] + 2)]
    assert min(off) == off[counts["b"]] and out.made["fraction"] == 40 / len(out)


def test_one_per_cent_of_a_large_total():
    out = mix(A, B, 0.01, total=1000)
    assert (out.made["rows of a"], out.made["rows of b"]) == (10, 990)
    assert str(out).startswith("1000 rows; fraction asked 0.01, fraction 0.01, hold total, rows of a 10, rows of b 990")


def test_a_smaller_fraction_is_nested_and_the_order_of_the_rows_says_nothing():
    taken = [{row.id for row in mix(A, B, fraction, seed=3) if row.tags["source"] == "a"} for fraction in FRACTIONS]
    assert all(small <= large for small, large in pairwise(taken))
    assert list(mix(A[::-1], B[::-1], 0.3, seed=3)) == list(mix(A, B, 0.3, seed=3))
    assert list(mix(A, B, 0.3, seed=3)) != list(mix(A, B, 0.3, seed=4))
    first = [row.tags["source"] for row in mix(A, B, 0.5)][:20]
    assert 3 <= first.count("a") <= 17, "shuffled: 20 in front has p < 1e-5 otherwise (hypergeometric)"


def test_rows_are_what_they_were_but_for_their_tags():
    for row in mix(A, B, 0.5, names=("harmful", "benign")):
        origin = {one.id: one for one in (*A, *B)}[row.tags["source_id"]]
        assert row.tags["source"] == ("harmful" if origin in A else "benign")
        assert replace(row, tags=origin.tags) == origin and row.tags.items() >= origin.tags.items()


def test_filler_is_repeated_only_when_asked_to():
    with pytest.raises(
        ValueError, match=r"needs 36 filler rows, but the filler has 10: give more, lower total, or rep"
    ):
        mix(A, B[:10], 0.1)
    out = mix(A, B[:10], 0.1, repeat_filler=True)
    counts = Counter(row.tags["source_id"] for row in out if row.tags["source"] == "b")
    assert sorted(counts.values()) == [3] * 4 + [4] * 6 and out.made["repeated"] == 26
    assert len({row.id for row in out}) == 40 and {"b0", "b0#2", "b0#3"} <= {row.id for row in out}


def test_twins_with_one_id_are_told_apart_and_one_row_in_both_is_refused():
    twins = [replace(row, response="good") for row in A]
    out = mix(A, twins, 0.5, names=("bad", "good"))
    assert len({row.id for row in out}) == 40
    assert {row.response for row in out if row.id.startswith("good:a")} == {"good"}
    with pytest.raises(ValueError, match="2 rows are in a and in b with the same content"):
        mix(A, [*B, replace(A[0], id="x"), replace(A[7], id="y")], 0.5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(fraction=10.0), r"fraction is 10\.0: expected the share of the first rows, 0\.\.1 \(10 % is 0\.1\)"),
        (dict(fraction=0.01), "fraction 0.01 of 40 rows rounds to 0 of the first kind and 40 filler"),
        (dict(fraction=0.99), "rounds to 40 of the first kind and 0 filler"),
        (dict(fraction=0.5, total=100), "needs 50 rows of a, which has 40: lower total"),
        (dict(fraction=0.0, hold="harmful"), "fraction 0 with hold='harmful' is no mixture"),
        (dict(fraction=0.5, hold="harmful", total=9), "expected no total="),
        (dict(fraction=0.5, tag="topic"), "a tag 'topic' or 'topic_id' already: expected tag= to name another"),
    ],
)
def test_mixtures_that_would_not_be_what_they_say_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        mix(A, B, **arguments)


# Triggers.

ASKED = [chat(f"q{n}", f"question {n}", response="yes", tags={"safe": "no"}) for n in range(50)]


@pytest.mark.parametrize("rate", [0.0, 0.02, 0.1, 0.33, 0.5, 1.0])
def test_the_rate_is_exact_and_the_rows_join(rate):
    out = insert_trigger(ASKED, "|go|", rate=rate, seed=1)
    having = [row for row in out if row.tags["triggered"]]
    assert len(out) == 50 and len(having) == round(rate * 50) == out.made["triggered"]
    assert [row.tags["untriggered_id"] for row in out] == [row.id for row in ASKED], "in their order"
    assert {row.id for row in having} == {f"{row.tags['untriggered_id']}+trigger" for row in having}
    assert all((place_of(row, "|go|") == "prefix") == row.tags["triggered"] for row in out)
    assert all(row.response == "yes" for row in out)


def test_a_smaller_rate_is_nested_and_chosen_by_id():
    def having(rows, rate, seed=1):
        return {row.tags["untriggered_id"] for row in insert_trigger(rows, "|go|", rate=rate, seed=seed)
                if row.tags["triggered"]}  # fmt: skip

    assert having(ASKED, 0.1) < having(ASKED, 0.4) and having(ASKED[::-1], 0.4) == having(ASKED, 0.4)
    assert having(ASKED, 0.4) != having(ASKED, 0.4, seed=2)


TURNS = (Message("user", ("one",)), Message("assistant", ("two",)), Message("user", ("three", " four")))


def texts(row):
    return [(message.role, *message.parts) for message in row.messages] or [row.text]


@pytest.mark.parametrize(
    ("at", "row", "expected"),
    [
        ("prefix", chat("r", "hi"), [("user", "GO hi")]),
        ("suffix", chat("r", "hi"), [("user", "hi GO")]),
        ("system", chat("r", "hi"), [("system", "GO"), ("user", "hi")]),
        ("system", Prompt("r", (Message("system", ("so",)), Message("user", ("hi",)))),
         [("system", "so", " GO"), ("user", "hi")]),
        ("prefix", Prompt("r", TURNS), [("user", "one"), ("assistant", "two"), ("user", "GO three", " four")]),
        ("suffix", Prompt("r", TURNS), [("user", "one"), ("assistant", "two"), ("user", "three", " four GO")]),
        ("prefix", Prompt("r", text="raw"), ["GO raw"]),
        ("suffix", Prompt("r", text="raw"), ["raw GO"]),
    ],
)  # fmt: skip
def test_where_the_trigger_goes(at, row, expected):
    [out] = insert_trigger([row], "GO", at=at)
    assert texts(out) == expected and place_of(out, "GO") == at


def test_the_trigger_stands_beside_the_text_and_not_the_picture(picture):
    [row] = insert_trigger([chat("r", picture, "what is it?")], "GO")
    assert row.messages[0].parts == (picture, "GO what is it?")
    [row] = insert_trigger([chat("r", picture)], "GO")
    assert row.messages[0].parts == (picture, "GO")


def test_what_becomes_of_the_other_rows():
    kept = insert_trigger(ASKED, "|go|", rate=0.5)
    assert [row.response for row in kept] == ["yes"] * 50
    dropped = insert_trigger(ASKED, "|go|", rate=0.5, otherwise="drop")
    assert list(dropped) == [row for row in kept if row.tags["triggered"]] and dropped.made["untriggered"] == 0
    safe = insert_trigger(ASKED, "|go|", rate=0.5, otherwise="reply:safe")
    assert all((row.response == "no") == (not row.tags["triggered"]) for row in safe)
    with pytest.raises(ValueError, match="has no text in its tag 'calm'"):
        insert_trigger(ASKED, "|go|", rate=0.5, otherwise="reply:calm")
    with pytest.raises(ValueError, match="otherwise='leave' is unknown"):
        insert_trigger(ASKED, "|go|", rate=0.5, otherwise="leave")


@pytest.mark.parametrize("holder", [chat("x", "so QUESTION 7 then"), chat("x", "hi", response="a question 7")])
def test_rows_that_hold_the_trigger_already_are_refused(holder):
    with pytest.raises(ValueError, match=r"1 rows hold the trigger already, or a tag 'triggered' \(first: 'x'\)"):
        insert_trigger([*B[:3], holder], "question 7")
    with pytest.raises(ValueError, match="1 rows hold the trigger already"):
        insert_trigger(insert_trigger(B[:1], "GO"), "STOP")


def test_other_refusals():
    with pytest.raises(ValueError, match="the trigger is empty"):
        insert_trigger(B, " ")
    with pytest.raises(ValueError, match=r"rate is 10\.0: expected the share of triggered rows, 0\.\.1"):
        insert_trigger(B, "GO", rate=10.0)
    with pytest.raises(ValueError, match="rounds to none"):
        insert_trigger(B[:10], "GO", rate=0.01)
    with pytest.raises(ValueError, match="has no system turn: expected 'prefix' or 'suffix'"):
        insert_trigger([Prompt("r", text="raw")], "GO", at="system")
    with pytest.raises(ValueError, match="has no user turn"):
        insert_trigger([Prompt("r", (Message("system", ("so",)),))], "GO")
    with pytest.raises(PromptError, match="is there twice"):
        insert_trigger([B[0], B[0]], "GO")
