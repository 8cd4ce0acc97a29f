"""Calls of a user that must fail, one for each error class: what the catalogue of errors raises."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import chat
from hostile_weights import settings
from store_samples import filled_store, new_store, stream
from test_ray_crew import StandIn
from test_selftest import wrapped
from tiny_lm import LANGUAGE_MODELS
from tiny_models import FAMILIES, byte_tokenizer

import workbench as wb
from stores import Block, Stream
from workbench.statistics import clustered
from workbench.training import refuse_lost_mask

SECRET = "hf_" + "x" * 34


class At:
    """Where an error is provoked: an empty folder, a patcher, a tiny model, and what is made of it when asked for."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, llama: Any) -> None:
        self.folder, self.patch, self.llama = folder, patch, llama
        self.prompts = [chat(name, text) for name, text in (("a", "hi"), ("b", "a longer question"))]

    @cached_property
    def table(self) -> wb.ResultTable:
        table = wb.ResultTable.create(self.folder / "table", spec={"k": 1}, plan=["u"], provenance={})
        table.commit("u", [{"cell": "base", "score": 0.5}])
        return table

    @cached_property
    def v(self) -> wb.Directions:
        sites = [wb.Site(0, "resid_pre"), *map(wb.Site, range(self.llama.n_layers))]
        return wb.Directions.of(sites, np.random.default_rng(0).normal(size=(len(sites), self.llama.d_model)))

    @cached_property
    def checkpoint(self) -> Path:
        module, tokenizer, _ = FAMILIES["llama"]()
        module.save_pretrained(self.folder / "model")
        tokenizer.save_pretrained(self.folder / "model")
        return self.folder / "model"

    def written(self, name: str, text: str) -> Path:
        (self.folder / name).write_text(text)
        return self.folder / name


def edits_nothing(at: At) -> object:
    return wb.generate(at.llama, at.prompts, wb.Steer(at.v, layer=1, at="image"), max_new_tokens=2, progress=False)


def without_cache(at: At) -> object:
    edits = wb.Steer(at.v, layer=1).edits(at.llama)
    return at.llama.generate(at.llama.encode(at.prompts), edits=edits, use_cache=False, max_new_tokens=3)


def breaks_a_promise(at: At) -> object:
    module, tokenizer, _ = FAMILIES["llama"]()
    wrapped(module.model.layers[1], lambda out, args, kwargs: out + 1e-2 * torch.randn_like(out))
    return wb.load_model(module, tokenizer)


def runs_code_of_the_checkpoint(at: At) -> object:
    mapped = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    settings("config.json", model_type="own", auto_map=mapped)(at.checkpoint)
    return wb.load_model(at.checkpoint)


def other_spec(at: At) -> object:
    return wb.ResultTable.create(at.table.path, spec={"k": 2}, plan=["u"], provenance={})


def damaged(at: At) -> object:
    filled_store(at.folder / "s")
    for shard in (at.folder / "s").rglob("*.h5"):
        shard.write_bytes(shard.read_bytes()[:-1])
    return wb.open_store(at.folder / "s").values("resid_post:0")


def deep_json(at: At) -> object:
    filled_store(at.folder / "s")
    at.written("s/store.json", "[" * 4000 + "]" * 4000)
    return wb.open_store(at.folder / "s")


def streams_mixed(at: At) -> object:
    store = new_store(at.folder / "s", 4, streams=[stream(), Stream("vision.resid_post", (0,), 3, "float16")])
    rows = np.zeros((3, 4, 24), np.float32), ["p0", "p1", "p2", "p3"], ["base"] * 4, np.zeros(4, int), np.zeros(4, int)
    patches = np.zeros((1, 2, 3), np.float16), ["p0"] * 2, ["base"] * 2, np.arange(2), np.zeros(2, int)
    for unit in store.missing():
        store.commit(unit, {"resid_post": Block(*rows), "vision.resid_post": Block(*patches)})
    return store.prompt_ids


def not_finite(at: At) -> object:
    store = new_store(at.folder / "s", 4)
    rows = [f"p{i}" for i in range(4)]
    broken = Block(np.full((3, 4, 24), np.nan, np.float32), rows, ["base"] * 4, np.zeros(4, int), np.zeros(4, int))
    return store.commit(store.missing()[0], {"resid_post": broken})


def population_with_a_bad_recipe(at: At) -> object:
    recipes = {"bad": wb.Recipe([chat("r", "no answer")], {"steps": 1, "rank": 2})}
    return wb.population(at.checkpoint, recipes, to=at.folder / "p", seeds=(0,), progress=False)


def labels_on_the_prompt(at: At) -> object:
    row = at.llama.encoder.encode(chat("r", "a question", response="yes"), closed=True)
    inputs = at.llama.encoder.collate([row]).inputs
    return refuse_lost_mask({**inputs, "labels": inputs["input_ids"].clone()}, [row])


def constant_labels(at: At) -> object:
    from workbench.subspace.arrays import ArrayRows

    ids = [f"p{i}" for i in range(12)]
    values = np.random.default_rng(0).normal(size=(12, 4))
    models = {name: ArrayRows({wb.Site(0): values}, ids) for name in ("one", "two")}
    verdicts = {"one": {p: i % 2 == 0 for i, p in enumerate(ids)}, "two": dict.fromkeys(ids, False)}
    return wb.probe_matrix(models, verdicts, sites=0)


class Busy:
    """An endpoint, or a judge, that cannot be reached for now."""

    name, endpoint, identity = "openai:busy", True, {"model": "busy"}
    measures, kind, revision = "quality", "endpoint", "r1"

    def answers(self, asked: Any, **how: Any) -> Any:
        from workbench.behaviour.endpoint_model import EndpointAnswer

        return [EndpointAnswer("", False, "the server was busy", missing=True, temporary=True) for _ in asked]


def answers_missing(at: At) -> object:
    server = wb.endpoint("openai:busy", cache=None)
    at.patch.setattr(type(server), "answers", Busy.answers)
    return wb.sample_answers(server, at.prompts, samples=1, max_new_tokens=4, progress=False, to=at.folder / "t")


def scores_missing(at: At) -> object:
    from test_scoring import Busy as Late
    from test_scoring import answers_table

    answers = answers_table(prompts=at.prompts)
    texts = tuple(str(text) for text in answers.column("text"))
    return wb.judge_answers(answers, at.prompts, Late(late=texts), to=at.folder / "s", progress=False)


def no_key(at: At) -> object:
    from workbench.behaviour.judging import Answer

    for name in ("WORKBENCH_JUDGE_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        at.patch.delenv(name, raising=False)
    return wb.judge("openai:tiny", cache=at.folder / "r.jsonl").score_all([Answer(at.prompts[0], "an answer")])


def secret_in_a_plan(at: At) -> object:
    recipes = {"one": wb.Recipe([chat("r", "hi", response="ho")], {"steps": 1})}
    return wb.population(SECRET, recipes, to=at.folder / "p", seeds=(0,), progress=False)


def units_fail(at: At) -> object:
    def fails(*given: Any, **named: Any) -> None:
        raise OSError("the disk is gone")

    at.patch.setitem(sys.modules, "ray", StandIn([{"CPU": 1}]))  # its workers live in this process
    at.patch.setattr("hooks.backends.hf.HuggingFaceModel.run", fails)
    source = wb.ModelSource(at.checkpoint, options={"check": False})
    return wb.capture(source, at.prompts, to=at.folder / "s", engine="ray", progress=False)


def comes_back(at: At) -> object:
    model = wb.load_model(LANGUAGE_MODELS["llama"](), byte_tokenizer(), check=False)
    push = torch.tensor(at.v.unit[2], dtype=torch.float32)
    model.module.model.layers[1].register_forward_hook(lambda m, args, out: out + 0.5 * push)
    asked = [replace(prompt, tags={"right": "yes", "contrary": "no"}) for prompt in at.prompts]
    return wb.sweep(model, asked, [wb.Ablate(at.v, to="zero")], progress=False)


def too_long_for_the_device(at: At) -> object:
    def refuse(module: Any, arguments: Any, named: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    handle = at.llama.module.register_forward_pre_hook(refuse, with_kwargs=True)
    try:
        return wb.capture(at.llama, at.prompts, to=at.folder / "s", progress=False)
    finally:
        handle.remove()


def gap_of_two_families(at: At) -> object:
    from workbench.interventions.specificity import Families, specificity

    two = Families(("a", "b"), np.array([0.1, 0.2]))
    return specificity(two, two, two)


def samples_of_few(at: At) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return clustered([0, 0, 0, 1, 1, 1], ["a", "a", "a", "b", "b", "b"])


def warns_of_few(at: At) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return clustered([0, 0, 0, 1, 1, 1], ["a", "a", "a", "b", "b", "b"], then="warn")
