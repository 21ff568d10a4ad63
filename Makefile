# Everything runs in .venv, which holds the package (editable), its extras and the tools, all pinned.
PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
INSTALLED := .venv/.installed
QUESTION := Explain step by step why the sky is blue at noon and red at sunset.

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(INSTALLED)  ## install, then answer a question with a cache smaller than the answer
	$(BIN)/sparing run "$(QUESTION)" --model smollm2 --budget 160 --max-new-tokens 200 --seed 0

test: lint  ## lint, types, README tables, tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS)

lint: $(INSTALLED)  ## ruff, mypy and the README's generated tables
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/cog --check README.md

bench: $(INSTALLED)  ## measure decoding on smollm2 into results/, and bring the README up to date
	$(BIN)/sparing bench decode --model smollm2 --threads 2 --json results/decode.json
	$(BIN)/cog -r README.md

clean:  ## remove the environment and whatever tools left behind (the model cache stays)
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find sparing tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --no-deps -r requirements.lock
	$(BIN)/python -m pip install --no-deps --no-build-isolation --editable .
	@$(BIN)/python -c "import torch" 2>/dev/null || { \
	  echo "PyPI's torch wants CUDA libraries that are not in the lock: taking the CPU build"; \
	  $(BIN)/python -m pip install --no-deps --force-reinstall \
	    --index-url https://download.pytorch.org/whl/cpu "$$(grep ^torch== requirements.lock)"; }
	@$(BIN)/python -c "import torch"
	touch $@
