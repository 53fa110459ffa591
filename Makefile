# `make run` and `make test` install into .venv first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
UV     := $(BIN)/python -m uv pip

# The buffers of a search step are large and short-lived. glibc returns them to the kernel at every
# step, which costs a third of the time on a CPU; with these settings they stay in the process.
export MALLOC_MMAP_MAX_ ?= 0
export MALLOC_TRIM_THRESHOLD_ ?= 100000000000

.PHONY: install run test lint gate bench report reports docs dist lock clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml requirements.lock .ci/requirements-uv.lock
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r .ci/requirements-uv.lock
	$(UV) install -q --require-hashes -r requirements.lock \
	  || $(BIN)/python -m pip install -q --require-hashes -r requirements.lock
	$(UV) install -q --no-deps --no-build-isolation -e .
	@touch $@

run: install
	@$(BIN)/pulse-audit run

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The shipped twins against the published default audit: the balanced one must not fail (3 is
# inconclusive, where another processor rounds otherwise), the skewed one must.
gate: install
	$(BIN)/pulse-audit run default --out runs/gate --quiet > /dev/null
	$(BIN)/pulse-audit check runs/gate --rules reports/gate/rules.yaml \
	  --baseline reports/gate/baseline.json --arm pulse:faces-balanced || test $$? -eq 3
	$(BIN)/pulse-audit check runs/gate --rules reports/gate/rules.yaml \
	  --baseline reports/gate/baseline.json --arm pulse:faces-skewed \
	  --baseline-arm pulse:faces-balanced; test $$? -eq 1

bench: install
	$(BIN)/python -m benchmarks

report: install
	@for run in runs/*/; do $(BIN)/pulse-audit report "$$run"; done

# The published audits: the default one and each specification of reports/, run or resumed, then
# rendered for publishing; a test compares them with the present code.
# FairFace's photos are found through PULSE_AUDIT_DATA; an unfinished run is published as one.
reports: install
	@for spec in default reports/*.yaml; do name=$$(basename $$spec .yaml); \
	  $(BIN)/pulse-audit run $$spec --out runs/reports/$$name || true; \
	  $(BIN)/pulse-audit report runs/reports/$$name --public --out reports/$$name || true; done

# The documentation, with its notebooks run again, into site/, which opens from disk.
docs: $(VENV)/.installed-docs
	rm -rf build/notebooks
	$(BIN)/python docs/run_notebooks.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/.installed-docs: $(VENV)/.installed .ci/requirements-docs.lock
	$(UV) install -q --require-hashes -r .ci/requirements-docs.lock
	@touch $@

# Wheel and source distribution, checked, and the wheel tried in an empty environment.
dist: install
	rm -rf dist build/try
	$(BIN)/python -m hatchling build
	$(BIN)/python .ci/dist.py
	$(PYTHON) -m venv build/try
	$(UV) install -q --python build/try/bin/python --require-hashes -r requirements.lock
	$(UV) install -q --python build/try/bin/python --no-deps dist/*.whl
	cd build && try/bin/pulse-audit --help && try/bin/pulse-audit list generators \
	  && try/bin/pulse-audit doctor
	rm -rf build/try

lock:
	uv pip compile -q --universal --generate-hashes --python-version 3.11 --custom-compile-command "make lock" \
	  --extra dev --extra onnx --extra ray pyproject.toml -o requirements.lock
	uv pip compile -q --universal --generate-hashes --python-version 3.11 --custom-compile-command "make lock" \
	  --group docs --constraint requirements.lock -o .ci/requirements-docs.lock
	uv pip compile -q --universal --generate-hashes --python-version 3.11 --custom-compile-command "make lock" \
	  .ci/requirements-uv.in -o .ci/requirements-uv.lock

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
