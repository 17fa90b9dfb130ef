//! Image files through a model, one after the other: what `classify`, `detect`, `segment` and `model eval` share.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::Serialize;

use crate::frame::{Frame, FrameMeta, FramePool};
use crate::model::{Model, Outputs, Session};
use crate::preprocess::{InputSpec, InputTensor, Preprocessor, frame_from_image_bytes};
use crate::task::{Task, TaskResult};

/// Image files → one task's results. Everything is reused from image to image.
pub(super) struct Stills {
    pool: FramePool,
    preprocessor: Preprocessor,
    input: InputTensor,
    session: Session,
    task: Box<dyn Task>,
}

/// What one image gave.
pub(super) struct Still<'a> {
    pub frame: Frame,
    /// Width and height of the decoded frame.
    pub size: Size,
    pub result: TaskResult,
    /// The outputs that the result was read from.
    pub outputs: &'a Outputs,
    pub took: Duration,
}

/// In pixels.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Size {
    pub width: u32,
    pub height: u32,
}

impl Stills {
    /// `spec` is the model's input, or another way to prepare frames of the same shape.
    pub(super) fn new(model: &Model, spec: InputSpec, task: Box<dyn Task>) -> anyhow::Result<Self> {
        Ok(Self {
            pool: FramePool::default(),
            input: InputTensor::for_spec(&spec),
            preprocessor: Preprocessor::new(spec),
            session: model.session()?,
            task,
        })
    }

    pub(super) fn run(&mut self, image: &Path) -> anyhow::Result<Still<'_>> {
        let started = Instant::now();
        let bytes = std::fs::read(image).context("cannot be read")?;
        let frame = frame_from_image_bytes(&bytes, FrameMeta::of_still("image"), &self.pool)?;
        let prepared = self.preprocessor.run(&frame, &mut self.input)?;
        let outputs = self.session.run(&self.input)?;
        let result = self.task.decode(outputs, &prepared.mapping)?;
        let (width, height) = prepared.frame_size;
        Ok(Still {
            frame,
            size: Size { width, height },
            result,
            outputs,
            took: started.elapsed(),
        })
    }
}

/// What a command says of one image: its keys in JSON, its lines in a table.
pub(super) trait Answer: Serialize {
    fn write_table(&self, out: &mut dyn Write, image: &Path) -> std::io::Result<()>;
}

/// A line of `--json`.
#[derive(Serialize)]
struct Record<'a, A: Serialize> {
    image: &'a Path,
    #[serde(flatten)]
    answer: Option<A>,
    #[serde(skip_serializing_if = "Option::is_none")]
    took_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Looks at each image and prints what there is to say: a table for people, JSON lines for programs. One that fails does not stop the
/// others.
pub(super) fn each<A: Answer>(
    images: &[PathBuf],
    json: bool,
    mut look: impl FnMut(&Path) -> anyhow::Result<(A, Duration)>,
) -> anyhow::Result<()> {
    let mut failed = 0;
    let mut out = std::io::stdout().lock();
    for image in images {
        let looked = look(image);
        failed += usize::from(looked.is_err());
        match (looked, json) {
            (Ok((answer, _)), false) => answer.write_table(&mut out, image)?,
            (Err(e), false) => eprintln!("{}: {e:#}", image.display()),
            (looked, true) => {
                let (answer, took, error) = match looked {
                    Ok((answer, took)) => (Some(answer), Some(took), None),
                    Err(e) => (None, None, Some(format!("{e:#}"))),
                };
                let record = Record {
                    image,
                    answer,
                    took_ms: took.map(|t| (t.as_secs_f64() * 1e4).round() / 10.0),
                    error,
                };
                serde_json::to_writer(&mut out, &record)?;
                writeln!(out)?;
            }
        }
    }
    anyhow::ensure!(
        failed == 0,
        "{failed} of {} images could not be looked at",
        images.len()
    );
    Ok(())
}

/// Where annotated pictures go.
pub(super) struct Annotated<'a>(pub &'a Path);

impl<'a> Annotated<'a> {
    /// Makes the directory.
    pub(super) fn into(directory: &'a Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        Ok(Self(directory))
    }

    /// By the image's name; never over the picture that was looked at.
    pub(super) fn write(&self, image: &Path, jpeg: &[u8]) -> anyhow::Result<()> {
        let name = image.file_name().context("the image has no name")?;
        let path = self.0.join(name).with_extension("jpg");
        let is_source = std::fs::canonicalize(&path)
            .is_ok_and(|p| std::fs::canonicalize(image).is_ok_and(|source| p == source));
        anyhow::ensure!(
            !is_source,
            "{} would be overwritten: give --annotate another directory",
            path.display()
        );
        std::fs::write(&path, jpeg).with_context(|| format!("cannot write {}", path.display()))
    }
}
