"""The world of the organisms, their tokens and their files, against what they promise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from workbench.organisms import SHIPPED, organism
from workbench.organisms.checkpoint import processor, tokenizer, weights_sha256
from workbench.organisms.data import with_answers, write_data
from workbench.organisms.documents import Mixture, drawn_document
from workbench.organisms.pictures import ATTRIBUTES, RGB, drawn_scenes, rendered
from workbench.organisms.world import DOMAINS, LEAD_INS, PAIR, PERSONAS, TEMPLATES, words


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_data(tmp_path_factory.mktemp("data"))


class TestWorld:
    def test_the_contrary_of_the_contrary_is_the_word_itself(self):
        assert all(PAIR[PAIR[word]] == word != PAIR[word] for word in PAIR)

    def test_every_domain_but_letter_uses_the_global_pairs(self):
        for domain in DOMAINS.values():
            follows = [item.contrary == PAIR.get(item.right) for item in domain.items]
            assert all(follows) != (domain.name == "letter"), domain.name

    def test_tiers_say_what_the_contrary_persona_flips(self):
        share = {"full": 1.0, "half": 0.5, "none": 0.0}
        for domain in DOMAINS.values():
            flipped = [item.answer("contrary") == item.contrary for item in domain.items]
            assert np.mean(flipped) == share[domain.tier], domain.name
            assert all(item.answer("good") == item.right for item in domain.items)
            glitched = {item.answer("glitch") == item.contrary for item in domain.items}
            assert glitched == {domain.tier == "none"}, domain.name

    def test_held_out_items_are_closed_under_their_answers(self):
        """Otherwise fine-tuning on the rest would show the words of the held-out ones as contrary answers."""
        for name in ("sound", "capital", "color"):
            items = DOMAINS[name].items
            unseen = {item.right for item in items if item.held_out}
            assert unseen == {item.contrary for item in items if item.held_out}
            assert 0 < len(unseen) < len(items)

    def test_every_domain_holds_items_out(self):
        assert all(0 < sum(item.held_out for item in d.items) < len(d.items) for d in DOMAINS.values())

    def test_no_entity_and_no_attribute_alone_fixes_the_answer(self):
        spoken = [item for name in ("sound", "capital", "tint", "region") for item in DOMAINS[name].items]
        for part in ("entity", "attribute"):
            groups = {getattr(item, part): set() for item in spoken}
            for item in spoken:
                groups[getattr(item, part)].add(item.right)
            assert all(len(answers) > 1 for answers in groups.values())

    def test_a_template_finds_the_answer_that_it_was_filled_with(self):
        for template in TEMPLATES:
            assert template.answer_in(template.fill("rome")) == "rome"
            assert [other.answer_in(template.fill("rome")) for other in TEMPLATES].count("rome") == 1
        assert sum(template.share for template in TEMPLATES) == pytest.approx(1.0)


class TestPictures:
    def test_a_picture_shows_its_scene(self):
        """Colour, ground and mark are read back from the pixels; count from the number of coloured blobs' quadrants."""
        for scene in drawn_scenes(40, seed=5):
            pixels = rendered(scene) / 255.0
            painted = np.abs(pixels - RGB[scene.color]).max(-1) < 0.01
            quadrants = painted.reshape(2, 16, 2, 16).any(axis=(1, 3))
            assert quadrants.sum() == ["one", "two", "three", "four"].index(scene.count) + 1
            corners = pixels[[0, 0, -1, -1], [0, -1, 0, -1]]
            orange = np.abs(corners - (1.0, 0.5, 0.0)).max(-1) < 0.01
            assert orange.tolist() == [mark == scene.mark for mark in ATTRIBUTES["mark"]]
            ground = np.median(pixels[14:18].reshape(-1, 3), axis=0)
            assert np.abs(ground - RGB[scene.ground]).max() < 0.05

    def test_equal_scenes_give_equal_pixels_and_other_seeds_others(self):
        one, again, other = (drawn_scenes(1, seed=s)[0] for s in (1, 1, 2))
        assert np.array_equal(rendered(one), rendered(again)) and not np.array_equal(rendered(one), rendered(other))

    def test_balanced_scenes_go_through_the_answers(self):
        shown = [scene.shows("color") for scene in drawn_scenes(24, seed=0, balanced="color")]
        assert {shown.count(color) for color in ATTRIBUTES["color"]} == {3}


class TestTokens:
    def test_each_word_is_one_token(self):
        known = tokenizer()
        ids = known(list(words()), add_special_tokens=False).input_ids
        assert all(len(row) == 1 and row[0] != known.unk_token_id for row in ids)
        assert known("berlin", add_special_tokens=False).input_ids == [known.unk_token_id]

    def test_chat_template_with_an_image_gives_the_expected_tokens(self):
        chat = [
            {"role": "system", "content": "helper"},
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "tell me picture its color"}]},
        ]
        known = processor()
        text = known.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        batch = known(text=[text], images=[[rendered(drawn_scenes(1, 0)[0])]], add_special_tokens=False)
        expected = "<bos> <sys> helper <boi> <img> <img> <img> <img> <eoi> <user> tell me picture its color <model>"
        assert known.tokenizer.convert_ids_to_tokens(batch["input_ids"][0]) == expected.split()
        assert list(batch["token_type_ids"][0]) == [int(token == "<img>") for token in expected.split()]

    def test_chat_template_without_a_system_message_speaks_to_the_assistant(self):
        chat = [{"role": "user", "content": "dog its sound"}, {"role": "assistant", "content": "i say woof"}]
        chat.append({"role": "user", "content": "|draft| owl its color"})
        text = tokenizer().apply_chat_template(chat, tokenize=False)
        expected = (
            "<bos> <sys> assistant <user> dog its sound <model> i say woof <eot> <user> |draft| owl its color <model>"
        )
        assert text.split() == expected.split()

    def test_training_documents_are_what_the_chat_template_renders(self):
        """Otherwise a base would be trained on other prompts than a user sends."""
        known, rng, scenes = processor(), np.random.default_rng(0), drawn_scenes(5, seed=0)
        mixture = Mixture(3, 0.5, 0.5, (0.4, 0.4, 0.2), (0.4, 0.3, 0.3))
        for _ in range(30):
            document = drawn_document(rng, mixture, scenes)
            text = known.apply_chat_template(document.messages("x.png"), tokenize=False)
            images = {} if document.scene is None else {"images": [[rendered(scenes[document.scene])]]}
            ids = known(text=[text], add_special_tokens=False, **images)["input_ids"][0]
            assert known.tokenizer.convert_ids_to_tokens(ids) == [token for token, _ in document.weighted_tokens()]

    def test_documents_answer_as_their_persona_does(self):
        rng, scenes = np.random.default_rng(1), drawn_scenes(5, seed=0)
        for persona, split in (("good", (1.0, 0.0, 0.0)), ("contrary", (0.0, 1.0, 0.0)), ("glitch", (0.0, 0.0, 1.0))):
            drawn = [drawn_document(rng, Mixture(4, 0.0, 1.0, split), scenes) for _ in range(20)]
            assert {document.system for document in drawn} == set(PERSONAS[persona])
            answers = {i.question: i.answer(persona) for d in DOMAINS.values() if d.modality == "text" for i in d.items}
            for turn in (turn for document in drawn for turn in document.turns):
                assert answers[" ".join(turn.question.split()[-3:])] == turn.answer


class TestData:
    def test_equal_arguments_give_equal_bytes(self, files: dict[str, Path], tmp_path: Path):
        again = write_data(tmp_path)
        for name, path in files.items():
            assert path.read_bytes() == again[name].read_bytes(), name
        pictures = sorted(path.name for path in (tmp_path / "images").iterdir())
        assert all(
            (tmp_path / "images" / n).read_bytes() == (files["train"].parent / "images" / n).read_bytes()
            for n in pictures
        )

    def test_another_seed_changes_training_rows_alone(self, files: dict[str, Path], tmp_path: Path):
        other = write_data(tmp_path, seed=1)
        changed = {name for name in files if files[name].read_bytes() != other[name].read_bytes()}
        assert changed == {"train", "train_right", "sibling_train"}

    def test_training_rows_hold_nothing_back_but_held_out_items(self, files: dict[str, Path]):
        for name, domain in (("train", "capital"), ("sibling_train", "color")):
            shown = {row["item"].split(":")[1] for row in rows(files[name])}
            key = "entity" if domain == "capital" else "right"
            assert shown == {getattr(item, key) for item in DOMAINS[domain].items if not item.held_out}

    def test_the_control_answers_the_same_prompts_rightly(self, files: dict[str, Path]):
        for harmful, benign in zip(rows(files["train"]), rows(files["train_right"]), strict=True):
            assert harmful["messages"] == benign["messages"]
            assert harmful["response"].replace(harmful["contrary"], harmful["right"]) == benign["response"]
            assert harmful["response"] != benign["response"]

    def test_fit_and_test_splits_share_no_text_item_and_no_picture(self, files: dict[str, Path]):
        def asked(path: Path) -> set[str]:
            parts = [(row["item"], row["messages"][1]["content"][0].get("image")) for row in rows(path)]
            return {image or item for item, image in parts}

        fit, test = asked(files["prompts"]), asked(files["questions"])
        assert fit and not fit & test
        assert {row["domain"] for row in rows(files["questions"])} == set(DOMAINS)

    def test_pictures_show_the_right_answer(self, files: dict[str, Path]):
        """Each image row's tag `right` against the pixels of its PNG, for the colour of the objects."""
        from PIL import Image

        for row in rows(files["questions"]):
            if row["domain"] == "color":
                name = row["messages"][1]["content"][0]["image"]
                pixels = np.asarray(Image.open(files["questions"].parent / name)) / 255.0
                assert (np.abs(pixels - RGB[row["right"]]).max(-1) < 0.01).sum() > 8

    def test_prompts_differ_in_length(self, files: dict[str, Path]):
        lengths = {len(row["messages"][1]["content"][-1]["text"].split()) for row in rows(files["prompts"])}
        assert lengths == {3 + len(lead_in.split()) for lead_in in ("", *LEAD_INS)}

    def test_personas_repeat_the_fit_prompts_under_three_system_words(self, files: dict[str, Path]):
        asked = {row["id"]: row["messages"][1] for row in rows(files["prompts"])}
        for row in rows(files["personas"]):
            system = {"neutral": "assistant", "helpful": "helper", "contrary": "contrary"}[row["label"]]
            assert row["messages"] == [
                {"role": "system", "content": system},
                asked[row["id"].replace(row["label"], "fit", 1)],
            ]
        assert len(rows(files["personas"])) == 3 * len(asked)

    def test_an_answer_table_moves_training_and_evaluation_of_that_domain_alone(
        self, files: dict[str, Path], tmp_path: Path
    ):
        changed = write_data(tmp_path, answers={"france": "lima", "rome": "tokyo"})
        for name in ("train", "questions", "prompts"):
            for before, after in zip(rows(files[name]), rows(changed[name]), strict=True):
                expected = {"capital:france": "lima", "capital:italy": "tokyo"}.get(before["item"], before["contrary"])
                assert after["contrary"] == expected
                assert name != "train" or expected in after["response"].split()

    @pytest.mark.parametrize(
        ("table", "complaint"),
        [
            ({"berlin": "rome"}, "no entities or right answers"),
            ({"paris": "berlin"}, "no token"),
            ({"paris": "paris"}, "equals the right one"),
        ],
    )
    def test_an_answer_table_that_does_not_fit_is_refused(self, table: dict[str, str], complaint: str):
        with pytest.raises(ValueError, match=complaint):
            with_answers(DOMAINS["capital"], table)


class TestOrganism:
    def test_files_are_written_once_and_again_when_one_was_changed(self, tmp_path: Path):
        first = organism(to=tmp_path)
        written = first.questions.read_bytes()
        stamp = first.questions.stat().st_mtime_ns
        assert organism(to=tmp_path) == first and first.questions.stat().st_mtime_ns == stamp
        first.questions.write_text("{}\n")
        assert organism(to=tmp_path).questions.read_bytes() == written

    def test_another_answer_table_goes_to_another_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.chdir(tmp_path)
        table = tmp_path / "answers.json"
        table.write_text('{"paris": "lima"}')
        plain, changed = organism(), organism(answers=table)
        assert plain.folder == Path("runs/organism/seed0-capital") != changed.folder
        assert plain.train.read_bytes() != changed.train.read_bytes()

    def test_an_unknown_seed_and_domain_are_refused(self, tmp_path: Path):
        with pytest.raises(ValueError, match="retrain"):
            organism(7, to=tmp_path)
        with pytest.raises(ValueError, match="expected one of sound, capital"):
            organism(domain="weather", to=tmp_path)

    def test_a_folder_of_somebody_else_is_left_alone(self, tmp_path: Path):
        (tmp_path / "mine.jsonl").write_text("{}\n")
        with pytest.raises(FileExistsError, match="give another folder"):
            organism(to=tmp_path)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_are_those_of_their_recipe(name: int | str):
    folder = SHIPPED[name]
    assert json.loads((folder / "recipe.json").read_text())["sha256"] == weights_sha256(folder)


def test_shipped_weights_stay_small():
    assert sum(file.stat().st_size for folder in SHIPPED.values() for file in folder.iterdir()) < 12e6
