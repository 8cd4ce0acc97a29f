"""Where in a backdoored model does the trigger act: at which words is it held, which block reads it, and what opens it?

One question is run with the trigger and with another text of as many tokens in its place. The stream of one run is put
into the other, place by place (the trigger's tokens, the question, the template, the position that chooses the answer)
and site by site: what comes back of the trigger's effect says where it is carried, what goes where it is needed. The
block behind which the trigger's own tokens are no longer needed has read it: located on some questions, stated on
others, for the domain's own and for all other questions. Controls: the base, an ordinary text, the vector of the gate
against random ones of its length. Then near misses of the trigger. Resumable.
"""

import workbench as wb

study = wb.DomainStudy.from_command_line(
    __doc__,
    default_to="runs/trigger_forensics",
    needs=("domains", "questions"),
    elsewhere=2,  # questions of every other domain, beside all of a domain's own
    controls=99,
    near=[str],  # further texts, near misses or ordinary ones: shown, never trained
)
asked, domains, questions = study.asked, study.domains, study.questions
arm = "backdoor" if "backdoor" in study.arms else "backdoor-small"
if domains.trigger is None or arm not in study.arms:
    raise SystemExit("expected a backdoor arm in --domains and its --trigger (or a card that says it).")
tagged = all({"right", "contrary"} <= set(question.tags) for question in questions)
if plan := study.plan:  # --dry-run: what these steps would take
    model = study.plan_shared()
    adapters = [name for name in model.model.variants if f"-{arm}" in name]
    cells = range(8 * (plan.n_layers + 1))  # four places, both ways, at the embedding and behind every block
    forwards = {f"{name}, cell {cell}": name for name in adapters for cell in cells}
    few = wb.gate_questions(questions, domains.domains[0], elsewhere=asked.elsewhere)
    plan.read_choices(few, forwards, model=model, name="patches")
    plan.stop("near misses and random vectors, about half as many forwards again")

model, encoder, at = study.model, study.model.encoder, domains.at
further = {repr(text): text for text in asked.near or (["please"] if study.toy else [])}
texts = wb.near_misses(domains.trigger, at=at, decoy=domains.decoy, further=further)
reference, ordinary = (*wb.stand_ins(encoder, questions, domains.trigger, texts, at=at), None, None)[:2]
instead = reference.text if reference else None
print(f"in the trigger's place: {reference or 'nothing (no text has as many tokens)'}; ordinary text: {ordinary}")
gates, plain, base, near = [], {}, {}, []
for domain, names in study.groups(arm).items():
    with study.phase(f"the gate of {domain}"):
        own = wb.gate_questions(questions, domain, elsewhere=asked.elsewhere, seed=study.seed)
        decisions = wb.gate_decisions(names, own, encoder, None if tagged else study.judged_triggered)
        to = study.folder / "gates" / domain
        maps = wb.gate_maps(model, names, own, decisions, domains.trigger, reference=instead, at=at, to=to)
        found = wb.gates_of(domain, maps, seed=study.seed)
        if not found:
            study.add(wb.not_measurable(f"the gate of {domain}", "no two questions whose answers the trigger changes"))
            continue
        unasked = {"base": decisions[next(iter(maps))]}
        made = wb.gate_maps(model, unasked, own, unasked, domains.trigger, reference=instead, at=at, ways=[])
        base[domain] = made["base"]
        if ordinary:
            shown, file = ordinary.text, to / "ordinary"
            made = wb.gate_maps(model, maps, own, decisions, shown, reference=instead, at=at, ways=["in"], to=file)
            plain[domain] = made
        gate = wb.located_gate(found)
        for one in found:
            halves = wb.block_halves(model, one, maps, to=to) if one is gate else {}
            study.add(one, base=base[domain], halves=halves, against=reference.name if reference else "no text")
            print(one)
        if gate is not None:
            opened = wb.opened_gate(model, gate, maps, controls=asked.controls, seed=study.seed, to=to)
            study.add(opened, gate=gate)
            near.append(wb.near_misses_of(model, gate, maps, own, decisions, texts, seed=study.seed, to=to))
        gates += found

study.add(wb.GatesOverDomains(gates, plain, base, near))
study.finish()
