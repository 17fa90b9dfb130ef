#!/usr/bin/env bash
# Runs the tests of the integer kernels as ARM boards would, emulated: 64 bits without dot products (cortex-a72), with sdot
# (cortex-a76), with smmla (max), and 32 bits, where the portable kernels run. Installs what is missing: qemu, cross linkers,
# and Rust standard libraries.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/arm-toolchain.sh

# TARGET DEBIAN_ARCHITECTURE GNU_NAME EMULATOR CPU…
run() {
    local target=$1 emulator=$4 cpu runner
    install_missing "qemu-user-static=/usr/bin/$emulator"
    static_toolchain "$1" "$2" "$3"
    runner=${target^^}
    runner=CARGO_TARGET_${runner//-/_}_RUNNER
    for cpu in "${@:5}"; do
        echo "kernels on $target, $cpu"
        export "$runner=$emulator -cpu $cpu"
        cargo test --quiet --release --locked --target "$target" --target-dir target/arm -p ocellus-int8-kernels --tests
    done
}

# In a process of its own each: a target for which Debian's compiler is taken does not decide for the next.
(run aarch64-unknown-linux-gnu arm64 aarch64-linux-gnu qemu-aarch64-static cortex-a72 cortex-a76 max)
(run armv7-unknown-linux-gnueabihf armhf arm-linux-gnueabihf qemu-arm-static cortex-a7)
