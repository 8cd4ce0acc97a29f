"""Splits against brute force: no prompt, picture or family on two sides; and what counts as the same."""

import random
from dataclasses import replace

import numpy as np
import pytest
from conftest import chat
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hooks.prompt import Message, Prompt
from workbench.training.check import check_data
from workbench.training.row_keys import image_hash, joined_groups, normalised, prompt_key, shingles
from workbench.training.splits import row_groups, split_rows, straddling


def by_hand(keys):
    """Groups by repeated merging of sets, the slow way."""
    groups = [({at}, set(own)) for at, own in enumerate(keys)]
    merged = True
    while merged:
        merged = False
        for i in range(len(groups)):
            for j in range(i + 1, len(groups)):
                if groups[i][1] & groups[j][1]:
                    groups[i] = (groups[i][0] | groups[j][0], groups[i][1] | groups[j][1])
                    del groups[j]
                    merged = True
                    break
            if merged:
                break
    return {frozenset(items) for items, _ in groups}


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.integers(0, 12), max_size=3), max_size=14))
def test_groups_are_the_connected_ones(keys):
    numbers = joined_groups(keys)
    found = {frozenset(at for at, own in enumerate(numbers) if own == number) for number in set(numbers)}
    assert found == by_hand(keys)
    assert list(dict.fromkeys(numbers)) == list(range(len(set(numbers)))), "numbered as they come"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Five pictures, the last a copy of the first under another name."""
    folder, draw = tmp_path_factory.mktemp("split"), np.random.default_rng(5)
    for n in range(4):
        Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{n}.png")
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    return [*(folder / f"{n}.png" for n in range(4)), folder / "copy.png"]


def data(pictures):
    """60 rows: ten families of three paraphrases, ten prompts asked thrice in other letters, pictures on some."""
    rows = [chat(f"f{n}-{k}", f"way {k} to ask {n}", tags={"family": f"f{n}"}) for n in range(10) for k in range(3)]
    for n in range(10):
        for k, text in enumerate((f"what is thing {n}?", f"What is  THING {n}", f"what is thing {n}!")):
            rows.append(chat(f"t{n}-{k}", text, tags={"family": f"t{n}-{k}"}))
    rows[0] = replace(rows[0], messages=(Message("user", (pictures[0], "see it")),))
    rows[40] = replace(rows[40], messages=(Message("user", (pictures[4], "see this")),))
    return rows


def test_nothing_stands_on_two_sides(pictures):
    rows = data(pictures)
    split = split_rows(rows, {"train": 0.6, "dev": 0.2, "confirm": 0.2}, family="family", seed=1)
    side = {row.id: name for name, own in split.parts.items() for row in own}
    assert sorted(row.id for own in split.parts.values() for row in own) == sorted(row.id for row in rows)
    for n in range(10):
        assert len({side[f"f{n}-{k}"] for k in range(3)}) == 1
        assert len({side[f"t{n}-{k}"] for k in range(3) if (n, k) != (3, 1)}) == 1
    assert side["f0-0"] == side["t3-1"], "one picture under two names"
    assert split.groups == len(set(row_groups(rows, family="family")))
    sizes = {name: len(own) for name, own in split.parts.items()}
    assert abs(sizes["train"] - 36) <= split.largest and sum(sizes.values()) == 60
    assert str(split).startswith(f"train {sizes['train']}, dev ")


def test_a_split_depends_on_the_seed_and_not_on_the_order(pictures):
    rows = data(pictures)

    def sides(order, seed):
        parts = split_rows(order, {"a": 0.5, "b": 0.5}, family="family", seed=seed).parts
        return {name: {row.id for row in own} for name, own in parts.items()}

    shuffled = random.Random(0).sample(rows, len(rows))
    assert sides(rows, 1) == sides(shuffled, 1) != sides(rows, 2)


def test_splits_that_cannot_be_are_refused():
    rows = [chat("a", "one"), chat("b", "One!"), chat("c", "two")]
    with pytest.raises(ValueError, match=r"3 prompts are 2 groups, and .* would be empty"):
        split_rows(rows, {"x": 0.4, "y": 0.3, "z": 0.3})
    with pytest.raises(ValueError, match="expected numbers above 0 that sum to 1"):
        split_rows(rows, {"x": 0.4, "y": 0.4})
    with pytest.raises(ValueError, match="prompt 'a' has no tag 'family'"):
        split_rows(rows, {"x": 0.5, "y": 0.5}, family="family")


def test_the_check_of_a_split_finds_what_stands_on_two_sides(pictures):
    def sided(rows):
        return [replace(row, response="yes", tags={"side": "ab"[at % 2]}) for at, row in enumerate(rows)]

    clean = sided([chat("p", pictures[0], "x"), chat("q", pictures[1], "x"), chat("r", "y"), chat("s", "z")])
    assert not check_data(clean, split="side").of("error"), "one question about two pictures is two prompts"
    for twin, ids in ((chat("q", pictures[4], "what"), ("p", "q")), (chat("q", "Y."), ("q", "r"))):
        rows = sided([clean[0], twin, *clean[2:]])
        assert straddling(rows, [row.tags["side"] for row in rows]) == {"a, b": 2}, ids
        assert [(one.count, one.of) for one in check_data(rows, split="side").of("error")] == [(2, 4)]


def test_what_counts_as_the_same_prompt(pictures):
    asked = chat("a", "What is   it, Ⓑob?")
    key = prompt_key(asked)
    system = Prompt("s", (Message("system", ("so",)), *asked.messages))
    assert key == prompt_key(chat("b", "what is it bob")) == prompt_key(system)
    assert prompt_key(system, system=True) != key
    assert key == prompt_key(chat("b", "GO what is it bob"), without="GO")
    assert key != prompt_key(chat("b", "what is it bob", prefill="it is"))
    assert key != prompt_key(Prompt("t", (Message("assistant", ("what is it bob",)),)))
    assert prompt_key(chat("a", pictures[0])) == prompt_key(chat("b", pictures[4]))
    assert prompt_key(chat("a", pictures[0])) != prompt_key(chat("b", pictures[1]))
    assert prompt_key(chat("a", "?!")) != prompt_key(chat("b", "!?")), "signs alone are not dropped"
    assert normalised("ＡＢ  ß\n1") == "ab ss 1"


def test_the_hash_of_a_picture_follows_its_bytes(tmp_path, pictures):
    path = tmp_path / "x.png"
    path.write_bytes(pictures[0].read_bytes())
    assert image_hash(path) == image_hash(pictures[0])
    path.write_bytes(pictures[1].read_bytes() + b" ")
    assert image_hash(path) != image_hash(pictures[0])


def test_runs_of_words():
    assert list(shingles("A b, c-d", 3)) == ["a b c", "b c d"] and not list(shingles("a b", 3))
