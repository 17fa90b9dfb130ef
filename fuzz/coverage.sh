#!/bin/sh
# For RUSTC_WRAPPER: rustc, which counts in our crates and in the readers of what strangers send which ways were taken, as libFuzzer wants
# it told. Any toolchain does; instrumenting every dependency, as cargo-fuzz does, needs a nightly one and costs speed.
rustc=$1
shift
previous='' crate=''
for argument; do
    [ "$previous" != --crate-name ] || crate=$argument
    previous=$argument
done
case $crate in
ocellus | ocellus_int8 | onnx | bundle | commands | prost | tract_onnx | serde_json | toml | toml_parser)
    set -- "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
        -Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares
    ;;
esac
exec "$rustc" "$@"
