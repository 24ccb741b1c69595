# `make study`: the default study, from nothing to its report. `make test`: the tests. Both make .venv first.
# Everything is called by relative paths and as `python -m`, so that the folder may have any name.
PYTHON ?= python3
PY := .venv/bin/python

.PHONY: study test check docs test-cluster test-cluster-plain test-cluster-slow

study: .venv/ready
	$(PY) -m snakemake --profile profiles/local || failed=$$?; $(PY) -m cem.cli status || failed=$$?; exit $${failed:-0}

# A process a core, four at most; the tests of a file stay together, since they share what is slow to make, and the
# longest files (tests/workflow) come first, so that no process ends long before the others.
test: .venv/ready
	$(PY) -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# A real SLURM on this machine (root on Debian; elsewhere the tests are skipped and say so), up for the tests alone.
# Two of them, each with half of the files: the tests wait more than they work.
CLUSTER_TESTS = $(PY) -m pytest tests/cluster -m "not slow" -rs -n 2 --dist loadfile --no-loadscope-reorder
test-cluster: .venv/ready
	$(CLUSTER_TESTS)

# The same faults on a cluster without slurmdbd.
test-cluster-plain: .venv/ready
	CEM_CLUSTER_ACCOUNTING=none $(CLUSTER_TESTS)

test-cluster-slow: .venv/ready
	$(PY) -m pytest tests/cluster -m slow -rs

check: .venv/ready
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m snakefmt --check Snakefile workflow tests/cluster/workflow
	$(PY) -c 'from importlinter.cli import lint_imports_command as lint; lint()'
	$(PY) -m mypy
	$(PY) -m cem.config.docs --check
	$(PY) -m snakemake --lint

# The pages of docs/ as a site, site/index.html. A broken link is an error.
docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

# Compiled on all cores, which pip does on one, and so are our own: where Python may not write, each job would compile it. What
# packages hold of other Pythons' files cannot be compiled, and need not.
.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else "Python 3.11 to 3.13 is needed, found " + sys.version + ". Say which with: make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --no-compile --disable-pip-version-check -r requirements.lock
	$(PY) -m pip install --quiet --no-compile --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(PY) -m compileall -q -j 0 .venv/lib cem snakemake_executor_plugin_submitit > .venv/compiled.log 2>&1 || true
	touch .venv/ready
