# `make help` lists the targets. Each runs on a machine with a Rust toolchain and a C compiler; only `up` and `down` need
# docker.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help verify lint fix test fuzz sim model mutants chaos chaos-failover chaos-storage bench bench-log soak image up down

# make sim SEEDS=20000 FROM=1, or one seed: make sim SEED=8841
SEEDS ?= 2000
FROM ?= 1
# make fuzz SECONDS=3600
SECONDS ?= 120
# make soak SOAK_SECONDS=3600 SOAK_SEEDS=100000
SOAK_SECONDS ?= 600
SOAK_SEEDS ?= 20000
# make chaos-failover ROUNDS=3 REPORT=docs/reliability.md
ROUNDS ?= 20
REPORT ?=
# make chaos-storage STORAGE_ROUNDS=1 REPORT=docs/reliability.md
STORAGE_ROUNDS ?= 3
# make bench BENCH_SECONDS=60
BENCH_SECONDS ?= 20
# make bench-log BENCH_DIR=/mnt/disk: a folder on the file system that is meant
BENCH_DIR ?= run/bench

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
IMAGE := holdfast:local

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

verify: ## only checks: formatting, lints, dependencies, licences, configuration files, documents
	.ci/verify

lint: ## formatting and lints alone
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy -p holdfast-sim --features mutants --all-targets --locked -- -D warnings

fix: ## rewrites what formatting and clippy can mend
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	cargo fmt --all

test: lint ## formatting, lints, all tests, and a zone kill on real processes
	if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --workspace --locked --no-fail-fast; \
	else \
		cargo test --workspace --locked --no-fail-fast --lib --bins --tests; \
	fi
	cargo test --workspace --locked --doc
	cargo run --locked -p holdfast-sim --features mutants --bin holdfast-mutants -- --quick
	HOLDFAST_BIN="$(abspath $(TARGET_DIR))/debug/holdfast" tests/process/zone-kill

fuzz: ## damaged bytes for everything that reads a disk or a network: SECONDS over all of it
	cargo run --profile fuzz --locked -p holdfast-fuzz -- --seconds $(SECONDS)

sim: ## simulated clusters with faults, a seed each: SEEDS, FROM, or SEED for one
	cargo run --release --locked -p holdfast-sim -- $(if $(SEED),--seed $(SEED),--seeds $(SEEDS) --from $(FROM))

model: ## every schedule of a few small clusters, about a minute
	cargo run --release --locked -p holdfast-sim -- --model

mutants: ## rules left out one at a time, and which proof notices; fails where none does
	cargo run --release --locked -p holdfast-sim --features mutants --bin holdfast-mutants

chaos: ## on processes: 100 MB of real text while each zone dies, no controllers at all
	for zone in a b c; do chaos/real-file --megabytes 100 --zone $$zone; done
	chaos/without-controllers

chaos-failover: ## what every kind of outage costs, ROUNDS of each, in network namespaces (root); about 50 minutes
	cargo build --release --locked -p holdfast-cli -p holdfast-chaos
	$(TARGET_DIR)/release/holdfast-chaos --table --rounds $(ROUNDS) --binary $(TARGET_DIR)/release/holdfast \
		$(if $(REPORT),--report $(REPORT))

chaos-storage: ## power cuts, turned bits, full disks and failing flushes on real file systems (root), STORAGE_ROUNDS of each; about 10 minutes
	cargo build --release --locked -p holdfast-cli -p holdfast-chaos
	$(TARGET_DIR)/release/holdfast-chaos --storage --rounds $(STORAGE_ROUNDS) --binary $(TARGET_DIR)/release/holdfast \
		$(if $(REPORT),--report $(REPORT))

bench: ## throughput and latency on a fresh local cluster: BENCH_SECONDS
	tests/process/bench $(BENCH_SECONDS)

bench-log: ## the log engine beside pwrite, dd and fio, group commit, and latency against load: about 15 minutes; BENCH_DIR
	cargo build --release --locked -p holdfast-cli
	cargo build --release --locked -p holdfast-log --example engine
	mkdir -p $(BENCH_DIR)
	$(TARGET_DIR)/release/examples/engine append $(BENCH_DIR)
	$(TARGET_DIR)/release/examples/engine read $(BENCH_DIR)
	$(TARGET_DIR)/release/examples/engine flush $(BENCH_DIR)
	$(TARGET_DIR)/release/examples/engine open $(BENCH_DIR)
	HOLDFAST_BIN="$(abspath $(TARGET_DIR))/release/holdfast" tests/process/latency

soak: ## many seeds, then kills of all zones in turn under load: SOAK_SEEDS, SOAK_SECONDS
	cargo run --release --locked -p holdfast-sim -- --seeds $(SOAK_SEEDS) --from $(FROM)
	tests/process/soak $(SOAK_SECONDS)

# A binary without shared libraries, in an image of nothing else. The target has to be named, or the flags would reach
# build scripts and procedural macros too.
image:
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --profile dist --target $(HOST) -p holdfast-cli
	rm -rf run/image
	mkdir -p run/image/data run/image/tmp
	cp $(TARGET_DIR)/$(HOST)/dist/holdfast run/image/
	cp deploy/compose/controller.toml deploy/compose/broker.toml run/image/
	docker build -q -t $(IMAGE) -f deploy/Dockerfile run/image

up: image ## three zones in containers (docker compose): builds binary and image, starts, waits
	deploy/compose/cluster up

down: ## removes the containers, their networks and their data
	deploy/compose/cluster down
