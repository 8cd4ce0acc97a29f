"""Does the direction of one domain's fine-tune act in the fine-tunes on other domains, and is that specific?

Every fine-tune's direction is its mean shift on plain prompts about other domains. It is carried into fine-tunes on
every other domain as it is, and by maps (Procrustes, ridge, low-rank affine) fitted on plain prompts and on prompts
under personas; where a fine-tune of another base is given, into that one and back. There it is ablated, taken off, and
patched to what the donor's base has. The specificity index is the share of the gap between base and fine-tune that this
closes, minus the share of unrelated capability that it loses; beside it stand matched and orthogonal random directions,
shuffled maps and the recipient's own direction. All of a recipient is one planned sweep. Resumable.
"""

import workbench as wb

study = wb.DomainStudy.from_command_line(
    __doc__,
    default_to="runs/direction_transfer",
    **dict(
        maps=["identity", "procrustes", "ridge", "low_rank"], match=["depth", "cka", "r2"], map_operations=["ablate"]
    ),
    **dict(operations=["ablate", "steer", "patch"], coefficient=-1.0, steer_layers=[int], least=0.05),
    **dict(controls=9, orthogonal=2, shuffles=99, capability=str, calm=16, each=4),
)
asked, inputs = study.asked, study.inputs
questions = [one for one in study.questions if wb.split_of(one.tags) == "other_domains"]
if study.toy or asked.prompts:
    sets = {path.stem: wb.read_prompts(path) for path in inputs.for_maps}
else:  # no direction is tried on the prompts that it was fitted on
    halves = wb.split_rows(questions, {"fit": 0.5, "asked": 0.5}, family=("family", "question"), seed=study.seed)
    sets, questions = {"questions": list(halves["fit"])}, list(halves["asked"])
calm = inputs.neutral if study.toy else asked.capability
capability = [] if calm is None else wb.read_prompts(calm)
capability = capability[:: max(1, len(capability) // asked.calm)]
tagged = all({"right", "contrary"} <= set(one.tags) for one in questions)

if plan := study.plan:  # --dry-run: what these steps would take
    model, v = study.plan_shared(), plan.direction()
    for name, prompts in sets.items():
        plan.capture(prompts, *model.model.variants, model=model, name=f"residuals of {name}")
    random = asked.controls + asked.orthogonal
    kinds = len(study.domains.domains) * (1 + random + (len(asked.maps) - 1) * len(sets))
    steer = asked.steer_layers or range(plan.n_layers // 2)
    acts = {"ablate": wb.Ablate(v), "steer": wb.Steer(v, layer=steer, coefficient=asked.coefficient)}
    cells = [acts[operation] for operation in asked.operations if operation in acts for _ in range(kinds)]
    for domain in study.domains.domains:
        for rows, written in ((questions, not tagged), *([(capability, False)] if capability else [])):
            plan.measure(cells, rows, written=written, neutral=None, name=f"cells of {domain}")
    plan.stop("patches take about as much as the ablations; recipients without a gap are left out")

directions, beyond, transfers = {}, None, []
if "tuned" in inputs.other_adapters:
    with study.phase("the other model's own direction"):
        models, plain = {"recipient": study.recipient}, next(iter(sets.values()))
        if "tuned" in inputs.adapters:
            models = {"source": wb.load_model(inputs.base, adapter={"tuned": inputs.adapters["tuned"]}), **models}
        for name, each in models.items():
            rows = study.capture(each, plain, "base", "tuned", name=f"shift-{name}")
            directions[name] = wb.difference_of_means(rows.where(variant="tuned"), rows.where(variant="base"))
            study.add(directions[name], condition="tuned", target=name)

with study.phase("directions of the fine-tunes"):
    groups = study.groups("full" if "full" in study.arms else "small")
    tunes = wb.fine_tunes(study.model, groups, sets, questions, capability, to=study.folder)

if directions:
    with study.phase("maps between the two bases"), wb.if_measurable(study, "maps between the two bases"):
        own, learnt = directions["recipient"], inputs.domains.get("tuned")
        beyond = wb.other_base(tunes, study.recipient, own, learnt, methods=asked.maps, rules=asked.match)
        v, spanning = directions.get("source", next(iter(tunes.shifts.values()))), list(sets)[1:]
        tested_on = {name: beyond.rows[name] for name in spanning}
        compared = wb.compare_maps(beyond.first, v, own, tested_on=tested_on, shuffles=asked.shuffles)
        study.add(compared)
        print(*(f"{name}: {compared.carries(name)}" for name in beyond.first), sep="\n")
        for name, one in ((name, one) for made in list(beyond.maps.values())[1:] for name, one in made.items()):
            study.add(one, condition="transfer", along=v, target=name)

acts = dict(operations=tuple(asked.operations))
options = dict(steer_at=asked.steer_layers or range(study.model.n_layers // 2), coefficient=asked.coefficient)
options |= dict(controls=asked.controls, orthogonal=asked.orthogonal, least=asked.least, seed=study.seed)
options |= dict(judge=None if tagged else study.judge, max_new_tokens=study.max_new_tokens)
for domain in tunes.recipients:
    what = f"what is carried into {domain}"
    with study.phase(what), wb.if_measurable(study, what):
        carried = tunes.as_is(domain, **acts)
        with wb.if_measurable(study, f"fitted maps into {domain}"):
            carried += tunes.by_maps(domain, asked.maps, operations=tuple(asked.map_operations))
        carried += beyond.carried_back(domain, **acts) if beyond else []
        transfers.append(tunes.into(domain, carried, **options))
if beyond:
    what = "what is carried into the other model"
    with study.phase(what), wb.if_measurable(study, what):
        options |= dict(steer_at=asked.steer_layers or range(study.recipient.n_layers // 2))
        transfers.append(beyond.into(beyond.carried(asked.shuffles, asked.operations), **options))

with study.phase("the matrix"), wb.if_measurable(study, "the transfer matrix"):
    matrix = wb.transfer_matrix(transfers, least=asked.least)
    study.add(matrix)
    print(matrix)

study.finish()
