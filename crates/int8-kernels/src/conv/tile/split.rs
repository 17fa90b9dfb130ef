//! Weights split so that sums of a few products cannot overflow i16.
//!
//! `vpmaddubsw` and chains of `smlal` add several products in 16 bits. What their sum can be at most depends on the
//! weights alone, so overflow is ruled out when the weights are packed: where a group of blocks could overflow, the excess
//! of a weight (`w = kept + excess`) moves to a further block that reads the same activations again. The result is exact in
//! every case; only the time depends on the weights. A real ResNet-18 repeats a tenth to a third of the blocks of its 3×3
//! layers on AVX2 (and more than doubles those of its first layer); on NEON one group in a hundred to one in eight of its 3×3 layers has an excess.

/// Bytes of k that a block takes from a row, one weight vector a column.
pub(super) struct Block {
    /// Where in the row its activations begin.
    pub offset: u32,
    /// Column-major: `weights[column * k + i]`.
    pub weights: Vec<i16>,
}

impl Block {
    /// The weights of some columns, each `depth` long, in blocks of `k`, which divides `depth`.
    pub fn all(k: usize, depth: usize, weights: &[i8]) -> Vec<Block> {
        let block = |first: usize| {
            let mut block = Vec::with_capacity(weights.len() / depth * k);
            for column in weights.chunks_exact(depth) {
                block.extend(
                    column[first..first + k]
                        .iter()
                        .map(|&weight| i16::from(weight)),
                );
            }
            Block {
                offset: first as u32,
                weights: block,
            }
        };
        (0..depth).step_by(k).map(block).collect()
    }
}

/// How sums are formed from a group of blocks.
pub(super) struct Rule {
    /// Blocks in a group.
    pub group: usize,
    /// The 16-bit lane that each byte of a block adds to; as many as a block has bytes of k.
    pub lane: &'static [usize],
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
        let mut further = Vec::new();
        let mut left: Vec<usize> = (0..group.len()).collect();
        loop {
            let excess = self.excess(group);
            if excess.iter().all(|&excess| excess == (0, 0)) {
                return further;
            }
            // The block that settles the most lanes goes first.
            left.sort_by_cached_key(|&block| {
                let mut weights = group[block].weights.clone();
                std::cmp::Reverse(self.take(&mut weights, &excess).1)
            });
            let block = &mut group[left.remove(0)];
            let (weights, _) = self.take(&mut block.weights, &excess);
            further.push(Block {
                offset: block.offset,
                weights,
            });
        }
    }

    /// How much each lane of each column has too much, in positive and in negative weights.
    fn excess(&self, group: &[Block]) -> Vec<(i32, i32)> {
        let columns = group[0].weights.len() / self.lane.len();
        let mut sums = vec![(0, 0); columns * self.lanes];
        for block in group {
            for (column, sums) in block
                .weights
                .chunks_exact(self.lane.len())
                .zip(sums.chunks_exact_mut(self.lanes))
            {
                for (&weight, &lane) in column.iter().zip(self.lane) {
                    let weight = i32::from(weight);
                    sums[lane].0 += weight.max(0);
                    sums[lane].1 += (-weight).max(0);
                }
            }
        }
        sums.iter_mut()
            .for_each(|sums| *sums = (self.limit)(sums.0, sums.1));
        sums
    }

    /// Takes as much of the excess as the weights of a block can give; also counts the lanes that this settles.
    fn take(&self, weights: &mut [i16], excess: &[(i32, i32)]) -> (Vec<i16>, usize) {
        let mut excess = excess.to_vec();
        let before = excess.iter().filter(|&&excess| excess == (0, 0)).count();
        let mut taken = Vec::with_capacity(weights.len());
        for (column, excess) in weights
            .chunks_exact_mut(self.lane.len())
            .zip(excess.chunks_exact_mut(self.lanes))
        {
            for (weight, &lane) in column.iter_mut().zip(self.lane) {
                let (positive, negative) = &mut excess[lane];
                let part = i32::from(*weight).clamp(-*negative, *positive);
                *positive -= part.max(0);
                *negative -= (-part).max(0);
                *weight -= part as i16;
                taken.push(part as i16);
            }
        }
        (
            taken,
            excess.iter().filter(|&&excess| excess == (0, 0)).count() - before,
        )
    }
}
