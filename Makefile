# `make test` checks everything, `make demo` shows it. Each sets up .venv first, and again when pyproject.toml changes.
# PYTHON is the interpreter that .venv is made from, JOBS the number of test processes, ARGS goes to pytest in `make unit`
# and says which edits in `make mutants`, UV_ARGS to the installation (`UV_ARGS="--torch-backend cpu"` leaves CUDA out).

PYTHON ?= python3
JOBS   ?= 2
ARGS   ?=
UV_ARGS ?=

BIN   := .venv/bin
READY := .venv/.ready
# Each process takes whole files, in the order of tests/slow.txt.
WHOLE := --dist loadfile --no-loadscope-reorder
step   = @printf '\n==> %s\n' '$(1)'

export MPLBACKEND := Agg
export HF_HUB_OFFLINE := 1
export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
# The tests start many processes: without byte code on disk each compiles torch anew, which takes it some seconds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := test
.DELETE_ON_ERROR:
.PHONY: test demo lint types imports unit doctest site docs blocks examples mutants format clean

# Pyright, docstrings and the site take one processor each, and run beside each other; the rest takes all of JOBS.
MORE = $(MAKE) --no-print-directory

test: $(READY)
	@$(MORE) -j 1 lint imports
	@$(MORE) -j $(JOBS) --output-sync=target types doctest site
	@$(MORE) -j 1 unit blocks examples
	$(call step,everything passed)

demo: $(READY)
	$(call step,polyattn demo)
	@$(BIN)/polyattn demo

lint: $(READY)
	$(call step,ruff: lint and format)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(READY)
	$(call step,pyright: types)
	@$(BIN)/pyright --pythonpath $(BIN)/python

imports: $(READY)
	$(call step,import-linter: the order of the stages)
	@$(BIN)/lint-imports --no-logo

unit: $(READY)
	$(call step,pytest: tests and proofs)
	@$(BIN)/python -m pytest -n $(JOBS) $(WHOLE) $(ARGS)

doctest: $(READY)
	$(call step,pytest: examples in docstrings)
	@$(BIN)/python -m pytest --doctest-modules polyattn

site: $(READY)
	$(call step,mkdocs: the site)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs: site blocks

blocks: $(READY)
	$(call step,pytest: code blocks of README and docs)
	@$(BIN)/python -m pytest README.md CONTRIBUTING.md docs -n $(JOBS) $(WHOLE)

# Tests run the rest as it stands: tests/training/test_recipes.py the recipes but one, tests/examples/test_short.py the short ones.
TESTED := $(addprefix examples/,$(addsuffix .py,train_detection train_faces train_video compare_with_a_published_block \
	judge_a_triton_kernel replace_a_vit_block sweep_costs swin_window train_and_decode))

examples: $(READY)
	@printf '%s\n' $(filter-out $(TESTED),$(wildcard examples/*.py)) | xargs -P $(JOBS) -I FILE sh -c \
		'out=$$($(BIN)/python FILE 2>&1); code=$$?; printf "\n==> %s\n%s\n" FILE "$$out"; exit $$code'

mutants: $(READY)
	$(call step,faults put into the sources that tests have to notice)
	@$(BIN)/python -m tests.mutants --jobs $(JOBS) $(ARGS)

format: $(READY)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

$(READY): pyproject.toml
	$(call step,setting up .venv)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "polyattn needs Python 3.11 or newer: make PYTHON=...")'
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --python $(BIN)/python $(UV_ARGS) --editable '.[demo,dev,docs]'
	@touch $@

clean:
	rm -rf .venv .hypothesis .import_linter_cache .pytest_cache .ruff_cache build dist demo-results site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
