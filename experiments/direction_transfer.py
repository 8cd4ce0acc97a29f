"""Does a direction found in one model act in another, and does the map between them carry more than a class contrast?

On a population, within one base: every fine-tune's direction is its mean shift on plain prompts about other domains. It
is carried into fine-tunes on every other domain as it is, and by maps (Procrustes, ridge, low-rank affine) fitted on
plain prompts and on prompts under personas; where a fine-tune of another base is given, into that one and back. There
it is ablated, taken off, and patched to what the donor's base has. The specificity index is the share of the gap
between base and fine-tune that this closes, minus the share of unrelated capability that it loses; beside it stand
matched and orthogonal random directions, shuffled maps and the recipient's own direction. All of a recipient is one
planned sweep. Resumable.

Then between two base models, answers written (with a shared --population only where --written 1 asks for it): maps are
fitted on base models only, with one row a prompt: on plain prompts and on prompts under personas; each is compared with
maps fitted on shuffled pairs (fully, and within each persona) and with the recipient's own direction.
"""

import workbench as wb

study = wb.DomainStudy.from_command_line(
    __doc__,
    default_to="runs/direction_transfer",
    needs=(),
    **dict(maps=["identity", "procrustes", "ridge", "low_rank"], match=["depth", "cka", "r2"]),
    **dict(operations=["ablate", "steer", "patch"], map_operations=["ablate"], coefficient=-1.0, steer_layers=[int]),
    **dict(controls=9, orthogonal=2, shuffles=99, least=0.05, capability=str, calm=16, written=int),
    each=4,
)
asked, inputs = study.asked, study.inputs
of_domains = study.toy or asked.domains is not None
of_other = study.toy or "tuned" in inputs.other_adapters
of_pair = study.toy or (of_other and "tuned" in inputs.adapters)
if not (of_domains or of_pair):
    raise SystemExit("--model needs --domains, a population, or --adapter with --other-model and --other-adapter.")
if of_domains:
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
    if not of_domains:
        plan.stop("the pair of models: its steps are counted only for a population")
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

if of_other:
    with study.phase("the other model's own direction"):
        other, directions, pair = study.recipient, {}, {"recipient": study.recipient}
        if of_pair:
            pair = {"source": wb.load_model(inputs.base, adapter={"tuned": inputs.adapters["tuned"]}), **pair}
        fit = next(iter(sets.values())) if of_domains else inputs.prompts
        for name, each in pair.items():
            rows = study.capture(each, fit, "base", "tuned", name=f"shift-{name}")
            directions[name] = wb.difference_of_means(rows.where(variant="tuned"), rows.where(variant="base"))
            study.add(directions[name], condition="tuned", target=name)
        own = directions["recipient"]

if of_domains:
    with study.phase("directions of the fine-tunes"):
        groups = study.groups("full" if "full" in study.arms else "small")
        tunes = wb.fine_tunes(study.model, groups, sets, questions, capability, to=study.folder)
    beyond, transfers = None, []
    if of_other:
        with study.phase("maps between the two bases"), wb.if_measurable(study, "maps between the two bases"):
            learnt, rules = inputs.domains.get("tuned"), dict(methods=asked.maps, rules=asked.match)
            beyond = wb.other_base(tunes, other, own, learnt, **rules)
            v, spanning = directions.get("source", next(iter(tunes.shifts.values()))), list(sets)[1:]
            held_out = dict(tested_on={name: beyond.rows[name] for name in spanning}, shuffles=asked.shuffles)
            compared = wb.compare_maps(beyond.first, v, own, **held_out)
            study.add(compared.entries())
            print(*(f"{name}: {compared.carries(name)}" for name in beyond.first), sep="\n")
            for made in list(beyond.maps.values())[1:]:
                for name, one in made.items():
                    study.add(one, condition="transfer", along=v, target=name)

    acts, steer = dict(operations=tuple(asked.operations)), asked.steer_layers or range(study.model.n_layers // 2)
    common = dict(steer_at=steer, coefficient=asked.coefficient, controls=asked.controls, orthogonal=asked.orthogonal)
    common |= dict(least=asked.least, judge=None if tagged else study.judge)
    common |= dict(max_new_tokens=study.max_new_tokens, seed=study.seed)
    for domain in tunes.recipients:
        what = f"what is carried into {domain}"
        with study.phase(what), wb.if_measurable(study, what):
            carried = tunes.as_is(domain, **acts)
            with wb.if_measurable(study, f"fitted maps into {domain}"):
                carried += tunes.by_maps(domain, asked.maps, operations=tuple(asked.map_operations))
            carried += beyond.carried_back(domain, **acts) if beyond else []
            transfers.append(tunes.into(domain, carried, **common))
    if beyond:
        what = "what is carried into the other model"
        with study.phase(what), wb.if_measurable(study, what):
            common |= dict(steer_at=asked.steer_layers or range(other.n_layers // 2))
            transfers.append(beyond.into(beyond.carried(asked.shuffles, asked.operations), **common))
    with study.phase("the matrix"), wb.if_measurable(study, "the transfer matrix"):
        matrix = wb.transfer_matrix(transfers, least=asked.least)
        study.add(wb.transfer_entries(matrix))
        print(matrix)

if of_pair and (asked.written if asked.written is not None else asked.population is None):
    v, source, tuned = directions["source"], pair["source"], other.variant("tuned")
    asked_pair = [one for one in wb.read_prompts(inputs.questions) if wb.split_of(one.tags) == "other_domains"]
    asked_pair = [one for one in asked_pair if one.tags.get("domain", "") != inputs.domains.get("tuned")]
    lower, higher = {"contrary": "less", "right": "greater"}, {"contrary": "greater"}

    with study.phase("maps between the base models"):
        maps = {}
        for prompts in inputs.for_maps:  # plain prompts, and where given prompts under personas
            here = study.capture(source.variant("base"), prompts, name=f"{prompts.stem}-source")
            there = study.capture(other.variant("base"), prompts, name=f"{prompts.stem}-recipient")
            for method in ("procrustes", "ridge"):
                name = f"{method} on {prompts.stem}"
                maps[name] = wb.fit_transfer(here, there, method=method, at="last")
                study.add(maps[name], condition="transfer", along=v, target=name)

    with study.phase("ablate the mapped direction in the recipient"):
        kinds = {"shuffled_transfer": "full", "within_class_shuffled_transfer": "within_class"}
        held = study.capture(tuned, inputs.prompts, name="held", at="all")  # what the energy-matched controls combine
        options = dict(activations=held, control_kinds=["energy_matched"], tails=lower, questions=asked_pair)
        for name, carry in maps.items():
            usable = {kind: how for kind, how in kinds.items() if how == "full" or "personas" in name}
            n = asked.shuffles
            twins = {kind: [wb.Ablate(m.map(v, own)) for m in carry.shuffled(how, n=n)] for kind, how in usable.items()}
            where = dict(name=f"ablate-{name.replace(' ', '-')}", condition="transfer", target=name, baseline="tuned")
            study.measure(tuned, [wb.Ablate(carry.map(v, own))], controls=20, twins=twins, **where, **options)
        where = dict(name="ablate-own", condition="own_direction_of_target", target="the recipient's own")
        study.measure(tuned, [wb.Ablate(own)], **where, **options)

    with study.phase("steer the recipient's base model"):  # lengths as mapped; the coefficient scales them
        early = range(other.n_layers // 2)
        options = dict(controls=20, control_kinds=["isotropic"], tails=higher, questions=asked_pair)
        for name, direction in {**{name: carry.map(v, own) for name, carry in maps.items()}, "own": own}.items():
            cells = [wb.Steer(direction, layer=early, coefficient=c) for c in (0.5, 1.0, 2.0)]
            where = dict(name=f"steer-{name.replace(' ', '-')}", condition="steer", target=name)
            study.measure(other.variant("base"), cells, **where, **options)

study.finish()
