//! Functions of one quantized number, as tables of their 256 values: a byte for a byte (sigmoid, hard swish, leaky Relu,
//! another scale), and a float for a byte (what it stands for).
//!
//! In and out: slices of as many elements, on any thread. Always holds: what stands at a byte is what comes out for it, on
//! every instruction set.

#[cfg(target_arch = "x86_64")]
mod avx512vbmi;
#[cfg(target_arch = "aarch64")]
mod neon;

use crate::{Isa, KernelError, error::check_len};

/// The number that each byte, as it is stored, stands for.
pub type Numbers = [f32; 256];

/// Looks up `count` bytes from the one address at the other.
type Bytes = unsafe fn(&[u8; 256], *const u8, *mut u8, usize);

/// The look-up in vectors, where there is one.
fn bytes_of(isa: Isa) -> Option<Bytes> {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni if has_vbmi() => Some(avx512vbmi::bytes),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => Some(neon::bytes),
        _ => None,
    }
}

/// Not all processors with AVX512-VNNI have it: Cascade Lake and Cooper Lake do not.
#[cfg(target_arch = "x86_64")]
fn has_vbmi() -> bool {
    std::arch::is_x86_feature_detected!("avx512vbmi")
}

/// A table of 256 bytes, applied byte by byte.
#[derive(Clone, Debug)]
pub struct Lut {
    table: [u8; 256],
    bytes: Option<Bytes>,
}

impl Lut {
    /// A table: `table[byte]` is written for `byte`, whatever sign the bytes have.
    pub fn new(isa: Isa, table: [u8; 256]) -> Result<Self, KernelError> {
        if !isa.is_available() {
            return Err(KernelError::Unavailable(isa));
        }
        let bytes = bytes_of(isa);
        Ok(Self { table, bytes })
    }

    /// Applies the table.
    pub fn run(&self, input: &[u8], out: &mut [u8]) -> Result<(), KernelError> {
        check_len("out", input.len(), out.len())?;
        match self.bytes {
            // SAFETY: the processor has the instruction set, and both slices are of one length.
            Some(bytes) => unsafe {
                bytes(&self.table, input.as_ptr(), out.as_mut_ptr(), out.len());
            },
            None => {
                for (out, byte) in out.iter_mut().zip(input) {
                    *out = self.table[usize::from(*byte)];
                }
            }
        }
        Ok(())
    }
}

/// A table of 256 floats.
#[derive(Clone, Debug)]
pub(crate) struct FloatLut {
    numbers: Box<Numbers>,
    /// The four bytes of each float apart, least first, where they are looked up so.
    #[cfg(target_arch = "x86_64")]
    planes: Option<Box<[[u8; 256]; 4]>>,
}

impl FloatLut {
    /// The processor has the instruction set.
    pub(crate) fn new(isa: Isa, numbers: &Numbers) -> Self {
        debug_assert!(isa.is_available());
        Self {
            numbers: Box::new(*numbers),
            #[cfg(target_arch = "x86_64")]
            planes: (isa == Isa::Avx512Vnni && has_vbmi()).then(|| {
                let plane = |i: usize| std::array::from_fn(|byte| numbers[byte].to_le_bytes()[i]);
                Box::new(std::array::from_fn(plane))
            }),
        }
    }

    /// The floats of `bytes`; as many as the shorter slice has.
    #[inline(always)]
    pub(crate) fn floats(&self, bytes: &[u8], out: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if let Some(planes) = &self.planes {
            let count = bytes.len().min(out.len());
            // SAFETY: planes are there only if the processor has AVX512-VBMI; both slices have `count` elements.
            return unsafe { avx512vbmi::floats(planes, bytes.as_ptr(), out.as_mut_ptr(), count) };
        }
        for (out, byte) in out.iter_mut().zip(bytes) {
            *out = self.numbers[usize::from(*byte)];
        }
    }
}
