//! A few threads that share the rows of one operator at a time.
//!
//! In: an output and a function that fills some rows of it. Out: the output, filled. The calling thread works too, so
//! a pool of one has no threads and costs nothing. Between operators the threads spin for a moment, then sleep.
//! Always holds: nothing that a job borrows is touched after [`Pool::rows`] returns.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use ocellus_int8_kernels::KernelError;

/// Turns of the spin loop before a thread sleeps: about 50 µs.
const SPINS: usize = 10_000;

/// Fills some rows: which, where, and a thread's scratch.
type Fill<'a, T> = dyn Fn(Range<usize>, &mut [T], &mut [u8]) -> Result<(), KernelError> + Sync + 'a;

type Job<'a> = dyn Fn(usize) + Sync + 'a;

#[derive(Debug)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    /// Grows by one with each job.
    turn: AtomicUsize,
    /// Threads that have not finished the job.
    working: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
    job: Mutex<Option<JobPointer>>,
    wake: Condvar,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

#[derive(Clone, Copy)]
struct JobPointer(*const Job<'static>);

// SAFETY: the pointer is to a `Sync` closure, and is dereferenced only while `Pool::run` keeps it alive.
unsafe impl Send for JobPointer {}

impl Pool {
    /// A pool in which `threads` threads work, the calling one among them.
    pub(crate) fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            turn: AtomicUsize::new(0),
            working: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            job: Mutex::new(None),
            wake: Condvar::new(),
        });
        let spawn = |i: usize| {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name(format!("int8-{i}"))
                .spawn(move || shared.work(i))
        };
        // A system that has no more threads to give leaves the pool smaller.
        let threads = (1..threads.max(1)).map_while(|i| spawn(i).ok()).collect();
        Self { shared, threads }
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads.len() + 1
    }

    /// Runs `job(0)`, `job(1)`, …, one a thread.
    fn run(&self, job: &Job<'_>) {
        let shared = &*self.shared;
        // SAFETY: only the lifetime is changed; this function does not return, nor unwind, before every thread is done
        // with the job.
        let pointer: *const Job<'static> =
            unsafe { std::mem::transmute::<&Job<'_>, &'static Job<'static>>(job) };
        shared.working.store(self.threads.len(), Ordering::Relaxed);
        {
            let mut slot = shared.job.lock().unwrap_or_else(|e| e.into_inner());
            *slot = Some(JobPointer(pointer));
            shared.turn.fetch_add(1, Ordering::Release);
        }
        shared.wake.notify_all();
        let own = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(0)));
        let mut spins = 0;
        while shared.working.load(Ordering::Acquire) > 0 {
            spins += 1;
            if spins < SPINS {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
        if let Err(panic) = own {
            std::panic::resume_unwind(panic);
        }
        assert!(
            !shared.panicked.swap(false, Ordering::Relaxed),
            "a thread of the pool panicked"
        );
    }

    /// Fills `out`, rows of `row` elements, each thread some of them: `fill(rows, part of out, thread)`.
    pub(crate) fn rows<T: Send>(
        &self,
        out: &mut [T],
        row: usize,
        scratch: &mut [Vec<u8>],
        fill: &Fill<'_, T>,
    ) -> Result<(), KernelError> {
        let rows = out.len() / row;
        let threads = self.threads().min(scratch.len());
        if threads == 1 || rows < 2 * threads {
            return fill(0..rows, out, &mut scratch[0]);
        }
        type Part<'a, T> = Mutex<Option<(Range<usize>, &'a mut [T], &'a mut Vec<u8>)>>;
        let each = rows.div_ceil(threads);
        let chunks = out.chunks_mut(each * row).zip(scratch);
        let parts: smallvec::SmallVec<[Part<'_, T>; 8]> = chunks
            .enumerate()
            .map(|(i, (out, scratch))| {
                let first = i * each;
                Mutex::new(Some((first..first + out.len() / row, out, scratch)))
            })
            .collect();
        let failed = Mutex::new(None);
        self.run(&|i| {
            let part = parts.get(i).and_then(|p| p.lock().ok()?.take());
            if let Some((rows, out, scratch)) = part
                && let Err(e) = fill(rows, out, scratch)
                && let Ok(mut failed) = failed.lock()
            {
                *failed = Some(e);
            }
        });
        match failed.into_inner().ok().flatten() {
            Some(e) => Err(e),
            None => Ok(()),
        }
    }
}

impl Shared {
    fn work(&self, index: usize) {
        let mut seen = 0;
        loop {
            let mut spins = 0;
            while self.turn.load(Ordering::Acquire) == seen && spins < SPINS {
                std::hint::spin_loop();
                spins += 1;
            }
            let job = {
                let mut slot = self.job.lock().unwrap_or_else(|e| e.into_inner());
                while self.turn.load(Ordering::Acquire) == seen
                    && !self.stop.load(Ordering::Relaxed)
                {
                    slot = self.wake.wait(slot).unwrap_or_else(|e| e.into_inner());
                }
                *slot
            };
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            seen = self.turn.load(Ordering::Acquire);
            if let Some(JobPointer(job)) = job {
                // SAFETY: `Pool::run` waits until `working` is 0, which is after this.
                let job = unsafe { &*job };
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(index)));
                if done.is_err() {
                    self.panicked.store(true, Ordering::Relaxed);
                }
            }
            self.working.fetch_sub(1, Ordering::Release);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        {
            let _slot = self.shared.job.lock().unwrap_or_else(|e| e.into_inner());
            self.shared.stop.store(true, Ordering::Relaxed);
        }
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
