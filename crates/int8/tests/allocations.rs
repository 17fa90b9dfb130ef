//! An inference allocates nothing but what it gives back, and what tract's plan takes to run one node: as much for a network of 18
//! layers as for one of 50.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use common::models;
use ocellus_int8::{Options, load};
use tract_onnx::prelude::*;

/// The system's allocator, counted.
struct Counted;

static COUNT: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counted {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Relaxed);
        BYTES.fetch_add(layout.size(), Relaxed);
        // SAFETY: the caller's promise is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Relaxed);
        BYTES.fetch_add(size, Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// Allocations of one inference, and their bytes.
fn of_one_inference(model: &[u8], threads: usize) -> [usize; 2] {
    let options = Options {
        threads,
        ..Options::default()
    };
    let loaded = load(model, &options).unwrap();
    let mut session = loaded.model.into_runnable().unwrap().spawn().unwrap();
    let picture: TValue = Tensor::zero::<f32>(&[1, 3, 224, 224]).unwrap().into();
    let mut counted = [0, 0];
    for _ in 0..3 {
        let inputs = tvec!(picture.clone());
        let before = [COUNT.load(Relaxed), BYTES.load(Relaxed)];
        let outputs = session.run(inputs).unwrap();
        counted = [
            COUNT.load(Relaxed) - before[0],
            BYTES.load(Relaxed) - before[1],
        ];
        assert_eq!(outputs[0].len(), 1000);
    }
    counted
}

#[test]
fn an_inference_allocates_what_it_gives_back() {
    let Some(models) = models() else { return };
    let read = |name: &str| std::fs::read(models.join(name)).unwrap();
    let (small, large) = (
        read("resnet18-int8-qdq-u8s8.onnx"),
        read("resnet50-int8-qdq-u8s8.onnx"),
    );
    for threads in [1, 2] {
        let [small, large] = [&small, &large].map(|m| of_one_inference(m, threads));
        println!("{threads} thread(s): {small:?} and {large:?} [allocations, bytes]");
        assert_eq!(small, large, "{threads} thread(s)");
        assert!(large[1] < 1000 * size_of::<f32>() + 4096, "{large:?}");
    }
}
