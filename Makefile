# make book   install, prepare the data, execute the chapters, build the site into _build/html
# make test   all of that, then every check
# make links  check every address that the book links to
# make bench  measure text encoders, switches and a whole epoch; a run that was stopped continues
# make lock   write requirements.txt, the versions and hashes of all packages (needs uv)
# make clean  delete everything that was built, but not the environment and the data cache
# Works from a fresh clone with Python 3.11 or newer and make; a second call is quick.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
BUILD  := _build
STAMPS := $(BUILD)/stamps
DONE   := $(BUILD)/executed
SHELL  := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: book test lint browser links bench lock clean absent
export PYTHONHASHSEED := 0
# macOS has no timeout
LIMIT  := $(if $(shell command -v timeout),timeout)

NOTEBOOKS := $(wildcard book/*.ipynb)
EXECUTED  := $(NOTEBOOKS:book/%=$(DONE)/%)
LIBRARY   := $(shell find cocoop_tutorial -name '*.py' -o -name '*.html' -o -path '*/weights/*' -type f)
RESULTS   := $(wildcard results/*.json)
PAGES     := $(shell find book -type f -not -name '*.ipynb' -not -path '*/__pycache__/*')

book: $(STAMPS)/site
	@echo "the book is ready: open $(BUILD)/html/index.html"

test: lint browser $(STAMPS)/site
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

lint: $(STAMPS)/install
	$(BIN)/ruff check .

browser: $(STAMPS)/install
	@tests/site/browser.sh $(BIN)/python > $(BUILD)/browser && echo "browser: $$(tail -1 $(BUILD)/browser)"

# A virtual environment with the locked versions, each file checked against its hash. This project is built with the
# hatchling among them, because pip would otherwise fetch one without a hash. pip's chatter goes to a file, shown on
# failure. Python is asked for its version before it makes one, so that `make PYTHON=...` can correct a wrong choice.
$(STAMPS)/install: pyproject.toml requirements.txt $(if $(wildcard $(BIN)/python),,absent)
	@mkdir -p $(STAMPS)
	@test -x $(BIN)/python || { $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		&& $(PYTHON) -m venv $(VENV); } || { echo "Python 3.11 or newer is needed, with venv: make PYTHON=python3.11"; exit 1; }
	@echo "installing (some minutes and 7 GB the first time)"
	@{ $(BIN)/python -m pip install -q --no-deps --require-hashes -r requirements.txt \
		&& $(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .; } > $(BUILD)/pip.log 2>&1 \
		|| { tail -n 30 $(BUILD)/pip.log; exit 1; }
	@$(BIN)/python -m pip check > $(BUILD)/pip-check.log || { cat $(BUILD)/pip-check.log; exit 1; }
	@touch $@

# The icon packages, drawn to pictures in a checked cache.
$(STAMPS)/data: $(STAMPS)/install data/package-lock.json $(wildcard cocoop_tutorial/datasets/icons/*)
	$(BIN)/cocoop data build
	@touch $@

# Scripts and fonts for the site, from npm packages with pinned hashes.
$(STAMPS)/vendor: book/package.json book/package-lock.json $(STAMPS)/install
	@echo "fetching the site's scripts"
	@rm -rf $(BUILD)/npm $(BUILD)/vendor && mkdir -p $(BUILD)/npm $(BUILD)/vendor/{requirejs,html-manager,mathjax}
	@cp book/package.json book/package-lock.json $(BUILD)/npm
	@PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --prefix $(BUILD)/npm --ignore-scripts --no-audit --no-fund \
		> $(BUILD)/npm.log 2>&1 || { tail -n 30 $(BUILD)/npm.log; exit 1; }
	@cd $(BUILD)/npm/node_modules && cp requirejs/require.js ../../vendor/requirejs \
		&& cp @jupyter-widgets/html-manager/dist/{embed-amd.js,*.woff,*.woff2,*.ttf,*.eot,*.svg} ../../vendor/html-manager \
		&& cp -r mathjax/es5/{tex-mml-chtml.js,a11y,input,output,sre,ui} ../../vendor/mathjax && rm -rf ../../vendor/mathjax/output/svg*
	@rm -rf $(BUILD)/npm && touch $@

# Each chapter is executed once, from a clean kernel; the site and the tests use this copy.
$(DONE)/%.ipynb: book/%.ipynb $(LIBRARY) $(RESULTS) $(STAMPS)/data tools/execute.py
	@$(BIN)/python tools/execute.py $< $@

# The site, with every warning an error.
$(STAMPS)/site: $(EXECUTED) $(PAGES) $(LIBRARY) _config.yml CHANGELOG.md $(STAMPS)/vendor
	@for f in $(DONE)/*.ipynb; do test -e "book/$${f##*/}" || rm -f "$$f"; done
	@find $(DONE) -type f -not -name '*.ipynb' -delete
	@tar -C book --exclude='*.ipynb' --exclude=__pycache__ --exclude='package*.json' -cf - . | tar -C $(DONE) -xf -
	@rm -rf $(DONE)/_assets/vendor && cp -r $(BUILD)/vendor $(DONE)/_assets/vendor
	@rm -rf $(BUILD)/html $(BUILD)/.doctrees
	@$(if $(LIMIT),$(LIMIT) 900) $(BIN)/jupyter-book build $(DONE) --config _config.yml \
		--path-output . -W -n --keep-going > $(BUILD)/site.log 2>&1 || { tail -n 60 $(BUILD)/site.log; exit 1; }
	@test -e $(BUILD)/html/index.html && touch $@

links: $(STAMPS)/site
	@$(if $(LIMIT),$(LIMIT) 3000) $(BIN)/jupyter-book build $(DONE) --config _config.yml --builder linkcheck \
		--path-output $(BUILD)/links > $(BUILD)/links.log 2>&1 \
		|| { grep -h broken $(BUILD)/links.log || tail -n 40 $(BUILD)/links.log; exit 1; }

bench: $(STAMPS)/install
	$(BIN)/python -m benchmarks.text_encoder
	$(BIN)/python -m benchmarks.end_to_end
	$(BIN)/python -m benchmarks.switches

# Versions stay as they are where pyproject.toml allows it; ARGS=--upgrade takes the newest.
lock:
	uv pip compile -q pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
		--only-binary :all: --emit-build-options --no-annotate --no-strip-extras --custom-compile-command "make lock" \
		-o requirements.txt $(ARGS)

clean:
	rm -rf $(BUILD)
