// SPDX-License-Identifier: Apache-2.0
//! What is found of KVM, here and in a guest that has it, and what becomes of a run that demands it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use harness::{Case, Need};
use tests::{Bench, program};

macro_rules! case {
    ($name:ident $(, $need:expr)*) => {
        Case { name: concat!("probe::", stringify!($name)), needs: &[$($need),*], body: $name }
    };
}

pub(crate) const CASES: &[Case] = &[
    case!(real_kvm_is_usable, Need::Program("qemu-system-x86_64")),
    case!(each_obstacle_has_its_finding, Need::Program("setpriv")),
    case!(demand_that_cannot_be_met_is_refused_with_the_finding),
    case!(remembered_finding_makes_no_verdict),
];

type Result = std::result::Result<(), String>;

/// What `sandbox doctor` says of KVM here.
fn finding() -> String {
    let output = Command::new(program()).arg("doctor").stdin(Stdio::null()).output().expect("doctor can be run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.contains(" kvm ")).expect("doctor looks at kvm");
    line.split_once("/dev/kvm").expect("it names the device").1.trim().to_owned()
}

/// The kvm_amd of a nested guest is the real one.
fn real_kvm_is_usable() -> Result {
    let script = "sandbox doctor; cat \"${XDG_CACHE_HOME:-$HOME/.cache}/sandbox/kvm.json\"; sandbox doctor";
    let ran = Bench::new().run(["--nested", "--engine", "qemu", "--", "sh", "-c", script]).wait();
    ran.expect(0, "exited");
    assert_eq!(ran.text().matches("/dev/kvm works").count(), 2, "{}", ran.text());
    assert!(ran.text().contains(r#""finding":"usable""#), "{}", ran.text());
    Ok(())
}

fn each_obstacle_has_its_finding() -> Result {
    let script = "look() { \"$@\" sandbox doctor | grep -m 1 -A 1 ' kvm '; }
        chmod 600 /dev/kvm; look setpriv --reuid 12345 --regid 12345 --clear-groups
        rm /dev/kvm; look env
        mknod /dev/kvm c 10 99; look env
        rm /dev/kvm; mknod /dev/kvm c 1 3; look env";
    let ran = Bench::new().run(["--nested", "--engine", "qemu", "-u", "0", "--", "sh", "-c", script]).wait();
    ran.expect(0, "exited");
    let lines: Vec<String> = ran.text().lines().map(str::to_owned).collect();
    let expected = [
        ("may not open it", "usermod -aG kvm"),
        ("does not exist", "modprobe"),
        ("cannot be used: No such device", "dmesg"),
        ("cannot be used: it is not KVM", "dmesg"),
    ];
    assert_eq!(lines.len(), 2 * expected.len(), "{}", ran.text());
    for (pair, (found, remedy)) in lines.chunks(2).zip(expected) {
        assert!(pair[0].contains(found) && pair[1].contains(remedy), "{pair:?} is not {found:?}, {remedy:?}");
    }
    Ok(())
}

fn demand_that_cannot_be_met_is_refused_with_the_finding() -> Result {
    let found = finding();
    if found == "works" {
        return Ok(());
    }
    for demand in [["--engine", "kvm"].as_slice(), &["--require-kvm"]] {
        let words = demand.iter().chain(&["--", "true"]);
        let ran = Bench::new().run(words).wait();
        ran.expect(125, "setup_error");
        assert!(ran.stderr.contains(&found), "{} does not say {found:?}", ran.stderr);
    }
    Ok(())
}

/// On a host whose KVM is none, a cache that says otherwise: the run must fail, whatever it tries.
fn remembered_finding_makes_no_verdict() -> Result {
    if finding() == "works" {
        return Ok(());
    }
    let bench = Bench::new();
    let cache = bench.path().join("cache/sandbox");
    fs::create_dir_all(&cache).map_err(|error| error.to_string())?;
    symlink(images(), cache.join("images")).map_err(|error| error.to_string())?;
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(|error| error.to_string())?;
    let entry = serde_json::json!({"boot": boot.trim(), "version": env!("CARGO_PKG_VERSION"), "finding": "usable"});
    fs::write(cache.join("kvm.json"), entry.to_string()).map_err(|error| error.to_string())?;
    let run = || bench.run(["--engine", "kvm", "--", "true"]).env("XDG_CACHE_HOME", bench.path().join("cache")).wait();
    let ran = run();
    assert!(ran.code() == 125 && ran.report["started"] == false, "{} {}", ran.report, ran.stderr);
    // And it is not believed again.
    let ran = run();
    assert!(ran.code() == 125 && ran.stderr.contains(&finding()), "{}", ran.stderr);
    Ok(())
}

fn images() -> PathBuf {
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or(home);
    cache.expect("the images are somewhere").join("sandbox/images")
}
