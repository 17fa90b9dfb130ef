//! Models that look at crops of what another model finds: whether the one that is named can be it.
//!
//! In: the `[[model]]` sections and their plans. Out: the detector of each, and what is wrong. What only the model's files tell, its tasks
//! and labels, is checked when they are loaded ([`pipeline::check_cascades`](crate::pipeline::check_cascades)).

use super::plan::in_section;
use super::{ModelConfig, ModelPlan, Problem};
use crate::task::TaskKind;
use crate::toml_read::nearest;

/// For each model that looks at crops, the index of the one whose detections they are.
pub(super) fn cascades(
    configs: &[ModelConfig],
    models: &[ModelPlan],
    problems: &mut Vec<Problem>,
) -> Vec<Option<usize>> {
    let detector = |(m, model): (usize, &ModelPlan)| {
        let crops = model.crops.as_ref()?;
        let section = format!("model.{m}");
        let wrong = crops.problems().into_iter();
        problems.extend(wrong.map(|p| in_section(&format!("{section}.crops"), p)));
        let only_frames = |t: &&TaskKind| [TaskKind::Detect, TaskKind::Segment].contains(t);
        if let Some(task) = model.tasks.iter().find(only_frames) {
            let message = format!("{} is no task for crops: classify, embed", task.name());
            problems.push(Problem::new(format!("{section}.tasks"), message));
        }
        if crops.of.is_empty() {
            return None;
        }
        let mut refuse = |message| {
            problems.push(Problem::new(format!("{section}.crops.of"), message));
        };
        let others = || models.iter().filter(|o| o.crops.is_none());
        let Some(d) = models.iter().position(|o| o.id == crops.of) else {
            let ids: Vec<&str> = others().map(|o| &*o.id).collect();
            let hint = match nearest(&crops.of, ids.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", ids.join(", ")),
            };
            refuse(format!("no model has the id `{}`; {hint}", crops.of));
            return None;
        };
        let of = &models[d];
        if of.crops.is_some() {
            refuse(match d == m {
                true => "is the model itself: write the id of one that detects".into(),
                false => format!(
                    "`{}` looks at crops itself: write the id of one that detects in frames",
                    of.id
                ),
            });
            return None;
        }
        if !of.tasks.is_empty() && !of.tasks.contains(&TaskKind::Detect) {
            refuse(format!("`{}` does not detect: see its tasks", of.id));
        }
        let seen = &configs[d].cameras;
        let unseen = |c: &&String| !seen.is_empty() && !seen.contains(c);
        for camera in configs[m].cameras.iter().filter(unseen) {
            let message = format!("`{}` does not look at camera `{camera}`", of.id);
            problems.push(Problem::new(format!("{section}.cameras"), message));
        }
        Some(d)
    };
    // A model whose path is missing has no plan: then the indices do not match, and a problem says so already.
    match models.len() == configs.len() {
        true => models.iter().enumerate().map(detector).collect(),
        false => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::{Config, Plan};

    fn plan(models: &str) -> Result<Plan, Vec<String>> {
        let text = format!("[[camera]]\nid='porch'\n[[camera]]\nid='yard'\n{models}");
        let (config, problems) = Config::parse(&text);
        assert_eq!(problems, []);
        Plan::new(config, Path::new("")).map_err(|p| p.iter().map(|p| p.to_string()).collect())
    }

    const DETECTOR: &str = "[[model]]\nid='found'\npath='d'\ncameras=['porch']\n";

    #[test]
    fn it_looks_where_its_detector_looks() {
        // In any order.
        let crops = "[[model]]\nid='reid'\npath='r'\n[model.crops]\nof='found'\nper_frame=2\n";
        let p = plan(&format!(
            "{crops}{DETECTOR}[[model]]\nid='whole'\npath='w'\n"
        ))
        .unwrap();
        assert_eq!(
            (&p.cameras[0].models[..], &p.cameras[0].crop_models[..]),
            (&[1, 2][..], &[0][..])
        );
        assert_eq!(
            (&p.cameras[1].models[..], &p.cameras[1].crop_models[..]),
            (&[2][..], &[][..])
        );
        let settings = p.models[0].crops.as_ref().unwrap();
        assert_eq!((settings.per_frame, settings.margin), (2, 0.1));
    }

    #[test]
    fn what_cannot_be_is_named_with_its_fix() {
        let second = |more: &str| format!("{DETECTOR}[[model]]\nid='reid'\npath='r'\n{more}");
        for (models, says) in [
            (second("crops={}"), "model.1.crops.of: missing"),
            (
                second("crops={of='fuond'}"),
                "model.1.crops.of: no model has the id `fuond`; did you mean `found`?",
            ),
            (second("crops={of='nobody'}"), "there are found"),
            (
                second("crops={of='reid'}"),
                "model.1.crops.of: is the model itself",
            ),
            (
                second("crops={of='found'}\n[[model]]\npath='x'\ncrops={of='reid'}"),
                "model.2.crops.of: `reid` looks at crops itself",
            ),
            (
                second("crops={of='found'}\ntasks=['classify','detect']"),
                "model.1.tasks: detect is no task for crops: classify, embed",
            ),
            (
                second("crops={of='whole'}\n[[model]]\nid='whole'\npath='w'\ntasks=['classify']"),
                "model.1.crops.of: `whole` does not detect",
            ),
            (
                second("crops={of='found'}\ncameras=['yard']"),
                "model.1.cameras: `found` does not look at camera `yard`",
            ),
            (
                second("crops={of='found',margin=-0.1}"),
                "model.1.crops.margin: -0.1 is not between 0 and 2",
            ),
            (
                second("crops={of='found',per_frame=0}"),
                "model.1.crops.per_frame: 0 is not between 1 and 100",
            ),
            (
                second("crops={of='found',refresh_s=-1}"),
                "model.1.crops.refresh_s: -1 is not",
            ),
            (
                second("crops={of='found',min_side_px=20000}"),
                "model.1.crops.min_side_px: 20000 is more",
            ),
        ] {
            let problems = plan(&models).unwrap_err();
            assert!(
                problems.iter().any(|p| p.contains(says)),
                "no `{says}` in {problems:?}"
            );
        }
    }
}
