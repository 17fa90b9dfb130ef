//! Float operators between bytes, against a plain reading of their definitions, on every instruction set: bit for bit.

use ocellus_int8_kernels::{
    FloatDepthwise, FloatDepthwiseSpec, FloatOutput, Function, Geometry, Interpolate, Isa,
    Neighbours, Quantization, Shape, Sign, TableSum,
};
use proptest::prelude::*;

/// What each byte stands for: neither linear nor monotone.
fn numbers() -> [f32; 256] {
    std::array::from_fn(|b| ((b * 37 % 256) as f32 - 101.0) * 0.031)
}

fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    if cfg!(target_arch = "arm") {
        a * b + c
    } else {
        a.mul_add(b, c)
    }
}

fn output(sign: Sign) -> FloatOutput {
    FloatOutput {
        scale: 0.043,
        quantization: Quantization {
            zero: 90 + sign.min(),
            min: 7 + sign.min(),
            max: 240 + sign.min(),
        },
    }
}

/// The byte for a float: numbers from 7 to 240, 90 stands for zero.
fn byte(value: f32, sign: Sign) -> u8 {
    let steps = (value / 0.043).clamp(-83.0, 150.0).round_ties_even() as i32;
    (steps + 90 + sign.min()) as u8
}

#[derive(Clone, Debug)]
struct Case {
    geometry: Geometry,
    weights: Vec<f32>,
    bias: Vec<f32>,
    input: Vec<u8>,
    cut: usize,
}

fn case() -> impl Strategy<Value = Case> {
    let window = (1..=5usize, 1..=4usize, 1..=3usize, 1..=3usize, 1..=2usize);
    let pads = proptest::array::uniform4(0..=3usize);
    (1..=14usize, 1..=14usize, 1..=37usize, window, pads)
        .prop_filter_map("the window fits", |(h, w, c, window, pads)| {
            let (kh, kw, sh, sw, dilation) = window;
            let span = |k: usize| (k - 1) * dilation + 1;
            let room = [h + pads[0] + pads[2], w + pads[1] + pads[3]];
            if span(kh) > room[0] || span(kw) > room[1] {
                return None;
            }
            let out = [(room[0] - span(kh)) / sh + 1, (room[1] - span(kw)) / sw + 1];
            Some(Geometry {
                input: Shape::new(h, w, c),
                output: Shape::new(out[0], out[1], c),
                kernel: [kh, kw],
                stride: [sh, sw],
                dilation: [dilation; 2],
                pads,
                groups: c,
            })
        })
        .prop_flat_map(|geometry| {
            let floats = |n| prop::collection::vec(-2.0f32..2.0, n);
            let c = geometry.output.c;
            (
                Just(geometry),
                floats(c * geometry.taps()),
                prop_oneof![Just(vec![]), floats(c)],
                prop::collection::vec(any::<u8>(), geometry.input.bytes()),
                0..=geometry.output.pixels(),
            )
        })
        .prop_map(|(geometry, weights, bias, input, cut)| Case {
            geometry,
            weights,
            bias,
            input,
            cut,
        })
}

fn depthwise_by_definition(case: &Case, function: Function, sign: Sign) -> Vec<u8> {
    let (g, numbers) = (case.geometry, numbers());
    let mut out = Vec::new();
    for oy in 0..g.output.h {
        for ox in 0..g.output.w {
            for c in 0..g.output.c {
                let mut sum = 0.0f32;
                for ky in 0..g.kernel[0] {
                    for kx in 0..g.kernel[1] {
                        let y = (oy * g.stride[0] + ky * g.dilation[0]).wrapping_sub(g.pads[0]);
                        let x = (ox * g.stride[1] + kx * g.dilation[1]).wrapping_sub(g.pads[1]);
                        if y < g.input.h && x < g.input.w {
                            let byte = case.input[(y * g.input.w + x) * g.input.c + c];
                            let weight = case.weights[c * g.taps() + ky * g.kernel[1] + kx];
                            sum = multiply_add(numbers[usize::from(byte)], weight, sum);
                        }
                    }
                }
                let sum = sum + case.bias.get(c).unwrap_or(&0.0);
                out.push(byte(function.of(sum), sign));
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn depthwise(case in case(), function in prop::sample::select(vec![Function::Identity, Function::Sigmoid, Function::Silu])) {
        for isa in Isa::available() {
            let sign = isa.activations();
            let spec = FloatDepthwiseSpec {
                geometry: case.geometry,
                sign,
                numbers: &numbers(),
                weights: &case.weights,
                bias: &case.bias,
                function,
                output: output(sign),
            };
            let conv = FloatDepthwise::new(isa, &spec).unwrap();
            let expected = depthwise_by_definition(&case, function, sign);
            let mut out = vec![0; expected.len()];
            let mut scratch = vec![0xff; conv.scratch_bytes()];
            let pixels = case.geometry.output.pixels();
            let (first, second) = out.split_at_mut(case.cut * case.geometry.output.c);
            conv.run(&case.input, first, &mut scratch, 0..case.cut).unwrap();
            conv.run(&case.input, second, &mut scratch, case.cut..pixels).unwrap();
            prop_assert_eq!(&out, &expected, "{}", isa);
        }
    }

    #[test]
    fn linear_resize(
        (shape, rows, columns, cut) in (1..=9usize, 1..=9usize, 1..=27usize).prop_flat_map(|(h, w, c)| {
            let axis = |size: usize| {
                let at = (0..size, 0.0f32..1.0).prop_map(move |(before, part)| Neighbours {
                    at: [before, (before + 1).min(size - 1)],
                    weight: [1.0 - part, part],
                });
                prop::collection::vec(at, 1..12)
            };
            (Just(Shape::new(h, w, c)), axis(h), axis(w), 0.0f64..1.0)
        }),
        seed in any::<u8>(),
    ) {
        let numbers = numbers();
        let input: Vec<u8> = (0..shape.bytes()).map(|i| (i * 89) as u8 ^ seed).collect();
        let of = |y: usize, x: usize, c: usize| numbers[usize::from(input[(y * shape.w + x) * shape.c + c])];
        for isa in Isa::available() {
            let sign = isa.activations();
            let mut expected = Vec::new();
            for v in &rows {
                for h in &columns {
                    for c in 0..shape.c {
                        let part = |i: usize, j: usize| h.weight[j] * v.weight[i] * of(v.at[i], h.at[j], c);
                        expected.push(byte(part(0, 0) + part(0, 1) + part(1, 0) + part(1, 1), sign));
                    }
                }
            }
            let resize = Interpolate::new(isa, sign, shape, rows.clone(), columns.clone(), &numbers, output(sign)).unwrap();
            let pixels = resize.output().pixels();
            let cut = (cut * pixels as f64) as usize;
            let mut out = vec![0; expected.len()];
            let mut scratch = vec![0; resize.scratch_bytes()];
            let (first, second) = out.split_at_mut(cut * shape.c);
            resize.run(&input, first, &mut scratch, 0..cut).unwrap();
            resize.run(&input, second, &mut scratch, cut..pixels).unwrap();
            prop_assert_eq!(&out, &expected, "{}", isa);
        }
    }
}

#[test]
fn sums_and_products_of_functions() {
    let p = numbers();
    let q: [f32; 256] = std::array::from_fn(|b| b as f32 * 0.02 - 1.3);
    let (a, b): (Vec<u8>, Vec<u8>) = (0..=255u8)
        .flat_map(|a| (0..=255u8).map(move |b| (a, b)))
        .unzip();
    for isa in Isa::available() {
        let sign = isa.activations();
        for product in [false, true] {
            let sum = TableSum::new(isa, sign, [&p, &q], product, output(sign)).unwrap();
            let mut out = vec![0; a.len()];
            sum.run(&a, &b, &mut out).unwrap();
            for ((a, b), out) in a.iter().zip(&b).zip(out) {
                let (x, y) = (p[usize::from(*a)], q[usize::from(*b)]);
                let value = if product { x * y } else { x + y };
                assert_eq!(out, byte(value, sign), "{isa}: {a} and {b}");
            }
        }
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let sign = Isa::Generic.activations();
    let geometry = Geometry {
        groups: 4,
        ..Geometry::window(Shape::new(5, 5, 4), 4, [3, 3], [1, 1], [1; 4])
    };
    let (numbers, weights) = (numbers(), [0.5; 36]);
    let spec = FloatDepthwiseSpec {
        geometry,
        sign,
        numbers: &numbers,
        weights: &weights,
        bias: &[],
        function: Function::Identity,
        output: output(sign),
    };
    let refused = |spec: FloatDepthwiseSpec<'_>| {
        FloatDepthwise::new(Isa::Generic, &spec)
            .unwrap_err()
            .to_string()
    };
    let infinite = [f32::INFINITY; 36];
    assert!(
        refused(FloatDepthwiseSpec {
            weights: &infinite,
            ..spec
        })
        .contains("the weights: it holds inf")
    );
    assert!(
        refused(FloatDepthwiseSpec {
            weights: &weights[1..],
            ..spec
        })
        .contains("weights: 36 elements expected, 35 given")
    );
    let grouped = Geometry {
        groups: 2,
        ..geometry
    };
    assert!(
        refused(FloatDepthwiseSpec {
            geometry: grouped,
            ..spec
        })
        .contains("2 groups")
    );
    let conv = FloatDepthwise::new(Isa::Generic, &spec).unwrap();
    let mut out = [0; 100];
    let short = conv.run(&[0; 100], &mut out, &mut [], 0..25);
    assert!(short.unwrap_err().to_string().contains("scratch"));
    let far = Neighbours {
        at: [0, 2],
        weight: [0.5; 2],
    };
    let near = Neighbours {
        at: [4, 5],
        weight: [0.5; 2],
    };
    for (neighbours, problem) in [(far, "no neighbours"), (near, "is not in a picture of 5")] {
        let e = Interpolate::new(
            Isa::Generic,
            sign,
            Shape::new(5, 5, 4),
            vec![neighbours],
            vec![neighbours],
            &numbers,
            output(sign),
        );
        assert!(e.unwrap_err().to_string().contains(problem));
    }
}
