//! Small quantized graphs, each operator in each way of writing it, against onnxruntime: within 1, and equal in 99.9 % of
//! all places together. All of them run on integers.

mod common;

use common::{Difference, cases, python, run_case};
use ocellus_int8::{Isa, Options};

#[test]
fn every_operator_computes_what_onnxruntime_computes() {
    let dir = tempfile::tempdir().unwrap();
    let Some(()) = python("op_cases.py", &[dir.path()]) else {
        return;
    };
    for isa in Isa::available() {
        let mut all = Difference::default();
        let mut problems = Vec::new();
        for case in cases(dir.path()) {
            let name = case.file_stem().unwrap().to_string_lossy().into_owned();
            let (difference, report) = run_case(
                &case,
                &Options {
                    isa: Some(isa),
                    ..Options::default()
                },
            );
            if difference.largest > 1.0 {
                problems.push(format!("{name}: {difference:?}"));
            }
            if !report.left.is_empty() {
                problems.push(format!("{name} runs in float: {report}"));
            }
            all.elements += difference.elements;
            all.unequal += difference.unequal;
        }
        println!(
            "{isa}: {} of {} elements differ, by 1",
            all.unequal, all.elements
        );
        assert!(problems.is_empty(), "{isa}:\n{}", problems.join("\n"));
        assert!(
            all.elements > 50_000 && all.unequal * 1000 <= all.elements,
            "{isa}: {all:?}"
        );
    }
}

#[test]
fn threads_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(()) = python("op_cases.py", &[dir.path()]) else {
        return;
    };
    for case in cases(dir.path()) {
        let (one, _) = run_case(&case, &Options::default());
        let (three, report) = run_case(
            &case,
            &Options {
                threads: 3,
                ..Options::default()
            },
        );
        assert_eq!(report.threads, 3);
        assert_eq!(
            (one.unequal, one.largest),
            (three.unequal, three.largest),
            "{case:?}"
        );
    }
}
