# The two commands of the README, and what they are made of.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
CORES ?= 2
CONFIG ?= config.yaml
DATA ?= $(GALGAZE_TEST_DATA)

.PHONY: catalogue test lint pins clean mirabest
.DEFAULT_GOAL := catalogue

# What is installed is installed again only when the pins or the dependencies change.
$(VENV)/.installed: pyproject.toml envs/constraints.txt
	test -x $(BIN)/python || $$(command -v $(PYTHON) || command -v python3) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint envs/constraints.txt --editable .
	touch $@

$(VENV)/.installed-tests: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint envs/constraints.txt --editable '.[test]'
	touch $@

# Catalogues and reports of the default configuration (or CONFIG=my.yaml) into results/.
catalogue: $(VENV)/.installed
	PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --cores $(CORES) --configfile $(CONFIG)

test: $(VENV)/.installed-tests
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest --numprocesses $(CORES) --dist loadfile

lint: $(VENV)/.installed-tests
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/lint-imports
	PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --lint

# Real radio galaxies end to end: local server, fetch, training, catalogue, report. DATA: the folder of test data.
mirabest: $(VENV)/.installed-tests
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tests.workflow.real_surveys --data "$(DATA)" --cores $(CORES)

# After installing other versions by hand: write them down.
pins: $(VENV)/.installed-tests
	( grep '^#' envs/constraints.txt; $(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' ) > envs/constraints.new
	mv envs/constraints.new envs/constraints.txt
	$(BIN)/python envs/make_conda_environment.py

clean:
	rm -rf $(VENV) .snakemake
