//! How good a model is: measures of detections and of class maps against what people have drawn.
//!
//! In: annotations in their usual formats, and what a model found. Out: numbers that equal those of the tools everybody compares with.
//! On the main thread.

pub mod annotations;
pub mod coco;
pub mod files;
pub mod masks;
