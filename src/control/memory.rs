//! The last answers by their commands' ids, so that a command that arrives twice runs once.

use std::collections::{HashMap, VecDeque};

use super::request::Id;

/// Answers that are remembered at most; the oldest goes first.
const ANSWERS: usize = 256;

/// Where a command with this id stands.
#[derive(Debug, PartialEq)]
pub(super) enum Known {
    /// It runs: its answer will come.
    Running,
    /// It was answered so.
    Answered(Vec<u8>),
}

#[derive(Debug, Default)]
pub(super) struct Memory {
    answers: HashMap<Id, Option<Vec<u8>>>,
    order: VecDeque<Id>,
}

impl Memory {
    pub fn get(&self, id: &Id) -> Option<Known> {
        let known = self.answers.get(id)?;
        Some(known.clone().map_or(Known::Running, Known::Answered))
    }

    /// From now on the id is taken.
    pub fn begin(&mut self, id: &Id) {
        if self.answers.insert(id.clone(), None).is_none() {
            self.order.push_back(id.clone());
        }
        if self.order.len() > ANSWERS
            && let Some(oldest) = self.order.pop_front()
        {
            self.answers.remove(&oldest);
        }
    }

    /// An answer that is to be repeated.
    pub fn answered(&mut self, id: &Id, answer: &[u8]) {
        if let Some(slot) = self.answers.get_mut(id) {
            *slot = Some(answer.to_vec());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut memory = Memory::default();
        for n in 0..300 {
            memory.begin(&Id::Number(n));
            memory.answered(&Id::Number(n), b"x");
        }
        assert_eq!(memory.get(&Id::Number(43)), None);
        assert_eq!(
            memory.get(&Id::Number(44)),
            Some(Known::Answered(b"x".to_vec()))
        );
        memory.begin(&Id::Number(1000));
        assert_eq!(memory.get(&Id::Number(1000)), Some(Known::Running));
        assert_eq!((memory.answers.len(), memory.order.len()), (256, 256));
    }
}
