// SPDX-License-Identifier: Apache-2.0
//! Guests that are hosts of sandboxes themselves (`--nested`).

use std::time::Duration;

use harness::{Case, Need};
use tests::{Bench, program};

macro_rules! case {
    ($group:literal, $name:ident $(, $need:expr)*) => {
        Case { name: concat!($group, "::", stringify!($name)), needs: &[$($need),*], body: $name }
    };
}

pub(crate) const CASES: &[Case] = &[
    case!("nested", guest_is_equipped_for_sandboxes, Need::Root),
    case!("nested", explanation_shows_program_and_images),
    case!("nested", plain_guest_has_no_virtualization),
    case!("nested", missing_kernel_names_its_remedy),
    case!("nested", our_monitor_runs_a_command_on_real_kvm),
    case!("soak", sandbox_in_a_sandbox_passes_the_status_on),
];

type Result = std::result::Result<(), String>;

/// As root and as somebody else: the machine is the command's own, whoever it runs as.
fn guest_is_equipped_for_sandboxes() -> Result {
    let script = "grep -qw svm /proc/cpuinfo && echo svm; test -r /dev/kvm -a -w /dev/kvm && echo kvm; \
                  command -v \"$1\"; echo \"${PATH##*:}\"; (: >> \"$2\") 2>&1 | grep -o 'Read-only.*'";
    let (program, name) = (program(), program().file_name().expect("it has a name").to_owned());
    let program = program.canonicalize().map_err(|error| error.to_string())?;
    let place = program.parent().expect("it is in a directory").display();
    for user in ["0", "12345"] {
        let words = ["--nested", "-u", user, "--", "sh", "-c", script, "sh"].map(Into::into);
        let ran = Bench::new().run(words.into_iter().chain([name.clone(), program.clone().into()])).wait();
        ran.expect(ran.code(), "exited");
        assert_eq!(ran.text(), format!("svm\nkvm\n{}\n{place}", program.display()), "{}", ran.stderr);
    }
    let ran = Bench::new().run(["--nested", "--", "sandbox", "doctor"]).wait();
    ran.expect(0, "exited");
    assert!(!ran.text().contains("BAD"), "{}", ran.text());
    Ok(())
}

fn explanation_shows_program_and_images() -> Result {
    let ran = Bench::new().run(["--nested", "--explain", "--", "true"]).wait();
    let program = program().canonicalize().map_err(|error| error.to_string())?;
    for part in [&*program.to_string_lossy(), "sandbox/images ", "XDG_CACHE_HOME"] {
        assert!(ran.text().contains(part), "{part} is missing in {}", ran.text());
    }
    let ran = Bench::new().run(["--explain", "--", "true"]).wait();
    assert!(!ran.text().contains("sandbox/images"), "{}", ran.text());
    Ok(())
}

fn plain_guest_has_no_virtualization() -> Result {
    let ran = Bench::new().shell("grep -cw svm /proc/cpuinfo; ls /dev/kvm 2>&1 | grep -o 'No such.*'").wait();
    assert_eq!(ran.text(), "0\nNo such file or directory", "{}", ran.stderr);
    Ok(())
}

fn missing_kernel_names_its_remedy() -> Result {
    let bench = Bench::new();
    let ran = bench.run(["--nested", "--", "true"]).env("XDG_CACHE_HOME", bench.path()).wait();
    ran.expect(125, "setup_error");
    assert!(ran.stderr.contains("`images build kernel --flavour nested`"), "{}", ran.stderr);
    Ok(())
}

/// The whole chain: QEMU emulates a processor with virtualization, Linux drives it, and our monitor runs a machine on that.
fn our_monitor_runs_a_command_on_real_kvm() -> Result {
    let words = ["--engine", "qemu", "--nested", "-m", "2G", "--", "sandbox", "run", "--engine", "kvm", "--"];
    let words = words.into_iter().chain(["sh", "-c", "exit 7"]);
    Bench::new().run(words).wait().expect(7, "exited");
    Ok(())
}

/// Emulation in emulation takes a minute, so the suite's own way of this is with the kvm engine inside.
fn sandbox_in_a_sandbox_passes_the_status_on() -> Result {
    let words = ["--engine", "qemu", "--nested", "-m", "2G", "--", "sandbox", "run", "--engine", "qemu", "--"];
    let words = words.into_iter().chain(["sh", "-c", "exit 7"]);
    Bench::new().run(words).within(Duration::from_secs(900)).wait().expect(7, "exited");
    Ok(())
}
