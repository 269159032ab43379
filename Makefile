# make test: style, types and the tests of minutes.  make test-full: the second tier, and the tests of the plugins.
# make bench: speed and memory compared with other packages.
# make docs: the documentation site, in site/.  make demo: the whole workflow on synthetic phantoms.

PYTHON ?= python3
BIN = .venv/bin
STAMP = .venv/.installed

PLUGINS = $(dir $(wildcard plugins/*/pyproject.toml))

EMBEDDED = chest-ct abdomen-ct torso-ct abdomen-mr torso-mr scene1-mr scene2-ct scene3-ct scene3-mr

.PHONY: test test-full bench docs demo lint embedded-model

test: lint
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test-full: $(STAMP)
	$(BIN)/python -m pytest -m full -n auto --maxprocesses 4 --dist worksteal
	set -e; for plugin in $(PLUGINS); do (cd $$plugin && $(CURDIR)/$(BIN)/python -m pytest); done

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy -p fseft_brainchop -p fseft_nnunet -p fseft_hf_peft
	cd benchmarks && $(CURDIR)/$(BIN)/mypy --config-file ../pyproject.toml *.py

docs: $(STAMP)
	$(BIN)/mkdocs build --strict

# The extra `bench` installs the other packages. One row: make bench ROW=export
bench: $(STAMP)
	$(BIN)/python benchmarks/bench.py --row "$(ROW)"

demo: $(STAMP)
	$(BIN)/fseft demo

# Weights for fseft/builtin/phantom/weights: 45 minutes of a core that does nothing else.
embedded-model: $(STAMP)
	$(BIN)/fseft phantom build/phantoms --embedded
	$(BIN)/fseft pretrain $(addprefix build/phantoms/,$(EMBEDDED)) --workspace build --name embedded \
	  --architecture resunet --window=-200,300 --patch 48,48,48 --epochs 80 --minutes 52 --learning-rate 1.5e-3 \
	  --seed 0 --fp16 --licence Apache-2.0
	cp build/models/embedded/model.json build/models/embedded/weights.safetensors fseft/builtin/phantom/weights/

# torch first and by itself: whoever wants another build of it installs that one before.
$(STAMP): pyproject.toml constraints.txt $(PLUGINS:%=%pyproject.toml)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt torch
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]' $(PLUGINS:%=-e ./%)
	touch $@
