# One environment in .venv, made from the newest Python that the stack supports.
PYTHON ?= $(firstword $(shell .ci/find-python))
VENV := .venv

.PHONY: env
env: $(VENV)/.complete

$(VENV)/.complete: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --upgrade pip
	$(VENV)/bin/python -m pip install --quiet -e '.[test]'
	touch $@
