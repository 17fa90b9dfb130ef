//! Models: bundles and bare ONNX files, the pass that mends them, the engine that runs them.
//!
//! In: a path. Out: a [`Model`], shared by all cameras; each inference thread has its own session.
//! Always holds: a model that is not what its manifest says does not start.
