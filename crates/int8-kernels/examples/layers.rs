//! Measures the kernels on the layers of ResNet-18 and ResNet-50: for each instruction set and shape, multiply-accumulates a
//! second, and their share of what the inner instruction alone reaches.
//!
//! `cargo run --release -p ocellus-int8-kernels --example layers -- [INSTRUCTION SET] [LAYER]`; `peak` as the layer is none of
//! them, and tells of the inner instruction alone.
//!
//! The weights are random with a trained network's spread; AVX2 and NEON repeat some of their products (see
//! `conv/tile/split.rs`), so that they cannot reach the whole peak.

use std::time::{Duration, Instant};

use ocellus_int8_kernels::{Conv, ConvSpec, Geometry, Isa, Output, Quantization, Shape};

struct Layer {
    name: &'static str,
    geometry: Geometry,
    /// How often it is in ResNet-18 and in ResNet-50.
    times: [usize; 2],
}

fn layers() -> Vec<Layer> {
    let square = |name, times, size, inputs, outputs, kernel: usize, stride| {
        let pads = [kernel / 2; 4];
        let shape = Shape::new(size, size, inputs);
        Layer {
            name,
            geometry: Geometry::window(shape, outputs, [kernel; 2], [stride; 2], pads),
            times,
        }
    };
    vec![
        square("7x7/2 3-64", [1, 1], 224, 3, 64, 7, 2),
        square("3x3 64-64 @56", [4, 3], 56, 64, 64, 3, 1),
        square("3x3/2 64-128 @56", [1, 0], 56, 64, 128, 3, 2),
        square("1x1/2 64-128 @56", [1, 0], 56, 64, 128, 1, 2),
        square("3x3 128-128 @28", [3, 3], 28, 128, 128, 3, 1),
        square("3x3/2 128-256 @28", [1, 0], 28, 128, 256, 3, 2),
        square("1x1/2 128-256 @28", [1, 0], 28, 128, 256, 1, 2),
        square("3x3 256-256 @14", [3, 5], 14, 256, 256, 3, 1),
        square("3x3/2 256-512 @14", [1, 0], 14, 256, 512, 3, 2),
        square("1x1/2 256-512 @14", [1, 0], 14, 256, 512, 1, 2),
        square("3x3 512-512 @7", [3, 2], 7, 512, 512, 3, 1),
        square("1x1 64-64 @56", [0, 1], 56, 64, 64, 1, 1),
        square("1x1 64-256 @56", [0, 4], 56, 64, 256, 1, 1),
        square("1x1 256-64 @56", [0, 2], 56, 256, 64, 1, 1),
        square("1x1 256-128 @56", [0, 1], 56, 256, 128, 1, 1),
        square("3x3/2 128-128 @56", [0, 1], 56, 128, 128, 3, 2),
        square("1x1 128-512 @28", [0, 4], 28, 128, 512, 1, 1),
        square("1x1/2 256-512 @56", [0, 1], 56, 256, 512, 1, 2),
        square("1x1 512-128 @28", [0, 3], 28, 512, 128, 1, 1),
        square("1x1 512-256 @28", [0, 1], 28, 512, 256, 1, 1),
        square("3x3/2 256-256 @28", [0, 1], 28, 256, 256, 3, 2),
        square("1x1 256-1024 @14", [0, 6], 14, 256, 1024, 1, 1),
        square("1x1/2 512-1024 @28", [0, 1], 28, 512, 1024, 1, 2),
        square("1x1 1024-256 @14", [0, 5], 14, 1024, 256, 1, 1),
        square("1x1 1024-512 @14", [0, 1], 14, 1024, 512, 1, 1),
        square("3x3/2 512-512 @14", [0, 1], 14, 512, 512, 3, 2),
        square("1x1 512-2048 @7", [0, 3], 7, 512, 2048, 1, 1),
        square("1x1/2 1024-2048 @14", [0, 1], 14, 1024, 2048, 1, 2),
        square("1x1 2048-512 @7", [0, 2], 7, 2048, 512, 1, 1),
        Layer {
            name: "fc 512-1000",
            geometry: Geometry::fully_connected(512, 1000),
            times: [1, 0],
        },
        Layer {
            name: "fc 2048-1000",
            geometry: Geometry::fully_connected(2048, 1000),
            times: [0, 1],
        },
    ]
}

/// Numbers that look like a trained network's weights: a bell with a standard deviation of 24.
fn weights(count: usize) -> Vec<i8> {
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count)
        .map(|_| ((0..6).map(|_| uniform()).sum::<f32>() * 34.0).clamp(-127.0, 127.0) as i8)
        .collect()
}

/// How long a layer is repeated: `LAYER_MS` where one run tells all (under an emulator that counts instructions).
fn budget() -> Duration {
    let ms = std::env::var("LAYER_MS")
        .ok()
        .and_then(|ms| ms.parse().ok());
    Duration::from_millis(ms.unwrap_or(150))
}

fn seconds(mut run: impl FnMut()) -> f64 {
    run();
    let (begin, mut best) = (Instant::now(), f64::INFINITY);
    while begin.elapsed() < budget() {
        let start = Instant::now();
        run();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}

fn report(name: &str, macs: f64, time: f64, peak: f64) {
    let rate = macs / time;
    println!(
        "  {name:22} {:8.1} MMAC {:8.3} ms {:7.1} GMAC/s {:4.0} %",
        macs / 1e6,
        time * 1e3,
        rate / 1e9,
        100.0 * rate / peak
    );
}

/// A loop of independent instructions, 10,000 times: `$products` multiply-accumulates a round.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! rounds {
    ($products:literal, $next:literal, [$($register:tt)*] $($instruction:literal)*) => {{
        const ROUNDS: u64 = 10_000;
        let time = seconds(|| {
            // SAFETY: touches registers only; the caller has checked that the processor knows the instructions.
            unsafe {
                std::arch::asm!(
                    "2:",
                    $($instruction,)*
                    $next,
                    n = inout(reg) ROUNDS => _,
                    $(out($register) _,)*
                    options(nomem, nostack)
                );
            }
        });
        (ROUNDS * $products) as f64 / time
    }};
}

/// Multiply-accumulates a second of the instructions that a kernel's innermost loop is made of, alone: for AVX2 and NEON
/// the multiplications and what widens their sums, as often as the kernel uses them.
fn peak(isa: Isa) -> f64 {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => {
            rounds!(256, "dec {n}\njnz 2b", ["xmm0" "xmm1" "xmm2" "xmm3" "xmm4" "xmm5" "xmm6" "xmm7"] "vpmaddubsw ymm0, ymm8, ymm9" "vpmaddubsw ymm1, ymm8, ymm9" "vpmaddwd ymm2, ymm8, ymm9" "vpmaddubsw ymm3, ymm8, ymm9" "vpmaddubsw ymm4, ymm8, ymm9" "vpmaddwd ymm5, ymm8, ymm9" "vpmaddubsw ymm0, ymm8, ymm9" "vpmaddubsw ymm1, ymm8, ymm9" "vpmaddwd ymm2, ymm8, ymm9" "vpmaddubsw ymm3, ymm8, ymm9" "vpmaddubsw ymm4, ymm8, ymm9" "vpmaddwd ymm5, ymm8, ymm9")
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => {
            rounds!(512, "dec {n}\njnz 2b", ["xmm0" "xmm1" "xmm2" "xmm3" "xmm4" "xmm5" "xmm6" "xmm7"] "vpdpbusd zmm0, zmm8, zmm9" "vpdpbusd zmm1, zmm8, zmm9" "vpdpbusd zmm2, zmm8, zmm9" "vpdpbusd zmm3, zmm8, zmm9" "vpdpbusd zmm4, zmm8, zmm9" "vpdpbusd zmm5, zmm8, zmm9" "vpdpbusd zmm6, zmm8, zmm9" "vpdpbusd zmm7, zmm8, zmm9")
        }
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => {
            rounds!(128, "subs {n}, {n}, #1\nb.ne 2b", ["v0" "v1" "v2" "v3" "v4" "v5" "v6" "v7"] "smull v0.8h, v16.8b, v17.8b" "smull v1.8h, v16.8b, v17.8b" "smull v2.8h, v16.8b, v17.8b" "smull v3.8h, v16.8b, v17.8b" "smlal2 v0.8h, v16.16b, v17.16b" "smlal2 v1.8h, v16.16b, v17.16b" "smlal2 v2.8h, v16.16b, v17.16b" "smlal2 v3.8h, v16.16b, v17.16b" "smlal v0.8h, v16.8b, v17.8b" "smlal v1.8h, v16.8b, v17.8b" "smlal v2.8h, v16.8b, v17.8b" "smlal v3.8h, v16.8b, v17.8b" "smlal2 v0.8h, v16.16b, v17.16b" "smlal2 v1.8h, v16.16b, v17.16b" "smlal2 v2.8h, v16.16b, v17.16b" "smlal2 v3.8h, v16.16b, v17.16b" "sadalp v4.4s, v0.8h" "sadalp v5.4s, v1.8h" "sadalp v6.4s, v2.8h" "sadalp v7.4s, v3.8h")
        }
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDot => {
            rounds!(128, "subs {n}, {n}, #1\nb.ne 2b", ["v0" "v1" "v2" "v3" "v4" "v5" "v6" "v7"] ".arch_extension dotprod" "sdot v0.4s, v16.16b, v17.4b[0]" "sdot v1.4s, v16.16b, v17.4b[0]" "sdot v2.4s, v16.16b, v17.4b[0]" "sdot v3.4s, v16.16b, v17.4b[0]" "sdot v4.4s, v16.16b, v17.4b[0]" "sdot v5.4s, v16.16b, v17.4b[0]" "sdot v6.4s, v16.16b, v17.4b[0]" "sdot v7.4s, v16.16b, v17.4b[0]")
        }
        #[cfg(target_arch = "aarch64")]
        Isa::NeonI8mm => {
            rounds!(256, "subs {n}, {n}, #1\nb.ne 2b", ["v0" "v1" "v2" "v3" "v4" "v5" "v6" "v7"] ".arch_extension i8mm" "smmla v0.4s, v16.16b, v17.16b" "smmla v1.4s, v16.16b, v17.16b" "smmla v2.4s, v16.16b, v17.16b" "smmla v3.4s, v16.16b, v17.16b" "smmla v4.4s, v16.16b, v17.16b" "smmla v5.4s, v16.16b, v17.16b" "smmla v6.4s, v16.16b, v17.16b" "smmla v7.4s, v16.16b, v17.16b")
        }
        _ => f64::NAN,
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let isas = match arguments.first().map(|name| name.parse::<Isa>()) {
        Some(Ok(isa)) => vec![isa],
        Some(Err(error)) => return eprintln!("{error}"),
        None => Isa::available()
            .into_iter()
            .filter(|&isa| isa != Isa::Generic)
            .collect(),
    };
    for isa in isas {
        let peak = peak(isa);
        println!(
            "{isa}: its inner instructions alone reach {:.1} GMAC/s",
            peak / 1e9
        );
        if arguments.get(1).is_some_and(|name| name == "peak") {
            continue;
        }
        let mut totals = [[0.0; 2]; 2];
        for layer in layers() {
            if arguments.get(1).is_some_and(|name| *name != layer.name) {
                continue;
            }
            let geometry = layer.geometry;
            let depth = geometry.taps() * geometry.input.c;
            let sign = isa.activations();
            let spec = ConvSpec {
                geometry,
                sign,
                input_zero: sign.min(),
                weights: &weights(depth * geometry.output.c),
                weight_zeros: &[],
                bias: &vec![0; geometry.output.c],
                multipliers: &[1e-4],
                output: Output::Quantized(Quantization::full(sign, sign.min()), None),
            };
            let conv = match Conv::new(isa, &spec) {
                Ok(conv) => conv,
                Err(error) => return eprintln!("{error}"),
            };
            let input: Vec<u8> = (0..geometry.input.bytes())
                .map(|i| (i * 31) as u8)
                .collect();
            let mut out = vec![0; geometry.output.bytes()];
            let mut scratch = vec![0; conv.scratch_bytes()];
            let time = seconds(|| {
                let pixels = 0..geometry.output.pixels();
                conv.run(&input, None, &mut out, &mut scratch, pixels)
                    .expect("lengths fit");
            });
            let macs = geometry.macs() as f64;
            report(layer.name, macs, time, peak);
            for (total, times) in totals.iter_mut().zip(layer.times) {
                total[0] += macs * times as f64;
                total[1] += time * times as f64;
            }
        }
        for (network, [macs, time]) in ["ResNet-18", "ResNet-50"].iter().zip(totals) {
            report(network, macs, time, peak);
        }
    }
}
