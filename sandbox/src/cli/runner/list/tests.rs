// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::caller::Caller;
use crate::cli::{Cli, Verb};
use clap::Parser;

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

#[test]
fn only_nextests_question_is_one() {
    for asked in [&["x", "--list", "--format", "terse"][..], &["x", "--list", "--format", "terse", "--ignored"]] {
        assert!(is_asked_for(&words(asked)), "{asked:?}");
    }
    for other in [&["x", "--list"][..], &["x"], &["--list", "--format", "terse"], &["x", "--list", "--format", "json"]]
    {
        assert!(!is_asked_for(&words(other)), "{other:?}");
    }
    assert!(!is_asked_for(&words(&["x", "--list", "--format", "terse", "name"])));
}

#[test]
fn a_list_is_known_by_all_it_depends_on() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    fs::create_dir_all(at("p/target")).unwrap();
    fs::write(at("p/target/.rustc_info.json"), "").unwrap();
    fs::write(at("x"), "program").unwrap();
    let parsed = Cli::try_parse_from(["sandbox", "run", "true"]).unwrap();
    let Verb::Run(arguments) = parsed.verb else { panic!("not run") };
    let mut spec = arguments.spec(&Caller::look_on().unwrap()).unwrap();
    (spec.command, spec.workdir) = (vec![at("x").into()], at("p"));
    spec.environment = vec![];

    let first = name(&spec).unwrap();
    fs::write(at("p/target/debug"), "built").unwrap();
    spec.environment.push(("NEXTEST_RUN_ID".into(), "1".into()));
    assert_eq!(name(&spec).unwrap(), first);

    let mut names = vec![first];
    let mut differs = |spec: &Spec, what: &str| {
        let name = name(spec).unwrap();
        assert!(!names.contains(&name), "{what}");
        names.push(name);
    };
    fs::write(at("p/case.txt"), "1").unwrap();
    differs(&spec, "a file of the package");
    fs::write(at("x"), "program 2").unwrap();
    differs(&spec, "the program");
    spec.command.push("--ignored".into());
    differs(&spec, "an argument");
    spec.environment.push(("LD_LIBRARY_PATH".into(), place.path().into()));
    differs(&spec, "a variable");
    fs::write(at("libx.so"), "").unwrap();
    differs(&spec, "a library");
    std::os::unix::fs::symlink(at("elsewhere"), at("p/link")).unwrap();
    differs(&spec, "a link");
    fs::write(at("elsewhere"), "1").unwrap();
    differs(&spec, "what it leads to");
    fs::write(at("elsewhere"), "two").unwrap();
    differs(&spec, "what that says");
    fs::remove_file(at("elsewhere")).unwrap();
    fs::create_dir(at("elsewhere")).unwrap();
    assert!(name(&spec).is_err(), "a directory elsewhere is not looked through");
    fs::write(at("elsewhere/.rustc_info.json"), "").unwrap();
    assert!(name(&spec).is_ok(), "what was built may lie anywhere");
}

#[test]
fn a_kept_list_is_read_again() {
    let place = tempfile::tempdir().unwrap();
    let shelf = Shelf(place.path().join("lists/name"));
    assert_eq!(shelf.read(), None);
    shelf.keep(b"a: test\n");
    assert_eq!(shelf.read().as_deref(), Some(&b"a: test\n"[..]));
    let whole = fs::read(&shelf.0).unwrap();
    for part in [&whole[..0], &whole[..10], &whole[..SEAL], &whole[..whole.len() - 1]] {
        fs::write(&shelf.0, part).unwrap();
        assert_eq!(shelf.read(), None, "{} bytes are left of it", part.len());
    }
    shelf.keep(b"a: test\n");
    let old = SystemTime::now() - KEPT - Duration::from_secs(60);
    File::open(&shelf.0).unwrap().set_modified(old).unwrap();
    assert_eq!(shelf.read(), None);
    Shelf(place.path().join("lists/other")).keep(b"");
    assert!(!shelf.0.exists());
}
