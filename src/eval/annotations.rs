//! What people drew, as COCO's JSON or YOLO's text files have it.
//!
//! In: a file or a directory. Out: [`Annotations`]. On the main thread. Always holds: every box has a class of the model's, every image a
//! file; what cannot be so is an error that names it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;

use super::coco::Drawn;
use super::files;
use crate::model::{Labels, stands_for_something};
use crate::preprocess::image_size;
use crate::toml_read::nearest;

/// Annotated images.
pub struct Annotations {
    /// In the order of their ids.
    pub images: Vec<Annotated>,
    /// By the model's class: the category's id in the file, where it has that class.
    pub categories: BTreeMap<usize, i64>,
}

/// One of them.
pub struct Annotated {
    /// Its id in the file.
    pub id: i64,
    /// Where it is.
    pub path: PathBuf,
    /// Its boxes, by the model's classes.
    pub drawn: Vec<Drawn>,
}

#[derive(Deserialize)]
struct CocoFile {
    images: Vec<CocoImage>,
    annotations: Vec<CocoAnnotation>,
    categories: Vec<CocoCategory>,
}

#[derive(Deserialize)]
struct CocoImage {
    id: i64,
    file_name: String,
}

#[derive(Deserialize)]
struct CocoAnnotation {
    image_id: i64,
    category_id: i64,
    bbox: [f64; 4],
    area: Option<f64>,
    #[serde(default)]
    iscrowd: u8,
}

#[derive(Deserialize)]
struct CocoCategory {
    id: i64,
    name: String,
}

impl Annotations {
    /// COCO's if `path` is a file, YOLO's if it is a directory. `only`: the labels that count; all if empty.
    ///
    /// # Errors
    /// What cannot be read; an image that is not there; a category that the model does not know.
    pub fn read(
        path: &Path,
        images: &Path,
        labels: &Labels,
        classes: usize,
        only: &[String],
    ) -> anyhow::Result<Self> {
        if let Some(unknown) = only.iter().find(|o| !labels.iter().any(|l| l == *o)) {
            let near = nearest(unknown, labels.iter());
            let near = near.map(|n| format!("; did you mean `{n}`?"));
            anyhow::bail!(
                "the model has no label `{unknown}`{}",
                near.unwrap_or_default()
            );
        }
        let wanted = |class: usize| {
            only.is_empty()
                || labels
                    .iter()
                    .nth(class)
                    .is_some_and(|l| only.iter().any(|o| o == l))
        };
        let read = match path.is_dir() {
            true => Self::yolo(path, images, &numbered(labels, classes), &wanted),
            false => Self::coco(path, images, labels, only, &wanted),
        };
        let read = read.with_context(|| format!("{}", path.display()))?;
        anyhow::ensure!(
            !read.images.is_empty(),
            "{}: it has no images",
            path.display()
        );
        Ok(read)
    }

    fn coco(
        path: &Path,
        images: &Path,
        labels: &Labels,
        only: &[String],
        wanted: &dyn Fn(usize) -> bool,
    ) -> anyhow::Result<Self> {
        let bytes = std::fs::read(path).context("cannot be read")?;
        let file: CocoFile =
            serde_json::from_slice(&bytes).context("is no annotation file of COCO's form")?;
        anyhow::ensure!(
            !labels.is_empty(),
            "categories are found by their names, and the model has none: give --labels"
        );
        let mut boxes: HashMap<i64, usize> = HashMap::new();
        for a in &file.annotations {
            *boxes.entry(a.category_id).or_insert(0) += 1;
        }
        let by_name: HashMap<String, usize> = labels.iter().map(plain).zip(0..).collect();
        let mut classes: HashMap<i64, Option<usize>> = HashMap::new();
        for c in &file.categories {
            let class = by_name.get(&plain(&c.name)).copied();
            let drawn = boxes.get(&c.id).copied().unwrap_or(0);
            if class.is_none() && drawn > 0 && only.is_empty() {
                let near = nearest(&c.name, labels.iter());
                let near = near.map(|n| format!(" (did you mean `{n}`?)"));
                anyhow::bail!(
                    "the category `{}`, of {drawn} boxes, is none of the model's labels{}; to leave others out, name those that count by --only",
                    c.name,
                    near.unwrap_or_default()
                );
            }
            let class = class.filter(|c| wanted(*c));
            if classes.insert(c.id, class).is_some() {
                anyhow::bail!("two categories have the id {}", c.id);
            }
        }
        let mut annotated: BTreeMap<i64, Annotated> = BTreeMap::new();
        let mut missing = Vec::new();
        for image in file.images {
            let path = find(images, &image.file_name);
            missing.extend(path.is_none().then(|| image.file_name.clone()));
            let one = Annotated {
                id: image.id,
                path: path.unwrap_or_default(),
                drawn: Vec::new(),
            };
            if annotated.insert(image.id, one).is_some() {
                anyhow::bail!("two images have the id {}", image.id);
            }
        }
        if let Some(first) = missing.first() {
            anyhow::bail!(
                "{} of its {} images are not in {}; the first is {first}",
                missing.len(),
                annotated.len(),
                images.display()
            );
        }
        for (i, a) in file.annotations.into_iter().enumerate() {
            let image = annotated.get_mut(&a.image_id).with_context(|| {
                format!("annotation {i}: it has no image with the id {}", a.image_id)
            })?;
            let class = classes.get(&a.category_id).with_context(|| {
                format!(
                    "annotation {i}: it has no category with the id {}",
                    a.category_id
                )
            })?;
            let [.., w, h] = a.bbox;
            anyhow::ensure!(
                a.bbox.iter().all(|v| v.is_finite()) && w >= 0.0 && h >= 0.0,
                "annotation {i}: {:?} is no box",
                a.bbox
            );
            image.drawn.extend(class.map(|class| Drawn {
                class,
                bbox: a.bbox,
                area: a.area.unwrap_or(w * h),
                crowd: a.iscrowd != 0,
            }));
        }
        let categories = classes
            .into_iter()
            .filter_map(|(id, class)| Some((class?, id)));
        Ok(Self {
            images: annotated.into_values().collect(),
            categories: categories.collect(),
        })
    }

    /// `NAME.txt` for each image, with a line `class centre-x centre-y width height` in 0 to 1 for each thing, or `class x y x y …` with its outline.
    /// An image without a file has nothing on it. `numbered`: the model's class of each class number.
    fn yolo(
        directory: &Path,
        images: &Path,
        numbered: &[usize],
        wanted: &dyn Fn(usize) -> bool,
    ) -> anyhow::Result<Self> {
        let mut annotated = Vec::new();
        let mut texts = 0;
        for (id, path) in (1..).zip(files::images(images)?) {
            let text = directory
                .join(path.file_stem().unwrap_or_default())
                .with_extension("txt");
            let mut drawn = Vec::new();
            if text.is_file() {
                texts += 1;
                let lines = std::fs::read_to_string(&text)
                    .with_context(|| format!("cannot read {}", text.display()))?;
                let size = std::fs::read(&path).map_err(anyhow::Error::from);
                let size = size.and_then(|b| Ok(image_size(&b)?));
                let size = size.with_context(|| format!("{}", path.display()))?;
                for (n, line) in (1..)
                    .zip(lines.lines())
                    .filter(|(_, l)| !l.trim().is_empty())
                {
                    let one = yolo_line(line, size, numbered);
                    let one = one.with_context(|| format!("{}:{n}", text.display()))?;
                    drawn.extend(Some(one).filter(|d| wanted(d.class)));
                }
            }
            annotated.push(Annotated { id, path, drawn });
        }
        anyhow::ensure!(
            texts > 0 || annotated.is_empty(),
            "no text file has the name of an image in {}",
            images.display()
        );
        let of = numbered.iter().copied().zip(0..);
        let of = of.filter(|(class, _)| wanted(*class));
        Ok(Self {
            images: annotated,
            categories: of.collect(),
        })
    }
}

/// The model's class of each number in YOLO's files, which count those that stand for something.
fn numbered(labels: &Labels, classes: usize) -> Vec<usize> {
    let names = |class: &usize| labels.iter().nth(*class).is_none_or(stands_for_something);
    (0..classes).filter(names).collect()
}

fn yolo_line(line: &str, (width, height): (u32, u32), numbered: &[usize]) -> anyhow::Result<Drawn> {
    let mut words = line.split_whitespace();
    let number: usize = words
        .next()
        .and_then(|w| w.parse().ok())
        .context("it does not begin with a class number")?;
    let class = *numbered
        .get(number)
        .with_context(|| format!("class {number} is none of the model's {}", numbered.len()))?;
    let numbers: Result<Vec<f64>, _> = words.map(str::parse).collect();
    let numbers = numbers.context("a word is no number")?;
    anyhow::ensure!(
        numbers.iter().all(|n| n.is_finite()),
        "a number is not finite"
    );
    let (x, y, w, h) = match numbers.as_slice() {
        [cx, cy, w, h] => (cx - w / 2.0, cy - h / 2.0, *w, *h),
        corners if corners.len() >= 6 && corners.len() % 2 == 0 => {
            let range = |first: usize| {
                let own = corners.iter().skip(first).step_by(2);
                own.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| {
                    (l.min(*v), h.max(*v))
                })
            };
            let ((x0, x1), (y0, y1)) = (range(0), range(1));
            (x0, y0, x1 - x0, y1 - y0)
        }
        _ => anyhow::bail!(
            "neither a box (class x y width height) nor an outline (class x y x y x y …)"
        ),
    };
    let (width, height) = (f64::from(width), f64::from(height));
    let bbox = [x * width, y * height, w * width, h * height];
    Ok(Drawn {
        class,
        bbox,
        area: bbox[2] * bbox[3],
        crowd: false,
    })
}

/// A name as it is compared: `Dining_Table` is `dining table`.
fn plain(name: &str) -> String {
    name.trim().to_lowercase().replace(['_', '-'], " ")
}

/// The file, by its path below the directory, or by its last part alone; never one above it.
fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    let relative = Path::new(name);
    let last = relative.file_name()?;
    let inside = relative
        .components()
        .all(|c| matches!(c, std::path::Component::Normal(_)));
    let whole = inside.then(|| directory.join(relative));
    let places = whole.into_iter().chain([directory.join(last)]);
    places.into_iter().find(|p| p.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels() -> Labels {
        Labels::parse("person\nDining_Table\ncat\n").unwrap()
    }

    /// Writes two images and the text, and reads it.
    fn coco(text: &str, only: &[&str]) -> Result<Annotations, String> {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.png", "b.png"] {
            image::RgbImage::new(40, 20)
                .save(dir.path().join(name))
                .unwrap();
        }
        let file = dir.path().join("annotations.json");
        std::fs::write(&file, text).unwrap();
        let only: Vec<String> = only.iter().map(|o| o.to_string()).collect();
        Annotations::read(&file, dir.path(), &labels(), 3, &only).map_err(|e| format!("{e:#}"))
    }

    const FILE: &str = r#"{"images": [{"id": 9, "file_name": "b.png"}, {"id": 4, "file_name": "train/a.png"}],
        "annotations": [{"image_id": 4, "category_id": 67, "bbox": [1, 2, 3, 4], "iscrowd": 1},
                        {"image_id": 4, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 7.5}],
        "categories": [{"id": 67, "name": "dining table"}, {"id": 1, "name": "person"}, {"id": 3, "name": "zebra"}]}"#;

    #[test]
    fn categories_are_the_models_classes_by_name() {
        let read = coco(FILE, &[]).unwrap();
        assert_eq!(read.images.iter().map(|i| i.id).collect::<Vec<_>>(), [4, 9]);
        let drawn = &read.images[0].drawn;
        assert_eq!(
            (drawn[0].class, drawn[0].crowd, drawn[0].area),
            (1, true, 12.0)
        );
        assert_eq!(
            (drawn[1].class, drawn[1].crowd, drawn[1].area),
            (0, false, 7.5)
        );
        assert_eq!(read.categories, BTreeMap::from([(0, 1), (1, 67)]));
        let read = coco(FILE, &["person"]).unwrap();
        assert_eq!(read.images[0].drawn.len(), 1);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        for (from, to, only, says) in [
            (
                "dining table",
                "dinig table",
                &[][..],
                "the category `dinig table`, of 1 boxes, is none of the model's labels (did you mean `Dining_Table`?)",
            ),
            ("b.png", "c.png", &[], "1 of its 2 images are not in"),
            (
                "b.png",
                "../../etc/passwd",
                &[],
                "the first is ../../etc/passwd",
            ),
            (
                "\"image_id\": 4, \"category_id\": 67",
                "\"image_id\": 5, \"category_id\": 67",
                &[],
                "annotation 0: it has no image with the id 5",
            ),
            (
                "\"category_id\": 1,",
                "\"category_id\": 2,",
                &[],
                "annotation 1: it has no category with the id 2",
            ),
            (
                "\"id\": 67",
                "\"id\": 1",
                &[],
                "two categories have the id 1",
            ),
            (
                "[1, 2, 3, 4], \"area\"",
                "[1, 2, -3, 4], \"area\"",
                &[],
                "is no box",
            ),
            (
                "\"images\"",
                "\"pictures\"",
                &[],
                "is no annotation file of COCO's form",
            ),
            (
                "zebra",
                "zebra",
                &["persn"],
                "the model has no label `persn`; did you mean `person`?",
            ),
        ] {
            assert!(FILE.contains(from));
            let problem = coco(&FILE.replace(from, to), only).map(|_| ()).unwrap_err();
            assert!(problem.contains(says), "no `{says}` in {problem}");
        }
    }

    #[test]
    fn yolos_lines_are_boxes_or_outlines() {
        let line = |l: &str| yolo_line(l, (100, 50), &[0, 1, 2]).map(|d| (d.class, d.bbox));
        assert_eq!(
            line("2 0.5 0.5 0.2 0.4").unwrap(),
            (2, [40.0, 15.0, 20.0, 20.0])
        );
        assert_eq!(
            line("0 0.1 0.2 0.5 0.2 0.3 0.6").unwrap(),
            (0, [10.0, 10.0, 40.0, 30.0 * 2.0 / 3.0])
        );
        for (wrong, says) in [
            ("3 0.5 0.5 0.2 0.4", "class 3 is none of the model's 3"),
            ("cat 0.5 0.5 0.2 0.4", "does not begin with a class number"),
            ("1 0.5 0.5 0.2", "neither a box"),
            ("1 0.5 0.5 0.2 x", "no number"),
            ("1 0.5 0.5 0.2 nan", "not finite"),
        ] {
            let problem = format!("{:#}", line(wrong).unwrap_err());
            assert!(problem.contains(says), "no `{says}` in {problem}");
        }
    }
}
