//! Plain tract beside integers, on one model: what is taken, the times, the largest difference of the outputs.
//!
//! `cargo run --release -p ocellus-int8 --example compare -- model.onnx [runs] [threads] [instruction set]`

use std::time::{Duration, Instant};

use ocellus_int8::{Options, load};
use tract_onnx::prelude::*;

type Problem = Box<dyn std::error::Error>;

fn main() -> Result<(), Problem> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(path) = args.first() else {
        return Err("compare MODEL [RUNS] [THREADS] [ISA]".into());
    };
    let number = |i: usize, default| args.get(i).map_or(Ok(default), |n| n.parse());
    let (runs, threads) = (number(1, 20)?, number(2, 1)?);
    let isa = args.get(3).map(|isa| isa.parse()).transpose()?;
    let bytes = std::fs::read(path)?;

    let started = Instant::now();
    let loaded = load(
        &bytes,
        &Options {
            isa,
            threads,
            byte_input: false,
        },
    )?;
    println!(
        "{}loaded in {:.0} ms",
        loaded.report,
        started.elapsed().as_secs_f64() * 1e3
    );
    let inputs = inputs(&loaded.model)?;
    let (ours, time) = measure(loaded.model, &inputs, runs)?;
    println!("on integers: {}", milliseconds(time));

    let plain = tract_onnx::onnx()
        .model_for_read(&mut &*bytes)
        .and_then(|m| m.into_optimized());
    match plain
        .map_err(Problem::from)
        .and_then(|model| measure(model, &inputs, runs))
    {
        Ok((theirs, time)) => {
            println!("plain tract: {}", milliseconds(time));
            for (i, (a, b)) in ours.iter().zip(&theirs).enumerate() {
                let (a, b) = (floats(a)?, floats(b)?);
                let difference = a
                    .iter()
                    .zip(&b)
                    .map(|(a, b)| (a - b).abs())
                    .fold(0.0, f32::max);
                println!(
                    "output {i}: {} elements, largest difference {difference}",
                    a.len()
                );
            }
        }
        Err(e) => println!("plain tract does not run it: {e:#}"),
    }
    Ok(())
}

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms (the fastest)", time.as_secs_f64() * 1e3)
}

/// Noise in the range of normalized pixels, or all bytes.
fn inputs(model: &TypedModel) -> TractResult<TVec<TValue>> {
    let mut seed = 1u32;
    let mut next = move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    };
    let mut inputs = tvec!();
    for i in 0..model.input_outlets()?.len() {
        let fact = model.input_fact(i)?;
        let shape = fact.shape.as_concrete().unwrap_or(&[]).to_vec();
        let len = shape.iter().product();
        let tensor = if fact.datum_type == f32::datum_type() {
            let values: Vec<f32> = (0..len).map(|_| f32::from(next()) / 64.0 - 2.0).collect();
            Tensor::from_shape(&shape, &values)?
        } else if fact.datum_type == i8::datum_type() {
            let values: Vec<i8> = (0..len).map(|_| next() as i8).collect();
            Tensor::from_shape(&shape, &values)?
        } else {
            let values: Vec<u8> = (0..len).map(|_| next()).collect();
            Tensor::from_shape(&shape, &values)?
        };
        inputs.push(tensor.into());
    }
    Ok(inputs)
}

fn measure(
    model: TypedModel,
    inputs: &TVec<TValue>,
    runs: usize,
) -> Result<(TVec<TValue>, Duration), Problem> {
    let mut session = model.into_runnable()?.spawn()?;
    let mut outputs = session.run(inputs.clone())?;
    let mut best = Duration::MAX;
    for _ in 0..runs {
        let started = Instant::now();
        outputs = session.run(inputs.clone())?;
        best = best.min(started.elapsed());
    }
    Ok((outputs, best))
}

fn floats(value: &TValue) -> TractResult<Vec<f32>> {
    let tensor = value.cast_to::<f32>()?;
    Ok(tensor
        .to_plain_array_view::<f32>()?
        .iter()
        .copied()
        .collect())
}
