//! Small ONNX files and bundles, made here: a network of one layer whose result can be computed by hand.

use std::path::{Path, PathBuf};

use prost::Message;
use sha2::{Digest, Sha256};
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::tensor_shape_proto::{Dimension, dimension::Value as DimValue};
use tract_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType, type_proto,
};

/// Side of the pictures, in pixels.
pub const SIDE: u32 = 8;
/// Class names: the colour that fills the picture.
pub const LABELS: [&str; 4] = ["red", "green", "blue", "dark"];
/// Weights [class, channel] and biases: the brightest channel wins, and `dark` if none is bright.
pub const WEIGHTS: [[f32; 3]; 4] = [
    [8.0, -4.0, -4.0],
    [-4.0, 8.0, -4.0],
    [-4.0, -4.0, 8.0],
    [-4.0, -4.0, -4.0],
];
pub const BIASES: [f32; 4] = [0.0, 0.0, 0.0, 2.0];

pub fn node(op: &str, inputs: &[&str], output: &str, attributes: Vec<AttributeProto>) -> NodeProto {
    NodeProto {
        name: format!("{output}_node"),
        op_type: op.into(),
        input: inputs.iter().map(|i| i.to_string()).collect(),
        output: vec![output.into()],
        attribute: attributes,
        ..Default::default()
    }
}

pub fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::Int as i32,
        i,
        ..Default::default()
    }
}

pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto {
        name: name.into(),
        r#type: AttributeType::Ints as i32,
        ints: values.to_vec(),
        ..Default::default()
    }
}

pub fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    let raw_data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    TensorProto {
        name: name.into(),
        dims: dims.to_vec(),
        data_type: DataType::Float as i32,
        raw_data,
        ..Default::default()
    }
}

pub fn longs(name: &str, values: &[i64]) -> TensorProto {
    let dims = vec![values.len() as i64];
    TensorProto {
        name: name.into(),
        dims,
        data_type: DataType::Int64 as i32,
        int64_data: values.to_vec(),
        ..Default::default()
    }
}

pub fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = dims.iter().map(|d| Dimension {
        value: Some(DimValue::DimValue(*d)),
        ..Default::default()
    });
    let tensor = type_proto::Tensor {
        elem_type: DataType::Float as i32,
        shape: Some(TensorShapeProto { dim: dim.collect() }),
    };
    let r#type = TypeProto {
        value: Some(type_proto::Value::TensorType(tensor)),
        ..Default::default()
    };
    ValueInfoProto {
        name: name.into(),
        r#type: Some(r#type),
        ..Default::default()
    }
}

pub fn model(
    input: &[i64],
    nodes: Vec<NodeProto>,
    initializers: Vec<TensorProto>,
    output: &str,
) -> ModelProto {
    ModelProto {
        ir_version: 8,
        opset_import: vec![OperatorSetIdProto {
            version: 13,
            ..Default::default()
        }],
        graph: Some(GraphProto {
            name: "g".into(),
            node: nodes,
            initializer: initializers,
            input: vec![value("picture", input)],
            output: vec![value(output, &[1, 4])],
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Mean of each channel → four scores.
pub fn colours() -> ModelProto {
    let weights: Vec<f32> = WEIGHTS.iter().flatten().copied().collect();
    model(
        &[1, 3, SIDE.into(), SIDE.into()],
        vec![
            node("GlobalAveragePool", &["picture"], "mean", vec![]),
            node("Flatten", &["mean"], "flat", vec![]),
            node(
                "Gemm",
                &["flat", "weights", "biases"],
                "scores",
                vec![int("transB", 1)],
            ),
        ],
        vec![
            floats("weights", &[4, 3], &weights),
            floats("biases", &[4], &BIASES),
        ],
        "scores",
    )
}

/// A detector in YOLOv10's form that finds the same two boxes in each picture of 64×64.
pub fn boxes() -> ModelProto {
    let rows = [
        [8.0, 16.0, 32.0, 48.0, 0.9, 0.0],
        [32.0, 0.0, 64.0, 64.0, 0.75, 1.0],
    ];
    let nodes = vec![
        node("GlobalAveragePool", &["picture"], "mean", vec![]),
        node("Flatten", &["mean"], "flat", vec![]),
        node("Gemm", &["flat", "nothing", "rows"], "values", vec![]),
        node("Reshape", &["values", "shape"], "boxes", vec![]),
    ];
    let initializers = vec![
        floats("nothing", &[3, 12], &[0.0; 36]),
        floats("rows", &[12], &rows.concat()),
        longs("shape", &[1, 2, 6]),
    ];
    let mut model = model(&[1, 3, 64, 64], nodes, initializers, "boxes");
    if let Some(graph) = &mut model.graph {
        graph.output = vec![value("boxes", &[1, 2, 6])];
    }
    model
}

/// YOLOX for an input of `side`×`side`, with its boxes decoded in the graph as its own exporter does: put together anew, or `in_place`.
pub fn decoded_in_graph(mut model: ModelProto, side: usize, in_place: bool) -> ModelProto {
    let (mut places, mut sizes) = (vec![], vec![]);
    for stride in [8, 16, 32] {
        for cell in 0..(side / stride).pow(2) {
            let row = side / stride;
            places.extend([(cell % row) as f32, (cell / row) as f32]);
            sizes.push(stride as f32);
        }
    }
    let n = sizes.len() as i64;
    let graph = model.graph.as_mut().unwrap();
    let raw = graph.output[0].name.clone();
    let slice = |output, from: &str, to: &str| {
        let inputs = [&raw, from, to, "axis"];
        node("Slice", &inputs, output, vec![])
    };
    let mut nodes = vec![
        slice("raw_xy", "at_0", "at_2"),
        slice("raw_wh", "at_2", "at_4"),
        node("Add", &["raw_xy", "places"], "places_xy", vec![]),
        node("Mul", &["places_xy", "strides"], "xy", vec![]),
        node("Exp", &["raw_wh"], "exp_wh", vec![]),
        node("Mul", &["exp_wh", "strides"], "wh", vec![]),
    ];
    match in_place {
        false => nodes.extend([
            slice("rest", "at_4", "end"),
            node(
                "Concat",
                &["xy", "wh", "rest"],
                "decoded",
                vec![int("axis", -1)],
            ),
        ]),
        true => {
            for (from, values, to, first) in [
                (&*raw, "xy", "half_decoded", 0),
                ("half_decoded", "wh", "decoded", 2),
            ] {
                let at: Vec<i64> = (0..n)
                    .flat_map(|i| [[0, i, first], [0, i, first + 1]])
                    .flatten()
                    .collect();
                let indices = format!("indices_{values}");
                let mut tensor = longs(&indices, &at);
                tensor.dims = vec![1, n, 2, 3];
                graph.initializer.push(tensor);
                nodes.push(node("ScatterND", &[from, &indices, values], to, vec![]));
            }
        }
    }
    graph.node.extend(nodes);
    graph.initializer.extend([
        floats("places", &[1, n, 2], &places),
        floats("strides", &[1, n, 1], &sizes),
        longs("at_0", &[0]),
        longs("at_2", &[2]),
        longs("at_4", &[4]),
        longs("end", &[i64::MAX]),
        longs("axis", &[2]),
    ]);
    graph.output[0].name = "decoded".into();
    model
}

/// A segmenter of 64×64: each pixel is red or it is not.
pub fn red_pixels() -> ModelProto {
    let nodes = vec![node("Conv", &["picture", "weights"], "scores", vec![])];
    let weights = [1.0, 0.0, 0.0, 0.0, 0.5, 0.5];
    let initializers = vec![floats("weights", &[2, 3, 1, 1], &weights)];
    let mut model = model(&[1, 3, 64, 64], nodes, initializers, "scores");
    if let Some(graph) = &mut model.graph {
        graph.output = vec![value("scores", &[1, 2, 64, 64])];
    }
    model
}

/// The scores of a picture of one colour, pixels scaled to 0..1.
pub fn scores(rgb: [u8; 3]) -> Vec<f32> {
    let of = |(w, b): (&[f32; 3], &f32)| {
        b + w
            .iter()
            .zip(rgb)
            .map(|(w, p)| w * f32::from(p) / 255.0)
            .sum::<f32>()
    };
    WEIGHTS.iter().zip(&BIASES).map(of).collect()
}

pub fn picture(path: &Path, rgb: [u8; 3]) {
    image::RgbImage::from_pixel(SIDE, SIDE, image::Rgb(rgb))
        .save(path)
        .unwrap();
}

pub fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// A bundle in a directory of its own.
pub struct Bundle {
    directory: tempfile::TempDir,
    pub path: PathBuf,
    /// `model.toml` as it is written; change it and call [`Bundle::write_manifest`].
    pub manifest: String,
}

impl Bundle {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("colours");
        std::fs::create_dir(&path).unwrap();
        let onnx = colours().encode_to_vec();
        let rgb = [200, 100, 40];
        picture(&path.join("golden.png"), rgb);
        let labels = LABELS.join("\n");
        let manifest = format!(
            "id = 'colours'\nsha256 = '{}'\nlabels_sha256 = '{}'\nlicence = 'MIT'\norigin = 'tests'\n\
             [input]\nscale = 0.00392156862745098\nresize = 'stretch'\n\
             [golden]\nimage = 'golden.png'\ntolerance = 0.01\noutput = {:?}\n",
            sha256(&onnx),
            sha256(labels.as_bytes()),
            scores(rgb)
        );
        std::fs::write(path.join("model.onnx"), onnx).unwrap();
        std::fs::write(path.join("labels.txt"), labels).unwrap();
        let bundle = Self {
            directory,
            path,
            manifest,
        };
        bundle.write_manifest();
        bundle
    }

    /// A place beside the bundle.
    pub fn outside(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn part(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn write_manifest(&self) {
        std::fs::write(self.part("model.toml"), &self.manifest).unwrap();
    }

    /// Replaces text of the manifest; fails if it is not there.
    pub fn edit(&mut self, from: &str, to: &str) -> &mut Self {
        assert!(
            self.manifest.contains(from),
            "no `{from}` in {}",
            self.manifest
        );
        self.manifest = self.manifest.replace(from, to);
        self.write_manifest();
        self
    }

    /// Takes a line with that key out of the manifest.
    pub fn drop_key(&mut self, key: &str) -> &mut Self {
        let begins = |l: &&str| !l.starts_with(&format!("{key} ="));
        self.manifest = self
            .manifest
            .lines()
            .filter(begins)
            .map(|l| format!("{l}\n"))
            .collect();
        self.write_manifest();
        self
    }

    /// Puts another network into the bundle, its digest with it.
    pub fn set_model(&mut self, model: &ModelProto) -> &mut Self {
        let onnx = model.encode_to_vec();
        self.drop_key("sha256");
        self.manifest
            .insert_str(0, &format!("sha256 = '{}'\n", sha256(&onnx)));
        std::fs::write(self.part("model.onnx"), onnx).unwrap();
        self.write_manifest();
        self
    }
}
