// SPDX-License-Identifier: Apache-2.0
//! Two machines that share nothing, each with a clone, a target directory and a cache of its own, run a part of the tests each.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use images::Store;
use tests::program;

use super::project::Project;

type Result = std::result::Result<(), String>;

/// A cache with the images of ours and nothing else, not even a template.
fn cache(place: &Path) -> PathBuf {
    let ours = Store::of_user().expect("there is a cache").images();
    let images = place.join("cache/sandbox/images");
    fs::create_dir_all(&images).expect("a directory can be made");
    for entry in fs::read_dir(ours).expect("it can be listed").flatten() {
        let name = entry.file_name();
        if !name.to_string_lossy().starts_with("template-") {
            let copied = Command::new("cp").args(["-r", "--reflink=auto"]).arg(entry.path()).arg(&images).status();
            assert!(copied.expect("cp can be run").success());
        }
    }
    place.join("cache")
}

/// Runs a part of the tests, or all; the JUnit file, joined with the runs' reports.
fn run(project: &Project, part: Option<&str>) -> PathBuf {
    fs::create_dir_all(project.path().join(".config")).expect("a directory can be made");
    project.write(".config/nextest.toml", "[profile.ci.junit]\npath = \"junit.xml\"\n");
    let mut words = vec!["run", "--profile", "ci", "--no-fail-fast"];
    words.extend(part.iter().flat_map(|part| ["--partition", part]));
    let reports = project.path().join("target/reports");
    let mut call = project.nextest(&words, true).env("SANDBOX_REPORTS", &reports);
    call.command.env("XDG_CACHE_HOME", cache(project.path()));
    let ran = call.wait();
    assert!([0, 100].contains(&ran.code()), "{}", ran.stderr);
    let junit = project.path().join("junit.xml");
    let joined = Command::new(program())
        .arg("junit")
        .args([Path::new("--reports"), &reports, Path::new("-o"), &junit])
        .arg(project.path().join("target/nextest/ci/junit.xml"))
        .status();
    assert!(joined.expect("sandbox can be run").success());
    // One for each test that ran.
    let kept = fs::read_dir(reports).expect("reports are kept").count();
    assert_eq!(kept, verdicts(&junit).len());
    junit
}

/// What a file says of each test, by suite and name: the elements in it, without what differs from run to run.
fn verdicts(junit: &Path) -> BTreeMap<(String, String), String> {
    let text = fs::read_to_string(junit).expect("it can be read");
    let attribute = |tag: &str, name: &str| {
        let from = tag.split(&format!(" {name}=\"")).nth(1).unwrap_or_default();
        from.split('"').next().unwrap_or_default().to_owned()
    };
    let mut found = BTreeMap::new();
    for suite in text.split("<testsuite ").skip(1) {
        let suite_name = attribute(&format!(" {suite}"), "name");
        for case in suite.split("<testcase ").skip(1) {
            let name = attribute(&format!(" {case}"), "name");
            let elements = case.split('<').filter(|element| {
                ["failure", "error", "skipped", "flaky", "rerun"].iter().any(|kind| element.starts_with(kind))
            });
            let told = elements.map(|element| {
                let kind = element.split([' ', '>']).next().unwrap_or_default();
                format!("{kind} {} ", attribute(element, "type"))
            });
            let twice = found.insert((suite_name.clone(), name), told.collect::<String>());
            assert_eq!(twice, None, "a test is there twice: {text}");
        }
    }
    found
}

pub(super) fn make_the_whole() -> Result {
    let [whole, one, other] = [None, Some("count:1/2"), Some("count:2/2")].map(|part| {
        let project = Project::new();
        let junit = run(&project, part);
        (project, junit)
    });
    let merged = whole.0.path().join("merged.xml");
    // In whatever order.
    let joined = Command::new(program()).arg("junit").arg("-o").args([&merged, &other.1, &one.1]).status();
    assert!(joined.map_err(|error| error.to_string())?.success());
    let (all, parts) = (verdicts(&whole.1), [verdicts(&one.1), verdicts(&other.1)]);
    assert_eq!(verdicts(&merged), all);
    assert_eq!(all.len(), 9);
    assert!(parts.iter().all(|part| (4..=5).contains(&part.len())), "{parts:?}");
    assert!(parts[0].keys().all(|test| !parts[1].contains_key(test)), "a test ran twice: {parts:?}");
    Ok(())
}
