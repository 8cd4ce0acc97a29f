"""Code of a checkpoint's own runs when the user says so, and is then part of the model's identity; and the doors are
the only places that open what others wrote."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hostile_weights import checkpoint, settings, written

import workbench as wb
from hooks.plain_files import Refused
from hooks.prompt import PromptError
from workbench.cli import main

ROOT = Path(__file__).resolve().parent.parent
OWN = """from transformers import LlamaConfig, LlamaForCausalLM
class OwnConfig(LlamaConfig):
    model_type = "own_llama"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    from transformers import dynamic_module_utils
    from transformers.utils import hub

    for place in (dynamic_module_utils, hub):
        monkeypatch.setattr(place, "HF_MODULES_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path / "cache")
    folder = checkpoint(tmp_path)
    mapped = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    settings("config.json", model_type="own_llama", auto_map=mapped)(folder)
    written("own.py", OWN)(folder)
    return folder


def test_code_of_a_checkpoint_runs_only_when_the_user_says_so_and_is_recorded(own):
    with pytest.raises(Refused, match=r"custom code.*trust_remote_code=True"):
        wb.load_model(own, check=False)
    model = wb.load_model(own, check=False, trust_remote_code=True)
    said = model.identity["remote_code"]
    assert said["classes"] == ["OwnConfig", "OwnModel"] and len(said["sha256"]) == 64
    assert model.facts["model"]["remote_code"] == said, "so it stands in the provenance of whatever is captured"
    written("own.py", OWN + "# changed\n")(own)
    assert wb.load_model(own, check=False, trust_remote_code=True).identity["remote_code"] != said


def test_commands_run_it_only_when_the_user_says_so(own, tmp_path, capsys):
    (tmp_path / "rows.jsonl").write_text('{"id": "a", "text": "one two", "response": "no"}\n')
    for command, file in (("capture", "store.json"), ("train", "training.json")):
        asked = [command, str(own), str(tmp_path / "rows.jsonl"), "--to", str(tmp_path / command)]
        more = ["--steps", "1", "--rank", "1"] if command == "train" else []
        assert main([*asked, *more]) == 1 and "--trust-remote-code, runs it" in capsys.readouterr().err
        assert main([*asked, *more, "--trust-remote-code"]) == 0
        record = (tmp_path / command / file).read_text()
        assert '"remote_code"' in record and "OwnModel" in record, "what was run is recorded"


def test_a_checkpoint_without_code_says_nothing_of_it(tmp_path):
    folder = checkpoint(tmp_path)
    plain, trusted = (wb.load_model(folder, check=False, trust_remote_code=on) for on in (False, True))
    assert plain.identity == trusted.identity and "remote_code" not in plain.identity


def test_pictures_elsewhere_are_read_when_the_user_says_where(tmp_path, monkeypatch):
    from hostile_rows import _shows

    path = _shows("../a.png")(tmp_path)
    (prompt,) = wb.read_prompts(path, pictures=tmp_path)
    assert prompt.images[0].is_file()
    with pytest.raises(PromptError, match="lies outside"):
        wb.read_prompts(path, pictures=tmp_path / "data")
    monkeypatch.setenv("WORKBENCH_PICTURES", str(tmp_path))
    assert wb.read_prompts(path)[0].images == prompt.images


# The call, and the files that may make it.
DOORS = {
    "torch.load": {"workbench/subspace/array_files.py"},
    "np.load": {"workbench/subspace/array_files.py"},
    "numpy.load": set(),
    "load_file": {"hooks/weight_files.py"},
    "safe_open": {"workbench/subspace/exchange.py"},
    "Image.open": {"hooks/picture_files.py", "workbench/behaviour/plain_images.py"},
    "yaml.load": set(),
    "yaml.SafeLoader": {"workbench/behaviour/yaml_files.py"},
    "pickle.load": set(),
    "pickle.loads": set(),
    "eval": set(),
    "exec": set(),
    "os.system": set(),
    "urlopen": set(),
    "zipfile.ZipFile": {"workbench/subspace/array_files.py"},
}


def calls_in(source: str) -> list[ast.Call]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]


def sources() -> list[Path]:
    return [file for room in ("hooks", "stores", "workbench", "experiments") for file in (ROOT / room).rglob("*.py")]


@pytest.mark.parametrize("call", DOORS)
def test_one_door_for_each_kind_of_file(call):
    found = {
        str(file.relative_to(ROOT))
        for file in sources()
        if f"{call}(" in (text := file.read_text()) and any(ast.unparse(one.func) == call for one in calls_in(text))
    }
    assert found == DOORS[call]


def test_every_checkpoint_is_read_with_a_word_on_its_code():
    """`from_pretrained` of transformers asks at the terminal, or runs what it finds, unless it is told."""
    silent = []
    for file in sources():
        text = file.read_text()
        for call in calls_in(text) if ".from_" in text else ():
            said = {keyword.arg for keyword in call.keywords}
            theirs = isinstance(call.func, ast.Attribute) and call.func.attr in ("from_pretrained", "from_config")
            if theirs and "Peft" not in ast.unparse(call.func) and "trust_remote_code" not in said | {None} & said:
                starred = [ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg is None]
                if starred not in (["options"], ["_from(revision, trusted)"]):
                    silent.append(f"{file.relative_to(ROOT)}: {ast.unparse(call)[:90]}")
    assert not silent, silent
    (load,) = [one for one in calls_in((ROOT / "workbench/subspace/array_files.py").read_text())
               if ast.unparse(one.func) == "torch.load"]  # fmt: skip
    assert {one.arg: ast.unparse(one.value) for one in load.keywords}["weights_only"] == "True"
