"""What a sweep keeps of what it reads: one clean pass for capture and sweep together."""

import numpy as np
import pytest
from conftest import chat
from test_sweep import CONTAINS, SILENT
from workbench_samples import ask, cells_of

from stores import ActivationStore
from workbench.capturing import capture
from workbench.interventions.readout import prefilled
from workbench.interventions.sweep import sweep


def test_a_sweep_keeps_what_it_reads(llama, questions, tmp_path, monkeypatch):
    """The store is that of a capture of the same prompts, bit for bit, and no forward more was run for it."""
    runs = []
    own = type(llama).run
    monkeypatch.setattr(type(llama), "run", lambda *a, **k: runs.append(1) or own(*a, **k))
    options, cells = {"max_tokens": 100, **SILENT}, cells_of(llama)[:2]
    sweep(llama, questions, cells, **options)  # what the model allows is measured once
    runs.clear()
    sweep(llama, questions, cells, **options)
    alone = len(runs)
    table = sweep(
        llama, questions, cells_of(llama)[:2], to=tmp_path / "t", capture_to=tmp_path / "s", at="all", **options
    )
    assert len(runs) == 2 * alone
    kept = ActivationStore.open(tmp_path / "s")
    read = [prefilled(prompt) for prompt in questions]
    expected = capture(llama, read, at="all", max_tokens=100, to=tmp_path / "c", progress=False)
    assert kept.spec == expected.spec and not kept.missing() and len(kept.plan) > 1
    assert kept.prompt_ids == expected.prompt_ids and (kept.positions == expected.positions).all()
    for site in expected.sites:
        assert np.array_equal(kept.values(site), expected.values(site))
    # A table that stands already: what is missing of the store is read all the same.
    again = sweep(
        llama, questions, cells_of(llama)[:2], to=tmp_path / "t", capture_to=tmp_path / "s2", at="all", **options
    )
    assert again.rows() == table.rows()
    assert np.array_equal(ActivationStore.open(tmp_path / "s2").values("resid_post:0"), expected.values("resid_post:0"))


def test_what_cannot_be_kept_beside_a_sweep_is_refused(llama, gemma3, questions, tmp_path, picture):
    with pytest.raises(ValueError, match="only writes"):
        sweep(llama, [chat("x", "hi")], cells_of(llama)[:1], judge=CONTAINS, capture_to=tmp_path / "s", **SILENT)
    seen = [ask("seen", picture, "what?")]
    with pytest.raises(ValueError, match="vision tower is not captured beside"):
        sweep(gemma3, seen, cells_of(gemma3)[:1], capture_to=tmp_path / "v", sites="vision.resid_post:0", **SILENT)
