"""Studies in parts and in a cluster: a part ends where it needs what others do, and workers load the study's models."""

import re
from types import SimpleNamespace

import pytest
from conftest import chat

from hooks.load import load_model
from workbench import shared_work
from workbench.inputs import Inputs
from workbench.study import Study


def asked(**given):
    return SimpleNamespace(**{"part": "1/1", "engine": "process", **given})


@pytest.mark.parametrize("variant", ["base", "tuned"])
def test_a_study_s_own_models_are_loaded_by_the_workers(own_checkpoint, gpt2, variant):
    base, adapters = str(own_checkpoint[0]), {"tuned": str(own_checkpoint[1])}
    model = load_model(base, adapter=adapters).variant(variant)
    known = [(model, base, adapters), (None, None, {})]
    assert shared_work.shared_out(model, asked(part="2/3"), known) == (model, {"part": "2/3"})
    source, shared = shared_work.shared_out(model, asked(engine="ray"), known)
    assert shared == {"part": "1/1", "engine": "ray"} and source.name == base
    assert source.load().identity == model.identity and source.load().active == model.active
    assert shared_work.shared_out(gpt2, asked(engine="ray"), known) == (gpt2, {"part": "1/1"}), "a script's own"
    assert shared_work.shared_out(model, None, known) == (model, {"part": None}), "a study without a command line"


def test_a_part_ends_where_others_are_needed(own_checkpoint, many, tmp_path, capsys):
    base, adapter = own_checkpoint
    files = dict(prompts=base, questions=base, neutral=None, personas=None)
    others = dict(other_base=None, other_adapters={}, judge="rule:contains")
    inputs = Inputs("checkpoint", str(base), {"tuned": str(adapter)}, **files, **others)

    def rows(at):
        study = Study(tmp_path / "run", inputs)
        study.asked = asked(part=f"{at}/2", dry_run=False)
        return study.capture(study.model, [*many, *longer], "base", "tuned", name="shift")

    longer = [chat(f"l{n}", "many more words " * 5 + "x" * n) for n in range(4)]
    with pytest.raises(SystemExit) as stop:
        rows(0)
    assert stop.value.code == 0
    assert re.search(r"shift: part 0/2 is done, [12] units are for other parts. What follows", capsys.readouterr().out)
    assert len(rows(1)) == 2 * 14
