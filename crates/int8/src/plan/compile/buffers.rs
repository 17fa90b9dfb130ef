//! Buffers: a few serve all steps, because what no later step reads makes room.

use super::{Buffer, Compiler};
use crate::plan::{Output, OutputKind, Place, Plan, Step};

impl Compiler<'_> {
    /// Gives each step's output a buffer: the smallest free one that is large enough, else a new one.
    pub(super) fn finish(mut self, mut results: Vec<(Buffer, Vec<usize>, OutputKind)>) -> Plan {
        self.drop_unread(&mut results);
        let mut last_read = vec![0; self.steps.len()];
        for (i, step) in self.steps.iter().enumerate() {
            for input in &step.inputs {
                if let Buffer::Step(s) = input {
                    last_read[*s] = i;
                }
            }
        }
        for (buffer, ..) in &results {
            if let Buffer::Step(s) = buffer {
                last_read[*s] = usize::MAX;
            }
        }
        let mut slots: Vec<usize> = Vec::new();
        let mut free: Vec<usize> = Vec::new();
        let mut slot_of = vec![0; self.steps.len()];
        let bytes_of: Vec<usize> = self.steps.iter().map(|s| s.bytes).collect();
        let mut steps: Vec<Step> = Vec::with_capacity(self.steps.len());
        for (i, draft) in self.steps.into_iter().enumerate() {
            let fits = free
                .iter()
                .enumerate()
                .filter(|(_, s)| slots[**s] >= draft.bytes);
            let best = fits.min_by_key(|(_, s)| slots[**s]).map(|(at, _)| at);
            let largest = free
                .iter()
                .enumerate()
                .max_by_key(|(_, s)| slots[**s])
                .map(|(at, _)| at);
            slot_of[i] = match best.or(largest) {
                Some(at) => free.swap_remove(at),
                None => {
                    slots.push(0);
                    slots.len() - 1
                }
            };
            slots[slot_of[i]] = slots[slot_of[i]].max(draft.bytes);
            let place = |b: &Buffer| match b {
                Buffer::Step(s) => Place::Slot {
                    slot: slot_of[*s],
                    bytes: bytes_of[*s],
                },
                Buffer::Input(at) => Place::Input(*at),
            };
            let inputs: Vec<Place> = draft.inputs.iter().map(place).collect();
            let mut done: Vec<usize> = (0..=i)
                .filter(|s| last_read[*s] == i && draft.inputs.contains(&Buffer::Step(*s)))
                .collect();
            done.dedup();
            free.extend(done.into_iter().map(|s| slot_of[s]));
            steps.push(Step {
                node: draft.node,
                kernel: draft.kernel,
                inputs,
                output: slot_of[i],
                output_bytes: draft.bytes,
            });
        }
        let results = results
            .into_iter()
            .map(|(buffer, shape, kind)| {
                let place = match buffer {
                    Buffer::Step(s) => Place::Slot {
                        slot: slot_of[s],
                        bytes: bytes_of[s],
                    },
                    Buffer::Input(at) => Place::Input(at),
                };
                Output { place, shape, kind }
            })
            .collect();
        Plan {
            isa: self.isa,
            steps,
            results,
            slots,
            scratch_bytes: self.scratch_bytes,
            sums: self.sums,
            floats: self.floats,
            taken: self.taken,
        }
    }

    /// Drops steps whose output nothing reads: copies of which the next copy took over the work.
    fn drop_unread(&mut self, results: &mut [(Buffer, Vec<usize>, OutputKind)]) {
        let mut read = vec![false; self.steps.len()];
        for (buffer, ..) in results.iter() {
            mark(&mut read, *buffer);
        }
        for step in (0..self.steps.len()).rev() {
            if read[step] {
                let inputs = &self.steps[step].inputs;
                inputs.iter().for_each(|input| mark(&mut read, *input));
            }
        }
        let mut kept = 0;
        let places: Vec<usize> = read
            .iter()
            .map(|read| {
                kept += usize::from(*read);
                kept.saturating_sub(1)
            })
            .collect();
        let moved = |buffer: &mut Buffer| {
            if let Buffer::Step(step) = buffer {
                *step = places[*step];
            }
        };
        let mut read = read.iter();
        self.steps.retain(|_| read.next().copied().unwrap_or(true));
        self.steps
            .iter_mut()
            .for_each(|step| step.inputs.iter_mut().for_each(moved));
        for (buffer, _, kind) in results {
            moved(buffer);
            if let OutputKind::Floats { step, .. } = kind {
                *step = places[*step];
            }
        }
    }
}

fn mark(read: &mut [bool], buffer: Buffer) {
    if let Buffer::Step(step) = buffer {
        read[step] = true;
    }
}
