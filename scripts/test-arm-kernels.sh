#!/usr/bin/env bash
# Runs the tests of the integer kernels as ARM boards would, emulated: 64 bits without dot products (cortex-a72), with sdot
# (cortex-a76), with smmla (max), and 32 bits, where the portable kernels run. Installs what is missing: qemu, cross linkers,
# and Rust standard libraries, from rustup or, where that fails, Debian's.
set -euo pipefail
cd "$(dirname "$0")/.."

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

has_target() {
    [ -d "$("$1" --print sysroot)/lib/rustlib/$2/lib" ]
}

# TARGET DEBIAN_ARCHITECTURE GNU_NAME EMULATOR CPU…
run() {
    local target=$1 deb_arch=$2 gnu=$3 emulator=$4 packages=() cpu
    shift 4
    command -v "$emulator" >/dev/null || packages+=(qemu-user-static)
    command -v "$gnu-gcc" >/dev/null || packages+=("gcc-$gnu")
    [ -e "/usr/$gnu/lib/libc.a" ] || packages+=("libc6-dev-$deb_arch-cross")
    if ! has_target rustc "$target" && ! { command -v rustup >/dev/null && timeout 120 rustup target add "$target" 2>/dev/null; }; then
        # Debian's compiler, because a compiler takes no other's standard library.
        export RUSTC=/usr/bin/rustc
        { [ -x $RUSTC ] && has_target $RUSTC "$target"; } || packages+=(rustc-web libstd-rust-web-dev:{amd64,"$deb_arch"})
    fi
    if [ ${#packages[@]} -gt 0 ]; then
        command -v apt-get >/dev/null || { echo "please install: ${packages[*]}" >&2; exit 1; }
        echo "installing ${packages[*]}"
        [ -z "${RUSTC:-}" ] || as_root dpkg --add-architecture "$deb_arch"
        # A mirror that is just being renewed is no reason to stop; what cannot be installed says so.
        as_root apt-get update -qq || true
        as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
    fi
    local variable=${target^^}
    variable=CARGO_TARGET_${variable//-/_}
    # A static program needs no ARM C library to run.
    export "${variable}_RUSTFLAGS=-C target-feature=+crt-static" "${variable}_LINKER=$gnu-gcc"
    for cpu in "$@"; do
        echo "kernels on $target, $cpu"
        export "${variable}_RUNNER=$emulator -cpu $cpu"
        cargo test --quiet --release --locked --target "$target" --target-dir target/arm -p ocellus-int8-kernels --tests
    done
}

# In a process of its own each: a target for which Debian's compiler is taken does not decide for the next.
(run aarch64-unknown-linux-gnu arm64 aarch64-linux-gnu qemu-aarch64-static cortex-a72 cortex-a76 max)
(run armv7-unknown-linux-gnueabihf armhf arm-linux-gnueabihf qemu-arm-static cortex-a7)
