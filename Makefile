# SPDX-License-Identifier: BSD-2-Clause
# `make help` lists what there is. Every target does its own set-up.

CARGO   ?= cargo
PYTHON  ?= python3
PREFIX  ?= /usr/local
LIBDIR  ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
SHAREDIR ?= $(PREFIX)/share
DESTDIR ?=
# 0 leaves the tests in network namespaces out, loudly.
NETNS   ?= 1
# 1 makes `make bench` a check that it works; no results are kept.
QUICK   ?= 0
# `make fuzz`: seconds for each target, which targets, and a sanitizer, such as address.
FUZZ_SECONDS   ?= 60
FUZZ_TARGETS   ?= $(sort $(basename $(notdir $(wildcard $(FUZZ)/fuzz_targets/*.rs))))
FUZZ_SANITIZER ?= none
# More for the yardstick, such as --external 'C=target/c-pipe'.
BENCH_ARGS ?=

BUILD  := target
TOOLS  := $(BUILD)/tools
VENV   := $(BUILD)/venv
PY     := $(BUILD)/python
BIN    := $(BUILD)/release
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
NETTEST := bindings/cli/tests/netns
BENCHES := mptunnel-core/benches
FUZZ    := mptunnel-core/fuzz

.PHONY: help build release demo test lint doc test-rust test-vectors test-c test-instructions test-python wheel test-netns bench bench-baseline fuzz audit fmt header install clean
.DEFAULT_GOAL := help

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

build: ## build the programs and libmptunnel, optimized, into target/release
	$(CARGO) build --release --locked

# One set of crates, and with it of their features: another one would compile most of them again.
release:
	$(CARGO) build --release --locked --workspace --lib --bins

demo: build ## show the main job: a lossy world, a tunnel through it, a killed bridge and server
	$(BIN)/mptunnel demo

test: lint doc test-rust test-vectors test-c test-instructions test-python test-netns ## everything that has to pass
	@echo "make test: all passed"

lint: ## format and clippy, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets --features mptunnel-bench/micro -- -D warnings
	$(CARGO) clippy --locked -p mptunnel-core --no-default-features --features sim -- -D warnings

doc: ## the API's documentation, warnings are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps

test-rust: ## unit tests, the simulator, real sockets, the programs; both AEAD backends
# Tests of the programs mostly wait: twice as many at a time as there are cores. The second build is
# for the other AEAD backend only, and compiles for longer than it runs.
	RUST_TEST_THREADS=4 $(CARGO) test --locked --workspace
	$(CARGO) test --locked -p mptunnel-core --no-default-features --lib --test vectors \
	  --config profile.dev.package.mptunnel-core.opt-level=0

test-vectors: $(VENV)/ready ## the independent check of the wire vectors, in Python
	$(VENV)/bin/python mptunnel-core/tests/vectors.py mptunnel-core/tests/data/vectors.txt
	$(VENV)/bin/python mptunnel-core/tests/vectors.py PROTOCOL.md

$(VENV)/ready:
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check 'cryptography>=41'
	touch $@

test-instructions: release $(BUILD)/valgrind ## the hot path executes no more instructions than before
	$(PYTHON) $(BENCHES)/instructions.py $(BIN)/hotpath

bench-baseline: release $(BUILD)/valgrind ## make today's instructions the ones to compare with
	$(PYTHON) $(BENCHES)/instructions.py $(BIN)/hotpath --write

$(BUILD)/valgrind:
	command -v valgrind >/dev/null || { apt-get update && apt-get install -y --no-install-recommends valgrind; }
	mkdir -p $(BUILD)
	ln -sf "$$(command -v valgrind)" $@

ifeq ($(QUICK),1)
CRITERION := --warm-up-time 0.05 --measurement-time 0.1 --sample-size 10
YARDSTICK := --quick
else
CRITERION := --warm-up-time 0.3 --measurement-time 1 --sample-size 30
YARDSTICK := --out $(BENCHES)/RESULTS.md
endif

bench: release wheel ## speed beside what the machine allows, into mptunnel-core/benches/RESULTS.md; QUICK=1 for a minute
	rm -rf $(BUILD)/criterion
	$(CARGO) bench --locked -p mptunnel-bench --features micro --bench micro -- --noplot $(CRITERION) >$(BUILD)/micro.log
	$(PY)/venv/bin/pip install --quiet --no-deps --force-reinstall $(PY)/wheels/*.whl
	$(CC) -O2 -Iinclude -o $(BUILD)/throughput mptunnel-ffi/tests/c/throughput.c $(BIN)/libmptunnel.a \
	  -lpthread -ldl -lm
	rm -f $(BUILD)/bench-psk && $(BIN)/mptunnel genpsk --output $(BUILD)/bench-psk
	$(BIN)/mptunnel-bench $(YARDSTICK) \
	  --external 'C, mpt_recvv=$(BUILD)/throughput $(BUILD)/bench-psk' \
	  --external 'Python, recv_many=$(PY)/venv/bin/python bindings/python/bench.py --rate' $(BENCH_ARGS)

# Tests that mostly wait, as those of the programs.
PYTEST := $(abspath $(PY)/venv/bin/python) -m pytest -q -n 4 -c $(abspath bindings/python/pyproject.toml)

test-python: wheel ## the Python package, as the wheel that users install, in a venv of its own
	$(CARGO) build --locked --workspace --lib --examples --bins
	$(PY)/venv/bin/pip install --quiet --no-deps --force-reinstall $(PY)/wheels/*.whl
	cd bindings/python/tests && $(PYTEST) $(PYTEST_ARGS)

wheel: $(PY)/venv/ready ## build the Python package into target/python/wheels
	rm -rf $(PY)/wheels
	$(PY)/venv/bin/maturin build --quiet --release --locked -m bindings/python/Cargo.toml -o $(PY)/wheels

$(PY)/venv/ready: bindings/python/tests/requirements.txt
	$(PYTHON) -m venv $(PY)/venv
	$(PY)/venv/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

ifeq ($(NETNS),1)
test-netns: release ## the programs between real hosts: namespaces, socat, OpenVPN, iperf3 (as root)
	$(NETTEST)/setup
	BIN=$(abspath $(BIN)) $(NETTEST)/run
else
test-netns:
	@echo "NOT RUN: the tests in network namespaces (NETNS=$(NETNS))"
endif

test-c: release ## the C and C++ interface: compiled, linked and misused in every way
	mptunnel-ffi/tests/c/setup
	$(PYTHON) mptunnel-ffi/tests/c/run.py --target-dir $(BUILD)

# libFuzzer is C++, and its instrumentation a nightly feature. The protocol has no unsafe code, so the
# sanitizers have little to find in it and would halve the speed; `make test-c` has them for the rest.
fuzz: $(TOOLS)/bin/cargo-fuzz ## hostile input for FUZZ_SECONDS=60 each: what CONTRIBUTING.md says of fuzzing
	@rustc +nightly --version >/dev/null 2>&1 || { \
	  echo "make fuzz takes a nightly compiler: rustup toolchain install nightly --profile minimal"; \
	  exit 1; }
	for target in $(FUZZ_TARGETS); do \
	  echo "fuzz $$target for $(FUZZ_SECONDS) s"; mkdir -p $(FUZZ)/corpus/$$target; \
	  MPTUNNEL_FUZZ_SEEDS=$(abspath $(FUZZ)/corpus) PATH=$(abspath $(TOOLS)/bin):$$PATH \
	  $(CARGO) +nightly fuzz run --fuzz-dir $(FUZZ) --sanitizer $(FUZZ_SANITIZER) $$target -- \
	    -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=10 -rss_limit_mb=512 \
	    -use_value_profile=1 -print_final_stats=1 || exit; \
	done

$(TOOLS)/bin/cargo-fuzz:
	$(CARGO) install cargo-fuzz --locked --root $(TOOLS)

header: ## make include/mptunnel.h from the sources of mptunnel-ffi
	MPTUNNEL_WRITE_HEADER=1 $(CARGO) test --locked -p mptunnel-ffi --test header

audit: $(TOOLS)/bin/cargo-deny ## licences, sources and duplicates; advisories where their database can be reached
	$(TOOLS)/bin/cargo-deny check bans licenses sources
	$(TOOLS)/bin/cargo-deny check advisories || \
	  echo "NOT CHECKED or FAILED: advisories, see above (the database is on the network)"

$(TOOLS)/bin/cargo-deny:
	$(CARGO) install cargo-deny --locked --root $(TOOLS)

fmt: ## format the sources
	$(CARGO) fmt --all

install: build ## install programs, manual, completions, library, headers, pkg-config and CMake files below DESTDIR/PREFIX
	install -d $(addprefix $(DESTDIR),$(PREFIX)/bin $(INCLUDEDIR) $(LIBDIR)/pkgconfig \
	  $(LIBDIR)/cmake/mptunnel $(SHAREDIR)/man/man1 $(BASH_COMPLETIONS) $(ZSH_COMPLETIONS) \
	  $(FISH_COMPLETIONS))
	install -m 755 $(BIN)/mpclient $(BIN)/mpserver $(BIN)/mptunnel $(DESTDIR)$(PREFIX)/bin
	$(BIN)/mptunnel man --output $(DESTDIR)$(SHAREDIR)/man/man1
	for program in mpclient mpserver mptunnel; do \
	  $(BIN)/mptunnel completions bash $$program >$(DESTDIR)$(BASH_COMPLETIONS)/$$program && \
	  $(BIN)/mptunnel completions zsh $$program >$(DESTDIR)$(ZSH_COMPLETIONS)/_$$program && \
	  $(BIN)/mptunnel completions fish $$program >$(DESTDIR)$(FISH_COMPLETIONS)/$$program.fish || exit; \
	done
	install -m 644 include/mptunnel.h include/mptunnel.hpp $(DESTDIR)$(INCLUDEDIR)
	install -m 755 $(BIN)/libmptunnel.so $(DESTDIR)$(LIBDIR)/libmptunnel.so.$(VERSION)
	ln -sf libmptunnel.so.$(VERSION) $(DESTDIR)$(LIBDIR)/libmptunnel.so.0
	ln -sf libmptunnel.so.0 $(DESTDIR)$(LIBDIR)/libmptunnel.so
	install -m 644 $(BIN)/libmptunnel.a $(DESTDIR)$(LIBDIR)
	$(call fill,mptunnel.pc,pkgconfig/mptunnel.pc)
	$(call fill,mptunnelConfig.cmake,cmake/mptunnel/mptunnelConfig.cmake)
	$(call fill,mptunnelConfigVersion.cmake,cmake/mptunnel/mptunnelConfigVersion.cmake)

# Where the shells look for them.
BASH_COMPLETIONS := $(SHAREDIR)/bash-completion/completions
ZSH_COMPLETIONS  := $(SHAREDIR)/zsh/site-functions
FISH_COMPLETIONS := $(SHAREDIR)/fish/vendor_completions.d

# From a template in mptunnel-ffi/install to a file below LIBDIR.
fill = sed -e 's|@PREFIX@|$(PREFIX)|g' -e 's|@LIBDIR@|$(LIBDIR)|g' \
  -e 's|@INCLUDEDIR@|$(INCLUDEDIR)|g' -e 's|@VERSION@|$(VERSION)|g' \
  mptunnel-ffi/install/$(1).in > $(DESTDIR)$(LIBDIR)/$(2)

clean: ## remove what was built
	$(CARGO) clean
