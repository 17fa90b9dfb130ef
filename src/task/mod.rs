//! Pure decoders of the model's outputs.
//!
//! In: [`Outputs`](crate::model::Outputs) of one inference. Out: a [`TaskResult`]. On the `infer-<n>` threads.
//! Never heard of MQTT.

/// What one task read from one inference.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskResult {
    /// The best classes, best first.
    Classification(Vec<Class>),
    /// The picture as a vector.
    Embedding(Embedding),
}

/// One class and how sure the model is.
#[derive(Debug, Clone, PartialEq)]
pub struct Class {
    /// Index in the model's output.
    pub index: usize,
    /// Its name from `labels.txt`, or the index as text.
    pub label: std::sync::Arc<str>,
    /// Probability, 0 to 1.
    pub score: f32,
}

/// A vector that stands for the picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Embedding {
    /// The elements; of Euclidean length 1 if `l2_normalized`.
    pub values: Vec<f32>,
    /// Whether it was scaled to length 1.
    pub l2_normalized: bool,
    /// How it is written in messages.
    pub dtype: EmbeddingType,
}

/// Element type of an embedding on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EmbeddingType {
    /// 32 bits, little-endian.
    F32,
    /// 16 bits (IEEE half), little-endian.
    #[default]
    F16,
}
