//! Cascades: whether two models fit each other, and the second one at work.
//!
//! In: what a detector found in a frame, and which of it is to be looked at. Out: what the second models say of the crops. On the
//! `infer-<n>` threads. Always holds: no more crops than were chosen; a crop that fails costs the detection nothing but its result.

use std::sync::Arc;

use super::camera::{CameraState, Noted};
use super::runner::ModelRunner;
use crate::config::{CameraPlan, Plan};
use crate::frame::Frame;
use crate::model::ModelInfo;
use crate::observe::crops::{Chooser, CropResult};
use crate::stats::CameraStats;
use crate::task::{self, TaskKind};

/// Whether every model of the plan that looks at crops can, and finds what it is to look at. `infos`: of the plan's models, in its
/// order.
///
/// # Errors
/// The first problem, with the model's id.
pub fn check_cascades(plan: &Plan, infos: &[&ModelInfo]) -> Result<(), String> {
    let all = 0..plan.models.len();
    let mut seconds = all.filter(|m| plan.models[*m].crops.is_some());
    seconds.try_for_each(|m| classes(plan, m, infos).map(drop))
}

/// Whether a model does with crops what can be done with them.
pub(crate) fn check_tasks(info: &ModelInfo) -> Result<(), String> {
    let can = |t: &TaskKind| [TaskKind::Classify, TaskKind::Embed].contains(t);
    match info.tasks.iter().find(|t| !can(t)) {
        Some(task) => Err(format!(
            "{} is no task for crops: classify, embed",
            task.name()
        )),
        None => Ok(()),
    }
}

/// Those of the plan's models that look at crops of what `detector` finds in a camera's frames, and how each chooses.
pub(super) fn choosers(
    plan: &Plan,
    camera: &CameraPlan,
    detector: usize,
    infos: &[&ModelInfo],
) -> Result<(Vec<usize>, Vec<Chooser>), String> {
    let mut seconds = (Vec::new(), Vec::new());
    for &m in &camera.crop_models {
        if let Some(crops) = &plan.models[m].crops
            && crops.of == plan.models[detector].id
        {
            let wanted = classes(plan, m, infos)?;
            let chooser = Chooser::new(crops.clone(), wanted, plan.tracking.enabled);
            seconds.0.push(m);
            seconds.1.push(chooser);
        }
    }
    Ok(seconds)
}

/// For each of its detector's classes, whether a model looks at it; empty: at all.
fn classes(plan: &Plan, second: usize, infos: &[&ModelInfo]) -> Result<Vec<bool>, String> {
    let model = &plan.models[second];
    let crops = model.crops.clone().unwrap_or_default();
    let found = || {
        check_tasks(infos[second])?;
        let detector = plan.models.iter().position(|m| m.id == crops.of);
        let detector = detector.map(|d| infos[d]);
        let detects = |d: &&ModelInfo| d.tasks.contains(&TaskKind::Detect);
        let detector = detector
            .filter(detects)
            .ok_or_else(|| format!("crops.of: `{}` does not detect", crops.of))?;
        let of = format!("`{}`", crops.of);
        task::wanted(&detector.labels, &crops.only)
            .map_err(|e| format!("crops.only: {}", e.to_string().replace("the model", &of)))
    };
    found().map_err(|e: String| format!("the model `{}`: {e}", model.id))
}

/// Looks at the crops that were chosen. Returns, for each detection, what is known of it, this frame's news included; and whether
/// there was anything to look at.
pub(super) fn look(
    models: &mut [ModelRunner],
    stats: &CameraStats,
    camera: &CameraState,
    nth: usize,
    frame: &Frame,
    noted: &mut Noted,
) -> (Vec<Vec<Arc<CropResult>>>, bool) {
    let mut all: Vec<Vec<Arc<CropResult>>> = Vec::new();
    let mut looked = false;
    for (which, choice) in noted.choices.iter_mut().enumerate() {
        let model = &mut models[camera.crop_models[nth][which]];
        stats.crops_deferred.add(choice.deferred as u64);
        for &(detection, region) in &choice.now {
            looked = true;
            let result = match model.run(frame, Some(region)) {
                Ok(run) => Arc::new(CropResult {
                    model: model.reference.clone(),
                    captured_at: frame.meta.captured_at,
                    results: run.results,
                }),
                Err(e) => {
                    stats.crops_failed.inc();
                    tracing::error!(camera = %camera.id, sequence = frame.meta.sequence, "crop failed: {e}");
                    continue;
                }
            };
            stats.crops.inc();
            let track = noted.followed.ids.get(detection).copied().flatten();
            camera.keep_crop(nth, which, track, &result);
            choice.known[detection] = Some(result);
        }
        all.resize_with(choice.known.len(), Vec::new);
        for (all, known) in all.iter_mut().zip(&mut choice.known) {
            all.extend(known.take());
        }
    }
    (all, looked)
}
