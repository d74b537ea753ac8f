# Commands for contributors. `make` without arguments lists them. They install software only below .cache/ and target/ in
# this folder, with one exception: need-openssl installs the OpenSSL package when it runs as root.

.DEFAULT_GOAL := help
.PHONY: help demo demo-tacosoft test schedules fuzz lint docs bench need-cargo need-openssl need-python3
MAKEFLAGS += --no-print-directory
ARGS ?=
# Prints cargo's target directory.
TARGET_FOLDER = cargo metadata --no-deps --format-version 1 \
  | python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])'

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: need-cargo need-openssl ## Build and start a server with live events from several tenants, and print commands to try (ARGS="--rate 5000")
	@cargo run --bin glasshouse -- demo $(ARGS)

demo-tacosoft: need-cargo need-openssl need-python3 ## Stream orders from PostgreSQL through Debezium and Kafka, and query them as two restaurants (ARGS="--rate 50")
	@tests/clients/setup.sh python kafka postgres
	@cargo build --bin glasshouse
	@.cache/venv/bin/python demo/tacosoft/run.py --server "$$($(TARGET_FOLDER))/debug/glasshouse" $(ARGS)

# Installs the real clients and servers first, because the tests start them. If a client cannot be installed, its tests are
# skipped; the skipped tests are listed and counted at the end. With CI=true, a skipped test is an error. ARGS is passed to
# cargo test, for example ARGS="tidy".
test: need-cargo need-openssl ## Run all tests: Rust tests, real ADBC and JDBC clients, real Kafka, Debezium and S3 servers, kill -9
	@tests/clients/prepare.sh
	@rm -f .cache/skipped.txt
	@cargo test --no-fail-fast $(ARGS); result=$$?; tests/clients/skipped.sh; exit $$result

# Every test run covers a few schedules; this target runs more. ARGS is a range of seeds or a single seed. The trace of a
# single seed is printed in full.
schedules: need-cargo need-openssl ## Run thousands of simulated schedules of crashes and faults (ARGS=5000..9000, ARGS=17)
	@GLASSHOUSE_SCHEDULES="$(or $(ARGS),1000..3000)" cargo test --lib ingest::sim::tests::selected_schedules -- --nocapture

# Every test run uses a few seeds; this command uses more. With a nightly toolchain and cargo-fuzz, coverage guides
# the inputs; otherwise they are random. A failure prints its seed. SEED=17 runs the test with that seed again.
SECONDS ?= 600
fuzz: need-cargo need-openssl ## Compare our decoders with independent libraries on random bodies (SECONDS=60, SEED=17)
	@if [ -n "$(SEED)" ]; then \
	  GLASSHOUSE_FUZZ_SEED="$(SEED)" cargo test --test it oracle::driver -- --nocapture --test-threads 1; \
	elif cargo +nightly fuzz --version >/dev/null 2>&1; then \
	  cp Cargo.lock fuzz/Cargo.lock && for target in json protobuf; do \
	    cargo +nightly fuzz run "$$target" -- -max_total_time=$(SECONDS) -max_len=4096 || exit 1; \
	  done; \
	else \
	  echo "make: no nightly toolchain with cargo-fuzz (cargo install cargo-fuzz): using random inputs instead" >&2; \
	  GLASSHOUSE_FUZZ_SECONDS="$(SECONDS)" cargo test --test it oracle::driver -- --nocapture --test-threads 1; \
	fi

lint: need-cargo need-openssl ## Check formatting, and run all lints with warnings denied
	@cargo fmt --check
	@cargo clippy --all-targets -- -D warnings

docs: need-cargo need-openssl ## Build the documentation with warnings denied: target/doc/glasshouse/index.html
	@RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --lib

# The release build alone takes half an hour on two cores. ARGS selects benchmarks: "transfer", "select1", "freshness",
# "kafka", "ndjson", "window" and "stream". "stream" takes ten minutes.
bench: need-cargo need-openssl need-python3 ## Run benchmarks alternately against Glasshouse and other systems, and print ratios
	@cargo build --release --bin glasshouse
	@[ -x .cache/bench/bin/python ] || python3 -m venv .cache/bench
	@.cache/bench/bin/pip install --quiet --disable-pip-version-check -r bench/requirements.txt
	@cargo bench
	@.cache/bench/bin/python bench/run.py "$$($(TARGET_FOLDER))/release/glasshouse" $(ARGS)

need-cargo:
	@command -v cargo >/dev/null || { echo "make: cargo is missing: install Rust from https://rustup.rs" >&2; exit 1; }

# The Kafka client links against the system's OpenSSL.
need-openssl:
	@pkg-config --exists openssl 2>/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	  && echo "make: installing libssl-dev and pkg-config" \
	  && { apt-get install -qq -y libssl-dev pkg-config >/dev/null 2>&1 || { apt-get update -qq \
	    && apt-get install -qq -y libssl-dev pkg-config >/dev/null; }; }; } \
	  || { echo "make: the OpenSSL headers are missing: install them (apt-get install libssl-dev pkg-config)" >&2; exit 1; }

need-python3:
	@command -v python3 >/dev/null || { echo "make: python3 is missing: install it (apt-get install python3 python3-venv)" >&2; exit 1; }
