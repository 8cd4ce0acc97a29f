"""Processors with pillow alone: what AutoProcessor refuses without torchvision, and what is said where it cannot be
mended."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest
import torch
import transformers
from seeing import FAMILIES, Seen
from tiny_processors import tokens

from hooks.load import load_model
from hooks.processors import NoVideos, load_processor, pictures_identity, processor_class

HAS_TORCHVISION = importlib.util.find_spec("torchvision") is not None
without_torchvision = pytest.mark.skipif(
    HAS_TORCHVISION, reason="torchvision is installed, so AutoProcessor works by itself; uninstall it to run this"
)
# Whose processor AutoProcessor cannot make without torchvision (num2words for SmolVLM).
MENDED = (
    "llava_onevision",
    "smolvlm",
    "internvl",
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "glm4v",
    "pixtral",
    "mistral3",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    saved = {}

    def folder(family: str) -> Path:
        if family not in saved:
            saved[family] = FAMILIES[family]().save(tmp_path_factory.mktemp(family))
        return saved[family]

    return folder


def pixels(processor, seen_size=(32, 32)):
    from PIL import Image

    return processor.image_processor(images=[[Image.new("RGB", seen_size, (200, 30, 90))]], return_tensors="pt")


@without_torchvision
@pytest.mark.parametrize("family", list(FAMILIES))
def test_pictures_are_read_with_pillow_alone(folders, family):
    folder = folders(family)
    if family in MENDED:
        with pytest.raises((ImportError, ValueError, AttributeError)):  # the meta-test: there is something to mend
            transformers.AutoProcessor.from_pretrained(folder)
    processor = load_processor(str(folder))
    assert type(processor).__name__ == processor_class(str(folder)).__name__ == FAMILIES[family]().processor
    assert type(processor.image_processor).__name__.endswith("Pil")
    assert torch.isfinite(pixels(processor)["pixel_values"]).all()


@without_torchvision
@pytest.mark.parametrize("family", MENDED)
def test_transformers_is_left_as_it_was(folders, family):
    from transformers.models.smolvlm import processing_smolvlm

    check = vars(transformers.ProcessorMixin)["check_argument_for_proper_class"]
    load_processor(str(folders(family)))
    assert vars(transformers.ProcessorMixin)["check_argument_for_proper_class"] is check
    assert not processing_smolvlm.num2words
    assert not [name for name in sys.modules if re.search(r"\.image_processing_pixtral$", name)]


@without_torchvision
def test_videos_are_refused_with_the_install_command(folders):
    processor = load_processor(str(folders("qwen3_vl")))
    assert isinstance(processor.video_processor, NoVideos)
    with pytest.raises(ImportError, match=r"videos need torchvision: expected `pip install -e '\.\[vision\]'`"):
        processor(text=["<video>"], videos=[torch.zeros(2, 3, 8, 8)])


@without_torchvision
@pytest.mark.parametrize("family", ["qwen2_vl", "smolvlm", "pixtral"])
def test_a_mended_processor_can_be_saved_and_read_again(folders, family, tmp_path):
    first = load_processor(str(folders(family)))
    first.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes((folders(family) / "config.json").read_bytes())
    again = load_processor(str(tmp_path))
    assert type(again).__name__ == type(first).__name__ and again.chat_template == first.chat_template
    for name, value in pixels(first).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, pixels(again)[name])


@without_torchvision
def test_a_family_without_a_pillow_class_says_what_to_install(tmp_path):
    """Llama4's image processor exists over torchvision only."""
    tokens().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama4"}))
    (tmp_path / "processor_config.json").write_text(json.dumps({"processor_class": "Llama4Processor"}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"image_processor_type": "Llama4ImageProcessor"}))
    with pytest.raises(
        ImportError, match=r"cannot be read with pillow alone .*expected torchvision, by `pip install -e"
    ):
        load_processor(str(tmp_path))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise RuntimeError('operator torchvision::nms does not exist')", "operator torchvision::nms does not exist"),
        ("import torchvision._of_another_torch", "No module named"),
    ],
    ids=["ops of another torch", "half an install"],
)
@pytest.mark.parametrize("family", ["gemma3", "qwen3_vl"])
def test_a_torchvision_of_another_torch_is_named(folders, family, tmp_path, monkeypatch, source, said):
    """It breaks even the families that need no torchvision; said before the weights are read."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(source)
    folder = folders(family)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=f"your torchvision does not match your torch .*{said}.* Expected the pair"):
        load_model(folder)
    assert "torchvision" not in sys.modules


def test_a_processor_of_the_users_own_is_taken(tmp_path):
    seen = Seen("llava", tmp_path)
    own = load_processor(str(tmp_path))
    model = load_model(seen.model.module, processor=own, check=False)
    assert model.encoder.processor is own and model.tokenizer is own.tokenizer
    assert load_model(tmp_path, processor=own, check=False).encoder.processor is own


def test_what_decides_the_pixels_is_part_of_the_identity(folders):
    processor = load_processor(str(folders("llava")))
    before = pictures_identity(processor)
    assert re.fullmatch(r"CLIPImageProcessor(Pil)? [0-9a-f]{16}", before["pictures"])
    assert pictures_identity(load_processor(str(folders("llava")))) == before
    processor.image_processor.do_normalize = False
    assert pictures_identity(processor) != before
    assert pictures_identity(None) == {}


@without_torchvision
def test_another_missing_package_is_not_called_torchvision(folders, monkeypatch):
    def missing(*_, **__):
        raise ImportError("No module named 'sentencepiece'")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", missing)
    with pytest.raises(ImportError, match=r"^No module named 'sentencepiece'$"):
        load_processor(str(folders("qwen2_vl")))


def test_one_file_knows_torchvision():
    root = Path(__file__).parent.parent
    files = [file for room in ("hooks", "workbench", "stores") for file in (root / room).rglob("*.py")]
    knows = [
        file.name for file in files if re.search(r"import(_module)?\W+torchvision|from torchvision", file.read_text())
    ]
    assert knows == ["processors.py"]
