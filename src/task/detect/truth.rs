//! Whether what was found is what is there, where the source of the frames knows. Pure.

use super::BBox;

/// From this overlap on a box is right.
const OVERLAP: f32 = 0.5;

/// Whether each thing that is there was found once, with its label and where it is, and nothing else.
pub fn is_right<'a>(
    found: impl IntoIterator<Item = (&'a str, BBox)>,
    there: impl IntoIterator<Item = (&'a str, BBox)>,
) -> bool {
    let mut missing: Vec<(&str, BBox)> = there.into_iter().collect();
    found.into_iter().all(|(label, bbox)| {
        let is_it = |(l, b): &(&str, BBox)| *l == label && b.iou(&bbox) >= OVERLAP;
        let which = missing.iter().position(is_it);
        which.map(|i| missing.swap_remove(i)).is_some()
    }) && missing.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_once_with_its_label_and_in_its_place() {
        let at = |x0: f32| BBox::from([x0, 0.0, x0 + 0.4, 1.0]);
        let there = [("cat", at(0.0)), ("dog", at(0.5))];
        let right = |found: &[(&'static str, BBox)]| is_right(found.to_vec(), there);
        assert!(right(&[("dog", at(0.55)), ("cat", at(0.05))]));
        for wrong in [
            &[("cat", at(0.0))][..],
            &[("dog", at(0.0)), ("cat", at(0.5))],
            &[("cat", at(0.0)), ("dog", at(0.3))],
            &[("cat", at(0.0)), ("dog", at(0.5)), ("dog", at(0.5))],
            &[],
        ] {
            assert!(!right(wrong), "{wrong:?}");
        }
        assert!(is_right([], []));
    }
}
