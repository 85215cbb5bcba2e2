# Two commands do everything: `make demo` shows a program of this host running in a virtual machine, `make test` runs
# every test there is. Both install what they need with the system's package manager, build it, and then do it.

CARGO    ?= cargo
TARGET   := $(or $(CARGO_TARGET_DIR),target)
TRIPLE   := x86_64-unknown-linux-gnu
RUST_MIN := 1.95
SUDO     := $(if $(filter 0,$(shell id -u)),,sudo)

SANDBOX := $(TARGET)/release/sandbox
IMAGES  := $(TARGET)/release/images
INIT    := $(TARGET)/$(TRIPLE)/init/guest-init

# Test suites of file systems, which the end-to-end tests run in a guest. The version is in the place's name.
TOOLS := $(TARGET)/tools/pjdfstest-0.2.2-fsx-0.3.2

# What is needed beyond Rust, as Debian calls it: the emulator, a library of the file server, and what the guest's
# kernel is built from and with. LINUX_SRC=dir builds from another tree and needs no source package.
PACKAGES := qemu-system-x86 libcap-ng-dev gcc make flex bison bc libelf-dev xz-utils \
            $(if $(LINUX_SRC),,linux-source-6.12)
# What the examples and tests run, as guests' commands and beside them.
EXAMPLES := python3 git strace e2fsprogs vim-tiny less procps zsh fish
# What `make bench` runs beside us.
PEERS := bubblewrap crun

.PHONY: demo test build base deps programs init images-base images-nested tools nextest crates unit hostile hostile-nested hostile-guest e2e e2e-qemu e2e-kvm e2e-kvm-1 e2e-kvm-2 soak faults lint-ci bench man completions clean

demo: base
	$(SANDBOX) run -- python3 -c 'print(6*7)'

# What a run needs. A guest that runs sandboxes itself (`--nested`) needs another kernel, which takes as long again.
base: deps
	@$(MAKE) --no-print-directory programs init images-base

build: base
	@$(MAKE) --no-print-directory images-nested

deps:
	@command -v $(CARGO) >/dev/null || { echo "Rust $(RUST_MIN) or newer is needed: https://rustup.rs" >&2; exit 1; }
	@v=$$($(CARGO) --version | cut -d' ' -f2); \
	[ "$$(printf '%s\n' $(RUST_MIN) "$$v" | sort -V | head -n 1)" = $(RUST_MIN) ] || \
	  { echo "Rust $(RUST_MIN) or newer is needed, this is $$v: rustup update" >&2; exit 1; }
	@if command -v dpkg-query >/dev/null; then \
	  missing=; for package in $(PACKAGES) $(EXAMPLES); do \
	    dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; \
	  done; \
	  if [ -n "$$missing" ]; then \
	    echo "installing:$$missing" >&2; \
	    $(SUDO) apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -qq -y --no-install-recommends $$missing >/dev/null; \
	  fi; \
	else \
	  echo "not a Debian system: see to it that there is what Debian calls: $(PACKAGES) $(EXAMPLES)" >&2; \
	fi

# `sandbox` is linked to no shared library: a run executes it three times, and each time the dynamic loader would take as long
# as everything else up to the first step.
programs:
	$(CARGO) build --release --locked -p images
	LIBCAPNG_LINK_TYPE=static LIBCAPNG_LIB_PATH=$(dir $(shell gcc -print-file-name=libcap-ng.a)) \
	  $(CARGO) rustc --release --locked -p sandbox --bin sandbox -- -C target-feature=+crt-static

# By itself and for a named target: else dependencies shared with other packages would bring the standard library.
init:
	$(CARGO) build --locked --profile init -p guest-init --features init --target $(TRIPLE)

images-base:
	$(IMAGES) build kernel
	$(IMAGES) build initramfs --init $(INIT)

images-nested:
	$(IMAGES) build kernel --flavour nested

test: build unit hostile e2e

# The library's examples boot machines; SANDBOX_BIN says with what.
unit: base
	SANDBOX_BIN=$(abspath $(SANDBOX)) $(CARGO) test --locked --workspace --exclude tests
	$(CARGO) test --locked -p tests --test tidy

# A hostile guest on this host's KVM; and on the real one in a guest with virtualization, with the tiny guests that are
# unit tests here (docs/testing.md).
GUEST   := $(TARGET)/$(TRIPLE)/init/hostile
HOSTILE  = SANDBOX_BIN=$(abspath $(SANDBOX)) SANDBOX_HOSTILE=$(abspath $(GUEST)) \
           $(CARGO) test --locked -p sandbox --lib --

# For a processor to which vector instructions seem slow, so that the compiler leaves them alone: a KVM that emulates
# every instruction knows few of them.
hostile-guest:
	$(CARGO) rustc --locked --profile init -p hostile --bin hostile --features bare --target $(TRIPLE) -- -C target-cpu=nocona

hostile: programs hostile-guest
	$(HOSTILE) hostile_guest --ignored --nocapture

hostile-nested: build hostile-guest
	$(RUNNER)="$(ENTER)" $(HOSTILE) engine::kvm::tests --include-ignored --nocapture

SUITES := $(TOOLS)/bin/pjdfstest $(TOOLS)/bin/fsx

tools: $(SUITES) nextest

# What calls our runner for each test.
nextest:
	@command -v cargo-nextest >/dev/null || $(CARGO) install --quiet --locked cargo-nextest@0.9.143

$(SUITES) &:
	$(CARGO) install --quiet --locked --root $(TOOLS) pjdfstest@0.2.2 fsx@0.3.2

# The same cases on both engines, here and in a guest with virtualization (docs/testing.md).
# A shell has what it starts in the background ignore SIGINT and SIGQUIT, and nohup SIGHUP; then so does `sandbox`, rightly. Its tests
# want to send all of them.
E2E = SANDBOX_BIN=$(abspath $(SANDBOX)) SANDBOX_TOOLS=$(abspath $(TOOLS)/bin) \
      env --default-signal=INT,QUIT,HUP $(CARGO) test --locked -p tests --test e2e

e2e: e2e-qemu e2e-kvm

e2e-qemu: build tools
	SANDBOX_ENGINE=qemu $(E2E) -- $(CASES)

# What runs the suite in a guest: `sandbox` itself, as cargo's runner. It sees what was built, and nothing is built there.
ENTER = $(abspath $(SANDBOX)) run --engine qemu --nested -m 3G --timeout 40m -v $(abspath $(TARGET)):$(abspath $(TARGET)):ro \
	-e SANDBOX_BIN -e SANDBOX_HOSTILE -e SANDBOX_TOOLS -e SANDBOX_ENGINE -e SANDBOX_PATIENCE -e SANDBOX_PART -e SANDBOX_STRICT \
	-e SANDBOX_SOAK -e RUST_BACKTRACE --

INNER ?= kvm
RUNNER = CARGO_TARGET_$(shell echo $(TRIPLE) | tr a-z- A-Z_)_RUNNER

# Two guests with one processor each, half of the cases in each: between the processors of one guest every step of an inner
# machine would have to wake the other.
e2e-kvm: build tools
	@$(MAKE) --no-print-directory -j2 --output-sync=target e2e-kvm-1 e2e-kvm-2

e2e-kvm-1 e2e-kvm-2: e2e-kvm-%:
	$(RUNNER)="$(ENTER)" SANDBOX_ENGINE=$(INNER) SANDBOX_PATIENCE=10 SANDBOX_PART=$*/2 $(E2E) -- --test-threads 1 $(CASES)

# Test suites of other people's crates, on the host and in machines, verdict by verdict (docs/runner.md). They come from the registry.
crates: base nextest
	SANDBOX_BIN=$(abspath $(SANDBOX)) CRATES_DIR=$(abspath $(TARGET))/crates CRATES=$(CRATES) $(CARGO) run --locked -q -p tests --bin crates

# What takes longer than CI may.
soak: build tools
	SANDBOX_FUZZ_ITERATIONS=10000000 $(CARGO) test --locked --release --workspace --exclude tests hostile
	SANDBOX_SOAK=1 $(E2E) -- soak::

# Five hundred runs, each with something that goes wrong.
faults: build
	SANDBOX_SOAK=1 $(E2E) -- soak::faults --nocapture

# The action and the workflow of docs/ci.md, by GitHub's schemas.
lint-ci:
	test -x $(TARGET)/lint/bin/check-jsonschema || { python3 -m venv $(TARGET)/lint && $(TARGET)/lint/bin/pip install -q check-jsonschema==0.39.0; }
	$(TARGET)/lint/bin/check-jsonschema --builtin-schema vendor.github-actions action.yml
	$(TARGET)/lint/bin/check-jsonschema --builtin-schema vendor.github-workflows docs/ci-example.yml

# `make bench FIRECRACKER=path` adds that program to the table of peers.
bench: build
	@$(MAKE) --no-print-directory deps EXAMPLES="$(EXAMPLES) $(PEERS)"
	FIRECRACKER="$(if $(FIRECRACKER),$(abspath $(FIRECRACKER)))" SANDBOX_BIN=$(abspath $(SANDBOX)) $(CARGO) run --locked --release -q -p tests --bin bench

man: programs
	mkdir -p $(TARGET)/man
	$(SANDBOX) man $(TARGET)/man

# Under the names by which each shell looks for them.
completions: programs
	mkdir -p $(TARGET)/completions
	$(SANDBOX) completions bash > $(TARGET)/completions/sandbox
	$(SANDBOX) completions zsh > $(TARGET)/completions/_sandbox
	$(SANDBOX) completions fish > $(TARGET)/completions/sandbox.fish

clean:
	$(CARGO) clean
