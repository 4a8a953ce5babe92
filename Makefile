# Build, run, test and measure ring3 on Debian 12 with Rust.  `make run` and `make test` install
# what is missing by apt-get (with sudo where needed).

CARGO ?= cargo
RING3 = $(or $(CARGO_TARGET_DIR),target)/release/ring3
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
GUEST ?= debian-686

.PHONY: build run test bench test-guests conformance fuzz tools disk-tools peers lint

build:
	$(CARGO) build --release

# Debian's 686 kernel to an interactive shell (Ctrl-A x quits). GUEST=debian-686-pae for PAE.
run: tools build
	$(RING3) guests run $(GUEST)

# Everything, headless: unit tests, tiny guests, both Debian kernels with their workload.
test: tools
	$(CARGO) test --release --workspace

# Every guest that has a recipe, under ring3 and under QEMU, driven and compared; twenty boots of each kernel.
test-guests: tools disk-tools peers build
	$(RING3) guests run --all --peer qemu
	$(CARGO) test --release --test boot -- --ignored
	$(CARGO) test --release --test kill -- --ignored
	$(CARGO) test --release --test ring3 -- --ignored
	$(CARGO) test --release --package ring3-monitor --test qcow2 -- --ignored

# Every instruction form and long random programs against the host's own processor. A printed SEED
# repeats a run; failing cases are shrunk and written to FAILURES. CASES are those of each form.
SEED ?= $(shell date +%s)
CASES ?= 100
EMISSION_SECONDS ?= 120
FAILURES ?= $(or $(CARGO_TARGET_DIR),target)/conformance
conformance: tools peers
	mkdir -p $(FAILURES)
	$(CARGO) run --release --package ring3-conformance -- --long --cases $(CASES) --seed $(SEED) --verbose \
		--golden tests/conformance/golden --save $(FAILURES)
	$(CARGO) run --release --package ring3-system-conformance
	$(CARGO) run --profile fuzz --package ring3-emission -- --seconds $(EMISSION_SECONDS) --seed $(SEED)
	$(CARGO) run --release --package ring3-mutation --features mutation

# Every chip and the whole board, by ports, memory and DMA, for FUZZ_SECONDS each; the translator by
# arbitrary bytes. Overflow checks and debug assertions are on.
FUZZ_SECONDS ?= 60
fuzz:
	$(CARGO) run --profile fuzz --package ring3-device-fuzz -- --seconds $(FUZZ_SECONDS) --seed $(SEED)
	$(CARGO) run --profile fuzz --package ring3-emission -- --seconds $(FUZZ_SECONDS) --seed $(SEED)

# The same guest work under ring3, QEMU's translator and natively.
bench: tools peers
	$(CARGO) bench --bench versus

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --package ring3-mutation --all-targets --features mutation -- -D warnings

# nasm assembles the tiny guests; e2fsprogs looks into file systems that guests wrote.
tools:
	@for t in nasm:nasm gcc:gcc /sbin/e2fsck:e2fsprogs; do command -v $${t%:*} >/dev/null || echo $${t#*:}; done | xargs -r sh -c '$(SUDO) apt-get update -q && $(SUDO) apt-get install -y -q --no-install-recommends "$$@"' sh

# What builds the Debian disk, and checks its file system afterwards.
DISK_TOOLS = mmdebstrap arch-test fakeroot e2fsprogs
disk-tools:
	@dpkg --status $(DISK_TOOLS) >/dev/null 2>&1 || { $(SUDO) apt-get update -q && $(SUDO) apt-get install -y -q --no-install-recommends $(DISK_TOOLS); }

peers:
	@for t in qemu-system-i386:qemu-system-x86 qemu-img:qemu-utils; do command -v $${t%:*} >/dev/null || echo $${t#*:}; done | xargs -r sh -c '$(SUDO) apt-get update -q && $(SUDO) apt-get install -y -q --no-install-recommends "$$@"' sh
