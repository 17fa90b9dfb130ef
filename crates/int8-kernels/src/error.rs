//! What can be wrong with a kernel's numbers or buffers.

use std::fmt;

use crate::{Isa, Sign};

/// Why a kernel cannot be built or run. The text names the thing and what was expected.
#[derive(Clone, Debug, PartialEq)]
pub enum KernelError {
    /// The processor lacks the instruction set.
    Unavailable(Isa),
    /// The name of an instruction set is not known.
    UnknownIsa(String),
    /// The instruction set's kernels take the other kind of activations.
    Sign {
        /// The instruction set asked for.
        isa: Isa,
        /// The activations asked for.
        sign: Sign,
    },
    /// A buffer or a table has the wrong length.
    Length {
        /// What it is.
        what: &'static str,
        /// How many elements it must have.
        expected: usize,
        /// How many it has.
        actual: usize,
    },
    /// A shape, a stride, a group count … makes no sense.
    Geometry(String),
    /// A zero point, a scale ratio or a limit is out of its range.
    Value {
        /// What it is.
        what: &'static str,
        /// Its value, and why that is wrong.
        problem: String,
    },
}

impl fmt::Display for KernelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(isa) => write!(
                f,
                "this processor has no {isa}; it has: {}",
                Isa::available()
                    .iter()
                    .map(Isa::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            Self::UnknownIsa(name) => write!(
                f,
                "unknown instruction set `{name}`; known: {}",
                Isa::ALL
                    .iter()
                    .map(Isa::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            ),
            Self::Sign { isa, sign } => {
                write!(
                    f,
                    "the kernels of {isa} take {} activations, not {sign}",
                    isa.activations()
                )
            }
            Self::Length {
                what,
                expected,
                actual,
            } => write!(f, "{what}: {expected} elements expected, {actual} given"),
            Self::Geometry(problem) => f.write_str(problem),
            Self::Value { what, problem } => write!(f, "{what}: {problem}"),
        }
    }
}

impl std::error::Error for KernelError {}

/// Checks the length of a buffer or a table.
pub(crate) fn check_len(
    what: &'static str,
    expected: usize,
    actual: usize,
) -> Result<(), KernelError> {
    if expected == actual {
        Ok(())
    } else {
        Err(KernelError::Length {
            what,
            expected,
            actual,
        })
    }
}
