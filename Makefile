# The commands of this repository. `make` alone lists them.
#
# Everything but `bench` is built with the dev profile, whose dependencies are optimised (see Cargo.toml): the demo and the
# tests start soon after a change, and a first build takes minutes, most of them librdkafka and OpenSSL.

.DEFAULT_GOAL := help
.PHONY: help demo test prove bench check fuzz

# Arguments for the command behind a target: make demo ARGS='--rate 50', make test ARGS='-p tidewire-auth'
ARGS ?=
# prove: the seed of a former run. The seed of this one is printed.
SEED ?=
# prove: `release` proves the optimised binary; its first build takes long.
PROFILE ?= dev
# fuzz: seconds for each target.
SECONDS_EACH ?= 60

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## build, then run the demo: a page, a gateway and a Kafka of its own, in one process
	@.ci/prerequisites build
	cargo build --locked -p tidewire-gateway --bin tidewire
	@cargo run --locked --quiet -p tidewire-gateway --bin tidewire -- demo $(ARGS)

check: ## format and lints, as CI wants them
	@.ci/prerequisites build
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

# The binary is built by the same command as the tests, so that both share one build of every dependency.
test: ## every test, at volumes that fit into minutes; end to end on a real Apache Kafka
	@.ci/prerequisites test
	cargo build --locked --workspace --all-targets
	cargo test --locked --workspace $(ARGS)

prove: ## the same tests at full volumes (SEED=... repeats a run)
	@.ci/prerequisites test
	cargo build --locked --workspace --all-targets --profile $(PROFILE)
	TIDEWIRE_PROVE=1 $(if $(SEED),TIDEWIRE_SEED=$(SEED)) cargo test --locked --workspace --profile $(PROFILE) $(ARGS)

bench: ## the table of tests/BENCHMARKS.md, from a release build (ARGS=graphql, ARGS=webhooks: what those cost; ARGS="run --help": a gateway of your own)
	@.ci/prerequisites test
	cargo build --locked --release -p tidewire-gateway -p tidewire-tests --bin tidewire --bin load
	@cargo run --locked --release --quiet -p tidewire-tests --bin load -- $(or $(ARGS),suite)

# `--sanitizer none` because the crates under test hold no unsafe code, and it is several times faster. All features, because
# one target reads what the engine reads, and one build serves them all.
fuzz: ## every fuzz target for SECONDS_EACH seconds (needs cargo-fuzz)
	@cargo fuzz --version >/dev/null 2>&1 || { echo "cargo-fuzz is missing: cargo install cargo-fuzz --locked" >&2; exit 1; }
	@cd tests/fuzz && for target in $$(cargo fuzz list); do \
	  echo "==> $$target: $(SECONDS_EACH) s"; \
	  dictionary=; [ ! -f $$target.dict ] || dictionary=-dict=$$target.dict; \
	  RUSTC_BOOTSTRAP=1 cargo fuzz run $$target --all-features --sanitizer none -- \
	    -max_total_time=$(SECONDS_EACH) -print_final_stats=1 $$dictionary $(ARGS) || exit 1; \
	done
