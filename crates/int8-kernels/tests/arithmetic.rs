//! The scalar kernels against numbers worked out by hand.

use ocellus_int8_kernels::{
    Add, Addition, AveragePool, Conv, ConvSpec, Gather, Geometry, Isa, KernelError, MaxPool, Mul,
    Operand, Output, Quantization, Residual, Shape, Sign,
};

fn spec<'a>(geometry: Geometry, weights: &'a [i8]) -> ConvSpec<'a> {
    ConvSpec {
        geometry,
        sign: Sign::U8,
        input_zero: 0,
        weights,
        weight_zeros: &[],
        bias: &[],
        multipliers: &[1.0],
        output: Output::Quantized(Quantization::full(Sign::U8, 0), None),
    }
}

fn run(spec: &ConvSpec, input: &[u8], residual: Option<&[u8]>) -> Vec<u8> {
    let conv = Conv::new(Isa::Generic, spec).unwrap();
    let pixels = spec.geometry.output.pixels();
    let mut out = vec![0; spec.geometry.output.bytes()];
    conv.run(
        input,
        residual,
        &mut out,
        &mut vec![0; conv.scratch_bytes()],
        0..pixels,
    )
    .unwrap();
    out
}

#[test]
fn halves_round_to_even() {
    let geometry = Geometry::fully_connected(1, 4);
    let spec = ConvSpec {
        multipliers: &[0.5],
        ..spec(geometry, &[1, 3, 5, 7])
    };
    assert_eq!(run(&spec, &[1], None), [0, 2, 2, 4]);
}

#[test]
fn zero_points_bias_and_padding() {
    // A 3×1 window over [10, 20] with zero point 5: padding counts as 5, that is as nothing.
    let geometry = Geometry::window(Shape::new(2, 1, 1), 1, [3, 1], [1, 1], [1, 0, 1, 0]);
    let spec = ConvSpec {
        input_zero: 5,
        weight_zeros: &[-1],
        bias: &[7],
        output: Output::Quantized(
            Quantization {
                zero: 3,
                min: 0,
                max: 100,
            },
            None,
        ),
        ..spec(geometry, &[1, 2, 3])
    };
    // Weights less their zero point: 2, 3, 4. Row 0: 5·3 + 15·4 + 7 = 82; row 1: 5·2 + 15·3 + 7 = 62.
    assert_eq!(run(&spec, &[10, 20], None), [85, 65]);
}

#[test]
fn the_residual_sees_the_saturated_convolution() {
    let conv = Operand {
        zero: 0,
        ratio: 0.5,
    };
    let other = Operand {
        zero: 10,
        ratio: 2.0,
    };
    let output = Quantization::full(Sign::U8, 1);
    let residual = |operands, conv_first| Residual {
        addition: Addition::new(Sign::U8, operands, output).unwrap(),
        conv_first,
    };
    for residual in [
        residual([conv, other], true),
        residual([other, conv], false),
    ] {
        let spec = ConvSpec {
            output: Output::Quantized(Quantization::full(Sign::U8, 0), Some(residual)),
            ..spec(Geometry::fully_connected(1, 1), &[100])
        };
        // 400 is held to 255; 255 · 0.5 + (20 - 10) · 2 + 1 = 148.5, to even 148.
        assert_eq!(run(&spec, &[4], Some(&[20])), [148]);
    }
}

#[test]
fn a_residual_of_another_convolution_is_refused() {
    let operand = Operand {
        zero: 5,
        ratio: 1.0,
    };
    let output = Quantization::full(Sign::U8, 0);
    let residual = Residual {
        addition: Addition::new(Sign::U8, [operand; 2], output).unwrap(),
        conv_first: true,
    };
    let spec = ConvSpec {
        output: Output::Quantized(Quantization::full(Sign::U8, 4), Some(residual)),
        ..spec(Geometry::fully_connected(1, 1), &[100])
    };
    let error = Conv::new(Isa::Generic, &spec).unwrap_err().to_string();
    assert!(error.contains("residual addition"), "{error}");
}

#[test]
fn strides_dilation_and_groups() {
    let mut geometry = Geometry::window(Shape::new(1, 5, 2), 2, [1, 2], [1, 2], [0; 4]);
    geometry.groups = 2;
    geometry.dilation = [1, 2];
    geometry.output = Shape::new(1, 2, 2);
    let input: Vec<u8> = (1..=10).collect();
    // Channel 0 is 1 3 5 7 9, channel 1 is 2 4 6 8 10; windows at columns 0 and 2 take columns +0 and +2.
    let expected = [1 + 5, 2 + 8 - 6, 5 + 9, 6 + 8 - 10];
    let spec = ConvSpec {
        bias: &[0, 8],
        ..spec(geometry, &[1, 1, 1, -1])
    };
    assert_eq!(run(&spec, &input, None), expected);
}

#[test]
fn floats_for_logits() {
    let spec = ConvSpec {
        output: Output::Float,
        multipliers: &[0.25, 2.0],
        ..spec(Geometry::fully_connected(2, 2), &[1, -3, 1, 1])
    };
    let conv = Conv::new(Isa::Generic, &spec).unwrap();
    let mut out = [0.0; 2];
    conv.run_float(&[1, 2], &mut out, &mut [], 0..1).unwrap();
    assert_eq!(out, [-1.25, 6.0]);
}

#[test]
fn elementwise() {
    let output = Quantization::full(Sign::S8, -1);
    let (a, b) = (
        Operand {
            zero: 1,
            ratio: 0.5,
        },
        Operand {
            zero: -2,
            ratio: 1.0,
        },
    );
    let bytes = |numbers: &[i8]| {
        numbers
            .iter()
            .map(|&number| number as u8)
            .collect::<Vec<_>>()
    };
    let mut out = vec![0; 3];
    let add = Add::new(Isa::Generic, Sign::S8, [a, b], output).unwrap();
    add.run(&bytes(&[2, -128, 127]), &bytes(&[-2, -128, 127]), &mut out)
        .unwrap();
    // 1 · 0.5 + 0 - 1 = -0.5, to even 0.
    assert_eq!(out, bytes(&[0, -128, 127]));
    let mul = Mul::new(Isa::Generic, Sign::S8, [1, -2], 0.5, output).unwrap();
    mul.run(&bytes(&[4, 2, -127]), &bytes(&[1, 1, 100]), &mut out)
        .unwrap();
    assert_eq!(out, bytes(&[3, 1, -128]));
}

#[test]
fn pools() {
    let geometry = Geometry::window(Shape::new(2, 2, 1), 1, [2, 2], [2, 2], [1, 1, 1, 1]);
    let input = [1, 2, 3, 200];
    let mut out = vec![0; 4];
    MaxPool::new(Isa::Generic, Sign::U8, geometry)
        .unwrap()
        .run(&input, &mut out, 0..4)
        .unwrap();
    assert_eq!(out, [1, 2, 3, 200]);
    MaxPool::new(Isa::Generic, Sign::S8, geometry)
        .unwrap()
        .run(&input, &mut out, 0..4)
        .unwrap();
    assert_eq!(out, [1, 2, 3, 200]);
    for (count_include_pad, expected) in [(true, [0, 0, 1, 50]), (false, [1, 2, 3, 200])] {
        let operand = Operand {
            zero: 0,
            ratio: 1.0,
        };
        let output = Quantization::full(Sign::U8, 0);
        let pool = AveragePool::new(
            Isa::Generic,
            Sign::U8,
            geometry,
            operand,
            output,
            count_include_pad,
        )
        .unwrap();
        pool.run(&input, &mut out, &mut [0], 0..4).unwrap();
        assert_eq!(out, expected);
    }
}

#[test]
fn gathers() {
    let shape = Shape::new(2, 2, 2);
    let gather = Gather::new(shape, vec![1, 0], vec![0, 0, 1], 1..2).unwrap();
    let mut out = vec![9; 12];
    gather
        .run(&[0, 1, 2, 3, 4, 5, 6, 7], &mut out, 2, 1)
        .unwrap();
    assert_eq!(out, [9, 5, 9, 5, 9, 7, 9, 1, 9, 1, 9, 3]);
}

#[test]
fn what_does_not_fit_is_named() {
    let geometry = Geometry::fully_connected(2, 2);
    let error = |spec: &ConvSpec| Conv::new(Isa::Generic, spec).unwrap_err().to_string();
    assert_eq!(
        error(&spec(geometry, &[1; 3])),
        "weights: 4 elements expected, 3 given"
    );
    let weights = [1; 4];
    let good = spec(geometry, &weights);
    assert_eq!(
        error(&ConvSpec { bias: &[1], ..good }),
        "bias: 2 elements expected, 1 given"
    );
    assert_eq!(
        error(&ConvSpec {
            multipliers: &[f32::NAN],
            ..good
        }),
        "multiplier: NaN is not a usable ratio of scales"
    );
    assert_eq!(
        error(&ConvSpec {
            input_zero: 256,
            ..good
        }),
        "the input: zero point 256 is not a number of u8"
    );
    let conv = Conv::new(Isa::Generic, &good).unwrap();
    assert_eq!(
        conv.run(&[1], None, &mut [0; 2], &mut [], 0..1),
        Err(KernelError::Length {
            what: "input",
            expected: 2,
            actual: 1
        })
    );
    assert!(
        "mmx"
            .parse::<Isa>()
            .unwrap_err()
            .to_string()
            .starts_with("unknown instruction set `mmx`; known: generic")
    );
}
