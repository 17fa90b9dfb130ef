//! Weights split so that sums of a few products cannot overflow i16.
//!
//! `vpmaddubsw` and chains of `smlal` add several products in 16 bits. What their sum can be at most depends on the
//! weights alone, so overflow is ruled out when the weights are packed: where a group of blocks could overflow, the excess
//! of a weight (`w = kept + excess`) moves to a further block that reads the same activations again. The result is exact in
//! every case; only the time depends on the weights. A real ResNet-18 repeats a tenth to a third of the blocks of its 3×3
//! layers on AVX2 (and more than doubles those of its first layer); on NEON one group in a hundred to one in eight of its 3×3 layers has an excess.

/// How sums are formed from a group of blocks of weights.
pub(super) trait Rule {
    /// Bytes of k that a block takes from a row.
    const K: usize;
    /// Blocks in a group.
    const GROUP: usize;
    /// 16-bit sums a column, at most [`MAX_LANES`].
    const LANES: usize;

    /// The sum that byte `i` of a block adds to.
    fn lane(i: usize) -> usize;

    /// How much too large the weights of a lane are, given the sums of the positive and of the negative ones: how much
    /// of each has to go.
    fn limit(positive: i32, negative: i32) -> (i32, i32);
}

const MAX_LANES: usize = 8;

/// By lane, how much has to go of its positive and of its negative weights.
type Excess = [(i32, i32); MAX_LANES];
const NONE: Excess = [(0, 0); MAX_LANES];

/// Blocks of weights: `K` bytes of k of each of some columns.
pub(super) struct Blocks {
    /// Where in the row the activations of each block begin.
    pub offsets: Vec<u32>,
    /// `[block][column][k]`.
    pub weights: Vec<i8>,
}

/// The weights of some columns, each `depth` long (a multiple of `K`), in groups of blocks that cannot overflow; the last
/// group is filled with blocks of zeros.
pub(super) fn split<R: Rule>(depth: usize, weights: &[i8]) -> Blocks {
    const { assert!(R::LANES <= MAX_LANES) };
    let size = weights.len() / depth * R::K;
    let mut all = Blocks {
        offsets: (0..depth as u32).step_by(R::K).collect(),
        weights: Vec::with_capacity(weights.len() + R::GROUP * size),
    };
    for first in (0..depth).step_by(R::K) {
        for column in weights.chunks_exact(depth) {
            all.weights.extend_from_slice(&column[first..first + R::K]);
        }
    }
    // What a group gives back is appended and reduced in its turn.
    let mut group = 0;
    while group < all.offsets.len() {
        let blocks = all.offsets.len().next_multiple_of(R::GROUP);
        all.offsets.resize(blocks, 0);
        all.weights.resize(blocks * size, 0);
        // A generation of groups, so that its excess is grouped by itself.
        while group < blocks {
            reduce::<R>(&mut all, group, size);
            group += R::GROUP;
        }
    }
    all
}

/// Takes from a group's blocks what could overflow, and appends it as further blocks, as few as may be.
fn reduce<R: Rule>(all: &mut Blocks, first: usize, size: usize) {
    // Few columns have an excess: only they are looked at again.
    let mut hot = excesses::<R>(&all.weights[first * size..][..R::GROUP * size], size);
    let mut left: Vec<usize> = (first..first + R::GROUP).collect();
    while !hot.is_empty() {
        // The block that settles the most lanes goes first.
        let settled = |block: usize| -> usize {
            let weights = &all.weights[block * size..][..size];
            let lanes = hot.iter().map(|&(column, excess)| {
                let mut after = excess;
                for (i, &weight) in weights[column * R::K..][..R::K].iter().enumerate() {
                    take(&mut after[R::lane(i)], weight);
                }
                let settles = |(before, after)| before != (0, 0) && after == (0, 0);
                excess
                    .into_iter()
                    .zip(after)
                    .filter(|&both| settles(both))
                    .count()
            });
            lanes.sum()
        };
        left.sort_by_cached_key(|&block| std::cmp::Reverse(settled(block)));
        let block = left.remove(0);
        let further = all.weights.len();
        all.offsets.push(all.offsets[block]);
        all.weights.resize(further + size, 0);
        for (column, excess) in &mut hot {
            for i in 0..R::K {
                let at = *column * R::K + i;
                let weight = &mut all.weights[block * size + at];
                let part = take(&mut excess[R::lane(i)], *weight);
                *weight -= part;
                all.weights[further + at] = part;
            }
        }
        hot.retain(|(_, excess)| *excess != NONE);
    }
}

/// The columns of a group that could overflow, each with its excess.
fn excesses<R: Rule>(group: &[i8], size: usize) -> Vec<(usize, Excess)> {
    let mut hot = Vec::new();
    for column in 0..size / R::K {
        let mut sums = NONE;
        for block in group.chunks_exact(size) {
            for (i, &weight) in block[column * R::K..][..R::K].iter().enumerate() {
                let weight = i32::from(weight);
                sums[R::lane(i)].0 += weight.max(0);
                sums[R::lane(i)].1 += (-weight).max(0);
            }
        }
        let excess = sums.map(|(positive, negative)| R::limit(positive, negative));
        if excess != NONE {
            hot.push((column, excess));
        }
    }
    hot
}

/// As much of the excess as a weight can give; that much less is left of it.
fn take((positive, negative): &mut (i32, i32), weight: i8) -> i8 {
    let part = i32::from(weight).clamp(-*negative, *positive);
    *positive -= part.max(0);
    *negative -= (-part).max(0);
    part as i8
}
