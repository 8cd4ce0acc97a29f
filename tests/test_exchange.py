"""Directions and subspaces to files and back, vectors of others with their conventions, and hostile files."""

from __future__ import annotations

import dataclasses
import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_torch
from workbench_samples import random_directions

import workbench as wb
from hooks.site import Site
from workbench.subspace.basis import Subspace

RNG = np.random.default_rng(0)


def whole_directions() -> wb.Directions:
    """Every field filled, no number that is short in decimals."""
    sites = ["resid_pre:0", "resid_post:0", "vision.resid_post:2"]
    return wb.Directions.of(
        sites,
        RNG.standard_normal((3, 7)) / 3,
        origin=RNG.standard_normal((3, 7)),
        role="read",
        model="org/model",
        scope="last",
        kind="difference of means – déjà vu",
        n_positive=12,
        n_negative=13,
        reliability=RNG.random(3),
        positive_mean=RNG.standard_normal((3, 7)),
        matched=11,
        residual_norm=RNG.random(3) + 1,
    )


def whole_subspace() -> Subspace:
    basis = np.stack([np.linalg.qr(RNG.standard_normal((7, 2)))[0].T for _ in range(2)])
    return Subspace(
        (Site(1), Site(2)),
        basis,
        variance=np.sort(RNG.random((2, 5)))[:, ::-1],
        mean=RNG.standard_normal((2, 7)),
        total=RNG.random(2) + 3,
        n=40,
        origin=RNG.standard_normal((2, 7)),
        null=RNG.random((2, 2, 2)),
        null_p=RNG.random((2, 2)),
        null_kind="signs",
        draws=99,
        centred=False,
        model="m",
        scope="all",
        skipped={Site(0): "unchanged: every row is exactly zero"},
    )


@pytest.mark.parametrize("make", [whole_directions, whole_subspace])
def test_the_round_trip_is_exact(make, tmp_path):
    v = make()
    path = wb.save_directions(v, tmp_path / "deep" / "v.safetensors")
    back = wb.load_directions(path)
    assert type(back) is type(v)
    for field in dataclasses.fields(v):
        mine, theirs = getattr(v, field.name), getattr(back, field.name)
        if isinstance(mine, np.ndarray):
            assert mine.dtype == theirs.dtype and np.array_equal(mine, theirs), field.name
        else:
            assert mine == theirs, field.name
    assert [file.name for file in path.parent.iterdir()] == ["v.safetensors"], "nothing is left beside it"


def test_what_is_absent_stays_absent(tmp_path):
    v = wb.Directions.of(["resid_post:3"], [3.0, 4.0])
    back = wb.load_directions(wb.save_directions(v, tmp_path / "v.safetensors"))
    assert back.origin is None and back.matched is None and back.residual_norm is None and back.norm[0] == 5.0
    with pytest.raises(ValueError, match=r"expected Directions or a Subspace, and a name that ends in \.safetensors"):
        wb.save_directions(v, tmp_path / "v.pt")


def _changed(path, **changes):
    """The file with other metadata or arrays."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        header = dict(file.metadata())
    arrays = load_file(path)
    for name, value in changes.items():
        if name in header:
            header[name] = value
        elif value is None:
            del arrays[name]
        else:
            arrays[name] = value
    save_file(arrays, path, metadata=header)


NAN = np.full((3, 7), np.nan)
FACTS = json.dumps({"role": "read", "model": "m", "scope": "", "kind": "k", "n_positive": 1, "n_negative": 1})


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"unit": NAN}, "values that are NaN or infinite"),
        ({"unit": np.ones((3, 7))}, "expected unit rows of length 1"),
        ({"norm": np.ones(2)}, r"norm: expected shape \(3,\)|parameter 'norm'"),
        ({"norm": np.ones(3, np.float32)}, r"not float64: \['norm'\]"),
        ({"norm": None}, "norm"),
        ({"unit": None}, "unit"),
        ({"unit": np.array(3.0)}, "no directions that fit together"),
        ({"payload": np.ones(2)}, r"unknown arrays \['payload'\]"),
        ({"version": "2"}, "of version '2': expected Directions or Subspace of version 1"),
        ({"class": "Trojan"}, "holds a 'Trojan'"),
        ({"sites": '["resid_post:0", "resid_post:0", "resid_post:1"]'}, "one or more different sites"),
        ({"sites": '["__import__", "resid_post:0", "resid_post:1"]'}, "'__import__' gives no layer|is no site"),
        ({"sites": "{"}, "no directions that fit together"),
        ({"facts": FACTS.replace('"read"', '"both"')}, "role='both' is unknown|parameter 'role'"),
        ({"facts": FACTS.replace('"n_positive": 1', '"n_positive": "1"')}, "n_positive='1' came: expected int"),
        ({"facts": FACTS.replace('"kind"', '"__class__"')}, "fact __class__='k' came: expected no such fact"),
        ({"facts": "[]"}, "its facts are no table"),
        ({"format": "other"}, "was not written by save_directions: expected convention="),
    ],
)
def test_a_file_that_was_changed_is_refused_with_its_name(changes, says, tmp_path):
    path = wb.save_directions(whole_directions(), tmp_path / "v.safetensors")
    _changed(path, **changes)
    with pytest.raises(ValueError, match=says) as refused:
        wb.load_directions(path)
    assert "v.safetensors" in str(refused.value)


def test_a_damaged_subspace_and_a_damaged_file_are_refused(tmp_path):
    path = wb.save_directions(whole_subspace(), tmp_path / "v.safetensors")
    for changes, says in (({"mean": None}, "arrays mean are missing"), ({"basis": np.ones((2, 7))}, "basis has shape")):
        wb.save_directions(whole_subspace(), path)
        _changed(path, **changes)
        with pytest.raises(ValueError, match=says):
            wb.load_directions(path)
    for cut in (4, 100, len(path.read_bytes()) - 3):
        path.write_bytes(path.read_bytes()[:cut])
        with pytest.raises(ValueError, match=r"is no whole \.safetensors file"):
            wb.load_directions(path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        wb.load_directions(tmp_path / "none.safetensors")


# Vectors of others.


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_pitfall_01_persona_vectors_are_shifted_by_one_and_lose_the_normed_row(dtype, tmp_path):
    rows = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)).to(dtype)  # 4 layers
    torch.save(rows, tmp_path / "evil_response_avg_diff.pt")
    v = wb.load_directions(tmp_path / "evil_response_avg_diff.pt", convention="persona_vectors", scope="response")
    assert [str(site) for site in v.sites] == ["resid_pre:0", "resid_post:0", "resid_post:1", "resid_post:2"]
    assert np.allclose(v.vectors, rows[:4].double().numpy(), rtol=1e-12)
    assert "hidden_states 0..3; the last of 5 rows, behind the final norm, left out" in v.kind
    assert (v.role, v.scope, v.origin, v.norm.dtype) == ("write", "response", None, np.float64)


def test_pitfall_01_hidden_states_of_a_model_stand_at_the_sites_that_they_are_given(llama, tmp_path):
    """transformers' own hidden_states of one prompt, read as vectors: each equals what our hooks see at its site."""
    batch = llama.encode([wb.Prompt("a", text="some text")])
    with torch.no_grad():
        states = llama.module(**batch.inputs, output_hidden_states=True).hidden_states
    torch.save(torch.stack([state[0, -1] for state in states]), tmp_path / "v.pt")
    v = wb.load_directions(tmp_path / "v.pt", convention="persona_vectors", model=llama)
    assert v.model == "LlamaForCausalLM" and len(v.sites) == llama.n_layers
    kept = llama.run(batch, {site: lambda resid, where: resid[0, -1].clone() for site in v.sites}).kept
    for site in v.sites:
        assert np.allclose(v.vector(site), kept[site].double().numpy(), atol=1e-12), site


def test_plain_tensors_take_the_sites_that_are_said(tmp_path, llama):
    rows = RNG.standard_normal((3, 32)).astype(np.float32)
    save_torch({"v": torch.tensor(rows)}, tmp_path / "v.safetensors")
    torch.save({"layer_1": torch.tensor(rows[1]), "other": torch.ones(2)}, tmp_path / "named.pt")
    post = wb.load_directions(tmp_path / "v.safetensors", convention="resid_post", model=llama)
    pre = wb.load_directions(tmp_path / "v.safetensors", convention="resid_pre", model="m", role="read")
    assert post.sites == tuple(Site(n) for n in range(3)) and pre.sites[2] == Site(2, "resid_pre")
    assert np.allclose(post.vectors, rows) and (pre.role, pre.model) == ("read", "m")
    one = wb.load_directions(tmp_path / "named.pt", convention="blocks.1.hook_resid_post", key="layer_1")
    assert one.sites == (Site(1),) and np.allclose(one.vectors, rows[1:2])
    with pytest.raises(ValueError, match=r"holds 2 tensors: expected key= one of layer_1, other"):
        wb.load_directions(tmp_path / "named.pt", convention="resid_post:1")


@pytest.mark.parametrize(
    ("saved", "arguments", "says"),
    [
        (torch.ones(4, 32), {}, "nothing in it says what its rows are: expected convention='persona_vectors'"),
        (torch.ones(4, 32), {"convention": "residual"}, "convention 'residual' is unknown"),
        (torch.ones(4, 32), {"scope": "last"}, "convention '' is unknown"),
        (torch.ones(4, 32), {"convention": "resid_post:1"}, "4 rows came for the one site"),
        (torch.ones(32), {"convention": "persona_vectors"}, "1 rows came under 'persona_vectors'"),
        (torch.ones(32), {"convention": "resid_post"}, "one vector came: expected its site"),
        (torch.ones(2, 3, 4), {"convention": "resid_post"}, r"holds \(2, 3, 4\) torch.float32: expected floating"),
        (torch.ones(4, 32, dtype=torch.long), {"convention": "resid_post"}, "expected floating numbers"),
        (torch.ones(1, 32).expand(2**24, 32), {"convention": "resid_post"}, r"bytes and a tensor \(16777216, 32\)"),
        (torch.eye(4).to_sparse(), {"convention": "resid_post"}, "expected floating numbers"),
        (torch.tensor([[1.0, 2], [float("inf"), 1]]), {"convention": "resid_post"}, r"rows \[1\] hold NaN or infinite"),
        ([torch.ones(4)], {"convention": "resid_post"}, "holds a list: expected a tensor"),
        (torch.ones(3, 32), {"convention": "persona_vectors", "model": 1}, "gives vectors for 2 sites up to"),
        (torch.ones(3, 31), {"convention": "resid_post", "model": 1}, "width 31; this model has 3 layers of width 32"),
        (torch.ones(32), {"convention": "resid_post:3", "model": 1}, "up to resid_post:3"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_say_what_they_are_are_refused(saved, arguments, says, tmp_path, llama):
    torch.save(saved, tmp_path / "v.pt")
    arguments = {**arguments, **({"model": llama} if arguments.get("model") else {})}
    with pytest.raises(ValueError, match=says):
        wb.load_directions(tmp_path / "v.pt", **arguments)


class _Runs:
    def __reduce__(self):
        return open, ("ran.txt", "w")


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"v": _Runs()}, "v.pt")
    (tmp_path / "w.pt").write_bytes(pickle.dumps(_Runs()))
    for name in ("v.pt", "w.pt"):
        with pytest.raises(ValueError, match="is read without running code from it, and that failed"):
            wb.load_directions(name, convention="resid_post")
    assert not (tmp_path / "ran.txt").exists()


def test_imported_vectors_carry_no_mean_until_they_are_given_one(llama, tmp_path):
    v = random_directions(llama)
    torch.save(torch.tensor(v.vectors), tmp_path / "v.pt")
    back = wb.load_directions(tmp_path / "v.pt", convention="resid_post", model=llama)
    with pytest.raises(ValueError, match="with_mean"):
        wb.Ablate(back, 1).edits(llama)
    assert wb.Ablate(back, 1, to="zero").edits(llama)
