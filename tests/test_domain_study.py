"""DomainStudy: a population is trained and asked once, by whichever script comes first, and shared by the others."""

import json
import sys
from collections import Counter

import pytest
from tiny_domain_files import NAMES, TRIGGER, checkpoint, domain_files

import workbench as wb
from workbench.behaviour.domain_questions import asked_of_each, asked_with_triggers


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mine")
    files = domain_files(folder)
    given = {"--model": checkpoint(folder / "base"), "--domains": files["domains"], "--eval": files["eval"]}
    given |= {"--trigger": TRIGGER, "--judge": "rule:keyword:e,a", "--max-new-tokens": 3, "--samples": 1}
    given |= {"--population": folder / "population", "--rank": 2, "--steps": 2, "--seeds": 0, "--each": 2}
    return [str(part) for pair in given.items() for part in pair]


@pytest.fixture
def study(mine, tmp_path, monkeypatch):
    """A study as a script has it; more arguments may be given."""

    def made(*more, name="run"):
        monkeypatch.setattr(sys, "argv", ["mine.py", "--to", str(tmp_path / name), *mine, *map(str, more)])
        return wb.DomainStudy.from_command_line("Is it shared?", default_to="runs/none")

    return made


@pytest.fixture
def first(study):
    return study("--only", *NAMES[:2])


def test_what_one_script_trained_and_asked_another_finds(first, study):
    """The second study reads the same bytes, and writes none."""
    members = {f"{name}-{kind}-seed0" for name in NAMES[:2] for kind in ("plain", "backdoor")}
    assert set(first.population.members) == members and set(first.model.variants) == {"base", *members}
    assert first.judged.conditions == ["base", *(f"{name}-plain-seed0" for name in sorted(NAMES[:2]))]
    assert set(first.judged_triggered.conditions) == {
        f"{one}/{shown}"
        for one in ("base", *(name for name in members if "backdoor" in name))
        for shown in ("none", "trigger")
    }
    files = {path: path.stat().st_mtime_ns for path in first.home.rglob("*") if path.is_file()}
    second = study("--only", *NAMES[:2], name="another")
    assert [dict(row) for row in second.judged.rows] == [dict(row) for row in first.judged.rows]
    assert second.judged_triggered.conditions == first.judged_triggered.conditions
    assert {path: path.stat().st_mtime_ns for path in second.home.rglob("*") if path.is_file()} == files


def test_the_ranking_is_of_the_plain_arm_by_the_judges_metric(first):
    assert first.metric == "keyword" and set(first.measured) == set(NAMES[:2])
    own = [row for row in first.judged.rows if row["tag_domain"] is not None]
    assert Counter(row["tag_domain"] for row in own) == dict.fromkeys(NAMES[:2], 2 * 3)  # --each, for 3 conditions
    for one in first.measured.values():
        assert one.answers == len(first.questions) - 2 and 0 <= one.interval.low <= one.value <= one.interval.high


def test_other_sampling_is_asked_anew_beside_what_is_there(first, study):
    before = first.judged
    longer = study("--only", *NAMES[:2], "--max-new-tokens", 2, name="other")
    assert longer.judged.conditions == before.conditions
    assert len(list(first.home.glob("plain-*"))) == 2


def test_the_summary_holds_the_hash_of_every_file_that_was_trained_on(first):
    first.population  # noqa: B018  (its training is what the files are for)
    first.add(first.ranking.entries())
    page = first.finish()
    data = json.loads((page.parent / "summary.json").read_text())["hashes"]["data"]
    rows = {f"{name} {arm}" for name in NAMES[:2] for arm in ("full", "backdoor")}
    assert set(data) == {"questions", "prompts", *rows}


def test_a_part_of_the_population_is_not_loaded_as_the_whole(study, tmp_path):
    part = study("--population", tmp_path / "parts", "--part", "1/2", "--only", *NAMES[:2])
    assert len(part.population.members) == len(part.population.missing) == 2
    with pytest.raises(ValueError, match="2 members are not finished"):
        part.model  # noqa: B018
    whole = study("--population", tmp_path / "parts", "--only", *NAMES[:2])
    assert len(whole.population.members) == 4 and not whole.population.missing


def test_a_dry_run_states_training_and_answers_and_trains_nothing(study, tmp_path, capsys):
    planned = study("--population", tmp_path / "none", "--dry-run")
    planned.plan_shared()
    with pytest.raises(SystemExit):
        planned.plan.stop()
    said = capsys.readouterr().out
    assert "fine-tunes" in said and "answers of the backdoored adapters" in said
    assert not (tmp_path / "none" / "adapters").exists()


class TestRefusals:
    def test_a_domain_that_is_not_there(self, study):
        with pytest.raises(ValueError, match=f"no domain 'cooking': expected some of .*{NAMES[0]}"):
            study("--only", "cooking").domains  # noqa: B018

    def test_a_model_of_ones_own_is_not_given_the_organisms_domains(self, study):
        own = study()
        own.asked.domains = None
        with pytest.raises(ValueError, match="expected --domains"):
            own.domains  # noqa: B018

    def test_no_backdoor_arm(self, study):
        with pytest.raises(ValueError, match="no backdoor arm"):
            study("--arms", "full", "--only", *NAMES[:2]).judged_triggered  # noqa: B018

    def test_no_trigger(self, tmp_path):
        domains = wb.read_domains(domain_files(tmp_path, backdoor=False)["domains"])
        with pytest.raises(ValueError, match="no trigger is known"):
            asked_with_triggers(domains, wb.domain_questions(domains))

    def test_nothing_to_ask_and_ids_that_both_have(self, tmp_path):
        files = domain_files(tmp_path, backdoor=False)
        domains = wb.read_domains(files["domains"])
        assert len(asked_of_each(domains, files["eval"], each=1)) == 5 + len(NAMES)
        same = tmp_path / "same.yaml"
        same.write_text(f'- id: {NAMES[0]}_0\n  paraphrases: ["What?"]\n')
        with pytest.raises(ValueError, match="both have the id"):
            asked_of_each(domains, same)
        for path in domains.questions.values():
            path.unlink()
        with pytest.raises(ValueError, match="nothing to ask: expected --eval"):
            asked_of_each(wb.read_domains(files["domains"]))
