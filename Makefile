# make serve, on a fresh machine with Python 3.11, makes .venv, installs into it and starts the service.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV ?= .venv
HOST ?= 0.0.0.0
PORT ?= 8000
PYTEST_ARGS ?=
BENCH_ARGS ?=
CORPUS ?= data/corpus
MODEL ?= models/small

BIN := $(VENV)/bin
SYNTHETIC := data/synthetic/manifest.jsonl
SPLICED := data/spliced/manifest.jsonl
DEVICE ?= cpu
give_words = mkdir -p runs && $(BIN)/tongues data sentences --data $(2) --lang $(1) > runs/$(1).txt \
  && $(BIN)/tongues words --models $(MODEL) --data $(2) --adapter $(1) --text runs/$(1).txt \
  --licence 'GPL-2.0-only AND GPL-2.0-or-later'
ON_A_GPU = --data $(CORPUS)/manifest.jsonl --start $(MODEL)/backbone --route-steps 0 --ctc-steps 4600 --batch-s 240 \
  --lr 1.5e-3 --balance 0.2 --variation strong --consistency 0.2 --dropout 0.1 --masking 0.03 --device $(DEVICE)
INSTALL := $(BIN)/python -m pip install -c constraints.txt
# what is checked; a folder that is not there yet is left out
SOURCES = $(wildcard app adapters benchmarks tests)

.PHONY: help install serve test check soak bench bench-train models results

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.installed  ## a virtual environment in .venv with the service in it

serve: $(VENV)/.installed  ## the service on HOST and PORT, with the model in models/
	$(BIN)/tongues serve --host $(HOST) --port $(PORT)

# a process for each core, of one thread: twice as fast as one of many
test: $(VENV)/.installed-dev  ## every test but the soaks
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 $(PYTEST_ARGS)

check: $(VENV)/.installed-dev  ## ruff, ruff format and mypy, without changing anything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict $(SOURCES)

soak: $(VENV)/.installed-dev  ## the long tests: random load, random faults
	$(BIN)/python -m pytest -m soak -rP $(PYTEST_ARGS)

bench: $(VENV)/.installed-bench  ## every system side by side, measured, into docs/ (about 20 minutes on 2 cores)
	$(BIN)/python -m benchmarks.serving $(BENCH_ARGS)

bench-train: $(VENV)/.installed-bench  ## training with the frozen layers' output kept, next to without, into docs/
	$(BIN)/tongues data build --out $(CORPUS)
	$(BIN)/python -m benchmarks.training --data $(CORPUS)/manifest.jsonl

models: $(VENV)/.installed-dev  ## rebuild the model in models/ from the recordings (four hours on 2 cores, then DEVICE=cuda)
	$(BIN)/tongues data build --out $(CORPUS)
	$(BIN)/tongues pretrain --data $(CORPUS)/manifest.jsonl --out $(MODEL) --processes 2
	$(BIN)/tongues pretrain --data $(CORPUS)/manifest.jsonl --out $(MODEL) --processes 2 --run runs/further \
	  --start $(MODEL)/backbone --route-steps 0 --ctc-steps 13000 --balance 0.2 --lr 7e-4
	$(BIN)/tongues data synthesise --data $(CORPUS)/manifest.jsonl --out $(SYNTHETIC) --most 1200 \
	  --lang be,bg,ca,cs,da,de,el,en,es,fr,it,nl,ro,ru
	$(BIN)/tongues data splice --data $(CORPUS)/manifest.jsonl --backbone $(MODEL)/backbone --out $(SPLICED)
	$(BIN)/tongues pretrain --out runs/both --also $(SYNTHETIC) --also $(SPLICED) --also-share 0.5 $(ON_A_GPU)
	$(BIN)/tongues pretrain --out runs/spliced --also $(SPLICED) --also-share 0.35 $(ON_A_GPU)
	$(BIN)/tongues backbone average runs/both/backbone runs/spliced/backbone --out $(MODEL)/backbone
	$(BIN)/tongues train --data $(CORPUS)/manifest.jsonl --models $(MODEL) \
	  --lang en,es,fr,it,ru,nl --bottleneck 32 --steps 300 --lr 5e-4
	$(BIN)/tongues train --data $(CORPUS)/manifest.jsonl --models $(MODEL) \
	  --lang cs --bottleneck 32 --steps 300 --lr 5e-4 --telephone 0.5
	$(BIN)/tongues train --data $(CORPUS)/manifest.jsonl --models $(MODEL) \
	  --lang ro,bg,el,be,ca,da --bottleneck 16 --steps 200 --lr 1e-3
	$(BIN)/tongues train --data $(SYNTHETIC) --models $(MODEL) --lang de --bottleneck 16 --steps 300 --lr 1e-3
	for lang in be bg ca cs da el en es fr it nl ro ru; do $(call give_words,$$lang,$(CORPUS)/manifest.jsonl) || exit 1; done
	$(call give_words,de,$(SYNTHETIC))
	$(BIN)/tongues languages --data $(CORPUS)/manifest.jsonl --also $(SYNTHETIC) --models $(MODEL)

results: $(VENV)/.installed-dev  ## the paper's experiment on the recordings, into docs/ (many hours on 2 cores; resumable)
	$(BIN)/tongues data build --out $(CORPUS)
	$(BIN)/tongues pretrain --data $(CORPUS)/manifest.jsonl --out runs/hubert --architecture hubert --start $(MODEL)/backbone \
	  --route-steps 300 --ctc-steps 600 --lr 5e-4 --processes 2
	$(BIN)/tongues results --data $(CORPUS)/manifest.jsonl --models $(MODEL) --beside hubert=runs/hubert --steps 150 --at-once 2 \
	  --device $(DEVICE)

$(BIN)/python:
	@for python in python3.11 python3.12 python3.13 python3; do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then echo 'Tongues needs Python 3.11 or newer: install it, so that python3.11 runs it.' >&2; exit 1; fi; \
	echo "$$found -m venv $(VENV)"; \
	$$found -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$$found cannot make virtual environments (on Debian or Ubuntu: apt install python3-venv)." >&2; exit 1; }

# The stamps hold what was installed from what, so that nothing is installed twice.
$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[beam]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[dev]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-bench: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e '.[dev,bench]'
	@touch $(VENV)/.installed $(VENV)/.installed-dev $@
