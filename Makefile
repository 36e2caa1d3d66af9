# What people type. `make verify` is what a change must pass; it changes no source file, `make fix` does.
#
# librdkafka and OpenSSL are C and cost 6 minutes of CPU for each profile they are built in, so the two packages that
# hold them (REAL) are always built with --release; the others (PURE) use the dev profile, which compiles faster.

CARGO ?= cargo
CORE = -p omb-machine -p omb-bench -p omb-report -p omb-cluster -p omb-broker -p omb-kafka
PURE = $(CORE) -p omb-runtime-sim -p sim-tests -p omb-examples
REAL = -p omb-runtime-real -p omb
DENY = target/tools/bin/cargo-deny

.PHONY: verify fix schema test brokers fmt-check clippy docs deny purity sim hunt planted bench scale bench-kafka bench-cluster

verify: fmt-check clippy purity docs deny test

fmt-check:
	$(CARGO) fmt --all -- --check

clippy:
	$(CARGO) clippy --locked --release --workspace --all-targets -- -D warnings

# Proves that core/clippy.toml bites: a copy of each crate of the core with planted violations must fail.
purity:
	scripts/check-core-purity.sh

docs:
	RUSTDOCFLAGS="--cfg madsim -D warnings" $(CARGO) doc --locked --release --workspace --no-deps --document-private-items

# The advisory database comes from the network; `$(DENY) check advisories` checks it where that works.
deny: $(DENY)
	$(DENY) --locked check licenses bans sources

$(DENY):
	CARGO_PROFILE_DEV_DEBUG=0 $(CARGO) install --locked --debug --no-default-features --version 0.20.2 \
		--root target/tools --target-dir target/tools/build cargo-deny
	rm -rf target/tools/build

fix:
	$(CARGO) fmt --all
	$(CARGO) clippy --release --workspace --all-targets --fix --allow-dirty --allow-staged

# The schema of result files, from the structs; a test compares the two.
schema:
	$(CARGO) run --locked --quiet -p omb-report --features schema --example schema > target/result.schema.json
	mv target/result.schema.json docs/result.schema.json

# Everything. The last line names what could not be run here; OMB_REQUIRE_BROKERS=1 makes that a failure.
test:
	@mkdir -p target && rm -f target/left-out.txt
	@scripts/brokers.sh
	$(CARGO) test --locked $(PURE)
	$(CARGO) test --locked --release $(REAL)
	@if [ -s target/left-out.txt ]; then \
		echo "all tests passed; left out: $$(awk '!told[$$0]++' target/left-out.txt | paste -s -d ';' - | sed 's/;/; /g')"; \
	else \
		echo "all tests passed; nothing was left out"; \
	fi

brokers:
	@scripts/brokers.sh

# One seed of the simulation again (SEED=42), or more of them than usual (NUM=500).
sim:
	$(if $(SEED),MADSIM_TEST_SEED=$(SEED)) $(if $(NUM),MADSIM_TEST_NUM=$(NUM)) $(CARGO) test --locked -p sim-tests

# Plays seed after seed until one breaks a promise.
hunt:
	$(CARGO) run --locked -p sim-tests --bin hunt

# Plants each known bug in turn, and expects the simulation to catch it (ONLY="words" of their names: some of them).
planted:
	scripts/planted.sh $(ONLY)

# What the steps per message cost, what the counts of a hundred workers, and what an upload.
bench:
	$(CARGO) bench --locked -p omb-bench -p omb-cluster --bench hot_path --bench merge --bench upload

# What it costs to lead 10, 100 and 1,000 simulated workers.
scale:
	$(CARGO) run --locked -p sim-tests --bin scale

# omb next to Kafka's own load generator, in turns, against one real Kafka.
bench-kafka:
	$(CARGO) build --locked --release -p omb
	scripts/bench-kafka.sh

# A cluster of three nodes beside nginx and a bare loop of fsyncs, its failovers and its memory (PARTS="nginx fsync").
bench-cluster:
	$(CARGO) build --locked --release -p omb --bin omb
	$(CARGO) build --locked --release -p omb-examples --bin bare_store
	scripts/bench-cluster.sh
