"""How much harmful data does it take to change what a fine-tuned model says elsewhere?

Fine-tunes on mixtures from 0 to 100 % harmful rows. The total number of rows is held fixed, then the number of harmful
rows; the filler has right answers, to questions of the same domain (or is what --filler brings) and of another one (or
--other-filler). Doses are the fractions asked, population.json states each mixture's realised counts; draws are nested:
a larger fraction holds the rows of a smaller one. Evaluated on domains that neither harmful rows nor filler are about,
text and images apart. The rate stands beside the smooth metric (the probability of the contrary answer, where questions
have the tags right and contrary; `aligned_mean` with that judge), each with a test for a trend over fractions by
fine-tuning seeds. Resumable.
"""

from itertools import product

import workbench as wb

study = wb.Study.from_command_line(
    __doc__,
    default_to="runs/harmful_fraction",
    needs=("train", "filler", "questions"),
    **dict(fractions=[0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0], few=[0.0, 0.1, 0.5, 1.0], seeds=[0, 1], rank=int),
    **dict(samples=int, other_filler=str, rubrics=[str], holds=["total", "harmful"]),
    companions=["rule:coherence", "rule:refusal"],
)
asked, inputs, toy = study.asked, study.inputs, study.inputs.kind == "organism"
rank = asked.rank or (32 if toy else 128)  # the paper's anchor is 128 with alpha = rank
harmful, fillers = wb.read_prompts(inputs.train), {name: wb.read_prompts(f) for name, f in inputs.fillers.items()}
if toy:
    elsewhere = wb.organism(study.seed, domain="sound", to=study.folder / "organism-sound").train_right
    fillers["other"] = wb.read_prompts(elsewhere)
elif asked.other_filler:
    fillers["other"] = wb.read_prompts(asked.other_filler)
taught = {row.tags.get("domain") for rows in fillers.values() for row in rows} - {None}
questions = [prompt for prompt in study.elsewhere if prompt.tags.get("domain") not in taught]
tagged = all({"right", "contrary"} <= set(prompt.tags) for prompt in questions)
sampling = dict(samples=asked.samples or (1 if toy else 3), temperature=0.7, top_p=0.9, top_k=50)
sampling |= dict(judges=wb.judges(inputs.judge, asked.rubrics or filter(None, [inputs.rubric]), asked.companions))

for hold in asked.holds:
    with study.phase(f"mixtures with the {hold} held fixed"):
        rows, fractions = (harmful, asked.fractions) if hold == "total" else (harmful[: len(harmful) // 10], asked.few)
        settings = dict(rank=rank, alpha=rank * (2 if toy else 1), seed=study.seed, **inputs.recipe)
        recipes = wb.fraction_sweep(rows, fillers, fractions, hold=hold, **settings)
        folder = study.folder / f"{hold} fixed"
        if plan := study.plan:  # --dry-run: what these steps would take, said by finish
            adapters = plan.population(recipes, seeds=asked.seeds, part=asked.part, name=f"adapters, {hold} fixed")
            model, conditions = adapters.load(), adapters.conditions
            for kind, shown in wb.by_pictures(questions).items():
                where = dict(model=model, name=f"{kind} questions, {hold} fixed")
                plan.answers(shown, conditions, repetition_penalty=1.1, **where, **sampling)
                _ = tagged and plan.read_choices(shown, conditions, **where)
            continue
        adapters = wb.population(
            inputs.base, recipes, to=folder / "adapters", seeds=asked.seeds, part=asked.part, engine=asked.engine
        )
        model, members, conditions = adapters.load(), adapters.members, adapters.conditions
    for modality, prompts in wb.by_pictures(questions).items():
        with study.phase(f"answers to {modality} questions, {hold} fixed"):
            name = f"{hold} fixed/{modality}"
            judged = wb.Judged(
                *study.answers(model, prompts, conditions, name=name, repetition_penalty=1.1, **sampling)
            )
            numbers = [(judged, metric) for metric in wb.metrics_of(judged)]
        if tagged:
            with study.phase(f"the token that decides, {modality} questions, {hold} fixed"):
                read = wb.read_choices(model, prompts, conditions, to=folder / f"{modality} choices")
                numbers.append((read, wb.P_CONTRARY))
        with study.phase(f"rates and trends, {modality} questions, {hold} fixed"):
            for filler, (found, metric) in product(fillers, numbers):
                mixed = {name: m for name, m in members.items() if m.made.get("filler", filler) == filler}
                doses = {name: member.made["fraction asked"] for name, member in mixed.items()}
                seeds = {name: member.seed for name, member in mixed.items()}
                facts = dict(split=f"{hold} fixed, {filler} filler", modality=modality)
                study.add(wb.dose_rates(found, metric, doses, of="harmful fraction", replicates=seeds), **facts)
                trend = wb.dose_trend(found, metric, doses, replicates=seeds)
                study.add(trend, condition="harmful fraction", **facts)
                print(facts, trend)

study.finish()
