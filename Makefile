# Everything runs in .venv, which holds the package (editable), its extras and the tools, all pinned.
PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-fast lint sanitize neon bench picture models build/pocket build/pocket-1 build/pocket-2 build/pocket-3 build/pocket-4 build/pocket-5 build/pocket-6 build/predictor build/predictor-smollm2 build/short-with build/short-without build/arms build/predictor-latent latents clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(INSTALLED)  ## install, then pocket thinks through a question of each family
	@set -e; for question in \
	  "How many legs are there in total if you have 13 spiders, 7 cows, 4 chickens, 12 crabs?" \
	  "Find a way to make 51 using all of these numbers: 9, 4, 15." \
	  "What is 382 - 197 + 415 - 868 + 250?" \
	  "A flight departed at 09:48:51 and arrived at 17:05:12. How long was the flight? Answer in HH:MM:SS."; \
	do printf '\n%s\n' "$$question"; $(BIN)/sparing run "$$question"; done

PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS)

test: lint  ## lint, types, generated tables, tests without the slow ones
	$(PYTEST) -m "not slow"

test-slow: $(INSTALLED)  ## the slow tests: sweeps, killed processes, whole trainings
	$(PYTEST) -m slow

test-fast: $(INSTALLED)  ## one case of each test that took under 0.2 s when last run here
	$(PYTEST) --fast

lint: $(INSTALLED)  ## ruff, mypy and the generated tables of README and docs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	PYTHONPATH=. $(BIN)/cog --check README.md docs/*.md

CXX_FLAGS := -std=c++17 -ffp-contract=off -fPIC -Wall -Wextra -Wno-psabi
SANITIZED := sparing/kernels/lib/sanitized.so

sanitize: $(INSTALLED)  ## the kernels' tests under address and undefined-behaviour sanitizers
	$(CXX) $(CXX_FLAGS) -O1 -g -march=native -fsanitize=address,undefined -fno-sanitize-recover=all -shared \
	  sparing/kernels/src/*.cpp -o $(SANITIZED) -pthread
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" ASAN_OPTIONS=detect_leaks=0 \
	  SPARING_KERNELS=sanitized JAXTYPING_DISABLE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q tests/kernels tests/model/test_compiled.py; \
	  status=$$?; rm -f $(SANITIZED); exit $$status

neon:  ## compile the kernels for 64-bit ARM, where a cross compiler is there
	@if command -v aarch64-linux-gnu-g++ >/dev/null; then for file in sparing/kernels/src/*.cpp; do \
	  aarch64-linux-gnu-g++ $(CXX_FLAGS) -O2 -march=armv8.2-a+dotprod -c $$file -o /dev/null || exit 1; done; \
	  else echo "no aarch64-linux-gnu-g++: NEON was not compiled (apt-get install g++-aarch64-linux-gnu)"; fi

bench: $(INSTALLED) build/short-with build/short-without build/predictor-smollm2 build/arms  ## measure everything into results/ (hours), bring README and docs up to date
	$(BIN)/sparing bench pocket --threads 2 --json results/pocket.json --overwrite
	$(BIN)/sparing bench pocket --threads 2 --short-with build/short-with --short-without build/short-without --n 1 \
	  --json results/pocket-controls.json --overwrite
	$(if $(SPARING_BASELINES),$(foreach model,smollm2 $(wildcard $(SPARING_GGUF_DIR)/qwen*.gguf),$(BIN)/sparing bench decode --model $(model) \
	  --threads 2 --llama-cpp $(SPARING_BASELINES) --openvino $(SPARING_BASELINES) $(if $(SPARING_DATA),--text $(SPARING_DATA)/gsm8k_train.jsonl) \
	  --long --json results/decode-$(basename $(notdir $(model))).json --overwrite &&) true)
	$(foreach model,smollm2 $(wildcard $(SPARING_GGUF_DIR)/gemma*.gguf),$(BIN)/sparing bench hub --model $(model) --threads 2 \
	  --json results/hub-$(basename $(notdir $(model))).json --overwrite &&) true
	$(BIN)/sparing bench memory --threads 2 --workers 2 --json results/memory.json --overwrite --plot results/memory.png \
	  --trace-plot results/trace.png
	$(BIN)/sparing bench memory --model smollm2 --threads 2 --predictor build/predictor-smollm2 \
	  --json results/memory-smollm2.json --overwrite
	$(BIN)/sparing bench depth --threads 2 --rounds 1 --json results/depth.json --overwrite --plot results/depth.png
	$(if $(SPARING_DATA),$(BIN)/sparing bench depth --model smollm2 --threads 2 --rounds 1 \
	  --prompts $(SPARING_DATA)/spec_bench.jsonl --json results/depth-smollm2.json --overwrite)
	$(BIN)/sparing bench latent --from build/arms --model pocket --seed 2611 --workers 2 --threads 2 --json results/latent.json --overwrite \
	  --plot results/latent.png
	$(BIN)/sparing bench serve --threads 2 --json results/serve.json --overwrite
	$(BIN)/sparing bench all --model pocket --threads 2 --json results/all-pocket.json --overwrite
	$(BIN)/sparing bench all --model pocket-latent --threads 2 --json results/all-pocket-latent.json --overwrite
	$(BIN)/sparing bench all --model smollm2 --threads 2 --predictor build/predictor-smollm2 --json results/all-smollm2.json --overwrite
	$(BIN)/sparing bench headline results/all-pocket.json results/all-pocket-latent.json results/all-smollm2.json \
	  --plot results/all.png
	PYTHONPATH=. $(BIN)/cog -r README.md docs/*.md

picture: $(INSTALLED)  ## the README's picture of the server's page (needs Debian's chromium)
	$(BIN)/python -m tests.server.page.picture results/page.png

TRAIN = $(BIN)/sparing train reason --task pocket --threads 2 $(if $(wildcard $@/training.json),--resume)

# two short runs that differ in layer dropout and early exits alone
build/short-with build/short-without: $(INSTALLED)
	$(TRAIN) --out $@ --seed 0 --share 0.4 --steps 1000 --decay 0.5 \
	  $(if $(findstring without,$@),--layer-dropout 0 --exit-weight 0)

build/pocket-1: $(INSTALLED)
	$(TRAIN) --out $@ --seed 0 --steps 4500

build/pocket-2: build/pocket-1
	$(TRAIN) --out $@ --seed 1 --base $< --share 0.3 --steps 1200 --lr 2e-3 --decay 1

# from here on rows whose cache has holes, so that it can do with a budget
HOLES = $(TRAIN) --out $@ --base $< --cache-dropout 0.75

build/pocket-3: build/pocket-2
	$(HOLES) --seed 2 --share 0.6 --steps 1800 --lr 2.5e-3 --decay 0.8

build/pocket-4: build/pocket-3
	$(HOLES) --seed 3 --share 0.3 --steps 900 --lr 2e-3 --decay 1

build/pocket-5: build/pocket-4
	$(HOLES) --seed 4 --share 0.3 --steps 800 --lr 2e-3 --decay 1

build/pocket-6: build/pocket-5
	$(HOLES) --seed 5 --share 0.24 --steps 600 --lr 2e-3 --decay 1

build/pocket: build/pocket-6
	$(HOLES) --seed 6 --share 0.3 --steps 700 --lr 2.5e-3 --decay 0.8

# what pocket shall remember: 4,800 questions of its own, then how much each thought was looked back at
# (by a shell: torch's own parser would take --n for one of its options)
build/predictor: build/pocket
	OMP_NUM_THREADS=1 $(BIN)/python -m torch.distributed.run --nproc-per-node 2 --standalone --no-python sh -c \
	  "exec $(BIN)/sparing train predictor --model $< --n 600 --threads 1 --epochs 70 --lr 3e-3 --local 0.4 --selection 0.6 \
	  --out $@ $(if $(wildcard $@/traces/training.json),--resume)"

# for the clock alone: chat models solve too little of this for anything else
build/predictor-smollm2: $(INSTALLED)
	$(BIN)/sparing train predictor --model smollm2 --task chain_sum,leg_counting --n 40 --max-new-tokens 256 \
	  --accept any --threads 2 --out $@ $(if $(wildcard $@/training.json),--resume)

# latents and what they are compared with, on two cores: the first seed's arms beside those of the others
ARMS = OMP_NUM_THREADS=1 $(BIN)/sparing train ablations --base pocket --out build/arms --steps 60,120,240 --optimizer muon \
  --lr 1e-3 --tau 0.7 --batch-tokens 3072 --share 0.02 --layer-dropout 0.1 --exit-weight 0.1 --threads 1 --save-every 50

build/arms: $(INSTALLED)
	$(ARMS) --only-seeds 0 $(if $(wildcard $@/training.json),--resume) & first=$$!; \
	  until [ -e $@/training.json ]; do kill -0 $$first && sleep 1 || exit 1; done; \
	  $(ARMS) --only-seeds 1,2 --resume && wait $$first

build/predictor-latent: build/arms
	$(BIN)/sparing train predictor --model build/arms/seed-0/1-none/2-hidden/3-fused --n 150 --threads 2 --epochs 70 --lr 3e-3 \
	  --local 0.4 --selection 0.6 --out $@ $(if $(wildcard $@/traces/training.json),--resume)

latents: build/predictor-latent  ## train pocket-latent and pocket-cot, from pocket as it ships (2 hours)
	rm -rf sparing/pocket/weights-latent sparing/pocket/weights-cot
	cp -r build/arms/seed-0/1-none/2-hidden/3-fused sparing/pocket/weights-latent
	cp -r build/arms/seed-0/1-none/2-none/3-none sparing/pocket/weights-cot
	cp $</predictor.json $</predictor.safetensors sparing/pocket/weights-latent
	$(BIN)/sparing tune depth --model pocket-latent --out sparing/pocket/weights-latent
	PYTHONPATH=. $(BIN)/python tools/round_weights.py sparing/pocket/weights-latent

models: build/predictor  ## train every shipped weight from nothing (7 hours on 2 quiet cores; interrupted, it goes on)
	rm -rf sparing/pocket/weights && cp -r build/pocket sparing/pocket/weights
	cp build/predictor/predictor.json build/predictor/predictor.safetensors sparing/pocket/weights
	$(BIN)/sparing tune depth --model pocket --out sparing/pocket/weights
	$(MAKE) latents

clean:  ## remove the environment and whatever tools left behind (the model cache stays)
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f sparing/kernels/lib/*.so
	find sparing tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

KERNELS := $(wildcard sparing/kernels/src/*.cpp sparing/kernels/src/*.h)

$(INSTALLED): requirements.lock pyproject.toml setup.py $(KERNELS)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --no-deps -r requirements.lock
	$(BIN)/python -m pip install --no-deps --no-build-isolation --editable .
	@$(BIN)/python -c "import torch" 2>/dev/null || { \
	  echo "PyPI's torch wants CUDA libraries that are not in the lock: taking the CPU build"; \
	  $(BIN)/python -m pip install --no-deps --force-reinstall \
	    --index-url https://download.pytorch.org/whl/cpu "$$(grep ^torch== requirements.lock)"; }
	@$(BIN)/python -c "import torch"
	touch $@
