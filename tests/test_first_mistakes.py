"""What a new user gets wrong in the first hour: each mistake is told with what came and how to mend it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from peft import LoraConfig
from tiny_adapters import noisy_adapter
from tiny_models import FAMILIES

import workbench as wb
from hooks.adapter_files import adapters_from
from hooks.load import load_model
from hooks.plain_files import nearest
from hooks.prompt import PromptError, as_prompts, read_prompts
from workbench.training.adapters import whole_settings

CHAT = {"id": "a", "messages": [{"role": "user", "content": "hi"}]}
LINES = {
    "other columns": ('{"question": "hi", "answer": "ho"}', r"keys: 'question', 'answer'.*\"messages\""),
    "pictures as a column": (
        '{"text": "hi", "images": ["1.png"]}',
        r"'images' names a picture that no model would see",
    ),
    "one picture": (json.dumps(CHAT | {"image": "a/1.JPG"}), r"'image' names a picture"),
    "one document": (f"[{json.dumps(CHAT)}]", r"got list\. \(Of a list in one document, write each object on a line"),
    "a line that breaks off": ('{"id": "a", "text": "hi"\n', r"at column 25"),
}


@pytest.mark.parametrize("name", LINES)
def test_a_line_that_is_read_otherwise_elsewhere(name, tmp_path):
    line, said = LINES[name]
    (tmp_path / "p.jsonl").write_text(line)
    with pytest.raises(PromptError, match=said):
        read_prompts(tmp_path / "p.jsonl")


def test_a_tag_may_be_called_image_where_it_names_none(tmp_path):
    (tmp_path / "p.jsonl").write_text(json.dumps(CHAT | {"image": "of a cow", "images": [3]}))
    assert read_prompts(tmp_path / "p.jsonl")[0].tags == {"image": "of a cow", "images": [3]}


def test_files_of_other_kinds_and_misspelt_ones(tmp_path):
    (tmp_path / "prompts.jsonl").write_text(json.dumps(CHAT))
    (tmp_path / "p.csv").write_text("id,text\n")
    with pytest.raises(PromptError, match=r"no JSONL.*wb\.read_table"):
        read_prompts(tmp_path / "p.csv")
    with pytest.raises(PromptError, match=r"prompt.jsonl does not exist.*Is '.*prompts.jsonl' meant"):
        read_prompts(tmp_path / "prompt.jsonl")
    with pytest.raises(PromptError, match=r"is a folder: expected a JSONL file, one prompt a line\.$"):
        read_prompts(tmp_path)
    assert nearest(tmp_path / "quite-another") == nearest("/no/such/folder/a") == ""


@pytest.fixture
def as_users_run_it(monkeypatch):
    """Without the types of the arguments, which are checked while tests run and nowhere else."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def test_prompts_are_no_texts(as_users_run_it):
    listed: list[Any] = [["hi"], [{"text": "hi"}]]
    for given in listed:
        with pytest.raises(PromptError, match=r"a prompt is (str|dict): expected wb\.Prompt\(id, text=\.\.\.\)"):
            as_prompts(given)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A text model, an image-text model, and an adapter of the first."""
    home = tmp_path_factory.mktemp("folders")
    llama, tokenizer, _ = FAMILIES["llama"]()
    llama.save_pretrained(home / "my-llama")
    tokenizer.save_pretrained(home / "my-llama")
    gemma, _, processor = FAMILIES["gemma3"]()
    gemma.save_pretrained(home / "my-gemma")
    processor.save_pretrained(home / "my-gemma")
    noisy_adapter(home / "my-lora", llama, LoraConfig(r=2, target_modules=["q_proj"]))
    return home


def test_a_model_that_is_not_where_it_is_looked_for(folders, monkeypatch):
    monkeypatch.chdir(folders)
    with pytest.raises(FileNotFoundError, match=r"my-lama is no folder here.*HF_HUB_OFFLINE.*Is 'my-llama' meant"):
        load_model("my-lama")
    with pytest.raises(FileNotFoundError, match=r"does not exist.*Is 'my-llama' meant"):
        load_model("./my-lama")
    with pytest.raises(FileNotFoundError, match=r"holds an adapter: load_model\(BASE, adapter='my-lora'\)"):
        load_model("my-lora")


def test_an_adapter_that_is_none_or_not_there(folders, monkeypatch, llama):
    monkeypatch.chdir(folders)
    for name, said in {"my-loro": "no such folder. Is 'my-lora' meant", "my-gemma": "holds a whole model"}.items():
        with pytest.raises(FileNotFoundError, match=said):
            adapters_from(llama.module, {"tuned": Path(name)}, "")


def test_an_adapter_of_other_modules_or_sizes(folders, tmp_path, recwarn):
    settings = json.loads((folders / "my-lora/adapter_config.json").read_text())
    settings |= {"base_model_name_or_path": "somebody/some-base"}
    other = shutil.copytree(folders / "my-lora", tmp_path / "lora")
    (other / "adapter_config.json").write_text(json.dumps(settings))
    module, tokenizer, _ = FAMILIES["gpt2"]()
    with pytest.raises(ValueError, match=r"does not fit this model \(.*not found.*names 'somebody/some-base'"):
        load_model(module, tokenizer, adapter=other, check=False)
    loaded = load_model(folders / "my-llama", adapter=other, check=False)  # a base of another name may be the same one
    assert loaded.variants == ("base", "tuned")
    assert not [one for one in recwarn if "config file" in str(one.message)], "peft has looked for that base"


def test_what_a_checkpoint_lacks(folders, tmp_path):
    mute = shutil.copytree(folders / "my-llama", tmp_path / "mute")
    for file in mute.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ValueError, match=r"tokenizer.* of .*mute"):
        load_model(mute)
    sightless = shutil.copytree(folders / "my-gemma", tmp_path / "sightless")
    (sightless / "processor_config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"reads pictures, and has no processor.*those of its base"):
        load_model(sightless)


def test_words_that_torch_does_not_know(folders):
    with pytest.raises(ValueError, match=r"dtype 'bf16' is unknown: expected 'auto'.*'bfloat16'"):
        load_model(folders / "my-llama", dtype="bf16")
    assert load_model(folders / "my-llama", dtype=torch.bfloat16, check=False).dtype == torch.bfloat16
    with pytest.raises(ValueError, match=rf"device='cuda:99' is not seen by torch {re.escape(torch.__version__)}"):
        load_model(folders / "my-llama", device="cuda:99")


def test_a_model_that_is_blind_takes_no_pictures(picture):
    """The check-up found it; without pictures, and where nobody asked, it is a model like others."""
    module, tokenizer, processor = FAMILIES["gemma3"]()
    with torch.no_grad():
        module.model.multi_modal_projector.mm_input_projection_weight.zero_()
    asked = [wb.Prompt("p", text="what is this", pictures=(picture,))]
    model = load_model(module, tokenizer, processor=processor)
    with pytest.raises(PromptError, match=r"'p' has images, but the check-up found .*no effect.*check=False"):
        model.encode(asked)
    assert len(model.encode([wb.Prompt("t", text="what is this")])) == 1
    assert len(load_model(module, tokenizer, processor=processor, check=False).encode(asked)) == 1


def test_a_sweep_of_other_things(llama, prompts, as_users_run_it):
    sweep: Any = wb.sweep
    generate: Any = wb.generate
    tagged = [wb.Prompt("a", text="hi", tags={"right": "a", "contrary": "b"})]
    cell = _Nothing()
    for cells, said in (
        (cell, r"cells is _Nothing: expected a list of interventions"),
        ("ablate", r"cells is str"),
        (["ablate"], r"an intervention is str: expected wb\.Ablate"),
    ):
        with pytest.raises(TypeError, match=said):
            sweep(llama, tagged, cells, progress=False)
    with pytest.raises(TypeError, match=r"judge is 'rule:contains': expected what wb\.judge gives"):
        sweep(llama, tagged, [cell], judge="rule:contains", progress=False)
    with pytest.raises(TypeError, match=r"an intervention is str"):
        generate(llama, prompts, "ablate")


class _Nothing:
    def edits(self, model):
        return {}

    def describe(self):
        return {}


def test_a_training_of_other_things(llama, prompts, tmp_path, as_users_run_it):
    with pytest.raises(TypeError, match=r"train_lora\(base\) is HuggingFaceModel: expected a checkpoint folder"):
        wb.train_lora(llama, prompts, to=tmp_path / "lora")
    with pytest.raises(ValueError, match=r"recipe 'paper_c' is unknown: expected one of .*paper_a"):
        whole_settings("paper_c", {})


def test_a_page_of_what_is_no_sweep(llama, prompts, tmp_path):
    wb.capture(llama, prompts[:2], to=tmp_path / "store", progress=False)
    with pytest.raises(ValueError, match=r"holds activations: expected the folder of a sweep"):
        wb.report(tmp_path / "store")
    wb.sample_answers(llama, prompts[:1], to=tmp_path / "answers", max_new_tokens=1, progress=False)
    with pytest.raises(ValueError, match=r"holds answers: expected the folder of a sweep"):
        wb.report(tmp_path / "answers")


@pytest.mark.parametrize(
    ("name", "said"), [("differnce_of_means", r": is difference_of_means"), ("qqqqqq", r"help\(workbench\) lists")]
)
def test_a_name_that_is_nearly_one(name, said):
    with pytest.raises(AttributeError, match=said):
        getattr(wb, name)
