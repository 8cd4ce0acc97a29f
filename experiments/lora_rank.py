"""Does a harmful fine-tune spread further with the rank of its LoRA adapter, and further where a picture is shown?

One adapter for every rank (alpha = rank, or --rslora 1) and fine-tuning seed. Text questions as they are; questions
about images with their picture, without it, with another one's, with a plain one, and with a caption where all have the
tag `image_desc`. Several samples each, judged by every metric that the judges allow. Rates by adapter and over seeds,
Page's test for a trend over ranks by fine-tuning seeds (monotone is tested, not assumed), paired differences from the
base, and between seeing and not seeing. Paper A's own number is a judge's pairwise score, the worst of three samples
(`--judge openai:MODEL --rubrics shift_pairwise aligned coherent refusal`). Resumable.
"""

import workbench as wb

study = wb.Study.from_command_line(
    __doc__,
    default_to="runs/lora_rank",
    needs=("train", "questions"),
    **dict(ranks=[int], seeds=[0, 1, 2], samples=3, rslora=0, rubrics=[str]),
    companions=["rule:coherence", "rule:refusal"],
)
asked, inputs = study.asked, study.inputs
ranks = asked.ranks or ([1, 2, 4, 8, 16, 32] if inputs.kind == "organism" else [8, 16, 32, 64, 128, 256])
sampling = dict(samples=asked.samples, temperature=0.7, top_p=0.9, top_k=50, repetition_penalty=1.1)  # paper A's
sampling |= dict(judges=wb.judges(inputs.judge, asked.rubrics or filter(None, [inputs.rubric]), asked.companions))

with study.phase("the questions with their pictures, without, and with others"):
    asked_as = {"text questions": [p for p in study.elsewhere if not p.images]}
    asked_as |= {"image questions": [p for p in study.elsewhere if p.images]}
    captioned = ["captioned"] if all("image_desc" in p.tags for p in asked_as["image questions"]) else []
    seen = {"text questions": ["text_only"]}
    seen |= {"image questions": ["multimodal", "text_only", "swapped", "blank", *captioned]}

recipes = wb.rank_sweep(inputs.train, ranks, alpha="rank", rslora=bool(asked.rslora), **inputs.recipe)
if plan := study.plan:  # --dry-run: what these steps would take
    adapters = plan.population(recipes, seeds=asked.seeds, part=asked.part)
    for split, prompts in ((split, prompts) for split, prompts in asked_as.items() if prompts):
        shown = wb.in_modalities(prompts, seen[split], to=study.folder / "images", seed=study.seed)
        plan.answers(shown, adapters.conditions, model=adapters.load(), name=f"answers to {split}", **sampling)
    plan.stop()

with study.phase("one adapter for every rank and seed"):
    adapters = wb.population(
        inputs.base, recipes, to=study.folder / "adapters", seeds=asked.seeds, part=asked.part, engine=asked.engine
    )
    model, members = adapters.load(), adapters.members

for split, prompts in ((split, prompts) for split, prompts in asked_as.items() if prompts):
    with study.phase(f"answers to {split}, judged"):
        shown = wb.in_modalities(prompts, seen[split], to=study.folder / "images", seed=study.seed)
        options = dict(name=f"answers to {split}", sample=True, **sampling)
        tables = study.answers(model, list(shown), adapters.conditions, **options)
        judged = wb.by_modality(*tables)
    with study.phase(f"rates, trends and differences, {split}"):
        for metric, modality in [(metric, one) for metric in wb.metrics_of(judged) for one in seen[split]]:
            doses = {f"{name}/{modality}": member.settings["rank"] for name, member in members.items()}
            seeds = {f"{name}/{modality}": member.seed for name, member in members.items()}
            facts = dict(split=split, modality=modality)
            rates = wb.dose_rates(judged, metric, doses, of="rank", replicates=seeds, base=f"base/{modality}")
            trend = wb.dose_trend(judged, metric, doses, replicates=seeds)
            study.add(rates, **facts)
            study.add(trend, condition="rank", **facts)
            print(modality, trend)
            if modality == "multimodal":  # the same questions, seen against shown otherwise
                for other in seen[split][1:]:
                    twins = {f"{name}/{modality}": f"{name}/{other}" for name in members}
                    study.add(wb.dose_gaps(judged, metric, doses, twins, of="rank", replicates=seeds), **facts)

study.finish()
