//! The bundles in `models/`: each proves itself, and has a card.

use std::path::{Path, PathBuf};
use std::process::Command;

fn bundles() -> Vec<PathBuf> {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let entries = std::fs::read_dir(models).unwrap();
    let folders = entries.map(|e| e.unwrap().path());
    folders.filter(|p| p.join("model.toml").is_file()).collect()
}

#[test]
fn every_bundle_reproduces_its_golden_output() {
    let names: Vec<_> = bundles();
    assert_eq!(names.len(), 2, "{names:?}");
    for bundle in names {
        let output = Command::new(env!("CARGO_BIN_EXE_ocellus"))
            .args(["check", "--offline", "--model"])
            .arg(&bundle)
            .env_remove("OCELLUS_CONFIG")
            .output()
            .unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}: {said}", bundle.display());
        assert!(said.contains("golden output reproduced"), "{said}");
    }
}

#[test]
fn every_bundle_is_small_and_its_card_shows_what_is_there() {
    for bundle in bundles() {
        let files = std::fs::read_dir(&bundle).unwrap();
        let bytes: u64 = files.map(|f| f.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes < 1 << 20, "{}: {bytes} bytes", bundle.display());
        let card = std::fs::read_to_string(bundle.join("README.md")).unwrap();
        for link in card.split("](").skip(1) {
            let file = link.split(')').next().unwrap();
            assert!(
                bundle.join(file).is_file(),
                "{}: {file} is not there",
                bundle.display()
            );
        }
    }
}
