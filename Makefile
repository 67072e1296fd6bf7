# Two commands: `make run` and `make test`. `make help` lists the rest.
# The first one makes .venv: what to install is in pyproject.toml, the versions in environment.yml.

PYTHON := .venv/bin/python
READY := .venv/ready
BROWSER := .venv/browser
STARTUP := cache/ipython/profile_default/startup
BOOK := .venv/book
ONE_THREAD := OMP_NUM_THREADS=1  # for each of two test processes: two that take all cores are slow
INSTALL_FLAGS := $(if $(CI),--quiet)

# A virtual environment that no longer starts (its Python was removed) is made anew.
$(shell [ ! -e .venv/ready ] || .venv/bin/python -c pass 2>/dev/null || rm -rf .venv)

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

run: $(READY)  ## run PIAA on the embedded mini world and print the ablation table
	$(PYTHON) -m piaa_utils run

test: lint unit nbval  ## lint, unit tests with coverage, doctests, every notebook

lint: $(READY)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

unit: $(READY)
	$(ONE_THREAD) $(PYTHON) -m pytest --cov=piaa_utils -n 2 --dist loadfile --no-loadscope-reorder

nbval: $(READY)
	mkdir -p $(STARTUP)
	cp tests/warnings_are_errors.py $(STARTUP)
	IPYTHONDIR=$(CURDIR)/cache/ipython $(ONE_THREAD) $(PYTHON) -m pytest --nbval-lax \
		--nbval-current-env --nbval-cell-timeout=300 -n 2 --dist loadscope --no-loadscope-reorder \
		$(wildcard notebooks/[0-9]*.ipynb)

test-min: $(READY)  ## make test on the oldest versions that pyproject.toml allows
	$(PYTHON) tests/drift/run.py min

test-latest: $(READY)  ## make test on the newest versions that pyproject.toml allows
	$(PYTHON) tests/drift/run.py latest

test-grade: $(READY)  ## grade a real notebook, with right and with blank answers
	PIAA_GRADE_REAL=1 $(PYTHON) -m pytest -q tests/test_grade.py -k in_the_real_notebook

test-browser: $(BROWSER)  ## run and play with notebooks in JupyterLab, in a headless Chromium
	$(PYTHON) -m pytest tests/browser

notebooks: $(READY)  ## make the notebooks that are out of step with notebooks/source
	$(PYTHON) notebooks/build.py

book: $(BOOK)  ## render the series to a site to read: results/book
	$(PYTHON) notebooks/book/book.py

check-book: book  ## check the site's links, headings, pictures; with axe-core where it is there
	$(PYTHON) notebooks/book/check.py

badges: $(READY)  ## set the repository that the badges lead to: make badges REPO=owner/name
	$(PYTHON) notebooks/badges.py "$(REPO)"

student: $(READY)  ## make the folder for a class: make student OUT=folder
	$(if $(OUT),,$(error Say where: make student OUT=folder))
	$(PYTHON) -m piaa_utils handout "$(OUT)"

bench: $(READY)  ## time encoders, PVCL, scaling, mixed precision: on an idle machine, some minutes
	$(PYTHON) benchmarks/encoders.py
	$(PYTHON) benchmarks/pvcl.py
	$(PYTHON) benchmarks/scaling.py
	$(PYTHON) benchmarks/precision.py

lab: $(READY)  ## open the notebooks in JupyterLab
	$(PYTHON) -m jupyterlab $(wildcard notebooks)

clean:  ## remove the virtual environments and caches; results stay
	rm -rf .venv .venv-min .venv-latest cache .pytest_cache .ruff_cache .hypothesis .coverage *.egg-info
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

# What renders the book.
$(BOOK): $(READY)
	$(PYTHON) -m pip install $(INSTALL_FLAGS) --disable-pip-version-check \
		-c .venv/versions.txt -e '.[book]'
	@touch $(BOOK)

# Playwright alone; the browser itself is the machine's (Debian and Ubuntu: apt-get install chromium).
$(BROWSER): $(READY)
	$(PYTHON) -m pip install $(INSTALL_FLAGS) --disable-pip-version-check \
		-c .venv/versions.txt -e '.[browser]'
	@touch $(BROWSER)

.PHONY: help run test lint unit nbval test-min test-latest test-grade test-browser notebooks book check-book badges student bench lab clean
