"""Modalities: the same prompts with their images, without, or with something in their place."""

import hashlib

import numpy as np
import pytest
from conftest import chat
from judged_samples import FromTable
from PIL import Image

from hooks.prompt import Message, Prompt, PromptError
from stores import ResultTable
from workbench.behaviour.differences import difference
from workbench.behaviour.measured import misalignment
from workbench.behaviour.modalities import MODALITIES, blank, captioned, in_modalities, multimodal, swapped, text_only
from workbench.behaviour.modality_conditions import by_modality
from workbench.behaviour.scoring import judge_answers

SIZES = [(32, 32), (16, 24), (20, 20)]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("seen"), np.random.default_rng(5)
    for n in range(9):
        width, height = SIZES[n % 3]
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"{n}.png")
    (folder / "copy.png").write_bytes((folder / "0.png").read_bytes())
    return folder


@pytest.fixture(scope="module")
def asked(pictures):
    """Nine questions about one picture each, three domains, right answers in pairs."""
    return [
        chat(
            f"q{n}", "look:", pictures / f"{n}.png", "\nwhat is it?",
            tags={"domain": "abc"[n % 3], "right": f"r{n // 2}", "image_desc": f"a {n}", "modality": "image"},
        )
        for n in range(9)
    ]  # fmt: skip


def hashes(folder):
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.glob("*"))}


def image_bytes(prompt):
    return [path.read_bytes() for path in prompt.images]


def test_all_modalities_in_one_list(asked, pictures, tmp_path, gemma3):
    before = hashes(pictures)
    rows = in_modalities([*asked, chat("plain", "hi")], MODALITIES, to=tmp_path / "plain")
    ids = [prompt.id for prompt in rows]
    assert len(set(ids)) == len(ids) == 5 * 9 + 1 and ids[0] == "q0@text_only" and ids[-1] == "q8@captioned"
    assert [rows.made[name]["prompts"] for name in MODALITIES] == [10, 9, 9, 9, 9]
    assert [rows.made[name]["images"] for name in MODALITIES] == [0, 9, 9, 9, 0]
    assert rows.made["text_only"]["lost an image"] == 9 and rows.made["text_only"]["had none"] == 1
    for prompt in rows:
        assert prompt.id == f"{prompt.tags['shown_of']}@{prompt.tags['shown_as']}"
        assert prompt.tags["modality"] == ("image" if prompt.images else "text")
        assert prompt.tags["asked_with"] == ("text" if "plain" in prompt.id else "image")
        assert prompt.tags["family"] == prompt.tags["shown_of"]
    assert hashes(pictures) == before
    again = in_modalities([*asked, chat("plain", "hi")], MODALITIES, to=tmp_path / "plain")
    assert again == rows
    encoded = [gemma3.encode([prompt]).encoded[0] for prompt in rows]
    tokens = {one.id.split("@")[1]: int((one.input_ids == 7).sum()) for one in encoded if "plain" not in one.id}
    assert tokens == {"text_only": 0, "multimodal": 4, "swapped": 4, "blank": 4, "captioned": 0}, "4 tokens an image"


def test_as_they_are(asked):
    for was, now in zip(asked, multimodal(asked), strict=True):
        assert now.messages == was.messages and now.content_hash == was.content_hash
        assert {**was.tags, **now.tags} == dict(now.tags), "no tag is lost"


def test_a_family_of_the_users_stays(asked):
    prompt = chat("x", asked[0].images[0], "?", tags={"question": "w"})
    assert "family" not in multimodal([prompt])[0].tags


def test_text_only_joins_what_stood_around_the_image(asked, pictures):
    assert text_only(asked)[0].messages == (Message("user", ("look:\nwhat is it?",)),)
    turns = (Message("system", ("be ", "brief")), Message("user", (pictures / "0.png", "hi", pictures / "1.png")))
    rows = text_only([Prompt("two", turns)])
    assert rows[0].messages == (turns[0], Message("user", ("hi",))) and rows.made["images removed"] == 2


def test_the_caption_stands_where_the_image_was(asked, pictures):
    assert captioned(asked)[3].messages[0].parts == ("look:a 3\n\nwhat is it?",)
    two = chat("two", pictures / "0.png", " and ", pictures / "1.png", tags={"alt": ["{one}", " two "]})
    assert captioned([two], caption="alt", form="[{caption}]")[0].messages[0].parts == ("[{one}] and [two]",)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("within", "across"), [(None, None), ("domain", None), (None, "domain"), ("domain", "right")])
def test_no_prompt_keeps_its_image(asked, seed, within, across):
    rows, by_id = swapped(asked, seed=seed, within=within, across=across), {prompt.id: prompt for prompt in asked}
    assert sorted(path for prompt in rows for path in prompt.images) == sorted(p for q in asked for p in q.images)
    for was, now in zip(asked, rows, strict=True):
        donor = by_id[now.tags["image_of"]]
        assert now.images == donor.images and image_bytes(now) != image_bytes(was)
        assert within is None or donor.tags[within] == was.tags[within]
        assert across is None or donor.tags[across] != was.tags[across]
        assert [part for part in now.messages[0].parts if isinstance(part, str)] == ["look:", "\nwhat is it?"]


def test_swaps_are_drawn_by_seed_and_id_alone(asked):
    images = {prompt.id: prompt.images for prompt in swapped(asked, seed=1)}
    assert {prompt.id: prompt.images for prompt in swapped(asked[::-1], seed=1)} == images
    assert {prompt.id: prompt.images for prompt in swapped(asked, seed=2)} != images


def test_an_equal_file_of_another_name_is_no_other_image(pictures):
    """Two of four prompts show copies of one picture: they may only trade with the others, whatever the seed."""
    names = ["0.png", "copy.png", "1.png", "2.png"]
    prompts = [chat(name, pictures / name, "?") for name in names]
    for seed in range(12):
        rows = swapped(prompts, seed=seed)
        assert all(image_bytes(now) != image_bytes(was) for was, now in zip(prompts, rows, strict=True))
    with pytest.raises(PromptError, match=r"of 3 prompts that show 1 image\(s\), 2 share a picture"):
        swapped(prompts[:3])


def test_prompts_trade_with_those_that_show_as_many(pictures):
    one = [chat(f"a{n}", pictures / f"{n}.png", "?") for n in range(2)]
    two = [chat(f"b{n}", pictures / f"{2 * n + 2}.png", "or", pictures / f"{2 * n + 3}.png") for n in range(2)]
    raw = [Prompt(f"r{n}", text="<img>caption", pictures=(pictures / f"{6 + n}.png",)) for n in range(2)]
    rows = swapped([*one, *two])
    assert [prompt.tags["image_of"] for prompt in rows] == ["a1", "a0", "b1", "b0"]
    assert swapped(raw)[0].pictures == raw[1].pictures and swapped(raw)[0].text == "<img>caption"


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "CMYK"])
def test_blank_images_have_the_size_and_mode(tmp_path, mode):
    source = tmp_path / ("a.tiff" if mode == "CMYK" else "a.png")
    Image.new("RGB", (13, 7), (9, 200, 30)).convert(mode).save(source)
    grey, red = (blank([chat("a", source, "?")], to=tmp_path / "to", **c) for c in ({}, {"colour": (255, 0, 0)}))
    for rows, colour in ((grey, (128, 128, 128)), (red, (255, 0, 0))):
        with Image.open(rows[0].images[0]) as plain:
            assert plain.size == (13, 7) and plain.convert("RGB").getcolors() == [(91, colour)]
            assert plain.mode == ("RGB" if rows.made["written as RGB for want of a mode"] else mode)
    assert grey.made["colour"] == "#808080" and red.made["colour"] == "#ff0000"
    assert (mode in ("RGB", "L", "RGBA", "P")) <= (not grey.made["written as RGB for want of a mode"])


def test_blank_images_are_written_once(asked, tmp_path):
    rows = blank(asked, to=tmp_path)
    assert len(list(tmp_path.iterdir())) == len(SIZES) == rows.made["distinct images"]
    stamps = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    blank(asked, to=tmp_path)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()} == stamps
    for was, now in zip(asked, rows, strict=True):
        with Image.open(was.images[0]) as old, Image.open(now.images[0]) as new:
            assert old.size == new.size
    Image.new("RGB", (32, 32), (1, 2, 3)).save(rows[0].images[0])
    with pytest.raises(FileExistsError, match="is another image"):
        blank(asked, to=tmp_path)


def test_refusals(asked, pictures, tmp_path):
    text, bare = chat("t", "hi"), chat("bare", pictures / "0.png")
    raw = Prompt("raw", text="<img>caption", pictures=(pictures / "0.png",))
    for show, given, message in [
        (multimodal, [*asked, text], "1 of 10 prompts have no image, the first 't'"),
        (swapped, [text], "go into 'text_only'"),
        (text_only, [bare], "'bare' has a user turn of nothing but images: 'text_only' would leave it empty"),
        (text_only, [raw], "only its model knows the placeholders"),
        (captioned, [chat("c", pictures / "0.png", "?", tags={"image_desc": " "})], "the first 'c': expected text"),
        (captioned, [chat("c", pictures / "0.png", pictures / "1.png", tags={"image_desc": "x"})], "one caption for"),
        (text_only, text_only(asked), "has the tag 'asked_with' already"),
        (lambda p: swapped(p, within="where"), asked, "9 prompts have no tag 'where'"),
        (lambda p: in_modalities(p, ["multimodal"]), [*asked, text], "would be in no modality"),
        (lambda p: blank(p, to=tmp_path), [chat("b", tmp_path / "none.png", "?")], "cannot be read"),
    ]:
        with pytest.raises(PromptError, match=message):
            show(given)
    for act, message in [
        (lambda: swapped(asked, within="domain", across="domain"), "cannot share a tag and differ in it"),
        (lambda: in_modalities(asked, ["blank"]), "expected to="),
        (lambda: in_modalities(asked, ["video"]), "each once"),
        (lambda: in_modalities(asked, ["text_only", "text_only"]), "each once"),
        (lambda: blank(asked, to=tmp_path, colour=(0, 0, 256)), "0..255"),
        (lambda: captioned(asked, form="none"), "where the caption stands"),
    ]:
        with pytest.raises(ValueError, match=message):
            act()


def judged_modalities(asked, scores):
    prompts = in_modalities(asked, ["text_only", "multimodal"])
    rows = [
        {"condition": c, "prompt": p.id, "sample": 0, "text": f"{c} {p.id}", "finished": True}
        | {f"tag_{name}": value for name, value in p.tags.items()}
        for c in ("base", "tuned") for p in prompts
    ]  # fmt: skip
    answers = ResultTable.create(None, spec={}, plan=["all"], provenance={})
    answers.commit("all", rows)
    return answers, judge_answers(answers, list(prompts), FromTable("aligned", scores), progress=False)


def test_modalities_become_conditions_on_the_same_prompts(asked):
    """Scores are 90, but 10 n for the tuned model with pictures: its mean is 40, and 50 less than without them."""
    answers, scores = judged_modalities(asked, {f"tuned q{n}@multimodal": 10.0 * n for n in range(9)})
    judged = by_modality(answers, scores)
    assert judged.conditions == ["base/text_only", "base/multimodal", "tuned/text_only", "tuned/multimodal"]
    measured = {one.condition: one for one in misalignment(judged, "aligned_mean", base="base/multimodal")}
    assert measured["tuned/multimodal"].value == 40 and measured["tuned/text_only"].value == 80
    assert measured["tuned/multimodal"].floor == 80 and measured["tuned/multimodal"].families == 9
    found = difference(judged, "aligned_mean", "tuned/multimodal", "tuned/text_only")
    assert (found.value, found.pairs, found.families) == (-40, 9, 9)
    other = ResultTable.create(None, spec={}, plan=["all"], provenance={})
    other.commit("all", [{"condition": "base", "prompt": "x", "sample": 0, "text": "y", "finished": True}])
    with pytest.raises(ValueError, match="1 answers are to prompts without a modality, the first 'x'"):
        by_modality(other, scores)
