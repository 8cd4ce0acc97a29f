"""Do the directions of all fine-tuned domains converge on one, on several, or on none?

A domain's direction: fine-tune minus base at one token, on prompts about other domains. Layer by layer: cosines of all
pairs, components that two or more domains share (each tested after the ones before it), groups of domains, overlaps of
the shifts' subspaces, all against random directions of the same stream; two fine-tunings of one domain are the ceiling,
backdoored fine-tunes with and without their trigger stand beside, and directions that are known (what persona prompts
move) are held against. Each direction is taken apart into what the other domains have in common and a narrow rest; on
questions that fitted nothing both are added to the base at one length, alone and with orthogonal noise, with the KL on
neutral prompts. Of the adapters: cosines of their weights, where they write, whether their gates tell prompts apart;
and the bridge: the shift that B·A predicts on the mean of what its modules read, against the measured one. Resumable.
"""

from dataclasses import replace

import workbench as wb

study = wb.DomainStudy.from_command_line(
    __doc__,
    default_to="runs/convergence",
    **dict(each=16, at="last", layer=int, k=3, draws=499, reference="good", causal=[str], steered=[int]),
    **dict(noise=[0.5, 1.0], controls=99),
)
asked, toy = study.asked, study.toy
family = "family" if all("family" in one.tags for one in study.questions) else ()
sides = wb.split_rows(study.questions, {"fit": 0.5, "evaluate": 0.5}, family=family, seed=study.seed)
fit = [replace(one, prefill=one.tags.get("answer_prefix", one.prefill)) for one in sides["fit"]]
where = dict(sites="resid_post", at=asked.at, pool="mean")

if plan := study.plan:  # --dry-run: what these steps would take
    made = plan.population(study.recipes, seeds=asked.seeds, part=asked.part, name="fine-tunes")
    plan.capture(fit, *made.conditions, at=asked.at, model=made.load(), name="activations")
    plan.stop("backdoors under their trigger, the bridge (a forward an adapter), and parts added to the base")

with study.phase("activations and directions of every fine-tune"):
    groups, model = study.groups(study.arms[0]), study.model
    arms = {"plain": (groups, fit, None)}
    if "backdoor" in study.arms[1:] and study.domains.trigger:
        shown = wb.asked_with_triggers(study.domains, fit)
        under = {"backdoor without trigger": "none", "backdoor with trigger": "trigger"}
        arms |= {arm: (study.groups("backdoor"), shown, text) for arm, text in under.items()}
    found = {}
    for arm, (members, prompts, text) in arms.items():
        names = ["base", *(name for own in members.values() for name in own)]
        folder, topics = study.folder / arm.partition(" ")[0], {one.id: one.tags.get("domain") for one in prompts}
        rows = wb.capture(model, prompts, variants=names, together=True, to=folder, **where).rows()
        with wb.if_measurable(study, f"directions, {arm}"):
            found[arm] = wb.domain_directions(rows, members, topics, shown=text)
            for domain, why in found[arm].left_out.items():
                study.add(wb.not_measurable(f"the direction of {domain}, {arm}", why))

with study.phase("one direction or several"):
    for arm, own in found.items():
        convergence = wb.convergence(own.directions, own.rows, draws=asked.draws, seed=study.seed)
        study.add(convergence, condition=arm, pairs_at=own.middle(asked.layer), prompts=own.fitted_on)
        print(arm, convergence, sep="\n")

if plain := found.get("plain"):
    drawn = dict(rows=plain.base, draws=asked.draws, seed=study.seed)
    with study.phase("subspaces of the shifts"), wb.if_measurable(study, "subspaces of the shifts"):
        study.add(wb.frame_matrix(plain.subspaces(asked.k), **drawn), condition="plain")

    if toy or study.inputs.personas:
        with study.phase("directions that are known"), wb.if_measurable(study, "directions that are known"):
            spoken = wb.organism_personas(fit) if toy else wb.read_prompts(study.inputs.personas)
            under = wb.capture(model.variant("base"), spoken, to=study.folder / "personas", **where).rows()
            known = wb.label_directions(under, asked.reference, sites=plain.sites)
            study.add(wb.near_landmarks(plain.directions, known, **drawn))

    with study.phase("general and narrow parts"):
        parts = wb.general_and_narrow(plain.directions, **drawn)
        study.add(parts)
        tagged = all({"right", "contrary"} <= set(one.tags) for one in study.questions)
        layers = asked.steered or ([0, 1, 2] if toy else [plain.middle(asked.layer)])
        options = dict(noise=asked.noise, controls=asked.controls if tagged else 0, seed=study.seed)
        for domain in asked.causal or list(parts)[: None if tagged else 2]:
            with wb.if_measurable(study, f"parts of {domain} added to the base"):
                cells = wb.part_cells(parts[domain], layers, **options)
                to = dict(to=study.folder / "parts" / domain, neutral=study.inputs.neutral)
                judge = dict(judge=None if tagged else study.judge, max_new_tokens=study.max_new_tokens)
                table = wb.sweep(model.variant("base"), sides["evaluate"], list(cells.values()), **to, **judge)
                metric = None if tagged else wb.metric_of(study.judge)
                study.add(wb.part_effects(table, list(cells), domain, metric))

    with study.phase("weights, gates, and from weights to activations"), wb.if_measurable(study, "weights"):
        inputs = wb.module_inputs(model, fit, at=asked.at)  # what the adapters' modules read in the base
        weights = wb.domain_weights(study.population.adapters, plain, inputs, fit)
        study.add(weights)
        predicted = wb.constant_shift(model, fit, weights.constants(inputs), sites=plain.sites, at=asked.at)
        study.add(wb.weight_bridge(predicted, plain.measured(weights.owner), weights.owner, sites=plain.sites))

study.finish()
