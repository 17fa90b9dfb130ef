//! What lies between the two networks of a region-based detector, and the second of them: Faster R-CNN with a feature pyramid.
//!
//! In: the first network's outputs, and where the frame lies in the input. Out: for each proposal its box, class logits and box offsets,
//! as three more outputs of the same inference. On the `infer-<n>` threads; each has a [`RegionSession`] of its own. Always holds: not
//! more proposals than were asked for; time and memory are bounded by their number and by the networks.
//!
//! Every number that is not in the graphs is torchvision's.

mod roi_align;

use std::sync::Arc;

use super::engine::{
    self, Embedding, EngineOptions, InputElement, Network, NetworkSession, OutputShape,
};
use super::files::{MAX_MODEL_BYTES, ModelFiles};
use super::{LoadOptions, ManifestDetect, ModelError, OutputTensor, Outputs, Report, check_digest};
use crate::preprocess::InputData;
use crate::task::detect::anchors::{LEVELS, Pyramid, cut, region_sizes, sigmoid};
use crate::task::detect::nms::{Candidates, Nms, Suppression};
use crate::task::detect::{Family, HeadOutput};
use roi_align::{RoiAlign, SIDE};

/// What is added to the first network's outputs.
const REGION_OUTPUTS: [&str; 3] = ["proposals", "class_logits", "box_regression"];
/// Proposals of a level that are compared with each other.
const MOST_OF_LEVEL: usize = 1000;
/// The most that go on.
pub(super) const MOST_PROPOSALS: usize = 1000;
/// A proposal goes if it overlaps a likelier one of its level by more than this.
const OVERLAP: f32 = 0.7;
/// The least that a proposal measures along each side, in pixels.
const LEAST_SIDE: f32 = 1e-3;
/// Feature maps that regions are taken from; the pyramid's coarsest level is not among them.
const MAPS: usize = LEVELS - 1;
/// Pixels of the input for a cell of the finest map.
const FINEST_STRIDE: usize = 4;

/// The second network, and how its input is made.
#[derive(Debug)]
pub(super) struct Regions {
    pub network: Arc<Network>,
    pyramid: Pyramid,
    /// Width and height of each feature map, the finest first; they follow the heads among the outputs.
    maps: [(usize, usize); MAPS],
    channels: usize,
    /// How many regions the network takes at a time.
    batch: usize,
    /// Elements that it gives for a region: logits, offsets.
    values: [usize; 2],
    proposals: usize,
}

/// The second network of a detector whose family has one, from the bundle.
///
/// # Errors
/// It is not there or not what the manifest says, or does not fit the first.
pub(super) fn load(
    files: &ModelFiles,
    family: Option<Family>,
    said: &ManifestDetect,
    options: &LoadOptions,
    first: &Network,
    size: (usize, usize),
) -> Result<Option<Regions>, ModelError> {
    let unusable = |problem: String| ModelError::Unusable {
        path: files.onnx_path(),
        problem,
    };
    let Some(family) = family else {
        return Ok(None);
    };
    let name = match (family.has_box_head(), &said.box_head) {
        (false, None) => return Ok(None),
        (false, Some(_)) => {
            let problem = format!("{family} has no second network: leave [detect] box_head out");
            return Err(unusable(problem));
        }
        (true, None) => {
            return Err(unusable(format!(
                "{family} has a second network: say [detect] box_head = \"box_head.onnx\" in a bundle's model.toml"
            )));
        }
        (true, Some(name)) => name,
    };
    let path = files.part(name);
    let bytes = files.read_part(name, MAX_MODEL_BYTES)?;
    if let Some(expected) = &said.box_head_sha256 {
        check_digest(&path, expected, &bytes)?;
    }
    let engine = EngineOptions {
        embedding: Embedding::No,
        threads: options.threads,
        byte_input: false,
        outputs: ("[detect] box_head", &[]),
    };
    let unusable = |problem| ModelError::Unusable {
        path: path.clone(),
        problem: format!("{family}: {problem}"),
    };
    let second = engine::load(&bytes, &engine).map_err(unusable)?;
    let proposals = said.proposals.unwrap_or(MOST_PROPOSALS);
    Regions::new(first, second, size, proposals)
        .map(Some)
        .map_err(unusable)
}

impl Regions {
    /// # Errors
    /// The two networks do not fit each other, or are not torchvision's.
    fn new(
        first: &Network,
        second: Network,
        input: (usize, usize),
        proposals: usize,
    ) -> Result<Self, String> {
        let shapes: Vec<&Vec<usize>> = first.outputs.iter().map(|o| &o.shape).collect();
        let wrong = || {
            format!(
                "the outputs {shapes:?} are not those of a first stage for an input of {}x{}: for each of five levels, the coarsest first, [1, 12, h, w] and [1, 3, h, w], then four feature maps, as `python -m ocellus_models export` writes them",
                input.0, input.1
            )
        };
        let head = |o: &OutputShape| HeadOutput {
            shape: o.shape.clone(),
            probabilities: o.probabilities,
            decoded: o.decoded,
        };
        let (heads, maps) = first
            .outputs
            .split_at_checked(2 * LEVELS)
            .ok_or_else(wrong)?;
        let heads: Vec<HeadOutput> = heads.iter().map(head).collect();
        let pyramid = Pyramid::new(&heads, &region_sizes(), input)
            .filter(|p| p.classes == 1)
            .ok_or_else(wrong)?;
        let maps: &[OutputShape; MAPS] = maps.try_into().map_err(|_| wrong())?;
        let channels = maps[0].shape.get(1).copied().unwrap_or(0);
        let mut sizes = [(0, 0); MAPS];
        for (level, (map, size)) in maps.iter().zip(&mut sizes).enumerate() {
            let stride = FINEST_STRIDE << level;
            *size = (input.0 / stride, input.1 / stride);
            if size.0 * size.1 == 0 || map.shape != [1, channels, size.1, size.0] {
                return Err(wrong());
            }
        }

        let shapes: Vec<&Vec<usize>> = second.outputs.iter().map(|o| &o.shape).collect();
        let [batch, c, h, w] = second.input_shape;
        let wrong = || {
            format!(
                "the box head takes {:?} and gives {shapes:?}, not [n, {channels}, {SIDE}, {SIDE}] and [n, 1 + classes], [n, 4 + 4·classes]",
                second.input_shape
            )
        };
        let fits = (c, h, w) == (channels, SIDE, SIDE)
            && (1..=MOST_PROPOSALS).contains(&batch)
            && second.input_type == InputElement::F32;
        let values = match shapes[..] {
            [logits, offsets] if fits => match (&logits[..], &offsets[..]) {
                (&[n, classes], &[m, values])
                    if [n, m] == [batch; 2] && classes > 1 && values == 4 * classes =>
                {
                    [classes, values]
                }
                _ => return Err(wrong()),
            },
            _ => return Err(wrong()),
        };
        Ok(Self {
            network: Arc::new(second),
            pyramid,
            maps: sizes,
            channels,
            batch,
            values,
            proposals,
        })
    }

    /// What is added to the first network's outputs, each with as many rows as there are proposals at most.
    pub(super) fn outputs(&self) -> [OutputShape; REGION_OUTPUTS.len()] {
        let [logits, offsets] = self.values;
        let mut values = [4, logits, offsets].into_iter();
        REGION_OUTPUTS.map(|name| OutputShape {
            name: name.into(),
            shape: vec![self.proposals, values.next().unwrap_or(0)],
            probabilities: false,
            decoded: false,
            quantized: None,
            is_integer: false,
            embedding: false,
        })
    }

    /// What its network runs on integers.
    pub(super) fn add_to(&self, report: &mut Report) {
        let own = &self.network.report;
        report.taken.extend(own.taken.iter().cloned());
        report.left.extend(own.left.iter().cloned());
        report.integer_macs += own.integer_macs;
        report.float_macs += own.float_macs;
    }

    pub(super) fn session(self: &Arc<Self>) -> Result<RegionSession, String> {
        let region = self.channels * SIDE * SIDE;
        Ok(RegionSession {
            session: self.network.session(&[])?,
            pooled: InputData::F32(vec![0.0; self.batch * region]),
            regions: self.clone(),
            candidates: Candidates::default(),
            nms: Nms::default(),
            roi_align: RoiAlign::default(),
        })
    }
}

/// One thread's working memory.
pub(super) struct RegionSession {
    regions: Arc<Regions>,
    session: NetworkSession,
    pooled: InputData,
    candidates: Candidates,
    nms: Nms,
    roi_align: RoiAlign,
}

impl RegionSession {
    /// Fills the outputs that [`Regions::outputs`] names, which are the last ones. `picture`: where the frame lies in the input.
    pub(super) fn run(&mut self, outputs: &mut Outputs, picture: [f32; 4]) -> Result<(), String> {
        let first = outputs.tensors.len() - REGION_OUTPUTS.len();
        let (first, added) = outputs.tensors.split_at_mut(first);
        for tensor in added.iter_mut() {
            tensor.values.clear();
        }
        let proposals = self.propose(first, picture);
        for boxes in proposals.chunks(self.regions.batch) {
            self.pool(first, boxes);
            let said = self
                .session
                .run(&self.regions.network.input_shape, &self.pooled)?;
            added[0].values.extend(boxes.as_flattened());
            for (i, n) in self.regions.values.into_iter().enumerate() {
                let rows = &said.get(i).values[..boxes.len() * n];
                added[1 + i].values.extend_from_slice(rows);
            }
        }
        Ok(())
    }

    /// Boxes that may hold something, the likeliest first.
    fn propose(&mut self, outputs: &[OutputTensor], picture: [f32; 4]) -> Vec<[f32; 4]> {
        self.candidates.clear();
        let pyramid = &self.regions.pyramid;
        for (i, level) in pyramid.levels.iter().enumerate() {
            let (offsets, logits) = (&outputs[level.offsets], &outputs[level.logits]);
            let limits = (f32::NEG_INFINITY, MOST_OF_LEVEL);
            for found in level.best(&offsets.values, &logits.values, 1, limits, |_| true) {
                let [x0, y0, x1, y1] = cut(found.corners, picture);
                if x1 - x0 >= LEAST_SIDE && y1 - y0 >= LEAST_SIDE {
                    // By level, as a class.
                    self.candidates
                        .push([x0, y0, x1, y1], sigmoid(found.logit), i);
                }
            }
        }
        let by_level = Some(Suppression::Class);
        let most = self.regions.proposals;
        let kept = (self.nms).run(&self.candidates, by_level, OVERLAP, most, None);
        kept.iter().map(|i| self.candidates.get(*i).0).collect()
    }

    /// The second network's input: a region for each box; what is left of the batch is 0.
    fn pool(&mut self, outputs: &[OutputTensor], boxes: &[[f32; 4]]) {
        let InputData::F32(pooled) = &mut self.pooled else {
            return;
        };
        let regions = &self.regions;
        let region = regions.channels * SIDE * SIDE;
        let (used, rest) = pooled.split_at_mut(boxes.len() * region);
        rest.fill(0.0);
        for (corners, out) in boxes.iter().zip(used.chunks_exact_mut(region)) {
            let level = level_of(*corners);
            let scale = 1.0 / (FINEST_STRIDE << level) as f32;
            let map = &outputs[2 * LEVELS + level].values;
            let corners = corners.map(|v| v * scale);
            self.roi_align.run(map, regions.maps[level], corners, out);
        }
    }
}

/// The map that a box is taken from, 0 the finest: that of stride 16 for 224×224 pixels, one coarser for each doubling (equation 1 of the paper
/// on feature pyramids).
fn level_of([x0, y0, x1, y1]: [f32; 4]) -> usize {
    let side = ((x1 - x0) * (y1 - y0)).sqrt();
    let level = (4.0 + (side / 224.0).log2() + 1e-6).floor();
    // `as` takes what is no number as 0.
    (level.clamp(2.0, 5.0) - 2.0) as usize
}

#[cfg(test)]
mod tests {
    use super::level_of;

    #[test]
    fn large_boxes_are_taken_from_coarse_maps() {
        for (w, h, level) in [
            (1.0, 1.0, 0),
            (111.9, 111.9, 0),
            (112.0, 112.0, 1),
            (224.0, 224.0, 2),
            (448.0, 112.0, 2),
            (447.9, 447.9, 2),
            (448.0, 448.0, 3),
            (3000.0, 3000.0, 3),
        ] {
            assert_eq!(level_of([10.0, 20.0, 10.0 + w, 20.0 + h]), level, "{w}x{h}");
        }
    }
}
