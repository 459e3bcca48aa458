# Everything a developer runs. `make demo` and `make test` need nothing but a Debian machine with Rust:
# they install what is missing (by name, with apt) and build the rest.

SHELL := /bin/bash
.DEFAULT_GOAL := help
export BULKHEAD_KERNEL_DIR ?= $(CURDIR)/target/kernel
GUEST_TARGET := x86_64-unknown-linux-gnu
export BULKHEAD_GUEST ?= $(CURDIR)/target/$(GUEST_TARGET)/release/bulkhead-guest
SEEDS ?= 0..100
# With the planted bugs in, all of them off: the same run as without them, and one release build serves this and the canaries.
ARMED_SIMULATIONS := cargo run --locked --release -p simulations --features canaries --bin simulations
BUILD_ARMED := cargo build --quiet --locked --release -p simulations --features canaries --bin simulations
MINUTES ?= 10

.PHONY: help deps kernel guest build demo test verify verify-simulations aside fix lint lab lab-run lab-build lab-devices lab-agent gpu-check sim laws soak kills soak-agent canaries canaries-part torture bench audit completions

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

deps: ## Install the Debian packages that tests, demo and guests need
	@scripts/install-deps.sh

kernel: deps
	@scripts/fetch-kernel.sh $(BULKHEAD_KERNEL_DIR)

guest: ## Build the guest's static init
	RUSTFLAGS='-C target-feature=+crt-static' cargo build --locked --release --target $(GUEST_TARGET) -p bulkhead-guest

build: kernel guest ## Build the bulkhead command
	cargo build --locked --release -p bulkhead-cli

demo: build ## Three servers, two agents, a rollout, and a leader killed in the middle
	scripts/demo.sh target/release/bulkhead

test: kernel verify ## Install what is missing, then everything that CI runs

verify: guest ## Everything that CI runs, changing nothing in the tree
	cargo fmt --all --check
	@$(MAKE) --no-print-directory lab-build
	cargo nextest run --locked --workspace --profile ci --no-run
	@# Many tests wait for guests and servers: the release build and clippy take what that leaves of the cores, and no more. Of the times
	@# at which agents are killed every commit has an eighth, and others: make kills and make lab have all. The lab's machines keep a core
	@# busy, so they come when no test waits for a guest of its own.
	@nice -n 19 $(MAKE) --no-print-directory aside >target/aside.log 2>&1 & aside=$$!; \
	  KILLS_OF=8 KILLS_BY="$$(git rev-parse HEAD 2>/dev/null || date +%F)" \
	  cargo nextest run --locked --workspace --profile ci; tests=$$?; \
	  LAB_KILLS_OF=8 LAB_KILLS_BY="$$(git rev-parse HEAD 2>/dev/null || date +%F)" \
	  $(MAKE) --no-print-directory lab-devices lab-agent >target/lab.log 2>&1 & lab=$$!; \
	  wait $$aside; aside=$$?; cat target/aside.log; \
	  [ $$((tests + aside)) != 0 ] || $(MAKE) --no-print-directory verify-simulations; simulations=$$?; \
	  wait $$lab; lab=$$?; [ $$lab = 0 ] && grep -a '^lab: ' target/lab.log || cat target/lab.log; \
	  [ $$((tests + aside + simulations + lab)) = 0 ]

verify-simulations:
	scripts/doc-tests.sh
	$(ARMED_SIMULATIONS) -- --quiet --corpus
	$(ARMED_SIMULATIONS) -- --quiet --seeds $(SEEDS)
	$(ARMED_SIMULATIONS) -- --quiet --seeds 0..40 --beyond-contract
	$(MAKE) canaries-part

canaries: ## Planted bugs, each to be found by the simulator: make canaries ONLY=vote_not_persisted
	cargo run --locked --release -p simulations --features canaries --bin canaries -- $(ONLY)

canaries-part: ## Three of them, others for every commit
	cargo run --locked --release -p simulations --features canaries --bin canaries -- \
	  --part-of "$$(git rev-parse HEAD 2>/dev/null || date +%F)" --part-size 3

aside:
	$(BUILD_ARMED)
	cargo clippy --quiet --locked --workspace --all-targets -- -D warnings

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

fix: ## Format, and apply what clippy can
	cargo fmt --all
	cargo clippy --workspace --all-targets --fix --allow-dirty

LAB_PROGRAMS = $(or $(CARGO_TARGET_DIR),target)/debug

lab: kernel guest lab-build ## An emulated machine with an IOMMU and SR-IOV: its devices alone, and a cluster whose agent gives them to guests
	@$(MAKE) --no-print-directory lab-run

lab-run:
	@$(MAKE) --no-print-directory -j2 --output-sync=target lab-devices lab-agent

# The agent in the lab's machine needs nothing beside itself. Only the command is compiled for that, and linked with what tests are linked
# with; the next build of tests puts its own into its place.
lab-build:
	cargo build --quiet --locked -p bulkhead-cli -p bulkhead-nodeagent --features bulkhead-cli/as-tested --bin bulkhead-lab
	install -D $(LAB_PROGRAMS)/bulkhead-lab target/lab/bulkhead-lab
	cargo rustc --quiet --locked -p bulkhead-cli --features as-tested --bin bulkhead -- -C target-feature=+crt-static
	install -D $(LAB_PROGRAMS)/bulkhead target/lab/bulkhead

# However slow the machine is: the lab's own deadlines, which count what else runs, are shorter.
LAB_SECONDS ?= 1200

lab-devices:
	timeout --foreground $(LAB_SECONDS) scripts/lab.sh target/lab/bulkhead-lab $(BULKHEAD_KERNEL_DIR)

lab-agent:
	timeout --foreground $(LAB_SECONDS) scripts/lab-agent.sh target/lab/bulkhead $(BULKHEAD_KERNEL_DIR) $(BULKHEAD_GUEST)

gpu-check: ## Check the NVIDIA cards of this machine as far as it can be done here
	cargo build --locked -p bulkhead-cli
	$(or $(CARGO_TARGET_DIR),target)/debug/bulkhead preflight --gpu

sim: ## More simulations: make sim SEEDS=0..5000
	cargo run --locked --release -p simulations -- --seeds $(SEEDS)

laws: ## The laws of reconcilers, agents and wire, with more cases: make laws CASES=5000
	PROPTEST_CASES=$(or $(CASES),2000) cargo nextest run --locked --workspace -E 'test(/law/)'

kills: ## The agent is killed at every time of every step of its plan, in every scenario
	cargo nextest run --locked -p bulkhead-nodeagent --test agent faults::steps

soak-agent: ## Pods that start and end again and again, and nothing is left: make soak-agent CYCLES=1000
	CYCLES=$(or $(CYCLES),1000) cargo nextest run --locked -p bulkhead-nodeagent --test agent again_and_again

soak: ## As many new simulations as fit on all cores: make soak MINUTES=60
	cargo run --locked --release -p simulations -- --quiet --minutes $(MINUTES) --seeds $$(date +%s)000..$$(date +%s)999 --failures target/simulations

torture: deps ## Real servers under faults: make torture MINUTES=10 SEED=7 PREVIOUS=path/to/the/last/bulkhead
	cargo build --locked -p bulkhead-cli
	TORTURE_MINUTES=$(or $(MINUTES),5) TORTURE_SEED=$(or $(SEED),$(shell od -An -N4 -tu4 /dev/urandom)) PREVIOUS=$(PREVIOUS) \
	  cargo test --locked -p bulkhead-tests --test torture -- --nocapture

bench: build ## First figures, beside etcd: make bench ONLY=log
	scripts/bench.sh target/release/bulkhead $(ONLY)

audit: ## Licences, sources, duplicates, advisories (needs cargo-deny and its database)
	cargo deny --all-features check
