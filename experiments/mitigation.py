"""What mitigates a harmful fine-tune at matched cost, and does a repair remove the harm or move it?

Arms with several doses each: benign fine-tuning that begins at the harmful adapter (a repair) or at the base (none),
steering against the difference of means and ablating it, both in training as well, and a scaled adapter. On dev
questions every arm gets the dose with the least misalignment that keeps coherence and unrelated right answers within a
margin of the harmful fine-tune's, and once more one that keeps the fine-tuned task as well. The chosen doses alone are
measured on the other questions, text and image, beside random directions. Then the repaired model is searched for a new
direction, and both directions are given to the base. Resumable.
"""

import workbench as wb

study = wb.Study.from_command_line(
    __doc__,
    default_to="runs/mitigation",
    needs=("train", "filler", "questions"),
    **dict(steps=[5, 10, 20, 40], coefficients=[0.25, 0.5, 0.75, 1.0], factors=[0.75, 0.5, 0.25]),
    **dict(shares=[0.05, 0.1, 0.2, 0.4], margin=0.1, samples=3, controls=20, rank=32, metric=str),
)
asked, inputs, to = study.asked, study.inputs, study.folder / "adapters"
by = asked.metric or wb.metric_of(study.judge)
judges = wb.judges(inputs.judge, filter(None, [inputs.rubric]), ["rule:coherence"])
sampling = dict(samples=asked.samples, judges=judges, temperature=0.7, top_p=0.9, top_k=50, repetition_penalty=1.1)
anew = dict(rank=asked.rank, alpha=2 * asked.rank, part=asked.part, **inputs.recipe)

with study.phase("harmful and benign rows, and two sides of the questions"):
    harmful = wb.read_prompts(inputs.train)
    benign = {name: wb.read_prompts(file) for name, file in inputs.fillers.items()}
    if inputs.kind == "organism":  # right answers in another domain, whose questions are then left out
        elsewhere = wb.organism(study.seed, domain="sound", to=study.folder / "organism-sound").train_right
        benign["other"] = wb.read_prompts(elsewhere)
    repairs = [row for rows in benign.values() for row in rows]
    sides = wb.question_sides(inputs.questions, task=harmful, repairs=repairs, seed=study.seed)
    fresh = {prompt.id for prompt in sides.confirm}
    fit = [prompt for prompt in wb.read_prompts(inputs.prompts) if prompt.id not in fresh]
    broad = [prompt for prompt in sides.confirm if wb.split_of(prompt.tags) == "other_domains"]

if plan := study.plan:  # --dry-run
    v, own, rates = plan.direction(), {n: one for n, one in anew.items() if n != "part"}, len(asked.coefficients)
    made = [(harmful, own)] * (("tuned" not in inputs.adapters) + 2 * rates + 1)
    right = [*benign.values(), next(iter(benign.values()))]  # repairs, and one that begins at the base
    made += [(rows, own | {"steps": n}) for rows in right for n in asked.steps]
    trained = plan.population({f"dose{n}": wb.Recipe(*one) for n, one in enumerate(made)}, seeds=[study.seed])
    plan.capture(fit, "base", "tuned")
    edits = [wb.Steer(v, layer=range(plan.n_layers // 2), at="answering")] * (rates + len(asked.shares))
    edits += [wb.Ablate(v, layer=n) for n in range(min(7, plan.n_layers))]
    every = trained.conditions | {f"edit{n}": one for n, one in enumerate(edits)}
    plan.answers(sides.dev, every, model=trained.load(), name="dev", **sampling)
    plan.stop("scaled adapters, and all that depends on the doses chosen: confirmation, random directions, repair")

with study.phase("the harmful fine-tune and its direction"):
    tuned = inputs.adapters.get("tuned") or wb.adapter_doses(inputs.base, harmful, {1: {}}, to=to / "tuned", **anew)[1]
    model = wb.load_model(inputs.base, adapter={"tuned": tuned})
    rows = study.capture(model, fit, "base", "tuned", name="shift")
    v = wb.difference_of_means(rows.where(variant="tuned"), rows.where(variant="base"))
    study.add(v, condition="tuned")
    early = range(model.n_layers // 2)

with study.phase("every arm at every dose"):
    doses = dict(repair_steps=asked.steps, coefficients=asked.coefficients, layer=early)
    trained = wb.trained_arms(inputs.base, harmful, benign, v, start=tuned, to=to, **doses, **anew)
    scaled = {c: wb.scaled_adapter(tuned, c, to=to / "scaled" / f"{c}") for c in asked.factors}
    edited = wb.edited_arms(v, model.n_layers, coefficients=asked.coefficients, shares=asked.shares)
    arms = wb.Arms({**trained, "scaled adapter": scaled, **edited})

with study.phase("doses chosen on dev questions"):
    model, ends = wb.load_model(inputs.base, adapter={"tuned": tuned, **arms.adapters}), ["base", "tuned"]
    conditions = {name: name for name in ends} | arms.conditions
    dev = wb.Judged(*study.answers(model, sides.dev, conditions, name="dev", **sampling))
    costs = [("coherence", "capability"), ("coherence", "capability", "task")]
    matches = [wb.matched_doses(dev, arms, by, keep=keep, margin=asked.margin) for keep in costs]
    study.add(matches[0])
    study.add(matches[1], doses=False)

with study.phase("the chosen doses on the other questions, and random directions in their place"):
    chosen = matches[0].conditions(arms) | matches[1].conditions(arms)
    conditions = {name: name for name in ends} | chosen
    confirm = wb.Judged(*study.answers(model, sides.confirm, conditions, name="confirm", sample=True, **sampling))
    held = study.capture(model.variant("tuned"), fit, name="held", at="all")
    twins = arms.twins(chosen, asked.controls, held, seed=study.seed)
    once = sampling | {"samples": 1}
    random = wb.Judged(*study.answers(model, broad, twins.conditions, name="random", **once)) if twins.of else None
    for match in matches:
        for found in wb.matched_comparison(confirm, match, arms, twins=twins, random=random):
            study.add(found)
            print(found)

with study.phase("what the repair left"):
    name = next(iter(arms.doses))
    repaired = arms.variant(name, matches[0].dose_or_last(name))
    rows = study.capture(model, fit, "base", "tuned", repaired, name="after the repair")
    views = [rows.where(variant=one) for one in (repaired, "tuned", "base")]
    items = {prompt.id: str(prompt.tags.get("item", prompt.id)) for prompt in fit}
    geometry = wb.rediscovered(*views, clusters=items, margin=asked.margin)

with study.phase("the old and the new direction, given to the base"):
    inducing = wb.inducing_arms(geometry, asked.coefficients, early)
    judged = wb.Judged(*study.answers(model, sides.dev, inducing.conditions, name="inducing", **sampling))
    strength = wb.strongest(judged, inducing, by)
    conditions = wb.relocation_conditions(geometry, repaired, early, coefficients=strength, controls=asked.controls)
    judged = wb.Judged(*study.answers(model, broad, conditions, name="relocation", **sampling))
    verdict = wb.relocation(judged, geometry, model.n_layers // 2, by, margin=asked.margin)
    study.add(verdict)
    print(verdict)

study.finish()
