//! Every instruction set that this processor has, against the scalar reference: bit for bit.

use std::io::Write;

use ocellus_int8_kernels::{
    Add, Addition, AveragePool, Conv, ConvSpec, Geometry, Isa, Lut, MaxPool, Mul, Operand, Output,
    Quantization, Residual, Shape, Sign,
};
use proptest::prelude::*;

/// A convolution with all its numbers.
#[derive(Clone, Debug)]
struct Case {
    geometry: Geometry,
    input_zero: u8,
    weights: Vec<i8>,
    weight_zeros: Vec<i8>,
    bias: Vec<i32>,
    multipliers: Vec<f32>,
    input: Vec<u8>,
    residual: Option<Other>,
    limits: (u8, u8),
    float: bool,
}

/// The other operand of an addition fused into the convolution.
#[derive(Clone, Debug)]
struct Other {
    bytes: Vec<u8>,
    conv_first: bool,
    ratios: [f32; 2],
}

impl Other {
    fn residual(&self, sign: Sign, conv: Quantization) -> Residual {
        let number = |byte: i32| byte + sign.min();
        let zeros = match self.conv_first {
            true => [conv.zero, number(130)],
            false => [number(130), conv.zero],
        };
        let operand = |i: usize| Operand {
            zero: zeros[i],
            ratio: self.ratios[i],
        };
        let output = Quantization {
            zero: number(3),
            min: number(3),
            max: number(250),
        };
        Residual {
            addition: Addition::new(sign, [operand(0), operand(1)], output).unwrap(),
            conv_first: self.conv_first,
        }
    }
}

impl Case {
    fn outputs(&self, isa: Isa, sign: Sign) -> Result<Vec<u8>, TestCaseError> {
        let number = |byte: u8| i32::from(byte) + sign.min();
        let (min, max) = (
            self.limits.0.min(self.limits.1),
            self.limits.0.max(self.limits.1),
        );
        let quantization = Quantization {
            zero: number(100),
            min: number(min),
            max: number(max),
        };
        let residual = self.residual.as_ref();
        let residual = residual.map(|other| other.residual(sign, quantization));
        let output = match self.float {
            true => Output::Float,
            false => Output::Quantized(quantization, residual),
        };
        let spec = ConvSpec {
            geometry: self.geometry,
            sign,
            input_zero: number(self.input_zero),
            weights: &self.weights,
            weight_zeros: &self.weight_zeros,
            bias: &self.bias,
            multipliers: &self.multipliers,
            output,
        };
        let conv = Conv::new(isa, &spec).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let mut scratch = vec![0xa5; conv.scratch_bytes()];
        let (pixels, channels) = (self.geometry.output.pixels(), self.geometry.output.c);
        let mut out = vec![0xee; self.geometry.output.bytes()];
        let mut floats = vec![f32::NAN; if self.float { out.len() } else { 0 }];
        // Two ranges, as two threads would run them.
        let middle = pixels / 3;
        for range in [0..middle, middle..pixels] {
            let bytes = range.start * channels..range.end * channels;
            let result = if self.float {
                conv.run_float(&self.input, &mut floats[bytes], &mut scratch, range)
            } else {
                let residual = self
                    .residual
                    .as_ref()
                    .map(|other| &other.bytes[bytes.clone()]);
                conv.run(&self.input, residual, &mut out[bytes], &mut scratch, range)
            };
            result.map_err(|error| TestCaseError::fail(error.to_string()))?;
        }
        Ok(if self.float {
            floats
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect()
        } else {
            out
        })
    }
}

/// Bytes that are often the extremes.
fn extreme_bytes(len: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), len),
        prop::collection::vec(prop::sample::select(vec![0u8, 127, 128, 255]), len),
        prop::sample::select(vec![0u8, 127, 128, 255]).prop_map(move |byte| vec![byte; len]),
    ]
}

fn geometry() -> impl Strategy<Value = Geometry> {
    let sizes = (1..10usize, 1..10usize, 1..4usize, 1..4usize);
    let window = (
        1..4usize,
        1..4usize,
        1..3usize,
        1..3usize,
        1..3usize,
        1..3usize,
    );
    let channels = (
        prop_oneof![Just(1usize), Just(2), 1..6usize],
        prop_oneof![1..40usize, Just(64), Just(16)],
        1..40usize,
    );
    let channels = prop_oneof![
        3 => channels.clone().prop_map(|(_, inputs, outputs)| (1, inputs, outputs)),
        1 => channels.prop_map(|(groups, inputs, outputs)| (groups, groups * inputs.min(9), groups * outputs.min(20))),
        1 => prop_oneof![1..150usize, Just(64), Just(16)].prop_map(|channels| (channels, channels, channels)),
    ];
    (sizes, window, channels, any::<bool>()).prop_filter_map(
        "no output",
        |(sizes, window, channels, plain)| {
            let (h, w, top, left) = sizes;
            let (kh, kw, sh, sw, dh, dw) = window;
            let (groups, inputs, outputs) = channels;
            if plain {
                let geometry =
                    Geometry::window(Shape::new(h, w, inputs), outputs, [1, 1], [1, 1], [0; 4]);
                return Some(Geometry { groups, ..geometry });
            }
            let pads = [top - 1, left - 1, top % 2, left % 2];
            let extent = [(kh - 1) * dh + 1, (kw - 1) * dw + 1];
            let output =
                Geometry::window(Shape::new(h, w, inputs), outputs, extent, [sh, sw], pads).output;
            (output.pixels() > 0).then_some(Geometry {
                input: Shape::new(h, w, inputs),
                output,
                kernel: [kh, kw],
                stride: [sh, sw],
                dilation: [dh, dw],
                pads,
                groups,
            })
        },
    )
}

fn other(len: usize) -> impl Strategy<Value = Other> {
    let ratio = || prop_oneof![1e-2..3f32, Just(0.5f32)];
    (extreme_bytes(len), any::<bool>(), [ratio(), ratio()]).prop_map(
        |(bytes, conv_first, ratios)| Other {
            bytes,
            conv_first,
            ratios,
        },
    )
}

fn case() -> impl Strategy<Value = Case> {
    geometry().prop_flat_map(|geometry| {
        let channels = geometry.output.c;
        let weights = channels * geometry.taps() * (geometry.input.c / geometry.groups);
        let multiplier = prop_oneof![1e-5..1e-2f32, Just(0.5f32), Just(2f32.powi(-13))];
        let zeros = prop_oneof![
            4 => Just(Vec::new()),
            1 => prop::collection::vec(any::<i8>(), 1),
            1 => prop::collection::vec(any::<i8>(), channels),
        ];
        let numbers = (
            any::<u8>(),
            extreme_bytes(weights)
                .prop_map(|bytes| bytes.into_iter().map(|byte| byte as i8).collect()),
            zeros,
            prop_oneof![
                Just(Vec::new()),
                prop::collection::vec(-100_000..100_000i32, channels)
            ],
            prop_oneof![
                prop::collection::vec(multiplier.clone(), 1),
                prop::collection::vec(multiplier, channels)
            ],
            extreme_bytes(geometry.input.bytes()),
            prop::option::of(other(geometry.output.bytes())),
            prop_oneof![Just((0u8, 255u8)), any::<(u8, u8)>()],
            prop::bool::weighted(0.1),
        );
        numbers.prop_map(
            move |(
                input_zero,
                weights,
                weight_zeros,
                bias,
                multipliers,
                input,
                residual,
                limits,
                float,
            )| Case {
                geometry,
                input_zero,
                weights,
                weight_zeros,
                bias,
                multipliers,
                input,
                residual: residual.filter(|_| !float),
                limits,
                float,
            },
        )
    })
}

/// Says loudly what this processor cannot run.
fn instruction_sets() -> Vec<Isa> {
    let available = Isa::available();
    for isa in Isa::ALL.into_iter().filter(|isa| !available.contains(isa)) {
        // Not through `eprintln`, which the test harness swallows.
        let _ = writeln!(
            std::io::stderr(),
            "NOT TESTED: {isa}, which this processor does not have"
        );
    }
    available
        .into_iter()
        .filter(|&isa| isa != Isa::Generic)
        .collect()
}

fn check(case: &Case) -> Result<(), TestCaseError> {
    for isa in Isa::available()
        .into_iter()
        .filter(|&isa| isa != Isa::Generic)
    {
        let sign = isa.activations();
        let expected = case.outputs(Isa::Generic, sign)?;
        prop_assert_eq!(
            case.outputs(isa, sign)?,
            expected,
            "{} differs from the reference",
            isa
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn convolution_equals_the_reference(case in case()) {
        check(&case)?;
    }
}

/// What every instruction set must give, its own sign taken into account: a function of (instruction set, sign).
fn agree(run: impl Fn(Isa, Sign) -> Vec<u8>) -> Result<(), TestCaseError> {
    for isa in Isa::available() {
        let sign = isa.activations();
        prop_assert_eq!(
            run(isa, sign),
            run(Isa::Generic, sign),
            "{} differs from the reference",
            isa
        );
    }
    Ok(())
}

proptest! {
    #[test]
    fn elementwise_equals_the_reference(
        (a, b) in (1..300usize).prop_flat_map(|len| (extreme_bytes(len), extreme_bytes(len))),
        zeros in any::<[u8; 3]>(),
        ratios in [1e-3..4f32, 1e-3..4f32],
    ) {
        agree(|isa, sign| {
            let zero = |i: usize| i32::from(zeros[i]) + sign.min();
            let output = Quantization { zero: zero(2), min: sign.min() + 3, max: sign.max() - 1 };
            let operand = |i: usize| Operand { zero: zero(i), ratio: ratios[i] };
            let mut out = vec![0; 2 * a.len()];
            let (sum, product) = out.split_at_mut(a.len());
            Add::new(isa, sign, [operand(0), operand(1)], output).unwrap().run(&a, &b, sum).unwrap();
            Mul::new(isa, sign, [zero(0), zero(1)], ratios[0] / 64.0, output).unwrap().run(&a, &b, product).unwrap();
            out
        })?;
    }

    #[test]
    fn pools_equal_the_reference(
        (geometry, input) in geometry().prop_flat_map(|mut geometry| {
            geometry.output.c = geometry.input.c;
            geometry.groups = 1;
            (Just(geometry), extreme_bytes(geometry.input.bytes()))
        }),
        zeros in any::<[u8; 2]>(),
        count_include_pad in any::<bool>(),
    ) {
        agree(|isa, sign| {
            let pixels = geometry.output.pixels();
            let mut out = vec![0; 2 * geometry.output.bytes()];
            let (max, average) = out.split_at_mut(geometry.output.bytes());
            MaxPool::new(isa, sign, geometry).unwrap().run(&input, max, 0..pixels).unwrap();
            let operand = Operand { zero: i32::from(zeros[0]) + sign.min(), ratio: 1.25 };
            let output = Quantization::full(sign, i32::from(zeros[1]) + sign.min());
            let pool = AveragePool::new(isa, sign, geometry, operand, output, count_include_pad).unwrap();
            pool.run(&input, average, &mut vec![7; pool.scratch_len()], 0..pixels).unwrap();
            out
        })?;
    }
}

/// A deep sum of the extremes of both signs, where sums in 16 bits would overflow first.
#[test]
fn extremes_do_not_saturate() {
    instruction_sets();
    for weight in [-128, -127, 127] {
        for byte in [0, 127, 128, 255] {
            for depth in [16, 100, 1152] {
                let geometry =
                    Geometry::window(Shape::new(2, 4, depth), 20, [1, 1], [1, 1], [0; 4]);
                let case = Case {
                    geometry,
                    input_zero: 128,
                    weights: vec![weight; 20 * depth],
                    weight_zeros: Vec::new(),
                    bias: Vec::new(),
                    multipliers: vec![1.0],
                    input: vec![byte; 8 * depth],
                    residual: None,
                    limits: (0, 255),
                    float: true,
                };
                check(&case).unwrap();
            }
        }
    }
}

#[test]
fn tables_of_every_length() {
    let table: [u8; 256] = std::array::from_fn(|byte| (byte * 167 + 29) as u8);
    let bytes: Vec<u8> = (0..600).map(|i| (i * 89 + i / 256) as u8).collect();
    for isa in Isa::available() {
        let lut = Lut::new(isa, table).unwrap();
        for length in (0..200).chain([256, 599, 600]) {
            let input = &bytes[..length];
            let expected: Vec<u8> = input.iter().map(|b| table[usize::from(*b)]).collect();
            // What lies behind is left alone.
            let mut out = vec![7; length + 1];
            lut.run(input, &mut out[..length]).unwrap();
            assert_eq!((&out[..length], out[length]), (&*expected, 7), "{isa}");
        }
        assert!(lut.run(&bytes, &mut [0; 599]).is_err());
    }
}
