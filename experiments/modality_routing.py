"""Through which positions does a fine-tune act: where is its direction to be read, and where does it work?

The shift of the fine-tune is a direction at image positions, at text positions and at the answer, all from the same
prompts with pictures; the answer is the base's own, read by both. Each is taken out of the fine-tune (to the base's
mean at the positions that are edited) and added to the base, at image positions, at text positions, and where the
answer is chosen, on questions with pictures and without: every change paired by question, with an interval, a p for the
whole matrix, a test of equivalence to a margin stated beforehand, and random directions of equal energy, or equal norm.
What cannot be is named. Resumable.
"""

import workbench as wb

study = wb.Study.from_command_line(
    __doc__,
    default_to="runs/modality_routing",
    needs=("questions",),
    margin=0.1,  # of the measure's scale: the largest change that would not matter
    coefficient=1.0,
    controls=99,
    rank=32,
)
asked, inputs = study.asked, study.inputs
if not ("tuned" in inputs.adapters or inputs.train):
    raise SystemExit("--model needs --adapter, a fine-tune, or --train, rows to make one.")
rows = study.elsewhere
fitted = [prompt for prompt in wb.read_prompts(inputs.prompts) if not prompt.tags.get("in_domain")]
if inputs.prompts == inputs.questions:  # no direction is tried on the prompts that it was fitted on
    halves = wb.split_rows(rows, {"fit": 0.5, "asked": 0.5}, seed=study.seed)
    fitted, rows = halves["fit"], halves["asked"]
fit, questions = wb.by_pictures(fitted), wb.by_pictures(rows)
if "image" not in fit:
    raise SystemExit("--prompts show no pictures: expected some that do, to build directions on.")
tagged = all({"right", "contrary"} <= set(question.tags) for question in rows)

further = dict(rank=asked.rank, alpha=2 * asked.rank, seed=study.seed, **inputs.recipe)
if plan := study.plan:  # --dry-run: what these steps would take
    "tuned" in inputs.adapters or plan.train_lora(inputs.train, **further)
    plan.answers(fitted, ["base"])
    for at in ("image", "text", "response", "answering"):
        plan.capture(fit["image"] if at == "image" else fitted, "base", "tuned", at=at)
    stand_in = dict.fromkeys(("image", "text", "response"), plan.direction())
    half = range(plan.n_layers // 2)
    for act in (lambda v, at: wb.Ablate(v, at=at), lambda v, at: wb.Steer(v, layer=half, at=at)):
        made = wb.routes(stand_in, act, questions)
        for route in made.routes:
            calm = wb.by_pictures(wb.read_prompts(inputs.neutral) if inputs.neutral else []).get(route.evaluated, [])
            cells, own = [route.intervention] * (1 + asked.controls), questions[route.evaluated]
            plan.measure(cells, own, written=not tagged, neutral=calm)
    plan.stop()

with study.phase("the fine-tune"):
    tuned = inputs.adapters.get("tuned") or wb.train_lora(
        inputs.base, inputs.train, to=study.folder / "tuned", **further
    )
    model = wb.load_model(inputs.base, adapter={"tuned": tuned})

with study.phase("the base's answers, and residuals of both at every scope"):
    listed = [prompt for shown in fit.values() for prompt in shown]
    writing = dict(responses="generate", at="response", max_new_tokens=study.max_new_tokens, seed=study.seed)
    written = wb.capture(model, listed, variants=["base"], to=study.folder / "answers", **writing)
    answered = wb.with_answers(listed, written)
    read = {"image": fit["image"], "text": listed, "response": answered, "answering": answered}
    held = {at: study.capture(model, read[at], "base", "tuned", name=f"residuals at {at}", at=at) for at in read}

with study.phase("a direction at image positions, at text positions and at the answer"):
    built = wb.built_at({at: held[at].where(label="image") for at in ("image", "text", "response")})
    study.add(built)
    study.add_cosines(list(built), wb.cosine_matrix(list(built.values()), model.n_layers // 2))

early = range(model.n_layers // 2)
means = {at: residuals.where(variant="base") for at, residuals in held.items()}
acts = {
    "ablation": ("tuned", lambda v, at: wb.Ablate(wb.with_mean(v, means[at]), at=at)),
    "steering": ("base", lambda v, at: wb.Steer(v, layer=early, coefficient=asked.coefficient, at=at)),
}
for name, (variant, intervene) in acts.items():
    with study.phase(f"{name} along every route"):
        made = wb.routes(built, intervene, questions, model=model)
        matched = {at: own.where(variant=variant) for at, own in held.items()} if name == "ablation" else None
        options = dict(controls=asked.controls, activations=matched, neutral=inputs.neutral, seed=study.seed)
        options |= dict(judge=None if tagged else study.judge, max_new_tokens=study.max_new_tokens)
        tables = wb.sweep_routes(model.variant(variant), made, questions, to=study.folder / name, **options)
        value = "p_contrary" if tagged else "score"
        matrix = wb.routing_matrix(made, tables, value, margin=asked.margin, seed=study.seed)
        study.add(matrix, condition=f"routing: {name}")
        print(matrix)

study.finish()
