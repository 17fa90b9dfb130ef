//! A driver's frame counter, widened, and the frames that it says were lost.

/// Follows a 32-bit sequence.
#[derive(Debug, Default)]
pub struct Sequence {
    last: Option<u32>,
    wide: u64,
}

impl Sequence {
    /// The widened number of this frame, and how many frames are missing before it.
    ///
    /// A number that does not grow (drivers that never count, or began again) is no gap.
    pub fn next(&mut self, sequence: u32) -> (u64, u64) {
        let step = match self.last {
            None => {
                self.wide = sequence.into();
                0
            }
            Some(last) => match sequence.wrapping_sub(last) {
                0 => 1,
                step if step > u32::MAX / 2 => 1,
                step => u64::from(step),
            },
        };
        self.last = Some(sequence);
        self.wide += step;
        (self.wide, step.saturating_sub(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_are_counted_and_nonsense_is_not() {
        let cases: [(&str, &[u32], u64, u64); 6] = [
            ("none", &[0, 1, 2, 3], 3, 0),
            ("the first number counts from nothing", &[17, 18], 18, 0),
            ("lost two and one", &[0, 3, 4, 6], 6, 3),
            (
                "around the end",
                &[u32::MAX - 1, u32::MAX, 1],
                (1 << 32) + 1,
                1,
            ),
            ("a driver that never counts", &[0, 0, 0], 2, 0),
            ("begun again", &[100, 101, 0, 1], 103, 0),
        ];
        for (name, numbers, last, gaps) in cases {
            let mut s = Sequence::default();
            let seen: Vec<_> = numbers.iter().map(|&n| s.next(n)).collect();
            assert_eq!(seen.last().unwrap().0, last, "{name}");
            assert_eq!(seen.iter().map(|s| s.1).sum::<u64>(), gaps, "{name}");
        }
    }
}
