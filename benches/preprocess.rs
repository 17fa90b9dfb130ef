//! One frame, preprocessed again and again: answers `preprocess_vs_opencv.py` (or a person) line by line.
//!
//! Each line on standard input: `FORMAT WIDTH HEIGHT COUNT FILE`, e.g. `mjpeg 1280 720 20 frame.jpg`. Answer: the
//! fastest and the median of COUNT runs, and the median of decoding alone, in microseconds. The input is ImageNet's: short side 256,
//! 224×224, normalized, NCHW f32. `dump FORMAT WIDTH HEIGHT FILE OUT` writes the tensor as little-endian f32.

use std::io::{BufRead, Write};
use std::time::{Instant, SystemTime};

use ocellus::frame::{Frame, FrameMeta, FramePool, Geometry, PixelFormat};
use ocellus::preprocess::{
    ColourOrder, InputData, InputSpec, InputTensor, InputType, Layout, Normalize, Preprocessor,
    ResizePolicy,
};

fn frame(format: &str, width: &str, height: &str, file: &str) -> Frame {
    let format: PixelFormat = format.parse().expect("a pixel format");
    let size = |s: &str| s.parse().expect("a size in pixels");
    let mut data = FramePool::default().take();
    data.extend(std::fs::read(file).expect("the frame's file"));
    Frame {
        format,
        geometry: Geometry::packed(size(width), size(height), format),
        data,
        meta: FrameMeta {
            camera: "bench".into(),
            sequence: 0,
            captured_at: Instant::now(),
            wall_time: SystemTime::now(),
            truth: None,
        },
        mask: None,
    }
}

fn main() {
    let spec = InputSpec {
        width: 224,
        height: 224,
        layout: Layout::Nchw,
        colour: ColourOrder::Rgb,
        dtype: InputType::F32,
        resize: ResizePolicy::ShortSideCrop { short_side: 256 },
        normalize: Normalize::IMAGENET,
    };
    let mut tensor = InputTensor::for_spec(&spec);
    let mut preprocessor = Preprocessor::new(spec);
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("a line");
        match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["dump", format, width, height, file, out] => {
                let frame = frame(format, width, height, file);
                match preprocessor.run(&frame, &mut tensor) {
                    Ok(_) => {
                        let InputData::F32(values) = &tensor.data else {
                            unreachable!("the spec is f32")
                        };
                        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                        std::fs::write(out, bytes).expect("the tensor's file");
                        println!("ok");
                    }
                    Err(e) => println!("error: {e}"),
                }
            }
            [format, width, height, count, file] => {
                let frame = frame(format, width, height, file);
                let count: usize = count.parse().expect("a count");
                let mut times = Vec::with_capacity(count);
                let mut decodes = Vec::with_capacity(count);
                for _ in 0..count {
                    let start = Instant::now();
                    let done = preprocessor.run(&frame, &mut tensor).expect("a good frame");
                    times.push(start.elapsed().as_secs_f64() * 1e6);
                    decodes.push(done.decode.as_secs_f64() * 1e6);
                }
                times.sort_by(f64::total_cmp);
                decodes.sort_by(f64::total_cmp);
                let half = count / 2;
                println!("{:.1} {:.1} {:.1}", times[0], times[half], decodes[half]);
            }
            _ => println!("error: FORMAT WIDTH HEIGHT COUNT FILE"),
        }
        std::io::stdout().flush().expect("standard output");
    }
}
