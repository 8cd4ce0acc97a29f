"""TransformerLens may never install packages: for some image processors it runs pip by itself."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import transformers
from conftest import chat
from tiny_lm import LANGUAGE_MODELS
from tiny_models import FAMILIES, byte_tokenizer

from hooks.backends.lens import InstallRefused
from hooks.load import load_model


@pytest.fixture
def started(monkeypatch):
    """Every process that something tries to start, none of which starts."""
    commands = []

    def refuse(*arguments, **named):
        commands.append(arguments)
        raise AssertionError(f"a process was about to start: {arguments}")

    for home, names in ((subprocess, ("Popen", "run", "call", "check_call")), (os, ("system", "posix_spawn", "execv"))):
        for name in names:
            monkeypatch.setattr(home, name, refuse)
    return commands


def test_nothing_is_installed_when_an_image_processor_needs_torchvision(started, monkeypatch):
    """What TransformerLens does where a processor cannot be read: its own function, its own trigger."""
    load_model(LANGUAGE_MODELS["llama"](), byte_tokenizer(), backend="transformer_lens")
    from transformer_lens.model_bridge.sources.transformers import helpers

    def unreadable(*arguments, **named):
        raise ImportError("AutoProcessor requires the Torchvision library")

    monkeypatch.setitem(sys.modules, "torchvision", None)  # importing it fails, whether it is there or not
    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", unreadable)
    bridge = SimpleNamespace(processor=None)
    with pytest.raises(InstallRefused, match=r"would run 'pip install torchvision'.*Install it yourself"):
        helpers.load_modality_processor(bridge, SimpleNamespace(is_multimodal=True), "tiny", False, None)
    assert started == []


def test_nothing_is_installed_on_our_own_way(started, monkeypatch):
    """An image-text model without torchvision, wrapped as load_model does it."""
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setattr(transformers.AutoProcessor, "from_pretrained", None)
    model = load_model(*FAMILIES["gemma3"](), backend="transformer_lens")
    assert model.run(model.encode([chat("a", "hi")])).logits is not None and started == []


def test_the_trap_can_close(started):
    """The meta-test: TransformerLens' own function, unchanged, would have started a process."""
    import transformer_lens.model_bridge.sources.transformers.helpers as helpers

    source = ast.parse(Path(helpers.__file__).read_text())
    (installer,) = [
        node for node in source.body if isinstance(node, ast.FunctionDef) and node.name == "_ensure_torchvision"
    ]
    scope: dict = {}
    exec(compile(ast.Module([installer], []), "installer", "exec"), scope)
    assert scope["_ensure_torchvision"]() in (True, False)
    assert bool(started) is (importlib.util.find_spec("torchvision") is None)


def test_the_library_starts_processes_nowhere_else():
    """What a later version adds must be looked at before it runs on anybody's machine."""
    import transformer_lens

    home, found = Path(transformer_lens.__file__).parent, set()
    for file in home.rglob("*.py"):
        text = file.read_text()
        if "subprocess" in text or "os.system" in text or "pip.main" in text:
            found.add(str(file.relative_to(home)))
    assert found == {"model_bridge/sources/transformers/helpers.py"}
