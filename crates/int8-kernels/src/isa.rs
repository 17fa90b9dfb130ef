//! The instruction sets: what the processor has, what is chosen, how its kernels like their activations.

use std::{fmt, str::FromStr};

use crate::KernelError;

/// An instruction set that kernels are written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Isa {
    /// Scalar code: runs everywhere, and is the specification of the others.
    Generic,
    /// ARM v8 without dot products: Cortex-A53, A57, A72.
    Neon,
    /// ARM v8.2 with `sdot`: Cortex-A55, A76, A78.
    NeonDot,
    /// ARM v8.6 with `smmla`: Cortex-A510, A710, Neoverse N2.
    NeonI8mm,
    /// x86-64 since 2013.
    Avx2,
    /// x86-64 with `vpdpbusd` on 512 bits.
    Avx512Vnni,
}

impl Isa {
    /// Every instruction set, the best of each architecture last.
    pub const ALL: [Isa; 6] = [
        Isa::Generic,
        Isa::Neon,
        Isa::NeonDot,
        Isa::NeonI8mm,
        Isa::Avx2,
        Isa::Avx512Vnni,
    ];

    /// The best one that this processor has.
    pub fn detect() -> Isa {
        Self::available().last().copied().unwrap_or(Isa::Generic)
    }

    /// Those that this processor has, the best last.
    pub fn available() -> Vec<Isa> {
        Self::ALL
            .into_iter()
            .filter(|isa| isa.is_available())
            .collect()
    }

    /// Whether this processor has it.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Generic => true,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonDot => std::arch::is_aarch64_feature_detected!("dotprod"),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm => {
                std::arch::is_aarch64_feature_detected!("dotprod")
                    && std::arch::is_aarch64_feature_detected!("i8mm")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                std::arch::is_x86_feature_detected!("avx2")
                    && std::arch::is_x86_feature_detected!("fma")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => {
                Isa::Avx2.is_available()
                    && std::arch::is_x86_feature_detected!("avx512f")
                    && std::arch::is_x86_feature_detected!("avx512bw")
                    && std::arch::is_x86_feature_detected!("avx512vl")
                    && std::arch::is_x86_feature_detected!("avx512vnni")
            }
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }

    /// The activations that its kernels take: u8 on x86 (`vpdpbusd`, `vpmaddubsw`), s8 on ARM (`sdot`, `smmla`, `smull`).
    /// [`Isa::Generic`] takes both and names u8.
    pub fn activations(self) -> Sign {
        match self {
            Isa::Generic | Isa::Avx2 | Isa::Avx512Vnni => Sign::U8,
            Isa::Neon | Isa::NeonDot | Isa::NeonI8mm => Sign::S8,
        }
    }

    /// Runs `work` with its loops compiled for this instruction set; a closure is small and inlined; larger
    /// work has a [`Work`] of its own.
    ///
    /// Of aarch64 the compiler knows NEON anyway; of x86-64 only SSE2, which cannot even round.
    #[inline]
    pub(crate) fn vectorize<W: Work>(self, work: W) -> W::Output {
        #[cfg(target_arch = "x86_64")]
        {
            #[target_feature(enable = "avx2,fma")]
            fn with_avx2<W: Work>(work: W) -> W::Output {
                work.run()
            }
            #[target_feature(enable = "avx512f,avx512bw,avx512vl,fma")]
            fn with_avx512<W: Work>(work: W) -> W::Output {
                work.run()
            }
            debug_assert!(self.is_available());
            match self {
                // SAFETY: every kernel's constructor checks that the processor has its instruction set.
                Isa::Avx2 => return unsafe { with_avx2(work) },
                // SAFETY: as above.
                Isa::Avx512Vnni => return unsafe { with_avx512(work) },
                _ => {}
            }
        }
        work.run()
    }

    /// Fails when this processor lacks it, or its kernels do not take such activations.
    pub(crate) fn check(self, sign: Sign) -> Result<(), KernelError> {
        if !self.is_available() {
            Err(KernelError::Unavailable(self))
        } else if self != Isa::Generic && sign != self.activations() {
            Err(KernelError::Sign { isa: self, sign })
        } else {
            Ok(())
        }
    }
}

/// What runs with its loops compiled for an instruction set.
pub(crate) trait Work {
    type Output;

    /// Is `#[inline(always)]`, and so is what it calls: only then is it compiled for the instruction set of the caller.
    fn run(self) -> Self::Output;
}

impl<R, F: FnOnce() -> R> Work for F {
    type Output = R;

    #[inline(always)]
    fn run(self) -> R {
        self()
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Isa::Generic => "generic",
            Isa::Neon => "neon",
            Isa::NeonDot => "neon-dot",
            Isa::NeonI8mm => "neon-i8mm",
            Isa::Avx2 => "avx2",
            Isa::Avx512Vnni => "avx512vnni",
        })
    }
}

impl FromStr for Isa {
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Self, KernelError> {
        Isa::ALL
            .into_iter()
            .find(|isa| isa.to_string() == name)
            .ok_or_else(|| KernelError::UnknownIsa(name.to_owned()))
    }
}

/// How a byte of an activation is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sign {
    /// 0 to 255.
    U8,
    /// -128 to 127.
    S8,
}

impl Sign {
    /// The number that a byte stands for.
    #[inline]
    pub fn value(self, byte: u8) -> i32 {
        i32::from(byte ^ self.order_mask()) + self.min()
    }

    /// What makes the order of the bytes the order of the numbers, by xor.
    #[inline]
    pub(crate) fn order_mask(self) -> u8 {
        match self {
            Sign::U8 => 0,
            Sign::S8 => 0x80,
        }
    }

    /// The smallest number.
    pub fn min(self) -> i32 {
        match self {
            Sign::U8 => 0,
            Sign::S8 => -128,
        }
    }

    /// The greatest number.
    pub fn max(self) -> i32 {
        self.min() + 255
    }

    /// Turns bytes of one sign into bytes of the other with the same meaning once the zero point is moved by 128
    /// (up from s8 to u8, down from u8 to s8).
    pub fn flip(bytes: &mut [u8]) {
        bytes.iter_mut().for_each(|byte| *byte ^= 0x80);
    }
}

impl fmt::Display for Sign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Sign::U8 => "u8",
            Sign::S8 => "s8",
        })
    }
}
