//! Buffers that are lent to frames and come back.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex};

/// A camera's buffers. Cloning shares the pool.
///
/// In steady state a camera needs three: one being filled, one waiting in its slot, one being inferred.
/// At most `keep` idle buffers are kept, so that a burst does not stay in memory for ever.
#[derive(Debug, Clone)]
pub struct FramePool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    idle: Mutex<Vec<Vec<u8>>>,
    keep: usize,
}

impl FramePool {
    /// A pool that keeps at most `keep` idle buffers.
    pub fn new(keep: usize) -> Self {
        Self {
            inner: Arc::new(Inner {
                idle: Mutex::default(),
                keep,
            }),
        }
    }

    /// An empty buffer, with the capacity of an earlier frame where there was one.
    pub fn take(&self) -> FrameBuf {
        let mut bytes = self.inner.idle.lock().unwrap().pop().unwrap_or_default();
        bytes.clear();
        FrameBuf {
            bytes,
            pool: self.inner.clone(),
        }
    }

    /// How many buffers wait to be used again.
    pub fn idle(&self) -> usize {
        self.inner.idle.lock().unwrap().len()
    }
}

impl Default for FramePool {
    fn default() -> Self {
        Self::new(4)
    }
}

/// A frame's bytes: a `Vec<u8>` that returns to its pool on drop.
#[derive(Debug)]
pub struct FrameBuf {
    bytes: Vec<u8>,
    pool: Arc<Inner>,
}

impl Deref for FrameBuf {
    type Target = Vec<u8>;
    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for FrameBuf {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

impl Drop for FrameBuf {
    fn drop(&mut self) {
        let mut idle = self.pool.idle.lock().unwrap();
        if idle.len() < self.pool.keep {
            idle.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_with_their_capacity_and_stay_bounded() {
        let pool = FramePool::new(2);
        let mut a = pool.take();
        a.extend_from_slice(&[7; 1000]);
        drop(a);
        let b = pool.take();
        assert!(b.is_empty() && b.capacity() >= 1000);
        let more: Vec<_> = (0..5).map(|_| pool.take()).collect();
        drop((b, more));
        assert_eq!(pool.idle(), 2);
    }
}
