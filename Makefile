# Every target makes the virtual environment it needs; a second call installs nothing.
PYTHON ?= python3.11
VENV := .venv
RUN := data/output/local
# JupyterHub's proxy, from npm: the last version for Node 18, Debian's. Without npm, what needs it is not tested.
HUB_PROXY := configurable-http-proxy@5.1.0
HUB := $(if $(shell command -v npm),$(VENV)/$(HUB_PROXY))
# An extension that sagemaker-studio-sparkmagic-lib brings tells of errors everywhere but in SageMaker Studio.
QUIET_LAB := --ServerApp.jpserver_extensions=sagemaker_jupyterlab_extension_common=False
export JUPYTER_PREFER_ENV_PATH = 1

.PHONY: run slides test volume-test cloud-test lab bench sample fruits-360 clean help
.DEFAULT_GOAL := run

run: $(VENV)/installed  ## run the notebook on the sample pictures
	mkdir -p $(RUN)
	$(VENV)/bin/papermill notebooks/local.ipynb $(RUN)/local.ipynb -f params/local.yaml -p output_path $(RUN)
	$(VENV)/bin/python -m fruits.pages walk $(RUN)/local.ipynb $(RUN)/local.html
	@echo "executed notebook: $(RUN)/local.ipynb, and local.html to read in a browser"
	@echo "report:            $(RUN)/report.json"
	@echo "figures:           $(RUN)/figures/"

slides: $(VENV)/installed-slides $(RUN)/report.json  ## make the French presentation of the run's results
	$(VENV)/bin/papermill presentation/presentation.ipynb $(RUN)/presentation.ipynb -p run_path $(RUN)
	$(VENV)/bin/python -m fruits.pages slides $(RUN)/presentation.ipynb $(RUN)/presentation.html $(RUN)/presentation.pdf

data/output/local/report.json:
	$(MAKE) run

%/report.json:
	@echo "$@ is not there: give the output_path of a run that has ended, such as make slides RUN=data/output/mine" >&2
	@exit 1

# Two processes, whose tests wait for Spark to start as much as they compute; a file stays in one, with its fixtures.
# Files go in the order of their names: those with the most tests, which would go first, are not those that last.
PYTEST := $(VENV)/bin/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test: $(VENV)/installed-dev  ## check everything
	$(VENV)/bin/ruff check .
	$(PYTEST) --ignore tests/cloud --ignore tests/volume

volume-test: $(VENV)/installed-dev  ## kill runs, soak them, run them on Spark's small clusters and as a service
	$(PYTEST) tests/volume

cloud-test: $(VENV)/installed-cloud $(HUB)  ## run the cloud's notebook on this machine (needs what .ci/run installs)
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PYTEST) tests/cloud

lab: $(VENV)/installed  ## open the notebooks in JupyterLab: make lab OPTIONS="--no-browser --port 8889"
	$(VENV)/bin/jupyter lab notebooks $(QUIET_LAB) $(OPTIONS)

bench: $(VENV)/installed-dev  ## measure against the course notebooks and the limit, and with growing volume
	$(VENV)/bin/python benchmarks/bench.py $(OPTIONS)
	$(VENV)/bin/python benchmarks/pca.py
	$(VENV)/bin/python benchmarks/volume.py --notebook 50000

sample: $(VENV)/installed  ## draw pictures: make sample OPTIONS="--pictures 10000 --output data/many"
	$(VENV)/bin/python -m fruits.sample $(OPTIONS)

fruits-360: $(VENV)/installed  ## download the real pictures from Kaggle into data/
	$(VENV)/bin/pip install --quiet --requirement requirements-data.txt
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" links/download.sh

help:  ## list the targets
	@grep -E '^[a-z0-9-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

clean:  ## remove what runs and installs have made
	rm -rf $(VENV) data/output *.egg-info

$(VENV)/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --requirement requirements.txt
	$(VENV)/bin/pip install --quiet --no-deps --editable .
	$(VENV)/bin/python -m fruits.session
	touch $@

$(VENV)/installed-slides: $(VENV)/installed requirements-slides.txt
	$(VENV)/bin/pip install --quiet --no-deps --requirement requirements-slides.txt
	touch $@

$(VENV)/installed-dev: $(VENV)/installed-slides requirements-dev.txt requirements-data.txt
	$(VENV)/bin/pip install --quiet --requirement requirements-dev.txt
	touch $@

$(VENV)/installed-cloud: $(VENV)/installed-dev requirements-cluster.txt
	$(VENV)/bin/pip install --quiet --requirement requirements-dev.txt --requirement requirements-cluster.txt
	$(VENV)/bin/jupyter kernelspec install --sys-prefix \
		$$($(VENV)/bin/python -c "import os, sparkmagic; print(os.path.dirname(sparkmagic.__file__))")/kernels/pysparkkernel
	touch $@

$(VENV)/$(HUB_PROXY): $(VENV)/installed
	npm install --global --prefix $(VENV) --no-audit --no-fund $(HUB_PROXY)
	touch $@
