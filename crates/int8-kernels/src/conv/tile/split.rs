//! Weights split so that sums of a few products cannot overflow i16.
//!
//! `vpmaddubsw` and chains of `smlal` add several products in 16 bits. What their sum can be at most depends on the
//! weights alone, so overflow is ruled out when the weights are packed: where a group of blocks could overflow, the excess
//! of a weight (`w = kept + excess`) moves to a further block that reads the same activations again. In real networks
//! this repeats a tenth to a third of the blocks; the result is exact in every case.

/// Bytes of k that a block takes from a row, one weight vector a column.
pub(super) struct Block {
    /// Where in the row its activations begin.
    pub offset: u32,
    /// Column-major: `weights[column * k + i]`.
    pub weights: Vec<i16>,
}

/// How sums are formed from a group of blocks.
pub(super) struct Rule {
    /// Bytes of k in a block.
    pub k: usize,
    /// Blocks in a group.
    pub group: usize,
    /// The 16-bit lane that the i-th product of a block adds to.
    pub lane: fn(usize) -> usize,
    /// Lanes a column.
    pub lanes: usize,
    pub limit: Limit,
}

/// How much too large the weights of a lane are, given the sums of the positive and of the negative ones: how much of
/// each has to go.
pub(super) type Limit = fn(positive: i32, negative: i32) -> (i32, i32);

impl Rule {
    /// The blocks in groups that cannot overflow, the last group filled with blocks of zeros.
    pub fn split(&self, mut blocks: Vec<Block>) -> Vec<Block> {
        let mut done: Vec<Block> = Vec::new();
        while !blocks.is_empty() {
            while !blocks.len().is_multiple_of(self.group) {
                blocks.push(Block {
                    offset: 0,
                    weights: vec![0; blocks[0].weights.len()],
                });
            }
            let mut further = Vec::new();
            for group in blocks.chunks_mut(self.group) {
                further.extend(self.reduce(group));
            }
            done.append(&mut blocks);
            blocks = further;
        }
        done
    }

    /// Takes from the blocks of a group what could overflow; gives it back as further blocks, as few as may be.
    fn reduce(&self, group: &mut [Block]) -> Vec<Block> {
        let columns = group[0].weights.len() / self.k;
        let mut further = Vec::new();
        let mut left: Vec<usize> = (0..group.len()).collect();
        loop {
            let excess: Vec<Vec<(i32, i32)>> = (0..columns)
                .map(|column| {
                    (0..self.lanes)
                        .map(|lane| self.lane_excess(group, column, lane))
                        .collect()
                })
                .collect();
            if excess.iter().flatten().all(|&excess| excess == (0, 0)) {
                return further;
            }
            // The block that settles the most lanes goes first.
            let settles = |block: usize| {
                let mut reduced = Block {
                    offset: 0,
                    weights: group[block].weights.clone(),
                };
                let taken = self.take(&mut reduced, &excess);
                std::cmp::Reverse((
                    taken.1,
                    taken.0.iter().map(|&w| i32::from(w).abs()).sum::<i32>(),
                ))
            };
            left.sort_by_key(|&block| settles(block));
            let block = &mut group[left.remove(0)];
            let (weights, _) = self.take(block, &excess);
            further.push(Block {
                offset: block.offset,
                weights,
            });
        }
    }

    fn lane_excess(&self, group: &[Block], column: usize, lane: usize) -> (i32, i32) {
        let (mut positive, mut negative) = (0, 0);
        for block in group {
            for i in (0..self.k).filter(|&i| (self.lane)(i) == lane) {
                let weight = i32::from(block.weights[column * self.k + i]);
                positive += weight.max(0);
                negative += (-weight).max(0);
            }
        }
        (self.limit)(positive, negative)
    }

    /// Moves as much of the excess as the block's weights can give; also counts the lanes that this settles.
    fn take(&self, block: &mut Block, excess: &[Vec<(i32, i32)>]) -> (Vec<i16>, usize) {
        let mut taken = vec![0; block.weights.len()];
        let mut settled = 0;
        for (column, lanes) in excess.iter().enumerate() {
            for (lane, &(mut positive, mut negative)) in lanes.iter().enumerate() {
                if (positive, negative) == (0, 0) {
                    continue;
                }
                for i in (0..self.k).filter(|&i| (self.lane)(i) == lane) {
                    let at = column * self.k + i;
                    let weight = i32::from(block.weights[at]);
                    let part = if weight > 0 {
                        weight.min(positive)
                    } else {
                        -(-weight).min(negative)
                    };
                    positive -= part.max(0);
                    negative -= (-part).max(0);
                    block.weights[at] -= part as i16;
                    taken[at] = part as i16;
                }
                settled += usize::from((positive, negative) == (0, 0));
            }
        }
        (taken, settled)
    }
}
