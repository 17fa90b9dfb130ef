# What people run. `make test` is what CI runs; it installs what it needs.

CARGO ?= cargo
VENV := target/test-venv
export OCELLUS_PYTHON ?= $(abspath $(VENV))/bin/python

# Of the packages that `make deb` makes.
DEB_ARCHS ?= arm64 armhf

.PHONY: help build demo deb test test-board test-models test-deps check fmt bench bench-arm fuzz bench-spool soak

help:
	@echo 'make demo    build and show the firmware at work: no camera, no broker needed'
	@echo 'make test    install what the tests need (Debian packages, a Python venv) and run all of them'
	@echo 'make deb     Debian packages for boards, in target/deb (64 and 32 bits; DEB_ARCHS=arm64: one of them)'
	@echo 'make test-board    the package on an emulated ARM board, as two processors: a part of `make test` (needs root or sudo the first time)'
	@echo 'make test-models   the Python road from a network to a bundle (installs PyTorch: 6.7 GB on x86-64)'
	@echo 'make soak    kill the broker, kill the program and cut the network between them a hundred times each, and count; KILLS=10 BROKER_KILLS=10 CUTS=10 MINUTES=60'
	@echo 'make check   format, lints and docs'
	@echo 'make fuzz    bytes of all kinds into the readers of models and of commands, guided by coverage, FUZZ_SECONDS (300) for each target'
	@echo 'make bench   inference beside onnxruntime and OpenVINO, the pixel path beside OpenCV, the whole path of a detector beside Python, each in one interleaved run'
	@echo 'make bench-arm   inference beside onnxruntime on emulated ARM cores, in instructions; CPUS="cortex-a72 cortex-a76 max" ROUNDS=2 MODELS=…'

build:
	$(CARGO) build --release --locked

demo:
	$(CARGO) run --release --locked -- demo

# One profile for everything: the demo and the tests share their builds.
test: test-deps check
	OCELLUS_TEST_STRICT=1 $(CARGO) test --release --locked --workspace
	scripts/test-arm-kernels.sh
	$(MAKE) test-board
	$(CARGO) check --release --locked --features nokhwa

deb:
	for arch in $(DEB_ARCHS); do package/deb.sh $$arch || exit 1; done

# What is built here is what boards get. Two boards at a time: they wait more than they compute.
test-board: test-deps
	tests/board/prepare.sh
	$(CARGO) test --release --locked --workspace --test board --no-run
	OCELLUS_HOST_BINARY=target/release/ocellus package/deb.sh arm64
	lintian --fail-on error --allow-root target/deb/ocellus_*_arm64.deb
	OCELLUS_TEST_STRICT=1 $(CARGO) test --release --locked --workspace --test board -- --ignored --nocapture --test-threads=2

# Not a part of `test`: PyPI's torch brings CUDA along, 6.7 GB.
test-models: build models/.venv/.installed
	cd models && OCELLUS_TEST_STRICT=1 .venv/bin/python -m pytest -q tests

models/.venv/.installed: models/requirements.lock
	python3 -m venv models/.venv
	models/.venv/bin/pip install --quiet --disable-pip-version-check -r $<
	touch $@

# The counts are those of one round; rounds are repeated for MINUTES.
BROKER_KILLS ?= 100
KILLS ?= 100
CUTS ?= 100
MINUTES ?= 0

soak: test-deps
	OCELLUS_TEST_STRICT=1 OCELLUS_SOAK_BROKER_KILLS=$(BROKER_KILLS) OCELLUS_SOAK_KILLS=$(KILLS) OCELLUS_SOAK_CUTS=$(CUTS) OCELLUS_SOAK_MINUTES=$(MINUTES) \
	    $(CARGO) test --release --locked --workspace --test delivery -- --ignored --nocapture soak

test-deps:
	scripts/test-deps.sh $(VENV)

check:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	$(CARGO) metadata --locked --manifest-path fuzz/Cargo.toml --format-version 1 >/dev/null
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --release --locked --workspace --no-deps --quiet

fmt:
	$(CARGO) fmt --all

# Into the spool and out of it, on the disk of the target directory.
bench-spool: test-deps
	OCELLUS_TEST_STRICT=1 $(CARGO) test --release --locked --workspace --test spool_bench -- --ignored --nocapture --test-threads 1

# What a benchmark is called once it is built.
bench-binary = "$$($(CARGO) bench --locked --bench $(1) --no-run 2>&1 | sed -n 's/.*Executable .*(\(.*\))/\1/p')"

bench: test-deps
	$(OCELLUS_PYTHON) -c 'import openvino' 2>/dev/null || $(VENV)/bin/pip install --quiet --disable-pip-version-check openvino==2026.4.1
	$(CARGO) build --release --locked --workspace --examples
	$(OCELLUS_PYTHON) benches/peers.py target/release/examples/answer
	$(OCELLUS_PYTHON) benches/preprocess_vs_opencv.py $(call bench-binary,preprocess)
	$(OCELLUS_PYTHON) benches/detect_vs_python.py $(call bench-binary,detect_path)
	$(CARGO) bench --locked --bench detect

# CPUS, ROUNDS: see there.
bench-arm: test-deps
	benches/arm/run.sh $(MODELS)

# libFuzzer; see fuzz/coverage.sh. What it finds is kept below target/fuzz; a crash ends it with the file's name.
FUZZ_SECONDS ?= 300
fuzz:
	cd fuzz && RUSTC_WRAPPER=$(CURDIR)/fuzz/coverage.sh CARGO_TARGET_DIR=$(CURDIR)/target/fuzz $(CARGO) build --release --locked
	mkdir -p target/fuzz/corpus/onnx target/fuzz/corpus/bundle target/fuzz/corpus/commands
	cp fuzz/seeds/*.onnx target/fuzz/corpus/onnx
	cp fuzz/seeds/*.messages target/fuzz/corpus/commands
	cd target/fuzz && release/onnx -max_total_time=$(FUZZ_SECONDS) -timeout=20 -rss_limit_mb=2048 -max_len=8192 corpus/onnx
	cd target/fuzz && release/bundle -max_total_time=$(FUZZ_SECONDS) -timeout=20 -rss_limit_mb=2048 corpus/bundle
	cd target/fuzz && release/commands -max_total_time=$(FUZZ_SECONDS) -timeout=20 -rss_limit_mb=2048 -max_len=32768 \
	    -dict=$(CURDIR)/fuzz/seeds/commands.dict corpus/commands
