#!/usr/bin/env bash
# Whole models on emulated ARM cores, ours and onnxruntime's aarch64 build side by side in one guest, counted in instructions:
# the guest's clock advances a nanosecond an instruction (`-icount shift=0,sleep=off`), so what benches/peers.py measures in
# milliseconds are millions of instructions, whatever else this machine does.
#
# usage: benches/arm/run.sh [MODEL.onnx …]     without models: those of the test data that docs/performance.md tells of
# CPUS (cortex-a72 cortex-a76 max: no dot product, sdot, smmla), ROUNDS (2) and LIMIT_S (900, for each guest) are taken from the environment.
# Prints a line a model and CPU, see peers.py. A guest's console is target/bench-arm/CPU.console.
# Needs root (or sudo) and the network, once. OCELLUS_PYTHON is a Python with pip.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/guest/arm-disk.sh
. scripts/arm-toolchain.sh
guest=target/guest/arm64
out=target/bench-arm
data=${OCELLUS_TEST_DATA:-../shared/data}
models=("$@")
[ $# -gt 0 ] || models=("$data"/models/{resnet18-int8-{qdq-u8s8,qdq-s8s8,qop-u8s8},resnet50-int8-qdq-u8s8,yolox-nano-int8-qdq-u8s8}.onnx)

work=$(mktemp -d)
trap 'as_root rm -rf "$work"' EXIT

# 1. Ours.
static_toolchain aarch64-unknown-linux-gnu arm64 aarch64-linux-gnu
cargo build --release --locked --target aarch64-unknown-linux-gnu --target-dir target/arm -p ocellus-int8 --example answer

# 2. The guest: Debian's kernel, and a root with its Python and PyPI's onnxruntime.
mkdir -p "$out"
tests/guest/prepare.sh arm64
debian_tar "$out/debian.tar" busybox-static python3
wheels=$(grep -E '^(numpy|onnxruntime)==' scripts/test-requirements.txt)
all=$(cat benches/arm/init tests/guest/{arm-disk.sh,initramfs-init} "$guest/made-of" "$out/debian.tar.made-of" <(echo "$wheels") | sha256sum)
if [ "$(cat "$out/made-of" 2>/dev/null)" != "$all" ]; then
    # For Debian 12's Python.
    # shellcheck disable=SC2086 # A word a package.
    "$OCELLUS_PYTHON" -m pip install --quiet --disable-pip-version-check --no-compile --target "$work/python" --only-binary=:all: \
        --python-version 3.11 --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 --platform manylinux2014_aarch64 $wheels
    mkdir "$work/root"
    as_root tar -C "$work/root" --numeric-owner -xf "$out/debian.tar"
    as_root cp -r "$work/python/." "$work/root/usr/lib/python3/dist-packages/"
    as_root install -m 755 benches/arm/init "$work/root/sbin/init"
    arm_disk "$work/root" "$guest/lib/modules" "$out"
    echo "$all" >"$out/made-of"
fi

# 3. A guest for each processor. What it measures is brought along as a tar archive on a second disk.
luggage=$work/luggage
mkdir -p "$luggage/files"
cp target/arm/aarch64-unknown-linux-gnu/release/examples/answer benches/peers.py "${models[@]}" "$luggage/files"
names=("${models[@]##*/}")
failed=0
for cpu in ${CPUS:-cortex-a72 cortex-a76 max}; do
    echo "exec python3 peers.py --cpu $cpu --threads 1 --warm-up 1 --rounds ${ROUNDS:-2} ./answer ${names[*]}" >"$luggage/files/command"
    tar -C "$luggage/files" -cf "$luggage/tar" .
    console=$out/$cpu.console
    timeout --foreground -k 5 "${LIMIT_S:-900}" qemu-system-aarch64 -machine virt -cpu "$cpu" -smp 1 -icount shift=0,sleep=off -m 2048 \
        -nodefaults -display none -no-reboot -serial stdio -kernel "$guest/vmlinuz" -initrd "$out/initramfs" \
        -append 'console=ttyAMA0 loglevel=4 panic=-1' \
        -drive "file=$out/root.ext4,format=raw,if=none,id=root,snapshot=on,cache=unsafe" -device virtio-blk-device,drive=root \
        -drive "file=$luggage/tar,format=raw,if=none,id=luggage,readonly=on" -device virtio-blk-device,drive=luggage,serial=luggage \
        </dev/null 2>&1 | sed -u 's,\r,,' | tee "$console" | grep --line-buffered " cpu=$cpu " || true
    if ! grep -q '^guest: exit 0$' "$console"; then
        echo "the guest as $cpu did not end well (or was stopped after ${LIMIT_S:-900} s); its console: $console" >&2
        failed=1
    fi
done
exit $failed
