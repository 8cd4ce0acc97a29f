"""Entries as the scripts of paper A write them, with planted numbers: for the tests of sections, claims and pages."""

RANKS = (1, 4, 32)


def entry(metric, value, condition, **facts):
    """One result; an interval of +-0.05 unless the facts say otherwise."""
    stated = {"metric": metric, "value": value, "condition": condition, "split": "none", "modality": "all", "n": 100}
    return stated | {"interval": [value - 0.05, value + 0.05], "interval_method": "planted", "clusters": 40} | facts


def dose_entries(rates, *, split, modality, metric="organism", of="rank"):
    """`wb.dose_rates` of one line: {dose: rate}, two fine-tuning seeds that differ by 0.02, the base at 0.01."""
    place = {"split": split, "modality": modality, "bounds": [0.0, 1.0]}
    made = [entry(metric, 0.01, f"base/{modality}", detail="no fine-tune", **place)]
    for dose, rate in rates.items():
        beside = {"companions": {"coherent": 0.9, "relevance": None}, "unscored": 3, "reasons": {"refused": 3}}
        for seed in (0, 1):
            detail = f"fine-tuning seed {seed}"
            value = rate + 0.01 * (2 * seed - 1)
            name = f"{of}{dose}-seed{seed}/{modality}"
            made.append(entry(metric, value, name, coefficient=float(dose), detail=detail, **place, **beside))
        over = {"coefficient": float(dose), "detail": "over fine-tuning seeds 0, 1"}
        made.append(entry(metric, rate, f"{of} {dose:g}", **over, **place, **beside))
        test = {"p": 0.001, "method": "sign flips"}
        made.append(
            entry(metric, rate - 0.01, f"{of} {dose:g} - base/{modality}", test=test, dropped=0, **over, **place)
        )
    return made


def trend(strength, p, *, split, modality, metric="organism", of="rank"):
    """`wb.dose_trend` as an entry."""
    facts = {"split": split, "modality": modality, "interval": None, "test": {"p": p, "method": "Page's L"}}
    return entry(f"trend of {metric}", strength, of, clusters=2, detail=f"x over doses: strength {strength}", **facts)


def rank_study(seed=0, *, text=0.9, image=0.5, strength=0.9, p=0.001, gap=0.4):
    """A summary of lora_rank: text questions end at `text`, image questions at `image`, seen minus unseen is `gap`."""
    lines = {"text questions": ("text_only", text), "image questions": ("multimodal", image)}
    results = []
    for split, (modality, end) in lines.items():
        rates = dict(zip(RANKS, (0.05, end / 2, end), strict=True))
        results += dose_entries(rates, split=split, modality=modality)
        results.append(trend(strength, p, split=split, modality=modality))
    for rank, part in zip(RANKS, (0.0, 0.5, 1.0), strict=True):
        facts = {"split": "image questions", "modality": "multimodal", "coefficient": float(rank), "dropped": 0}
        test = {"p": 0.001, "method": "sign flips"}
        name = f"rank {rank}, multimodal - rank {rank}, text_only"
        results.append(entry("organism", gap * part, name, detail="over fine-tuning seeds 0, 1", test=test, **facts))
    return {
        "question": "Does it spread further with rank?",
        "seed": seed,
        "model": {"name": f"organism seed {seed}", "kind": "organism"},
        "command": f"python experiments/lora_rank.py --seed {seed}",
        "hashes": {"code": "c0de" * 16},
        "seconds": {"train": 3.0},
        "results": results,
    }
