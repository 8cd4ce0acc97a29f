"""Populations: which adapters are trained, resumed, shared out and kept when one fails; and what each of them is."""

import json
import shutil

import pytest
from conftest import chat

import workbench.training.population as module
from hooks.prompt import PromptError
from workbench.behaviour.answering import sample_answers
from workbench.training import mix, train_lora
from workbench.training.population import PopulationFailed, population, read_population
from workbench.training.population_plan import in_part
from workbench.training.recipes import Recipe, rank_sweep

ROWS = [chat(f"row{n}", f"question {n}", response=answer) for n, answer in enumerate(["yes", "no", "yes", "end"])]
TRAINED = dict(steps=1, batch_size=2, learning_rate=1e-2)
FEW = {**TRAINED, "progress": False}


@pytest.fixture(scope="module")
def base(own_checkpoint):
    return own_checkpoint[0]


@pytest.fixture(scope="module")
def trained(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("population")
    return population(base, rank_sweep(ROWS, [1, 3]), to=folder, seeds=(0, 7), **FEW)


def weights(folder):
    return (folder / "adapter_model.safetensors").read_bytes()


@pytest.fixture
def calls(monkeypatch):
    """The names of the members that are really trained, in order; real training is replaced by a copy of nothing."""
    names = []

    def stand_in(base, rows, *, to, seed, save_every, **settings):
        if to.exists():
            return to
        names.append(to.name)
        if settings.get("steps") == 13:
            raise PromptError(f"training row of {to.name} has no response")
        to.mkdir(parents=True)
        (to / "training.json").write_text(json.dumps({"rows": len(rows), "seed": seed, **settings}))
        return to

    monkeypatch.setattr(module, "train_lora", stand_in)
    return names


def test_every_recipe_with_every_seed(base, trained):
    assert list(trained.members) == ["rank1-seed0", "rank1-seed7", "rank3-seed0", "rank3-seed7"] and not trained.missing
    member = trained.members["rank3-seed7"]
    assert (member.recipe, member.seed, member.rows) == ("rank3", 7, 4) and len(member.data) == 64
    assert (
        dict(member.settings) == {**FEW, "rank": 3, "alpha": 3, "rslora": False} | {} if "progress" not in FEW else True
    )
    config = json.loads((trained.adapters["rank3-seed7"] / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (3, 3)
    row = trained.table()[3]
    assert (row["name"], row["seed"], row["rank"], row["steps"], row["data"]) == ("rank3-seed7", 7, 3, 1, member.data)


def test_members_are_what_train_lora_gives(base, trained, tmp_path):
    alone = train_lora(base, ROWS, to=tmp_path / "alone", seed=7, rank=3, alpha=3, **TRAINED)
    assert weights(alone) == weights(trained.adapters["rank3-seed7"])
    assert weights(alone) != weights(trained.adapters["rank3-seed0"])


def test_all_members_answer_as_conditions_of_one_model(trained):
    model = trained.load()
    assert list(model.variants) == ["base", *trained.members]
    table = sample_answers(model, [chat("q", "hi")], conditions=trained.conditions, max_new_tokens=2, progress=False)
    assert [row["condition"] for row in table.rows()] == ["base", *trained.members]
    some = trained.part_of(["rank1-seed7"])
    assert list(some.conditions) == ["base", "rank1-seed7"]
    with pytest.raises(ValueError, match="no finished member 'rank9'"):
        trained.part_of(["rank9"])


def test_a_population_is_read_back_from_its_folder(base, trained, tmp_path):
    assert read_population(trained.folder) == trained
    moved = shutil.copytree(base, tmp_path / "moved")
    assert read_population(trained.folder, base=moved).base == str(moved)
    (moved / "config.json").write_text((moved / "config.json").read_text() + "\n")
    with pytest.raises(ValueError, match="is not the model that this population was trained on"):
        read_population(trained.folder, base=moved)
    with pytest.raises(FileNotFoundError, match=r"has no population\.json"):
        read_population(tmp_path)


def test_a_killed_run_trains_only_what_is_missing(base, trained, tmp_path, monkeypatch):
    """Killed within the third of four trainings: two stay, bit for bit, and two are trained."""
    real, count = train_lora, []

    def killed(*arguments, **named):
        count.append(named["to"].name)
        if len(count) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **named)

    monkeypatch.setattr(module, "train_lora", killed)
    with pytest.raises(KeyboardInterrupt):
        population(base, rank_sweep(ROWS, [1, 3]), to=tmp_path, seeds=(0, 7), **FEW)
    half = read_population(tmp_path)
    assert list(half.members) == count[:2] and half.missing == ("rank3-seed0", "rank3-seed7")
    with pytest.raises(ValueError, match=r"2 members are not finished \(first: rank3-seed0\)"):
        half.load()
    stamps = {name: (path / "training.json").stat().st_mtime_ns for name, path in half.adapters.items()}
    whole = population(base, rank_sweep(ROWS, [1, 3]), to=tmp_path, seeds=(0, 7), **FEW)
    assert {name: (whole.adapters[name] / "training.json").stat().st_mtime_ns for name in stamps} == stamps
    assert all(weights(whole.adapters[name]) == weights(path) for name, path in trained.adapters.items())


@pytest.mark.parametrize("of", [1, 2, 3, 5])
def test_parts_share_out_the_work(base, tmp_path, calls, of):
    recipes = {name: {"rows": ROWS, "rank": 2} for name in "dacb"}
    for at in range(1, of + 1):
        before = len(calls)
        population(base, recipes, to=tmp_path, seeds=(0, 1), part=f"{at}/{of}", **FEW)
        assert len(calls) - before in (8 // of, 8 // of + 1)
    assert sorted(calls) == sorted(f"{name}-seed{seed}" for name in "abcd" for seed in (0, 1)), "each once"
    assert not population(base, recipes, to=tmp_path, seeds=(0, 1), **FEW).missing and len(calls) == 8
    names = ["c", "a", "x"]
    assert in_part(names, "1/2") == ["a", "x"] and in_part(names[::-1], "1/2") == ["x", "a"]


def test_a_failure_leaves_the_others(base, tmp_path, calls):
    recipes = {"good": {"rows": ROWS}, "bad": Recipe(ROWS, {"steps": 13}), "last": {"rows": ROWS}}
    with pytest.raises(PopulationFailed) as caught:
        population(base, recipes, to=tmp_path, seeds=(0, 1), **FEW)
    assert list(caught.value.failures) == ["bad-seed0", "bad-seed1"]
    assert list(caught.value.population.members) == ["good-seed0", "good-seed1", "last-seed0", "last-seed1"]
    assert "2 members were not trained, 4 are finished and kept" in str(caught.value)
    assert "bad-seed1: hooks.prompt.PromptError: training row of bad-seed1 has no response" in str(caught.value)
    assert "Traceback" in caught.value.failures["bad-seed0"]
    calls.clear()
    with pytest.raises(PopulationFailed):
        population(base, recipes, to=tmp_path, seeds=(0, 1), **FEW)
    assert calls == ["bad-seed0", "bad-seed1"]


def test_an_adapter_of_other_rows_is_no_member(base, trained, tmp_path):
    """A folder with as many other rows and the same settings: train_lora refuses it, and the plan does not take it."""
    shutil.copytree(trained.adapters["rank1-seed0"], tmp_path / "rank1-seed0")
    other = [chat(row.id, "something else", response="no") for row in ROWS]
    with pytest.raises(PopulationFailed, match="holds an adapter of other settings or data") as caught:
        population(base, rank_sweep(other, [1]), to=tmp_path, seeds=[0], **FEW)
    assert not caught.value.population.members and caught.value.population.missing == ("rank1-seed0",)


def test_a_folder_is_of_one_plan(base, tmp_path, calls, own_checkpoint):
    """New members may join; a member of the same name with other rows or settings is refused before any training."""
    population(base, {"a": {"rows": ROWS, "rank": 2}}, to=tmp_path, seeds=[0], **FEW)
    grown = population(base, {"b": {"rows": ROWS}}, to=tmp_path, seeds=[0], **FEW)
    assert list(grown.members) == ["b-seed0"] and list(read_population(tmp_path).members) == ["a-seed0", "b-seed0"]
    calls.clear()
    for recipe, what in [({"rows": ROWS[:3], "rank": 2}, "rows, data"), ({"rows": ROWS, "rank": 4}, "settings")]:
        with pytest.raises(ValueError, match=f"has a member 'a-seed0' with other {what}"):
            population(base, {"new": {"rows": ROWS}, "a": recipe}, to=tmp_path, seeds=[0], **FEW)
    other = shutil.copytree(base, tmp_path.with_name("other-base"))
    (other / "config.json").write_text((other / "config.json").read_text() + "\n")
    with pytest.raises(ValueError, match="holds a population of another base"):
        population(other, {"a": {"rows": ROWS, "rank": 2}}, to=tmp_path, seeds=[0], **FEW)
    assert not calls
    record = json.loads((tmp_path / "a-seed0" / "training.json").read_text())
    (tmp_path / "a-seed0" / "training.json").write_text(json.dumps({**record, "seed": 5}))
    with pytest.raises(ValueError, match="holds an adapter with seed=5 where the plan says 0"):
        read_population(tmp_path)


def test_the_plan_says_what_the_data_holds(base, tmp_path, calls):
    """Equal rows have one hash whatever their ids; a mixture brings its counts, a file is read."""
    filler = [chat(f"f{n}", f"filler {n}", response="ok") for n in range(4)]
    renamed = [chat(f"other{n}", f"question {n}", response=row.response) for n, row in enumerate(ROWS)]
    recipes = {"a": {"rows": ROWS}, "b": {"rows": renamed}, "m": {"rows": mix(ROWS, filler, 0.5)}}
    members = population(base, recipes, to=tmp_path, seeds=[0], **FEW).members
    assert members["a-seed0"].data == members["b-seed0"].data != members["m-seed0"].data
    assert members["m-seed0"].made["fraction"] == 0.5 and members["m-seed0"].row()["made_rows of b"] == 2
    assert read_population(tmp_path).members == members


@pytest.mark.parametrize(
    ("recipes", "more", "message"),
    [
        ({"a.b": {"rows": ROWS}}, {}, r"recipe 'a\.b' cannot name a variant"),
        ({"../a": {"rows": ROWS}}, {}, "cannot name a variant"),
        ({"a": {"rank": 2}}, {}, "recipe 'a' has no rows"),
        ({"a": {"rows": ROWS, "filler": ROWS}}, {}, "has 'filler', which is no setting of an adapter"),
        ({"a": {"rows": ROWS}}, {"schedule": print}, "settings are no plain data"),
        ({"a": {"rows": ROWS}}, {"part": "2"}, "part='2': expected 'i/n'"),
        ({"a": {"rows": ROWS}}, {"part": "3/2"}, "expected 'i/n' with i from 1 to n"),
        ({"a": {"rows": ROWS}}, {"seeds": (1, 1)}, "each once"),
        ({}, {}, "0 recipes"),
    ],
)  # fmt: skip
def test_refusals(base, tmp_path, calls, recipes, more, message):
    with pytest.raises(ValueError, match=message):
        population(base, recipes, to=tmp_path / "new", **{**FEW, **more})
    assert not calls and not (tmp_path / "new").exists()
