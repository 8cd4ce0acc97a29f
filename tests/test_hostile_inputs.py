"""Every hostile input with every loader that could meet it: a named error, at once, and nothing of it is run."""

from __future__ import annotations

import re
from pathlib import Path

import hostile_inputs
import pytest
from hostile_weights import RAN
from soak_modules import soak_modules


@pytest.fixture(scope="module")
def hostile():
    with soak_modules("hostile") as (module,):
        yield module


KINDS = sorted({file.kind for file in hostile_inputs.HOSTILE})


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_inputs_are_refused_by_name(kind, hostile, tmp_path):
    files = [file for file in hostile_inputs.HOSTILE if file.kind == kind]
    faults, tried = [], 0
    for file in files:
        for outcome in hostile.tried(file, hostile_inputs.LOADERS, tmp_path):
            tried += 1
            if outcome.fault or not re.search(file.says, outcome.words):
                faults.append(f"{file.name}, {outcome.loader}: {outcome.fault or outcome.words}")
    assert tried >= len(files) > 2 and not faults, "\n".join(faults)


@pytest.mark.parametrize("loader", hostile_inputs.LOADERS, ids=lambda one: one.name)
def test_sound_files_are_read(loader, tmp_path):
    """The meta-test of the one above: each door does open."""
    for kind in loader.meets:
        (folder := tmp_path / kind).mkdir()
        loader.load(hostile_inputs.SOUND[kind](folder))


def test_every_kind_has_a_loader_and_the_corpus_is_large():
    assert set(KINDS) == set(hostile_inputs.SOUND) == {kind for one in hostile_inputs.LOADERS for kind in one.meets}
    names = [file.name for file in hostile_inputs.HOSTILE]
    assert len(set(names)) == len(names) >= 200


RUNNING = [file for file in hostile_inputs.HOSTILE if re.search("pickle|code|that runs", file.name)]


@pytest.mark.parametrize("file", RUNNING, ids=lambda one: one.name)
def test_nothing_that_a_file_brings_is_run(file, tmp_path):
    path = file.make(tmp_path)
    for loader in hostile_inputs.LOADERS:
        if file.kind in loader.meets:
            with pytest.raises(loader.errors):
                loader.load(path)
    assert not list(tmp_path.rglob(RAN))


def test_the_trap_does_spring_where_a_pickle_is_trusted(tmp_path):
    """The meta-test of the one above."""
    import torch
    from hostile_weights import TENSORS

    path = TENSORS["a pickle that runs"][0](tmp_path)
    torch.load(Path(path), weights_only=False)
    assert list(tmp_path.rglob(RAN))
