# make lab    opens the course in JupyterLab           make test       lint, unit tests, every notebook compared with its outputs
# make lint   ruff and codespell only                  make notebooks  restart-and-run-all, outputs saved (NB="notebooks/05_x.ipynb" for one)
# make test-elsewhere  the notebooks on other processors, imitated (NB=... for one, OTHER_PYTHON=/path/to/python for another torch)
# make data   rebuilds data/ (BUILD_ARGS="--only results" for one stage; --check to verify)

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv/bin/python
STAMP := .venv/installed
export PIP_NO_INPUT := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: lab test test-elsewhere lint notebooks data clean
.DEFAULT_GOAL := test

$(STAMP): requirements.txt requirements-dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python found. Install Python 3.11 (3.10 to 3.13 will do), or name one: make PYTHON=/path/to/python3.11"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' || { \
		echo "$(PYTHON) is $$("$(PYTHON)" --version 2>&1); the course needs Python 3.10 to 3.13. Name another: make PYTHON=python3.11"; exit 1; }
	@echo "Making .venv and installing the course into it; this takes a few minutes the first time."
	@"$(PYTHON)" -m venv .venv
	@$(VENV) -m pip install -q -r requirements-dev.txt -e .
	@touch $(STAMP)

lab: $(STAMP)
	$(VENV) -m jupyterlab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks/00_quickstart.ipynb \
		$$(test "$$(id -u)" != 0 || echo --allow-root) $(LAB_ARGS)

lint: $(STAMP)
	$(VENV) -m ruff check --no-cache .
	$(VENV) -m codespell_lib
	.venv/bin/lint-imports --no-cache

# conftest.py sets the mode (CPU, offline) in which the committed outputs were made
test: lint
	$(VENV) -m pytest tests notebooks -q --nbval --nbval-current-env --nbval-sanitize-with=tests/nbval_sanitize.cfg --nbval-cell-timeout=600

# three draws of weight noise, no vector instructions, and another interpreter's torch if one is named; prints a table
test-elsewhere: $(STAMP)
	$(VENV) tools/elsewhere.py $(NB) $(if $(OTHER_PYTHON),--python "$(OTHER_PYTHON)")

notebooks: $(STAMP)
	$(VENV) tools/run_notebooks.py $(NB)

data: $(STAMP)
	$(VENV) -m constclf_lib.build $(BUILD_ARGS)

clean:
	rm -rf .venv
