//! The self-test: a bundle's golden input, computed here, against what the training machine computed.

use super::files::MAX_PART_BYTES;
use super::{Golden, Model, ModelError};
use crate::frame::{FrameMeta, FramePool};
use crate::preprocess::{
    InputSpec, InputTensor, PreprocessError, Preprocessor, ResizePolicy, frame_from_image_bytes,
    image_size,
};

/// The outcome of a self-test.
#[derive(Debug, Clone, PartialEq)]
pub enum SelfTest {
    /// The golden input gave the golden output; the largest difference of an element.
    Passed(f32),
    /// There is nothing to compare with.
    NoGolden,
}

impl std::fmt::Display for SelfTest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Passed(difference) => write!(
                f,
                "golden output reproduced (largest difference {difference:.4})"
            ),
            Self::NoGolden => f.write_str("no golden output to compare with"),
        }
    }
}

impl Model {
    /// Computes the bundle's golden input and compares.
    ///
    /// # Errors
    /// [`ModelError::Golden`]: this machine computes something else. [`ModelError::Unreadable`]: the picture is not there,
    /// or is none.
    pub fn self_test(&self) -> Result<SelfTest, ModelError> {
        let Some(golden) = &self.inner.golden else {
            return Ok(SelfTest::NoGolden);
        };
        let wrong = |problem: String| ModelError::Golden {
            path: self.inner.files.path().into(),
            problem,
        };
        let file = self.inner.files.part(&golden.image);
        let unreadable = |e: PreprocessError| ModelError::unreadable(&file, e);
        let bytes = self.inner.files.read_part(&golden.image, MAX_PART_BYTES)?;
        // By the header, before anything is decoded: a small file may hold a picture that fills the memory.
        let size = image_size(&bytes).map_err(unreadable)?;
        let spec = InputSpec {
            resize: ResizePolicy::Stretch,
            ..self.inner.info.input.clone()
        };
        if size != (spec.width, spec.height) {
            return Err(wrong(format!(
                "{} is {}x{}, but the input is {}x{}",
                golden.image, size.0, size.1, spec.width, spec.height
            )));
        }
        let meta = FrameMeta::of_still("golden");
        let frame =
            frame_from_image_bytes(&bytes, meta, &FramePool::default()).map_err(unreadable)?;
        let mut input = InputTensor::for_spec(&spec);
        Preprocessor::new(spec)
            .run(&frame, &mut input)
            .map_err(unreadable)?;
        let mut session = self.session()?;
        let actual = &session.run(&input)?.get(0).values;
        compare(actual, golden).map(SelfTest::Passed).map_err(wrong)
    }
}

/// The largest difference of an element, if it is within the tolerance.
fn compare(actual: &[f32], golden: &Golden) -> Result<f32, String> {
    if actual.len() != golden.output.len() {
        let (n, expected) = (actual.len(), golden.output.len());
        return Err(format!("{n} elements instead of {expected}"));
    }
    let differences = actual
        .iter()
        .zip(&golden.output)
        .map(|(a, b)| (a - b).abs());
    let worst = differences.enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
    let (element, difference) = worst.unwrap_or_default();
    // A NaN compares as more than anything here, and as not within anything.
    match difference <= golden.tolerance {
        true => Ok(difference),
        false => Err(format!(
            "element {element} is off by {difference}, more than {}",
            golden.tolerance
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_within_the_tolerance_passes() {
        let golden = Golden {
            image: "g.png".into(),
            output: vec![1.0, 2.0],
            tolerance: 0.5,
        };
        assert_eq!(compare(&[1.25, 2.0], &golden), Ok(0.25));
        for wrong in [
            &[1.0, 2.75][..],
            &[1.0],
            &[1.0, f32::NAN],
            &[f32::INFINITY, 2.0],
            &[-f32::NAN, 2.0],
        ] {
            assert!(compare(wrong, &golden).is_err(), "{wrong:?}");
        }
    }
}
