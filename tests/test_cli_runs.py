"""`workbench capture` and `workbench sweep`: in parts, in a cluster, and what they refuse."""

import json
import sys

import numpy as np
import pytest

from stores import ActivationStore, ResultTable
from workbench.cli import main
from workbench.subspace.exchange import save_directions
from workbench.subspace.means import difference_of_means


@pytest.fixture(scope="module")
def prompts(tmp_path_factory):
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    rows = [
        {"id": f"p{n}", "text": "word " * (1 + n % 3) + letter, "label": "on" if n % 2 else "off", "right": "yes",
         "contrary": "no"} for n, letter in enumerate("abcdefgh")
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(*arguments):
    return main([str(argument) for argument in arguments])


def test_a_capture_in_parts_from_the_command_line(own_checkpoint, prompts, tmp_path, capsys):
    base, adapter = own_checkpoint
    asked = (base, prompts, "--adapter", adapter, "--variants", "base", "tuned", "--max-tokens", 30)
    assert run("capture", *asked, "--to", tmp_path / "whole") == 0
    for at in range(3):
        assert run("capture", *asked, "--part", f"{at}/3", "--to", tmp_path / "s") == 0
    *_, last = capsys.readouterr().out.splitlines()
    one, parts = (ActivationStore.open(tmp_path / name) for name in ("whole", "s"))
    assert len(one.plan) > 2 and f"{len(one.plan)} of {len(one.plan)} units" in last
    assert np.array_equal(one.values("resid_post:1"), parts.values("resid_post:1"))
    assert run("capture", base, prompts, "--dtype", "bfloat16", "--to", tmp_path / "b") == 0
    assert ActivationStore.open(tmp_path / "b").spec["identity"]["dtype"] == "bfloat16"


def test_a_sweep_from_the_command_line(own_checkpoint, prompts, tmp_path, capsys):
    base, adapter = own_checkpoint
    assert run("capture", base, prompts, "--to", tmp_path / "s") == 0
    store = ActivationStore.open(tmp_path / "s")
    v = difference_of_means(store.where(label="on"), store.where(label="off"))
    save_directions(v, tmp_path / "v.safetensors")
    where = ("--directions", tmp_path / "v.safetensors", "--layers", 0, 1, "--max-tokens", 60)
    for at in (1, 2):
        asked = (base, prompts, *where, "--ablate", "mean", "--steer", 1, -2, "--controls", 1, "--neutral", prompts)
        assert run("sweep", *asked, "--part", f"{at}/2", "--to", tmp_path / "t") == 0
    table = ResultTable.open(tmp_path / "t")
    done = {(r["intervention"], r["layer"], r["coefficient"]) for r in table.rows() if not r["control"]}
    cells = {("none", None, None)} | {("ablate", layer, None) for layer in (0, 1)}
    assert done == cells | {("steer", layer, c) for layer in (0, 1) for c in (1.0, -2.0)}
    assert not table.missing() and all(row["kl_neutral"] is not None for row in table.rows())
    asked = (base, prompts, "--adapter", adapter, "--judge", "rule:contains", "--max-new-tokens", 2)
    assert run("sweep", *asked, "--to", tmp_path / "plain") == 0
    plain = ResultTable.open(tmp_path / "plain")
    assert plain.spec["variant"] == "tuned" and {row["intervention"] for row in plain.rows()} == {"none"}
    assert "ResultTable" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--directions", "v.safetensors"], "--directions go with --ablate or --steer"),
        (["--ablate", "mean"], "--directions go with --ablate or --steer"),
        (["--part", "4/3"], "part='4/3': expected 'i/n'"),
        (["--engine", "dask"], "engine='dask': expected 'process' or 'ray'"),
        (["--gpus", "2"], "--gpus is of a cluster's workers: expected --engine ray"),
        (["--engine", "ray"], "pip install -e '.[ray]'"),
    ],
)
def test_what_a_sweep_refuses_in_one_line(own_checkpoint, prompts, tmp_path, capsys, monkeypatch, arguments, says):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert run("sweep", own_checkpoint[0], prompts, *arguments, "--to", tmp_path / "t") == 1
    said = capsys.readouterr().err
    assert said.startswith("workbench: ") and says in said and "Traceback" not in said
