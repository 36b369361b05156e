# The commands of this repository. `make` alone lists them.
#
# Everything is built with the dev profile, whose dependencies are optimised (see Cargo.toml): the demo and the tests share
# one build, and a first one takes minutes, most of them librdkafka and OpenSSL. Only `bench` builds for release.

.DEFAULT_GOAL := help
.PHONY: help demo test prove bench check fuzz clean-kafka

# Arguments for a command: make demo ARGS='--rate 50', make bench ARGS='--readers 10000'
ARGS ?=
# The seed of a full run; it prints the one that it used.
SEED ?=

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## build, then run the demo: a page, a gateway and a Kafka of its own, in one process
	@.ci/prerequisites build
	cargo build --locked -p tidewire-gateway --bin tidewire
	@cargo run --locked --quiet -p tidewire-gateway --bin tidewire -- demo $(ARGS)

check: ## format and lints, as CI wants them
	@.ci/prerequisites build
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

test: ## every test, at volumes that fit into minutes; end to end on a real Apache Kafka
	@.ci/prerequisites test
	cargo build --locked --workspace --all-targets
	cargo test --locked --workspace $(ARGS)
