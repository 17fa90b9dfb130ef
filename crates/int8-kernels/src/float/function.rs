//! Functions of one float.

use super::vector::Floats;

/// What is done to each float before it is quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    /// Nothing.
    Identity,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// `x / (1 + e^-x)`.
    Silu,
}

impl Function {
    /// Its value.
    pub fn of(self, x: f32) -> f32 {
        self.of_each(x)
    }

    /// Its values.
    #[inline(always)]
    pub(super) fn of_each<F: Floats>(self, x: F) -> F {
        match self {
            Self::Identity => x,
            Self::Sigmoid => logistic_of_each(x),
            Self::Silu => x.times(logistic_of_each(x)),
        }
    }
}

/// `1 / (1 + e^-x)` as a quotient of polynomials, within 3e-7 of it: the coefficients are those of Eigen's and
/// onnxruntime's approximation, and so are the results where multiply-add is fused.
pub fn logistic(x: f32) -> f32 {
    logistic_of_each(x)
}

#[inline(always)]
#[allow(clippy::excessive_precision)]
fn logistic_of_each<F: Floats>(x: F) -> F {
    const ODD: [f32; 5] = [
        4.370_310_125_798_01e-11,
        1.156_273_244_599_42e-7,
        6.085_748_646_001_43e-5,
        8.513_771_333_047_01e-3,
        2.482_879_470_615_29e-1,
    ];
    const EVEN: [f32; 6] = [
        6.102_473_897_556_81e-13,
        5.761_021_369_934_27e-9,
        6.291_067_850_170_40e-6,
        1.701_988_173_740_94e-3,
        1.168_176_569_044_53e-1,
        9.931_519_210_231_80e-1,
    ];
    let x = x.held(F::all(-18.0), F::all(18.0));
    let square = x.times(x);
    let mut odd = F::all(ODD[0]);
    for c in &ODD[1..] {
        odd = odd.multiply_add(square, F::all(*c));
    }
    let mut even = F::all(EVEN[0]);
    for c in &EVEN[1..] {
        even = even.multiply_add(square, F::all(*c));
    }
    let quotient = odd.times(x).over(even);
    quotient.plus(F::all(0.5)).at_least(F::all(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logistic_function_is_near_the_exact_one() {
        for i in -300_000..=300_000 {
            let x = i as f32 / 10_000.0;
            let exact = 1.0 / (1.0 + (-f64::from(x)).exp());
            let error = (f64::from(logistic(x)) - exact).abs();
            assert!(error < 3e-7, "{x}: {error}");
        }
        assert_eq!(logistic(f32::NEG_INFINITY), logistic(-18.0));
        assert_eq!(Function::Silu.of(0.0), 0.0);
        assert_eq!(Function::Silu.of(30.0), 30.0 * logistic(18.0));
    }
}
