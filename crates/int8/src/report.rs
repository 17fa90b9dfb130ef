//! What runs on integers, what does not, and why.

use std::fmt;

use ocellus_int8_kernels::Isa;

/// What became of a model.
#[derive(Clone, Debug)]
pub struct Report {
    /// The instruction set of the integer kernels.
    pub isa: Isa,
    /// Threads that share one inference's integer operators.
    pub threads: usize,
    /// What was mended in the file before anything else, a sentence each.
    pub notes: Vec<String>,
    /// Operators of the regions, whose inputs and outputs are integers, in the order in which they run.
    pub taken: Vec<Taken>,
    /// Operators of the quantized part, or with multiply-accumulates, that run in float.
    pub left: Vec<Left>,
    /// Multiply-accumulates on integers.
    pub integer_macs: u64,
    /// Multiply-accumulates in float.
    pub float_macs: u64,
}

/// An operator between integers; what follows it (Relu, a table, an addition) may be part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The ONNX node.
    pub node: String,
    /// What runs.
    pub kernel: &'static str,
    /// Its multiply-accumulates.
    pub macs: u64,
    /// Whether the engine computes it in float, from bytes to bytes.
    pub float: bool,
}

/// An operator that runs in float.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The ONNX node.
    pub node: String,
    /// Its operator.
    pub operator: String,
    /// Why.
    pub reason: String,
}

impl Report {
    /// The share of multiply-accumulates that run on integers, 0 to 1; 0 for a model that has none.
    pub fn integer_share(&self) -> f64 {
        let all = self.integer_macs + self.float_macs;
        if all == 0 {
            0.0
        } else {
            self.integer_macs as f64 / all as f64
        }
    }

    /// Whether anything runs on integers.
    pub fn is_accelerated(&self) -> bool {
        !self.taken.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millions = |macs: u64| macs as f64 / 1e6;
        writeln!(
            f,
            "{} operators on integers ({}, {} thread(s)): {:.1} of {:.1} million multiply-accumulates, {:.1} %",
            self.taken.iter().filter(|t| !t.float).count(),
            self.isa,
            self.threads,
            millions(self.integer_macs),
            millions(self.integer_macs + self.float_macs),
            100.0 * self.integer_share(),
        )?;
        for Taken {
            node, kernel, macs, ..
        } in &self.taken
        {
            writeln!(f, "  {node}: {kernel}, {:.2} million", millions(*macs))?;
        }
        if !self.left.is_empty() {
            writeln!(f, "{} operators in float:", self.left.len())?;
        }
        for Left {
            node,
            operator,
            reason,
        } in &self.left
        {
            writeln!(f, "  {operator} {node}: {reason}")?;
        }
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        Ok(())
    }
}
