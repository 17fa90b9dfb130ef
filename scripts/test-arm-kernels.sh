#!/usr/bin/env bash
# Runs the tests of the integer kernels as an ARM board would: emulated, once without dot products (cortex-a72), once with
# sdot (cortex-a76), once with smmla (max). Installs what is missing: qemu, a cross linker, and, where rustup has no aarch64
# target, Debian's Rust.
set -euo pipefail
cd "$(dirname "$0")/.."
target=aarch64-unknown-linux-gnu

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

packages=()
command -v qemu-aarch64-static >/dev/null || packages+=(qemu-user-static)
command -v aarch64-linux-gnu-gcc >/dev/null || packages+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
flags=()
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target" ]; then
    flags=(-L "/usr/lib/rustlib/$target/lib")
    [ -d "/usr/lib/rustlib/$target" ] || packages+=(rustc-web libstd-rust-web-dev:amd64 libstd-rust-web-dev:arm64)
fi
if [ ${#packages[@]} -gt 0 ]; then
    command -v apt-get >/dev/null || { echo "please install: ${packages[*]}" >&2; exit 1; }
    echo "installing ${packages[*]}"
    as_root dpkg --add-architecture arm64
    as_root apt-get update -qq
    DEBIAN_FRONTEND=noninteractive as_root apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi
if [ ${#flags[@]} -gt 0 ]; then
    export RUSTC=/usr/bin/rustc
fi

# A static program needs no ARM C library to run.
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="${flags[*]} -C target-feature=+crt-static"
for cpu in cortex-a72 cortex-a76 max; do
    echo "kernels on $cpu"
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -cpu $cpu" \
        ${CARGO:-cargo} test --quiet --release --locked --target $target --target-dir target/arm -p ocellus-int8-kernels --tests
done
