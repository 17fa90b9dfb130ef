//! One model, run again and again: answers `benches/peers.py` line by line, so that it can be timed in turns with its peers.
//!
//! `cargo run --release -p ocellus-int8 --example answer -- MODEL THREADS [INSTRUCTION SET]`. First line of the answer: the instruction set, the
//! milliseconds that loading took, the multiply-accumulates on integers and their share. Then, for each line on standard input,
//! the milliseconds of one inference on an input of zeroes.

use std::io::{BufRead, Write};
use std::time::Instant;

use ocellus_int8::{Options, load};
use tract_onnx::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, threads, isa @ ..] = args.as_slice() else {
        return Err("answer MODEL THREADS [INSTRUCTION SET]".into());
    };
    let options = Options {
        isa: isa.first().map(|isa| isa.parse()).transpose()?,
        threads: threads.parse()?,
        byte_input: false,
    };
    let started = Instant::now();
    let loaded = load(&std::fs::read(path)?, &options)?;
    let (isa, share) = (loaded.report.isa, loaded.report.integer_share());
    let macs = loaded.report.integer_macs;
    let fact = loaded.model.input_fact(0)?.clone();
    let shape = fact
        .shape
        .as_concrete()
        .ok_or("the input has no fixed shape")?;
    let input = Tensor::zero_dt(fact.datum_type, shape)?.into_tvalue();
    let mut session = loaded.model.into_runnable()?.spawn()?;
    let load_ms = started.elapsed().as_secs_f64() * 1e3;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{isa} {load_ms:.1} {macs} {share:.4}")?;
    out.flush()?;
    for line in std::io::stdin().lock().lines() {
        line?;
        let started = Instant::now();
        session.run(tvec!(input.clone()))?;
        writeln!(out, "{:.4}", started.elapsed().as_secs_f64() * 1e3)?;
        out.flush()?;
    }
    Ok(())
}
