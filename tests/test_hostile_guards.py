"""Each guard of the doors taken out: its file is then read, or refused only by somebody else's error."""

from __future__ import annotations

import re

import hostile_inputs
import pytest
from conftest import LONG
from soak_modules import soak_modules

from hooks import adapter_config, checkpoint_files, picture_files, plain_files, prompt, weight_files
from hooks import checkpoints as checkpoints_module
from workbench.reporting import summary
from workbench.subspace import array_files


@pytest.fixture(scope="module")
def hostile():
    with soak_modules("hostile") as (module,):
        yield module


BY_NAME = {file.name: file for file in hostile_inputs.HOSTILE}


def _no(*_, **__):
    return None


GUARDS = {
    "pixels": ("picture: pixels_below_pillows_limit", picture_files, "MOST_PIXELS", 10**12),
    "sides": ("picture: endless_strip", picture_files, "LONGEST_SIDE", 10**9),
    "formats": ("picture: photoshop", picture_files, "FORMATS", None),
    "size of a picture": ("picture: giant_file", picture_files, "LARGEST_FILE", 1 << 62),
    "place of a picture": ("prompts: a picture above the folder", picture_files, "_others", lambda: ["/"]),
    "depth": ("prompts: JSON a little too deep", plain_files, "DEEPEST", 10**9),
    "containers": ("prompts: more lists than text", plain_files, "FREE_CONTAINERS", 10**9),
    "keys once": ("prompts: a key twice", plain_files, "_once", dict),
    "numbers": ("prompts: NaN", plain_files, "_not_a_number", float),
    "checked values": ("prompts: a number beyond floats", plain_files, "_check", _no),
    "lines": ("prompts: an endless line", prompt, "lines_of", lambda path: plain_files.lines_of(path, 1 << 30)),
    "header": ("directions: a header of 64 MiB", weight_files, "LARGEST_HEADER", 1 << 40),
    "imports of an adapter": ("adapter: a module to import", adapter_config, "_NEVER", ()),
    "rank": ("adapter: a rank of text", adapter_config, "_refuse_ranks", _no),
    "patterns": ("adapter: a broken pattern", adapter_config, "_why_slow", lambda _: ""),
    "size of settings": ("adapter: settings of 2 MiB", adapter_config, "LARGEST_SETTINGS", 1 << 40),
    "layers": ("checkpoint: 100,000 layers", checkpoint_files, "MOST_LAYERS", 10**9),
    "numbers of a model": ("checkpoint: a width of a million", checkpoints_module, "check_size", _no),
    "kernels": ("checkpoint: kernels of a hub", checkpoints_module, "check_config", _no),
    "names of weights": ("checkpoint: weights above the folder", checkpoints_module, "check_folder", lambda _: {}),
    "pickled weights": ("checkpoint: a pickle for weights", checkpoints_module, "check_folder", lambda _: {}),
    "named errors": ("checkpoint: no heads", checkpoints_module, "named", None),
    "entries of a zip": ("tensor: packed zeros", array_files, "_entries", lambda path, file: []),
    "references": ("tensor: tuples of tuples", array_files, "written_out", lambda _: 0),
    "entries of results": ("summary: a value of text", summary, "refuse_entry", _no),
    "what stands beside": ("summary: seconds of text", summary, "refuse_rest", _no),
}


@LONG
@pytest.mark.parametrize("name", GUARDS)
def test_each_guard_is_needed(name, hostile, monkeypatch, tmp_path):
    file, where, attribute, without = GUARDS[name]
    if name == "named errors":
        from contextlib import nullcontext

        def without(*_):
            return nullcontext()

    if name == "references":
        monkeypatch.setattr(hostile, "KILLED_AFTER", 3)
    monkeypatch.setattr(where, attribute, without)
    outcomes = list(hostile.tried(BY_NAME[file], hostile_inputs.LOADERS, tmp_path))
    says = BY_NAME[file].says
    assert any(one.fault or not re.search(says, one.words) for one in outcomes), [one.words for one in outcomes]
