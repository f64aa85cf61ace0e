# One command each; CI calls the same ones. `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export CARGO_TERM_COLOR ?= auto
CARGO ?= cargo
# A toolchain of rustup goes before one of the system, which is often too old.
ifneq ($(wildcard $(HOME)/.cargo/bin/cargo),)
export PATH := $(HOME)/.cargo/bin:$(PATH)
endif

# The Python that is embedded: found by `make setup`, or given as PYTHON=/path/to/python3.
-include target/setup.mk
ifdef PYO3_PYTHON
export PYO3_PYTHON
endif
VENV := target/venv/bin/python
NO_MOUNTS = $(shell unshare --mount true 2>/dev/null || echo --no-mounts)

.PHONY: help setup setup-test run test test-pythons lint fmt rust-test campaign torture torture-limits torture-isolation python-test python-module doc bench bench-large deps-check

help: ## Lists the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

setup: ## Checks the toolchain and Python; installs or names what is missing
	@tools/setup.sh run

setup-test:
	@tools/setup.sh test

# A second make reads what setup found.
run: setup ## Runs the bundled server on SQLite; nothing to configure
	@$(MAKE) --no-print-directory run-server
run-server:
	$(CARGO) run --release --locked --bin automation-server -- $(ARGS)

test: setup-test ## Runs everything that must pass
	@$(MAKE) --no-print-directory lint deps-check rust-test python-test doc

test-pythons: setup-test ## Tests what depends on Python on every CPython from 3.9 to 3.13 that is here
	@tools/test_pythons.sh

lint: ## Format and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features --locked -- -D warnings

fmt: ## Formats the Rust code
	$(CARGO) fmt --all

deps-check: ## Proves the dependency rule: core knows neither pyo3 nor axum
	@tools/check_dependencies.sh

rust-test: ## Rust tests, the examples in the documentation among them
	$(CARGO) test --workspace --all-features --locked

torture: ## 10,000 runs of every sort, after which nothing is left of them (TORTURE_RUNS, TORTURE_SEED)
	TORTURE_RUNS=$${TORTURE_RUNS:-10000} $(CARGO) test --release --locked -p automation-py --all-features --test torture -- --nocapture

torture-limits: setup-test ## A thousand random runs at their memory limits; minutes
	$(CARGO) test --locked -p automation-py --test limits torture -- --ignored --nocapture

torture-isolation: setup-test ## Ten thousand runs in processes of their own, many of them misbehaving; minutes
	$(CARGO) test --locked -p automation-py --test process ten_thousand -- --ignored --nocapture

campaign: setup-test ## Kills, power cuts, pauses, full disks and failing calls under load, by the thousand; half an hour (CAMPAIGN_SEED)
	CAMPAIGN_KILLS=1700 CAMPAIGN_KILLS_POSTGRES=300 CAMPAIGN_RESTARTS=100 CAMPAIGN_CUTS=100 CAMPAIGN_PAUSES=100 \
	CAMPAIGN_DISK_CYCLES=200 CAMPAIGN_POWER_CUTS=500 CAMPAIGN_CALLS=64 \
	$(CARGO) test --locked -p automation-core --test campaign -- --nocapture --test-threads 1
	SERVER_KILLS=200 $(CARGO) test --locked -p automation-examples --test kill -- --nocapture

python-module: setup ## Builds the importable package into target/module
	@$(MAKE) --no-print-directory python-module-release
python-module-release:
	$(CARGO) build --release --locked -p automation-py
	tools/stage_module.sh release

python-test: ## Python tests: the module, and the scripts by hand and through the executor
	$(CARGO) build --locked -p automation-py
	tools/stage_module.sh debug
	@[ -z "$(NO_MOUNTS)" ] || echo 'not tested here: that a clean-up crosses no mount, which needs root and the permission to mount'
	PYTHONPATH="$(CURDIR)/target/module" $(VENV) -m pytest -q --rootdir=. --timeout=120 automation-py/pytests scripts/tests $(NO_MOUNTS)

doc: ## Documentation, without warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --all-features --no-deps --locked --quiet

bench: setup ## Measures, side by side in one run
	@$(MAKE) --no-print-directory bench-all
bench-all:
	$(CARGO) bench --locked --quiet -p automation-core --all-features
	$(CARGO) bench --locked --quiet -p automation-py

bench-large: ## Reads over ten million logged runs in SQLite; needs 10 GB for minutes (LARGE_ROWS, LARGE_FOLDER)
	LARGE_ROWS=$${LARGE_ROWS:-10000000} $(CARGO) bench --locked --quiet -p automation-core --bench large
