# Two commands: `make run` and `make test`. `make help` lists the rest.
# The first one makes .venv: what to install is in pyproject.toml, the versions in environment.yml;
# uv installs them where it is there (seconds), pip otherwise (minutes).

PYTHON := .venv/bin/python
READY := .venv/ready
BROWSER := .venv/browser
STARTUP := cache/ipython/profile_default/startup
BOOK := .venv/book
TEACH := .venv/teach
ONE_THREAD := OMP_NUM_THREADS=1  # for each of two test processes: two that take all cores are slow
UV := $(shell command -v uv 2>/dev/null)
INSTALL := $(if $(UV),$(UV) pip install --python $(PYTHON),$(PYTHON) -m pip install --disable-pip-version-check)
INSTALL += $(if $(CI),--quiet) -c .venv/versions.txt

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

run: $(READY)  ## run PIAA on the embedded mini world and print the ablation table
	$(PYTHON) -m piaa_utils run

test: lint unit nbval  ## lint, unit tests with coverage, doctests, every notebook

lint: $(READY)  ## ruff, its formatter, and mypy
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m mypy piaa_utils

unit: $(READY)  ## the tests of the code alone, with coverage
	$(ONE_THREAD) $(PYTHON) -m pytest --cov=piaa_utils -n 2 --dist loadfile --no-loadscope-reorder

nbval: $(READY)  ## run every notebook, and compare the cells that are marked for it
	mkdir -p $(STARTUP)
	cp tests/warnings_are_errors.py $(STARTUP)
	IPYTHONDIR=$(CURDIR)/cache/ipython $(ONE_THREAD) $(PYTHON) -m pytest --nbval-lax \
		--nbval-current-env --nbval-cell-timeout=300 -n 2 --dist loadscope --no-loadscope-reorder \
		$(wildcard notebooks/[0-9]*.ipynb)

test-min: $(READY)  ## make test on the oldest versions that pyproject.toml allows
	$(PYTHON) tests/drift/run.py min

test-latest: $(READY)  ## make test on the newest versions that pyproject.toml allows
	$(PYTHON) tests/drift/run.py latest

test-grade: $(TEACH)  ## grade notebooks as nbgrader does: right answers, blanks, accidents
	$(ONE_THREAD) PATH="$(CURDIR)/.venv/bin:$$PATH" PIAA_TEST_GRADE=1 $(PYTHON) -m pytest -q tests/test_grade.py

test-browser: $(BROWSER)  ## run and play with notebooks in JupyterLab, in a headless Chromium
	$(PYTHON) -m pytest -rs tests/browser

notebooks: $(TEACH)  ## make the notebooks that are out of step with notebooks/source
	$(PYTHON) notebooks/build.py

book: $(BOOK)  ## render the executed notebooks to a site to read: results/book
	$(PYTHON) -m sphinx -q -W --keep-going -E -c notebooks/book -d cache/book . results/book
	@echo "Open results/book/index.html."

check-book: book  ## check what the site loads; with axe-core where it is there
	$(PYTHON) notebooks/book/check.py

badges: $(READY)  ## set the repository that the badges lead to: make badges REPO=owner/name
	$(PYTHON) notebooks/badges.py "$(REPO)"

# What a class needs, as committed; no solutions.
HANDOUT := notebooks/student notebooks/figures notebooks/install_missing.py piaa_utils data/mini_clip data/mini_scenes \
	data/licences data/README.md environment.yml LICENSE Makefile pyproject.toml README.md
student:  ## make the folder for a class: make student OUT=folder
	$(if $(OUT),,$(error Say where: make student OUT=folder))
	mkdir -p "$(OUT)"
	git archive HEAD $(wildcard $(HANDOUT)) | tar -x -C "$(OUT)"

grade: $(TEACH)  ## grade what stands in course/submitted/STUDENT/03: make grade NN=03
	$(if $(NN),,$(error Say which notebook: make grade NN=03))
	$(PYTHON) notebooks/build.py --blank
	cd course && export PATH="$(CURDIR)/.venv/bin:$$PATH" JUPYTER_PATH="$(CURDIR)/course" \
		PIAA_FENCE="$(FENCE)" && nbgrader generate_assignment "$(NN)" --force && \
		{ nbgrader autograde "$(NN)"; failed=$$?; nbgrader export && exit $$failed; }

bench: $(READY)  ## time encoders, PVCL, scaling, mixed precision: on an idle machine, some minutes
	$(PYTHON) benchmarks/encoders.py
	$(PYTHON) benchmarks/pvcl.py
	$(PYTHON) benchmarks/scaling.py
	$(PYTHON) benchmarks/precision.py

lab: $(READY)  ## open the notebooks in JupyterLab
	$(PYTHON) -m jupyterlab $(wildcard notebooks)

clean:  ## remove the virtual environments and caches; results stay
	rm -rf .venv .venv-min .venv-latest cache .pytest_cache .ruff_cache .mypy_cache .hypothesis \
		.coverage build/lib *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

# The first Python from 3.10 on that can make a virtual environment. One whose Python does not
# start any more is made anew, but only on the way to an installation, never by `make help`.
$(READY): pyproject.toml environment.yml $(if $(wildcard $(READY)),$(if $(shell $(PYTHON) -c pass 2>/dev/null && echo it starts),,gone))
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
	$(INSTALL) -e '.[coco,lab,test]'
	@touch $(READY)

# What renders the book; what grades; what drives a browser (Playwright alone: the browser itself is
# the machine's; Debian and Ubuntu: apt-get install chromium).
$(BOOK) $(TEACH) $(BROWSER): $(READY)
	$(INSTALL) -e '.[$(notdir $@)]'
	@touch $@

gone:

.PHONY: help run test lint unit nbval test-min test-latest test-grade test-browser notebooks book \
	check-book badges student grade bench lab clean gone
