# One environment in .venv, made from the newest Python that the LSST stack supports.
#
#   make demo                                   a Butler repository on a dCache, start to end
#   make demo STORE=s3                          the same on an S3 server, which is started for it
#   make demo STORE=s3://profile@bucket/dir/    the same on another server; so with davs://
#   make test                                   every check and every test
#   make test DCACHE_URL=davs://door:2880/dir/  the same against another server
#   make check                                  the checks alone
#   make bench                                  the benchmarks' suite of five minutes: requests, connections, memory
#   make pytest ARGS='-k macaroon'              some tests alone
PYTHON ?= $(shell .ci/find-python)
VENV := .venv
BIN := $(VENV)/bin
PACKAGE := python/lsst/daf/butler_dcache
# More than there are cores, since the tests wait a third of their time: on two, 4 take 5.5 minutes and 3 take 7.
JOBS ?= 4
STORE ?= dcache
ARGS ?=
export DCACHE_URL
# Some images set it. The tests start hundreds of interpreters, each of which would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check lint types docstrings pytest bench env clean

demo: $(VENV)/.demo $(if $(filter s3,$(STORE)),$(VENV)/.seaweedfs)
	$(BIN)/dcache-butler demo $(if $(findstring ://,$(STORE)),--url,--store) '$(STORE)' $(ARGS)

# The checks run beside the tests, which wait often enough, and a failure of either lets the other end.
test: env
	@$(MAKE) --no-print-directory -j2 -k --output-sync=line check pytest

check: lint types docstrings

lint: env
	$(BIN)/ruff check python tests
	$(BIN)/ruff format --check python tests

types: env
	$(BIN)/mypy

# In the LSST form. A command's docstring is what --help shows, and behind its one public class the embedded dCache is
# nobody's library: there a parameter is described where its name does not say enough.
docstrings: env
	$(BIN)/python -W ignore::UserWarning -m numpydoc lint $$(find $(PACKAGE) -name '*.py' -not -path '*/cli/*' -not -path '*/embedded/*')
	$(BIN)/python -W ignore::UserWarning -m numpydoc lint --ignore PR01 -- $$(find $(PACKAGE)/cli $(PACKAGE)/embedded -name '*.py')

pytest: env
	$(BIN)/python -m pytest -q -ra -n $(JOBS) --dist worksteal $(ARGS)

# Once: what is counted does not change from one time to the next, and nothing else can be missed.
bench: env
	$(BIN)/dcache-butler bench run --suite ci --repetitions 1 --require counted --out bench-output $(ARGS)

env: $(VENV)/.complete

# Made again only when the package asks for other things; the demo needs less than the tests.
$(VENV)/.complete: pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $(VENV)/.demo $(VENV)/.seaweedfs $@

$(VENV)/.demo: pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	touch $@

$(VENV)/.seaweedfs: pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install --quiet --editable '.[seaweedfs]'
	touch $@

$(BIN)/pip:
	test -n "$(PYTHON)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

clean:
	rm -rf $(VENV) .xrootd .oidc-provider demo-output bench-output
