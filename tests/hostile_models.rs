//! Models that were made to take all memory, all time, or the process: each is an error, soon, in little memory.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::onnx::{Bundle, colours, floats, int, ints, longs, model, node, value};
use ocellus::model::{LoadOptions, Model};
use proptest::prelude::*;
use prost::Message;
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::tensor_shape_proto::dimension::Value as DimValue;
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, StringStringEntryProto, TensorProto,
    type_proto::Value as TypeValue,
};

/// Address space of a process that looks at a hostile model: what the program itself and its threads take, and little more.
const MEMORY_KIB: u32 = 1_500_000;
const DEADLINE: Duration = Duration::from_secs(60);

/// Loads a model in a process of its own, whose memory is bounded; it must be refused with 78 and these words.
fn assert_refused(path: &Path, says: &str) {
    let limit = format!("ulimit -v {MEMORY_KIB}; exec \"$@\"");
    let mut child = Command::new("sh")
        .args([
            "-c",
            &limit,
            "sh",
            env!("CARGO_BIN_EXE_ocellus"),
            "model",
            "verify",
        ])
        .arg(path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + DEADLINE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it takes too long; expected: {says}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut err = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut err).unwrap();
    assert_eq!(
        status.code(),
        Some(78),
        "{status}, expected `{says}`: {err:.2000}"
    );
    assert!(err.contains(says), "no `{says}` in {err:.2000}");
    assert!(!err.contains("panicked"), "{err:.2000}");
}

fn refused(model: &ModelProto, says: &str) {
    let (_directory, path) = written(model);
    assert_refused(&path, says);
}

fn written(model: &ModelProto) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hostile.onnx");
    std::fs::write(&path, model.encode_to_vec()).unwrap();
    (directory, path)
}

/// A graph whose picture goes nowhere near the nodes that do harm.
fn with(
    nodes: Vec<tract_onnx::pb::NodeProto>,
    initializers: Vec<TensorProto>,
    last: &str,
) -> ModelProto {
    model(&[1, 3, 8, 8], nodes, initializers, last)
}

#[test]
fn tensors_that_would_fill_the_memory_are_refused_before_they_are_made() {
    let huge = [1 << 20, 1 << 20];
    let shape = longs("shape", &huge);
    refused(
        &with(
            vec![node("ConstantOfShape", &["shape"], "c", vec![])],
            vec![shape.clone()],
            "c",
        ),
        "more than the",
    );
    let expand = vec![node("Expand", &["one", "shape"], "c", vec![])];
    refused(
        &with(
            expand,
            vec![floats("one", &[1], &[1.0]), shape.clone()],
            "c",
        ),
        "more than the",
    );
    let tile = vec![node("Tile", &["one", "shape"], "c", vec![])];
    refused(
        &with(tile, vec![floats("one", &[1, 1], &[1.0]), shape], "c"),
        "more than the",
    );
    let pads = longs("pads", &[0, 0, 1 << 20, 1 << 20, 0, 0, 1 << 20, 1 << 20]);
    refused(
        &with(
            vec![node("Pad", &["picture", "pads"], "c", vec![])],
            vec![pads],
            "c",
        ),
        "more than the",
    );
    let conv = vec![node(
        "Conv",
        &["picture", "w"],
        "c",
        vec![ints("pads", &[1 << 13; 4])],
    )];
    refused(
        &with(conv, vec![floats("w", &[1, 3, 1, 1], &[1.0; 3])], "c"),
        "more than the",
    );
    let product = vec![node("MatMul", &["column", "row"], "c", vec![])];
    let ones = vec![1.0; 100_000];
    let factors = vec![
        floats("column", &[100_000, 1], &ones),
        floats("row", &[1, 100_000], &ones),
    ];
    refused(&with(product, factors, "c"), "more than the");
}

#[test]
fn doubling_forty_times_is_refused() {
    for start in ["picture", "one"] {
        let mut nodes = Vec::new();
        let mut last = start.to_string();
        for i in 0..40 {
            let next = format!("d{i}");
            nodes.push(node("Concat", &[&last, &last], &next, vec![int("axis", 0)]));
            last = next;
        }
        refused(
            &with(
                nodes,
                vec![floats("one", &[1, 3, 8, 8], &[1.0; 192])],
                &last,
            ),
            "more than the",
        );
    }
}

#[test]
fn numbers_that_run_over_are_refused() {
    for pads in [i64::MAX, i64::MIN, 1 << 62] {
        let conv = vec![node(
            "Conv",
            &["picture", "w"],
            "c",
            vec![ints("pads", &[pads; 4])],
        )];
        refused(
            &with(conv, vec![floats("w", &[1, 3, 1, 1], &[1.0; 3])], "c"),
            "more than any picture needs",
        );
    }
    for (op, first) in [
        ("Pad", "picture"),
        ("Tile", "picture"),
        ("Expand", "picture"),
    ] {
        let numbers = longs("n", &vec![1 << 61; if op == "Pad" { 8 } else { 4 }]);
        refused(
            &with(
                vec![node(op, &[first, "n"], "c", vec![])],
                vec![numbers],
                "c",
            ),
            "more than the 2147483648",
        );
    }
}

#[test]
fn many_tensors_of_the_largest_size_are_refused_together() {
    let mut nodes = Vec::new();
    let mut sum = "picture".to_string();
    for i in 0..30 {
        let (resized, next) = (format!("r{i}"), format!("s{i}"));
        nodes.push(node("Resize", &["picture", "", "scales"], &resized, vec![]));
        nodes.push(node("Add", &[&sum, &resized], &next, vec![]));
        sum = next;
    }
    let scales = floats("scales", &[4], &[1.0, 1.0, 500.0, 500.0]);
    refused(&with(nodes, vec![scales], &sum), "together");
}

#[test]
fn inputs_and_constants_that_lie_about_their_size_are_refused() {
    let mut lying = colours();
    lying.graph.as_mut().unwrap().input[0] = value("picture", &[1, 3, 1 << 20, 1 << 20]);
    refused(&lying, "more than the");
    lying.graph.as_mut().unwrap().input[0] = value("picture", &[1, 3, i64::MAX, i64::MAX]);
    refused(&lying, "hostile.onnx: ");
    for dims in [vec![1 << 40], vec![1 << 62, 1 << 62], vec![-1], vec![5, 3]] {
        let mut lying = colours();
        lying.graph.as_mut().unwrap().initializer[0].dims = dims;
        refused(&lying, "the constant `weights`");
    }
    let mut odd = colours();
    odd.graph.as_mut().unwrap().initializer[0].raw_data.pop();
    refused(&odd, "no whole number of elements");
    let mut strange = colours();
    strange.graph.as_mut().unwrap().initializer[0].data_type = 999;
    refused(&strange, "of a type that is not known");
}

#[test]
fn shapes_that_are_not_numbers_are_refused_and_never_parsed() {
    let mut symbolic = colours();
    let input = &mut symbolic.graph.as_mut().unwrap().input[0];
    let Some(TypeValue::TensorType(t)) = input.r#type.as_mut().unwrap().value.as_mut() else {
        unreachable!()
    };
    t.shape.as_mut().unwrap().dim[2].value = Some(DimValue::DimParam("(".repeat(200_000)));
    refused(&symbolic, "not a fixed length");
}

#[test]
fn data_in_other_files_is_never_read() {
    let mut outside = colours();
    let weights = &mut outside.graph.as_mut().unwrap().initializer[0];
    weights.raw_data.clear();
    weights.data_location = Some(DataLocation::External as i32);
    weights.external_data = vec![StringStringEntryProto {
        key: "location".into(),
        value: "../../../etc/passwd".into(),
    }];
    refused(&outside, "`weights` is stored in another file");
    // The same in an attribute.
    let hidden = TensorProto {
        dims: vec![4],
        data_type: DataType::Float as i32,
        data_location: Some(DataLocation::External as i32),
        ..Default::default()
    };
    let attribute = AttributeProto {
        name: "value".into(),
        t: Some(hidden),
        ..Default::default()
    };
    refused(
        &with(
            vec![node("Constant", &[], "c", vec![attribute])],
            vec![],
            "c",
        ),
        "stored in another file",
    );
}

#[test]
fn graphs_in_graphs_are_refused() {
    let mut inner = GraphProto::default();
    for _ in 0..4 {
        let branch = AttributeProto {
            name: "then_branch".into(),
            g: Some(inner),
            ..Default::default()
        };
        inner = GraphProto {
            node: vec![node("If", &["picture"], "c", vec![branch])],
            ..Default::default()
        };
    }
    let nodes = std::mem::take(&mut inner.node);
    refused(&with(nodes, vec![], "c"), "sub-graph");
}

#[test]
fn a_hundred_thousand_empty_operators_and_a_cycle_are_refused() {
    let nodes = vec![tract_onnx::pb::NodeProto::default(); 300_000];
    refused(&with(nodes, vec![], "c"), "fields");
    let cycle = vec![
        node("Add", &["picture", "b"], "a", vec![]),
        node("Relu", &["a"], "b", vec![]),
    ];
    refused(&with(cycle, vec![], "b"), "hostile.onnx: ");
    let mut long = vec![node("Identity", &["picture"], "i0", vec![])];
    long.extend((1..20_000).map(|i| {
        node(
            "Identity",
            &[&format!("i{}", i - 1)],
            &format!("i{i}"),
            vec![],
        )
    }));
    let (_directory, path) = written(&with(long, vec![], "i19999"));
    // Long, but nothing is wrong with it.
    assert!(Model::load(&path, &LoadOptions::default()).is_ok());
}

#[test]
fn work_without_end_is_refused() {
    let w = vec![0.5; 64 * 3 * 51 * 51];
    let conv = vec![
        node("Resize", &["picture", "", "scales"], "big", vec![]),
        node("Conv", &["big", "w"], "c", vec![ints("pads", &[25; 4])]),
    ];
    let scales = floats("scales", &[4], &[1.0, 1.0, 100.0, 100.0]);
    refused(
        &with(conv, vec![scales, floats("w", &[64, 3, 51, 51], &w)], "c"),
        "too many to run here",
    );
}

#[test]
fn truncated_files_are_refused_wherever_they_end() {
    let whole = colours().encode_to_vec();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("cut.onnx");
    for end in (0..whole.len()).step_by(7) {
        std::fs::write(&path, &whole[..end]).unwrap();
        assert!(
            Model::load(&path, &LoadOptions::default()).is_err(),
            "cut at {end}"
        );
    }
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert_refused(&path, "not an ONNX file, or it is truncated");
}

/// CRC-32 as PNG has it, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, b| {
        (0..8).fold(crc ^ u32::from(*b), |c, _| {
            if c & 1 == 1 {
                c >> 1 ^ 0xedb8_8320
            } else {
                c >> 1
            }
        })
    })
}

#[test]
fn a_golden_image_that_unpacks_into_gigabytes_is_not_unpacked() {
    let bundle = Bundle::new();
    let mut png = std::fs::read(bundle.part("golden.png")).unwrap();
    // Width and height of the header chunk, and its checksum.
    png[16..24].copy_from_slice(&[0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff]);
    let crc = crc32(&png[12..29]);
    png[29..33].copy_from_slice(&crc.to_be_bytes());
    std::fs::write(bundle.part("golden.png"), &png).unwrap();
    assert_refused(&bundle.path, "golden.png is 65535x65535");
    // The right size, and no picture behind it.
    let bundle = Bundle::new();
    let png = std::fs::read(bundle.part("golden.png")).unwrap();
    std::fs::write(bundle.part("golden.png"), &png[..50]).unwrap();
    assert_refused(&bundle.path, "golden.png");
}

/// A network with most of what real ones have, small.
fn sample() -> ModelProto {
    let mut m = model(
        &[1, 3, 8, 8],
        vec![
            node(
                "Conv",
                &["picture", "w"],
                "conv",
                vec![ints("pads", &[1; 4]), ints("strides", &[2, 2])],
            ),
            node("Relu", &["conv"], "relu", vec![]),
            node(
                "MaxPool",
                &["relu"],
                "pool",
                vec![ints("kernel_shape", &[2, 2])],
            ),
            node("QuantizeLinear", &["pool", "scale", "zero"], "q", vec![]),
            node("DequantizeLinear", &["q", "scale", "zero"], "dq", vec![]),
            node("Add", &["dq", "dq"], "sum", vec![]),
            node("GlobalAveragePool", &["sum"], "mean", vec![]),
            node("Reshape", &["mean", "shape"], "flat", vec![]),
            node(
                "Gemm",
                &["flat", "weights", "biases"],
                "scores",
                vec![int("transB", 1)],
            ),
        ],
        vec![
            floats("w", &[4, 3, 3, 3], &[0.1; 108]),
            floats("scale", &[], &[0.05]),
            TensorProto {
                name: "zero".into(),
                data_type: DataType::Uint8 as i32,
                raw_data: vec![3],
                ..Default::default()
            },
            longs("shape", &[1, -1]),
            floats("weights", &[4, 4], &[0.2; 16]),
            floats("biases", &[4], &[0.0; 4]),
        ],
        "scores",
    );
    m.producer_name = "tests".into();
    m
}

/// One thing that is done to a file's bytes.
#[derive(Debug, Clone)]
enum Mutation {
    Set(usize, u8),
    Insert(usize, Vec<u8>),
    Delete(usize, usize),
    Repeat(usize, usize, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = 0usize..4096;
    prop_oneof![
        4 => (at.clone(), any::<u8>()).prop_map(|(a, b)| Mutation::Set(a, b)),
        1 => (at.clone(), prop::collection::vec(any::<u8>(), 1..12)).prop_map(|(a, b)| Mutation::Insert(a, b)),
        1 => (at.clone(), 1usize..40).prop_map(|(a, n)| Mutation::Delete(a, n)),
        1 => (at, 1usize..80, 1usize..50).prop_map(|(a, n, times)| Mutation::Repeat(a, n, times)),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let length = bytes.len().max(1);
    match mutation {
        Mutation::Set(at, value) => {
            if let Some(b) = bytes.get_mut(at % length) {
                *b = *value;
            }
        }
        Mutation::Insert(at, content) => {
            bytes.splice(at % length..at % length, content.iter().copied());
        }
        Mutation::Delete(at, n) => {
            let start = at % length;
            bytes.drain(start.min(bytes.len())..(start + n).min(bytes.len()));
        }
        Mutation::Repeat(at, n, times) => {
            let start = at % length;
            let part = bytes[start.min(bytes.len())..(start + n).min(bytes.len())].repeat(*times);
            bytes.splice(start..start, part);
        }
    }
}

/// How many files are damaged: some seconds' worth, or `$PROPTEST_CASES`.
fn cases() -> u32 {
    let said = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|c| c.parse().ok());
    said.unwrap_or(500)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is in the file: an error or a model that runs, no crash and no allocation that ends the process.
    #[test]
    fn a_damaged_file_is_an_error_or_a_model(mutations in prop::collection::vec(mutation(), 1..6)) {
        let mut bytes = sample().encode_to_vec();
        mutations.iter().for_each(|m| mutate(&mut bytes, m));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("damaged.onnx");
        std::fs::write(&path, &bytes).unwrap();
        if let Ok(model) = Model::load(&path, &LoadOptions::default()) {
            let input = ocellus::preprocess::InputTensor::for_spec(&model.info().input);
            let _ = model.session().unwrap().run(&input);
        }
    }

    /// Numbers where they do most harm: shapes, attributes, types.
    #[test]
    fn wrong_numbers_in_a_graph_are_an_error_or_a_model(
        at in 0usize..64,
        number in prop_oneof![Just(0i64), Just(-1), Just(1 << 20), Just(1 << 40), Just(i64::MAX), Just(i64::MIN), -5i64..300],
        place in 0usize..4,
    ) {
        let mut m = sample();
        let graph = m.graph.as_mut().unwrap();
        match place {
            0 => {
                let Some(TypeValue::TensorType(t)) = graph.input[0].r#type.as_mut().unwrap().value.as_mut() else { unreachable!() };
                t.shape.as_mut().unwrap().dim[at % 4].value = Some(DimValue::DimValue(number));
            }
            1 => {
                let i = at % graph.initializer.len();
                graph.initializer[i].dims = vec![number; at % 5];
            }
            2 => {
                let i = at % graph.initializer.len();
                graph.initializer[i].data_type = number as i32;
            }
            _ => {
                let mut attributes: Vec<_> = graph.node.iter_mut().flat_map(|n| &mut n.attribute).collect();
                let i = at % attributes.len();
                attributes[i].i = number;
                attributes[i].ints.iter_mut().for_each(|v| *v = number);
            }
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("wrong.onnx");
        std::fs::write(&path, m.encode_to_vec()).unwrap();
        if let Ok(model) = Model::load(&path, &LoadOptions::default()) {
            let input = ocellus::preprocess::InputTensor::for_spec(&model.info().input);
            let _ = model.session().unwrap().run(&input);
        }
    }
}
