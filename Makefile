# Two commands: `make demo` runs the main experiment offline, `make test` the tests. Each installs what it needs, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One thread: the same numbers on every run, and two test workers do not fight over two cores.
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test test-long test-ray check bench soak studies-a studies-b format docs-test clean
.DEFAULT_GOAL := demo

$(VENV)/installed: pyproject.toml constraints.txt
	@echo "installing into $(VENV), once; this takes some minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,dev]'
	touch $@

demo: $(VENV)/installed
	$(BIN)/python experiments/quickstart.py --to runs/quickstart

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2

# Whole scripts on the organism, and every script on every family of checkpoints: above half an hour.
test-long: $(VENV)/installed-dev
	WORKBENCH_LONG=1 $(BIN)/python -m pytest -n 2 $$(grep -lw LONG tests/test_*.py)

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright

# Quick sizes, one core; `python tests/bench/gpu.py` is the form for a GPU.
bench: $(VENV)/installed-dev
	$(BIN)/python tests/bench/run.py --quick

# Kills, power cuts, flipped bits, hostile files, races: under an hour, exits with 1 when anything was lost or believed.
soak: $(VENV)/installed-dev
	$(BIN)/python tests/soak/run.py

# A cluster of two nodes on this machine, a worker and a node of which are killed.
test-ray: $(VENV)/installed-dev
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[ray]'
	$(BIN)/python -m pytest tests/test_ray*.py

# Paper A on the organism: every script for three base seeds, two at a time, and one page about all of them.
STUDIES_A := mitigation shift_geometry lora_rank harmful_fraction training_drift modality_routing
RUNS_A := $(foreach study,$(STUDIES_A),$(foreach seed,0 1 2,runs/studies-a/$(study)/seed$(seed)))

.PHONY: $(RUNS_A)
studies-a: $(VENV)/installed
	$(MAKE) --jobs 2 $(RUNS_A)
	$(BIN)/python experiments/paper_a.py --runs runs/studies-a --to runs/studies-a/report.html

$(RUNS_A): runs/studies-a/%: $(VENV)/installed
	$(BIN)/python experiments/$(*D).py --seed $(*F:seed%=%) --to $@

# Paper B on the organism: one population (11 domains, three fine-tuning seeds, plain and with a backdoor) in two halves
# at once, then every script on it, two at a time. They were developed on base seed 0; this is another base.
STUDIES_B := convergence direction_transfer trigger_forensics probe_matrix membership_predictor forecast \
	topical_diversity domain_ranking
SEED_B := 1
B := runs/studies-b
HALVES_B := $(B)/half1 $(B)/half2
RUNS_B := $(foreach study,$(STUDIES_B),$(B)/$(study)/seed$(SEED_B))
POPULATION_B := --seed $(SEED_B) --population $(B)/shared

.PHONY: $(HALVES_B) $(RUNS_B)
studies-b: $(VENV)/installed
	$(MAKE) --jobs 2 $(HALVES_B)
	$(BIN)/python experiments/population.py $(POPULATION_B) --to $(B)/population/seed$(SEED_B)
	$(MAKE) --jobs 2 $(RUNS_B)
	$(BIN)/python experiments/paper_b.py --runs $(B) --to $(B)/report.html

$(HALVES_B): $(B)/half%: $(VENV)/installed
	$(BIN)/python experiments/population.py $(POPULATION_B) --part $*/2 --to $@

$(RUNS_B): $(B)/%: $(VENV)/installed
	$(BIN)/python experiments/$(*D).py $(POPULATION_B) --to $@

format: $(VENV)/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs-test: $(VENV)/installed-dev
	WORKBENCH_LONG=1 $(BIN)/python -m pytest tests/test_readme.py tests/test_docs.py tests/test_names_page.py

clean:
	rm -rf $(VENV) runs build *.egg-info
