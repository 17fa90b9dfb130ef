//! Run-length masks as COCO has them: runs down each column, from the left to the right.
//!
//! In: a class map. Out: a mask of each wanted class. Pure. Always holds: the counts add up to the map's pixels; the first counts
//! pixels outside of the mask, and may be 0.

use super::map::{ClassMap, NONE};

/// One class's pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rle {
    /// The map's height and width, in this order, as in COCO's `size`.
    pub size: [u32; 2],
    /// Lengths of the runs, outside and inside in turns.
    pub counts: Vec<u32>,
}

impl Rle {
    /// COCO's compressed string, as `pycocotools` writes and reads it: of each count from the fourth on the difference to the count
    /// two before, in groups of five bits, the lowest first; a sixth bit says that another group follows; 48 is added to each.
    pub fn compressed(&self) -> String {
        let mut text = String::new();
        for (i, count) in self.counts.iter().enumerate() {
            let before = if i > 2 { self.counts[i - 2] } else { 0 };
            let mut rest = i64::from(*count) - i64::from(before);
            loop {
                let group = (rest & 0x1f) as u8;
                rest >>= 5;
                // The highest bit of the last group is the sign.
                let is_last = rest == if group & 0x10 == 0 { 0 } else { -1 };
                text.push(char::from(48 + (group | if is_last { 0 } else { 0x20 })));
                if is_last {
                    break;
                }
            }
        }
        text
    }

    /// Column and rows of each run inside.
    pub fn runs(&self) -> impl Iterator<Item = (usize, std::ops::Range<usize>)> {
        let height = self.size[0] as usize;
        let mut at = 0;
        let ranges = self.counts.chunks(2).map(move |pair| {
            let start = at + pair[0] as usize;
            at = start + pair.get(1).map_or(0, |n| *n as usize);
            start..at
        });
        ranges.flat_map(move |range| {
            // A run goes on at the top of the next column.
            let columns = range.start / height..range.end.div_ceil(height);
            columns.map(move |x| {
                let rows = range.start.max(x * height)..range.end.min((x + 1) * height);
                (x, rows.start - x * height..rows.end - x * height)
            })
        })
    }
}

/// A mask for each class from 0 on, `None` for one that is not wanted or not there.
pub(super) fn masks(map: &ClassMap, wanted: &[bool]) -> Vec<Option<Rle>> {
    let (width, height) = (map.width, map.height);
    let size = [height as u32, width as u32];
    let mut masks: Vec<Option<Rle>> = vec![None; wanted.len()];
    let mut ends = vec![0u32; wanted.len()];
    let mut close = |class: u16, from: u32, to: u32| {
        let class = usize::from(class);
        if wanted.get(class) == Some(&true) {
            let mask = masks[class].get_or_insert_with(|| Rle {
                size,
                counts: vec![],
            });
            mask.counts.extend([from - ends[class], to - from]);
            ends[class] = to;
        }
    };
    let (mut class, mut from, mut at) = (NONE, 0, 0);
    for x in 0..width {
        for y in 0..height {
            let own = map.classes[y * width + x];
            if own != class {
                close(class, from, at);
                (class, from) = (own, at);
            }
            at += 1;
        }
    }
    close(class, from, at);
    for (mask, end) in masks.iter_mut().zip(ends) {
        if let Some(mask) = mask.as_mut().filter(|_| end < at) {
            mask.counts.push(at - end);
        }
    }
    masks
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn runs_go_down_the_columns() {
        // 1 1 0
        // 0 1 1
        let map = ClassMap::whole(3, 2, vec![1, 1, 0, 0, 1, 1]);
        let masks = masks(&map, &[false, true]);
        assert_eq!(masks[0], None);
        let rle = masks[1].clone().unwrap();
        assert_eq!(
            (rle.size, rle.counts.as_slice()),
            ([2, 3], &[0, 1, 1, 2, 1, 1][..])
        );
        // By pycocotools: mask.encode(np.asfortranarray([[1, 1, 0], [0, 1, 1]], np.uint8)).
        assert_eq!(rle.compressed(), "01110O");
    }

    proptest! {
        #[test]
        fn masks_hold_every_pixel_once(
            (width, height, classes) in (1usize..12, 1usize..12)
                .prop_flat_map(|(w, h)| (Just(w), Just(h), prop::collection::vec(prop_oneof![0u16..3, Just(NONE)], w * h)))
        ) {
            let map = ClassMap::whole(width, height, classes.clone());
            let mut again = vec![NONE; width * height];
            for (class, mask) in masks(&map, &[true; 3]).into_iter().enumerate() {
                let Some(mask) = mask else { continue };
                prop_assert_eq!(mask.counts.iter().sum::<u32>() as usize, width * height);
                prop_assert!(mask.counts[1..].iter().all(|n| *n > 0), "{:?}", mask);
                for (x, rows) in mask.runs() {
                    for y in rows {
                        prop_assert_eq!(again[y * width + x], NONE);
                        again[y * width + x] = class as u16;
                    }
                }
            }
            prop_assert_eq!(again, classes);
        }
    }
}
