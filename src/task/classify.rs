//! Logits or probabilities → the best classes.

use serde::Deserialize;

use super::{Class, Task, TaskError, TaskResult};
use crate::model::{Labels, ModelInfo, OutputRole, Outputs};
use crate::preprocess::InputMapping;

/// `[model.classify]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClassifySettings {
    /// How many classes a message names at most.
    pub top_k: usize,
    /// Classes below this probability are left out.
    pub threshold: f32,
}

impl Default for ClassifySettings {
    fn default() -> Self {
        Self {
            top_k: 5,
            threshold: 0.0,
        }
    }
}

impl ClassifySettings {
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        if !(1..=1000).contains(&self.top_k) {
            problems.push((
                "classify.top_k",
                format!("{} is not between 1 and 1000", self.top_k),
            ));
        }
        if !(0.0..=1.0).contains(&self.threshold) {
            problems.push((
                "classify.threshold",
                format!("{} is not between 0 and 1", self.threshold),
            ));
        }
        problems
    }
}

/// The best classes of one output.
pub struct Classify {
    output: usize,
    softmax: bool,
    labels: Labels,
    top_k: usize,
    configured: f32,
    threshold: f32,
    scores: Vec<f32>,
    order: Vec<usize>,
}

impl Classify {
    /// # Errors
    /// The model has neither logits nor probabilities.
    pub fn new(model: &ModelInfo, settings: &ClassifySettings) -> Result<Self, TaskError> {
        let classes = |r: OutputRole| matches!(r, OutputRole::Logits | OutputRole::Probabilities);
        let output = model.outputs.iter().position(|o| classes(o.role));
        let fix = "a class output has the shape [1, classes]; name it in the manifest's [output]";
        let output = output.ok_or(TaskError::NoOutput("class", fix))?;
        Ok(Self {
            output,
            softmax: model.outputs[output].role == OutputRole::Logits,
            labels: model.labels.clone(),
            top_k: settings.top_k,
            configured: settings.threshold,
            threshold: settings.threshold,
            scores: Vec::new(),
            order: Vec::new(),
        })
    }
}

impl Task for Classify {
    fn set_threshold(&mut self, threshold: Option<f32>) {
        self.threshold = threshold.unwrap_or(self.configured);
    }

    fn decode(&mut self, outputs: &Outputs, _: &InputMapping) -> Result<TaskResult, TaskError> {
        self.scores.clear();
        self.scores
            .extend_from_slice(&outputs.get(self.output).values);
        if self.softmax {
            softmax(&mut self.scores);
        }
        let scores = &self.scores;
        self.order.clear();
        self.order.extend(0..scores.len());
        let best_first = |a: &usize, b: &usize| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b));
        let k = self.top_k.min(scores.len());
        if k > 0 && k < scores.len() {
            self.order.select_nth_unstable_by(k - 1, best_first);
        }
        self.order.truncate(k);
        self.order.sort_by(best_first);
        let above = self.order.iter().filter(|i| scores[**i] >= self.threshold);
        let classes = above.map(|&index| Class {
            index,
            label: self.labels.get(index),
            score: scores[index],
        });
        Ok(TaskResult::Classification(classes.collect()))
    }
}

/// In place; the largest is subtracted first, so that no exponential overflows.
fn softmax(values: &mut [f32]) {
    let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sum = 0.0;
    for v in values.iter_mut() {
        *v = (*v - max).exp();
        sum += *v;
    }
    values.iter_mut().for_each(|v| *v /= sum);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_of_large_values_is_finite_and_sums_to_one() {
        let mut v = [1000.0, 999.0, -1000.0];
        softmax(&mut v);
        assert!((v.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((v[0] - 0.731_058_6).abs() < 1e-5 && v[2] == 0.0);
    }
}
