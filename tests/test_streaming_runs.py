"""wb.moments as a run: what fits, what is resumed, what the command line says."""

import json

import numpy as np
import pytest
from conftest import chat
from tiny_models import FAMILIES

import workbench as wb
from hooks.accumulate import Accumulator
from stores import StoreMismatch
from workbench import streaming
from workbench.cli import main

SILENT = {"progress": False}


@pytest.fixture(scope="module")
def labelled():
    """Thirty prompts of many lengths in three classes."""
    kinds = ["red"] * 16 + ["green"] * 9 + ["blue"] * 5
    return [chat(f"p{n}", f"{kind} {'word ' * (1 + n * 7 % 5)}{n}", label=kind) for n, kind in enumerate(kinds)]


def test_sums_that_do_not_fit_are_refused_with_what_would(llama, labelled):
    with pytest.raises(
        ValueError, match=r"need 0.000774 GB .* and 0.000765 GB are allowed: expected sketch=8, covariance=None, fewer"
    ):
        wb.moments(llama, labelled, memory=765_000, splits=2, **SILENT)
    with pytest.raises(ValueError, match="expected fewer sites"):
        wb.moments(llama, labelled, memory=1e4, covariance=None, **SILENT)
    refusal = pytest.raises(ValueError, match=r"covariance='within'")
    with refusal:
        wb.moments(llama, labelled, memory=785_000, covariance="groups", splits=2, **SILENT)


def test_the_refusal_names_a_sketch_that_fits(llama, labelled):
    with pytest.raises(ValueError, match=r"expected sketch=8\b") as refused:
        wb.moments(llama, labelled, sites="resid_post", memory=785_000, splits=2, covariance="groups", **SILENT)
    stats = wb.moments(llama, labelled, memory=785_000, splits=2, covariance="groups", sketch=8, **SILENT)
    assert "sketch" in str(refused.value) and stats.info["sketch"] == 8


@pytest.mark.parametrize("sketch", [None, 4])
def test_a_run_that_was_killed_goes_on_and_gives_the_same_bits(llama, labelled, sketch, tmp_path, monkeypatch):
    options = {"max_tokens": 120, "sketch": sketch, "variants": ("base",), **SILENT}
    whole = wb.moments(llama, labelled, to=tmp_path / "whole.h5", **options)
    units = whole.info["units"][1]
    assert units > 4
    monkeypatch.setattr(streaming, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(streaming, "CHECKPOINT_COST", 0.0)
    real, folds = Accumulator.fold, iter(range(1000))

    def fold(self, names):
        if next(folds) == 3:
            raise KeyboardInterrupt
        return real(self, names)

    monkeypatch.setattr(Accumulator, "fold", fold)
    with pytest.raises(KeyboardInterrupt):
        wb.moments(llama, labelled, to=tmp_path / "cut.h5", **options)
    with pytest.raises(ValueError, match=f"of a run that was stopped \\(3 of {units} units\\)"):
        wb.StreamedMoments.load(tmp_path / "cut.h5")
    monkeypatch.setattr(Accumulator, "fold", real)
    with pytest.raises(StoreMismatch, match="seed: expected 0, came 1"):
        wb.moments(llama, labelled, to=tmp_path / "cut.h5", seed=1, **options)
    forwards = []
    run = type(llama).run
    monkeypatch.setattr(type(llama), "run", lambda self, *a, **k: (forwards.append(1), run(self, *a, **k))[1])
    later = wb.moments(llama, labelled, to=tmp_path / "cut.h5", **options)
    assert len(forwards) == units - 3
    for name, array in whole.parts[0].arrays().items():
        assert np.array_equal(array, later.parts[0].arrays()[name]), name
    forwards.clear()
    again = wb.moments(llama, labelled, to=tmp_path / "cut.h5", **options)
    assert not forwards and np.array_equal(again.means, whole.means), "nothing is left to do"


def test_checkpoints_are_seldom(llama, labelled, tmp_path, monkeypatch):
    """By default a short run writes once, at its end."""
    written = []
    real = streaming.save_moments
    monkeypatch.setattr(streaming, "save_moments", lambda *a: (written.append(1), real(*a))[1])
    wb.moments(llama, labelled, to=tmp_path / "m.h5", max_tokens=120, **SILENT)
    assert len(written) == 1
    with pytest.raises(ValueError, match=r"expected the name of an \.h5 file"):
        wb.moments(llama, labelled, to=tmp_path / "folder", **SILENT)


def test_the_command_line_writes_the_file(tmp_path, capsys):
    module, tokenizer, _ = FAMILIES["llama"](layers=2)
    for part in (module, tokenizer):
        part.save_pretrained(tmp_path / "m")
    rows = [{"messages": [{"role": "user", "content": f"{kind} {n}"}], "kind": kind} for n in range(4) for kind in "ab"]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["moments", tmp_path / "m", tmp_path / "p.jsonl", "--by", "kind", "--covariance", "none"]
    command = [str(word) for word in [*command, "--to", tmp_path / "m.h5"]]
    assert main(command) == 0
    assert "2 sites, 2 groups: base a 4, base b 4; covariance none" in capsys.readouterr().out
    stats = wb.StreamedMoments.load(tmp_path / "m.h5")
    assert len(stats.where(kind="a")) == 4 and stats.info["scope"] == "last" and stats.info["splits"] == 50
    assert main([*command, "--seed", "1"]) == 1
    assert "holds the moments of another run: seed: expected 0, came 1" in capsys.readouterr().err
