# Two commands: `make run` and `make test`. `make help` lists the rest.
# The first one makes .venv: what to install is in pyproject.toml, the versions in environment.yml.

PYTHON := .venv/bin/python
READY := .venv/ready
INSTALL_FLAGS := $(if $(CI),--quiet)

# A virtual environment that no longer starts (its Python was removed) is made anew.
$(shell [ ! -e $(READY) ] || $(PYTHON) -c pass 2>/dev/null || rm -rf .venv)

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

run: $(READY)  ## run PIAA on the embedded mini world and print the ablation table
	$(PYTHON) -m piaa_utils run

test: $(READY)  ## lint, unit tests with coverage, doctests, every notebook
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m pytest --cov=piaa_utils
	$(PYTHON) -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout=300 \
		$(wildcard notebooks/[0-9]*.ipynb)

notebooks: $(READY)  ## make the notebooks that are out of step with notebooks/source
	$(PYTHON) notebooks/build.py

lab: $(READY)  ## open the notebooks in JupyterLab
	$(PYTHON) -m jupyterlab $(wildcard notebooks)

clean:  ## remove the virtual environment, caches and results
	rm -rf .venv cache results .pytest_cache .ruff_cache .hypothesis .coverage *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

# The first Python from 3.10 on that can make a virtual environment.
$(READY): pyproject.toml environment.yml
	@for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python; do \
		if $$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' \
			2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "There is no Python 3.10 or newer with the module venv on this machine; install" \
			"one (Debian and Ubuntu: apt-get install python3-venv) and run make again." >&2; \
		exit 1; \
	fi; \
	echo "Making the virtual environment .venv: once, some minutes and about 6 GB."; \
	$(PYTHON) -m pip --version >/dev/null 2>&1 || $$found -m venv --clear .venv
	sed -n 's/^ *- \(.*==.*\)/\1/p' environment.yml > .venv/versions.txt
	$(PYTHON) -m pip install $(INSTALL_FLAGS) --disable-pip-version-check \
		-c .venv/versions.txt -e '.[coco,lab,test]'
	@touch $(READY)

.PHONY: help run test notebooks lab clean
