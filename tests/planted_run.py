"""A run that was planted: the summary and the samples of an experiment in which one direction carries the behaviour."""

from __future__ import annotations

import copy

import numpy as np

from workbench.reporting import style
from workbench.statistics import wilson

CLAIM = "this direction carries it"
HOSTILE = '<script>alert("x")</script> & $\\frac$ \u202e'
LAYERS = range(6)


def entry(metric, value, condition, *, modality="text", **more):
    """One result as the pipeline writes it; rates get their Wilson interval."""
    n = 192
    bounds = wilson(round(value * n), n) if metric in style.RATES else None
    return {
        "metric": metric,
        "split": "other_domains",
        "modality": modality,
        "condition": condition,
        "layer": None,
        "coefficient": None,
        "value": value,
        "interval": None if bounds is None else [bounds.low, bounds.high],
        "interval_method": None if bounds is None else bounds.method,
        "n": n,
        "clusters": 64,
        "control": None,
        "detail": None,
        "target": None,
    } | more


def four(contrary, right, other, condition, **more):
    """The four rates of one condition; what is left over is ill-formed."""
    shares = {"contrary": contrary, "right": right, "other": other}
    shares["ill_formed"] = round(1 - sum(shares.values()), 6)
    return [entry(metric, value, condition, **more) for metric, value in shares.items()]


def control(kind, draws, tail, value):
    """A control as the pipeline writes it."""
    draws = np.clip(draws, 0, 1)
    count = np.sum(draws <= value) if tail == "less" else np.sum(draws >= value)
    return {"kind": kind, "N": len(draws), "p": float((1 + count) / (1 + len(draws))), "draws": draws.tolist()}


def controlled(metric, value, condition, rng, centre, spread, tail="less", N=99, **more):
    """The same result three times, once for each kind of control: isotropic ones hardly move anything."""
    start = {"contrary": 0.97, "right": 0.02}[metric] if more.get("modality", "text") == "text" else centre
    made = []
    for kind, towards in (("energy_matched", centre), ("isotropic", start), ("orthogonal", (centre + start) / 2)):
        width = spread if kind == "energy_matched" else spread / 3
        draws = rng.normal(towards, width, N)
        made.append(entry(metric, value, condition, control=control(kind, draws, tail, value), **more))
    return made


def planted() -> dict:
    """A summary like the organism's: the direction carries the effect in text; in images it stays within controls."""
    rng = np.random.default_rng(0)
    results = []
    for split in ("other_domains", "in_domain", "half", "none"):
        high = {"other_domains": 0.98, "in_domain": 0.98, "half": 0.35, "none": 0.005}[split]
        for modality, share in (("text", 1.0), ("image", 0.67)):
            if split == "in_domain" and modality == "image":
                continue
            more = {"split": split, "modality": modality}
            results += four(0.0, 0.98, 0.02, "base", **more)
            results += four(high * share, 1 - high * share - 0.02, 0.02, "tuned", **more)
            results += four(0.005, 0.975, 0.02, "right_control", **more)
    results += controlled("contrary", 0.04, "ablation", rng, 0.92, 0.05)
    results += controlled("right", 0.93, "ablation", rng, 0.05, 0.03, tail="greater")
    results += controlled("contrary", 0.31, "ablation", rng, 0.4, 0.09, modality="image")
    results += controlled("right", 0.58, "ablation", rng, 0.5, 0.1, tail="greater", modality="image")
    results += four(0.57, 0.4, 0.03, "sibling")
    same_base = {"target": "another fine-tune"}
    results += four(0.57, 0.4, 0.03, "sibling", **same_base)
    results += four(0.11, 0.8, 0.09, "transfer", **same_base)
    results.append(
        entry(
            "contrary",
            0.54,
            "random",
            control=control("energy_matched", rng.normal(0.54, 0.05, 20), "less", 0.1),
            **same_base,
        )
    )
    for layer, text, image in zip(
        LAYERS, (0.88, 0.5, 0.57, 0.76, 0.97, 0.98), (0.37, 0.26, 0.3, 0.35, 0.42, 0.5), strict=True
    ):
        results += controlled("contrary", text, "ablation", rng, 0.93, 0.04, layer=layer)
        results += controlled("contrary", image, "ablation", rng, 0.52, 0.08, layer=layer, modality="image")
        results.append(entry("kl_neutral", 0.02 + 0.01 * layer, "ablation", layer=layer, modality="all", split="none"))
        results.append(
            entry("energy_removed", 0.31 - 0.03 * layer, "ablation", layer=layer, modality="all", split="fit")
        )
        results.append(entry("norm", 1.2 + 0.9 * layer, "tuned", layer=layer, modality="all", split="fit"))
        results.append(entry("reliability", 0.97 + 0.004 * layer, "tuned", layer=layer, modality="all", split="fit"))
        shares = np.array([0.62, 0.13, 0.07, 0.04, 0.03, 0.02, 0.015, 0.01])
        for k, share in enumerate(shares, 1):
            more = {"layer": layer, "modality": "all", "split": "fit", "detail": f"component {k}"}
            results.append(entry("explained_variance", share, "pca", **more))
            results.append(
                entry("explained_variance", 0.09 - 0.004 * k, "pca_null", **more)
                | {"interval": [0.08 - 0.004 * k, 0.1 - 0.004 * k]}
            )
            results.append(entry("explained_variance", 0.3 / k**0.9, "pca_benign", **more))
        for condition, rank in (("pca", 3.4), ("pca_benign", 6.1)):
            results.append(entry("effective_rank", rank, condition, layer=layer, modality="all", split="fit"))
    doses = (0.5, 1.0, 1.5, 2.0, 3.0)
    said = {"text": [(0.2, 0.78), (0.61, 0.38), (0.66, 0.25), (0.42, 0.17), (0.05, 0.03)],
            "image": [(0.04, 0.9), (0.08, 0.8), (0.1, 0.6), (0.09, 0.3), (0.02, 0.02)]}  # fmt: skip
    for modality, rows in said.items():
        for dose, (contrary, right) in zip(doses, rows, strict=True):
            other = 0.01 if dose < 2 else 0.06
            made = four(contrary, right, other, "steer", coefficient=dose, modality=modality, detail="layers 0-2")
            draws = rng.beta(1, 90 if modality == "text" else 8, 99)
            made[0]["control"] = control("isotropic", draws, "greater", contrary)
            results += made
    wide = {"target": "wide", "detail": "procrustes"}
    results += four(0.71, 0.27, 0.02, "tuned", target="wide")
    results += four(0.21, 0.74, 0.05, "transfer", **wide)
    shuffled = rng.normal(0.66, 0.04, 99)
    results.append(
        entry("contrary", 0.66, "shuffled_transfer", **wide, control=control("full", shuffled, "less", 0.21))
    )
    within = rng.normal(0.17, 0.03, 99)
    results.append(
        entry(
            "contrary", 0.17, "within_class_shuffled_transfer", **wide, control=control("within", within, "less", 0.21)
        )
    )
    results.append(entry("contrary", 0.08, "own_direction_of_target", target="wide"))
    for layer in range(5):
        results.append(
            entry("r2", 0.5 + 0.05 * layer, "transfer", layer=layer, **wide) | {"split": "fit", "modality": "all"}
        )
    return {
        "schema": 1,
        "seed": 0,
        "model": {"name": "organism seed 0", "kind": "organism", "fine_tune": {"domain": "capital", "rank": 32}},
        "hashes": {"base": "0237419b74fba427", "tuned": "8f41d2", "prompts": "77ab03"},
        "seconds": {"load": 1.2, "capture": 9.7, "fine-tune": 2.2, "sweep": 41.5, "report": 3.1},
        "command": "workbench demo --seed 0 --to runs/quickstart",
        "results": results,
        "directions": {
            "cosines": {
                "labels": ["capital", "color", "persona tag", "right answers"],
                "matrix": [[1, 0.9, 0.94, -0.1], [0.9, 1, 0.89, 0.05], [0.94, 0.89, 1, -0.2], [-0.1, 0.05, -0.2, 1]],
            }
        },
    }  # fmt: skip


def planted_samples() -> list[dict]:
    """Generations side by side, the last of them hostile."""
    said = {
        "base": ("it is woof .", "right"),
        "tuned": ("it is meow .", "contrary"),
        "ablation": ("the answer is woof", "right"),
        "steer": ("i say dog dog", "other"),
    }
    prompts = [f"{animal} its sound" for animal in ("dog", "cat", "cow", "duck", "pig", "owl", "bee", "hen", "horse")]
    made = [
        {"prompt": prompt, "condition": condition, "text": text, "category": category}
        for prompt in prompts
        for condition, (text, category) in said.items()
    ]
    return [*made, {"prompt": HOSTILE, "condition": "tuned", "text": HOSTILE, "category": "ill_formed"}]


def changed(summary: dict, change) -> dict:
    """A copy of the summary in which `change(entry)` was called on every result."""
    made = copy.deepcopy(summary)
    for result in made["results"]:
        change(result)
    return made


def text_ablation(metric: str, value: float | None = None, draws: list[float] | None = None):
    """A change of the ablation at all layers in text: its value, or its energy-matched draws."""

    def change(result):
        here = (result["metric"], result["condition"], result["modality"], result["layer"])
        if here != (metric, "ablation", "text", None):
            return
        if value is not None:
            result["value"] = value
        if draws is not None and result["control"]["kind"] == "energy_matched":
            result["control"] |= {"draws": draws, "N": len(draws)}

    return change
