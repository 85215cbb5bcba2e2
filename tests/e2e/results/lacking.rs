// SPDX-License-Identifier: Apache-2.0
//! What cannot be kept, for one reason or another, and what is kept all the same.

use std::fs;

use tests::Bench;

use super::{Result, listed};

pub(super) fn what_cannot_be_kept_is_a_failure() -> Result {
    let bench = Bench::new();
    let missing = bench.run(["--copy-out", "/no/such:x", "--", "true"]).wait();
    missing.expect(125, "setup_error");
    assert!(missing.stderr.contains("\"/no/such\": No such file"), "{}", missing.stderr);
    let nowhere = bench.run(["--copy-out", "/etc/hostname:no/such/place", "--", "true"]).wait();
    nowhere.expect(125, "setup_error");
    assert!(nowhere.stderr.contains("no/such"), "{}", nowhere.stderr);
    let outside = bench.run(["--commit", "..", "--", "true"]).wait();
    outside.expect(125, "usage_error");
    assert!(!bench.path().join("x").exists());
    Ok(())
}

/// Of what is asked for only what is missing is missing; the rest comes.
pub(super) fn what_is_missing_hinders_nothing_else() -> Result {
    let bench = Bench::new();
    let wanted = ["--copy-out", "/nope:.", "--copy-out", "/tmp/b:b", "--diff", "--sync-out", "*.o"];
    let run = |end: &str| {
        let script = format!("echo 1 >z.o; echo 2 >/tmp/b; {end}");
        let ran = bench.run(wanted.iter().copied().chain(["--commit", ".", "--", "sh", "-c", &script])).wait();
        for name in ["z.o", "b"] {
            assert!(fs::remove_file(bench.path().join(name)).is_ok(), "{name}: {}", ran.stderr);
        }
        assert!(ran.stderr.contains("\"/nope\": No such file"), "{}", ran.stderr);
        assert!(ran.stderr.contains("A /tmp/b\n"), "{}", ran.stderr);
        ran
    };
    run("exit 3").expect(3, "exited");
    run("exit 0").expect(125, "setup_error");
    Ok(())
}

/// A directory that is covered, as credentials in the current directory are.
pub(super) fn what_cannot_be_read_is_left_out() -> Result {
    let (bench, out) = (Bench::new(), Bench::new());
    fs::create_dir(bench.path().join("krb5cc_1000")).map_err(|error| error.to_string())?;
    let copy = format!(".:{}", out.path().join("e").display());
    let ran = bench.run(["--copy-out", &copy, "--", "sh", "-c", "mkdir a z; echo 1 >a/1; echo 2 >z/2"]).wait();
    ran.expect(0, "exited");
    let line = format!("sandbox: left out: {:?}: Permission denied", bench.path().join("krb5cc_1000"));
    assert!(ran.stderr.contains(&line), "{}", ran.stderr);
    for name in ["a/1", "z/2"] {
        assert!(out.path().join("e").join(name).exists(), "{name}: {}", ran.stderr);
    }
    Ok(())
}

/// Directories deeper than any stack, and than a path is long.
pub(super) fn what_is_too_deep_is_left_out() -> Result {
    let bench = Bench::new();
    let deep = "mkdir -p $(printf 'a/%.0s' $(seq 2000)); echo 1 >z.o; n=$(printf %0250d 0); mkdir far; cd far; \
        for i in $(seq 20); do mkdir $n; cd $n; done; exit 3";
    let ran = bench.run(["--diff", "--sync-out", "*.o", "--", "bash", "-c", deep]).wait();
    ran.expect(3, "exited");
    assert!(bench.path().join("z.o").exists(), "{}", ran.stderr);
    let told = listed(&ran, bench.path());
    assert!(told.len() > 1800 && told.contains("A z.o"), "{} are told of", told.len());
    let left: Vec<_> = ran.stderr.lines().filter(|line| line.starts_with("sandbox: left out: ")).collect();
    assert!(!left.is_empty() && left.iter().all(|line| line.contains("too long") && line.len() < 400), "{left:?}");
    Ok(())
}

/// Of the rest of the private layer the guest is not even asked: there may be much.
pub(super) fn what_is_not_committed_does_not_count() -> Result {
    let bench = Bench::new();
    let script = "truncate -s 40G /tmp/x y; mkdir build; echo 1 >build/a; echo 2 >build-b";
    bench.run(["--commit", "build", "--", "sh", "-c", script]).wait().expect(0, "exited");
    assert_eq!(fs::read(bench.path().join("build/a")).map_err(|error| error.to_string())?, b"1\n");
    assert!(!bench.path().join("build-b").exists());
    Ok(())
}
