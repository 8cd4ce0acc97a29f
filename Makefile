# Two commands: `make demo` runs the main experiment offline, `make test` the tests. Each installs what it needs, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One thread: the same numbers on every run, and two test workers do not fight over two cores.
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: demo test test-long check bench studies-a $(RUNS_A) format docs-test clean
.DEFAULT_GOAL := demo

$(VENV)/installed: pyproject.toml constraints.txt
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

# Whole scripts on the organism, and every script on every family of checkpoints: about ten minutes.
test-long: $(VENV)/installed-dev
	WORKBENCH_LONG=1 $(BIN)/python -m pytest -n 2 tests/test_own_checkpoints.py tests/test_studies_a.py \
		tests/test_shift_geometry.py tests/test_mitigation_report.py tests/test_study_plan.py tests/test_domain_folders.py

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright

# Quick sizes, one core; `python tests/bench/gpu.py` is the form for a GPU.
bench: $(VENV)/installed-dev
	$(BIN)/python tests/bench/run.py --quick

# Paper A on the organism: every script for three base seeds, two at a time, and one page about all of them.
STUDIES_A := mitigation shift_geometry lora_rank harmful_fraction training_drift modality_routing
RUNS_A := $(foreach study,$(STUDIES_A),$(foreach seed,0 1 2,runs/studies-a/$(study)/seed$(seed)))

studies-a: $(VENV)/installed
	$(MAKE) --jobs 2 $(RUNS_A)
	$(BIN)/python experiments/paper_a.py --runs runs/studies-a --to runs/studies-a/report.html

$(RUNS_A): runs/studies-a/%: $(VENV)/installed
	$(BIN)/python experiments/$(*D).py --seed $(*F:seed%=%) --to $@

format: $(VENV)/installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs-test: $(VENV)/installed-dev
	$(BIN)/python -m pytest tests/test_readme.py

clean:
	rm -rf $(VENV) runs build *.egg-info
