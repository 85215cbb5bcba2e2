// SPDX-License-Identifier: Apache-2.0
//! Tests that run in a machine of their own: what they find there, and ([`worst`]) the worst they can do to it.

use std::path::{Path, PathBuf};
use std::{env, fs, io, thread};

/// As cargo shows it on the host, with the same paths baked in.
#[harness::test(memory = "256M")]
fn a_test_finds_its_package_and_itself() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    assert_eq!(env::current_dir().expect("there is one"), package);
    assert!(package.join("Cargo.toml").is_file());
    assert!(env::current_exe().expect("there is one").is_file());
    assert_eq!(env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).as_deref().unwrap_or(package), package);
    // What it writes stays in the machine, which `verdicts` looks at.
    fs::write(package.join("e2e-was-inside"), "x").expect("it can write where it starts");
}

#[harness::test(memory = "256M", root, timeout = "10m")]
fn root_does_what_it_likes_to_its_machine() -> io::Result<()> {
    assert!(rustix::process::getuid().is_root());
    fs::remove_file("/etc/passwd")?;
    fs::write("/proc/sys/kernel/hostname", "mine")?;
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname")?, "mine\n");
    Ok(())
}

#[harness::test(memory = "256M", cpus = 2, env = ["GREETING=hello there"], files = ["e2e"])]
fn needs_are_met() {
    assert_eq!(thread::available_parallelism().map(usize::from).expect("it is known"), 2);
    assert_eq!(env::var("GREETING").as_deref(), Ok("hello there"));
    let total = fs::read_to_string("/proc/meminfo").expect("it is there");
    let total: u64 = total.split_whitespace().nth(1).and_then(|size| size.parse().ok()).expect("a size");
    assert!((100_000..262_144).contains(&total), "{total} kB");
    assert!(Path::new("e2e/inside.rs").is_file() && fs::write("e2e/x", "x").is_err());
}

/// Each is a failure, or loses its machine, or leaves something behind, or looks at what the others left; [`crate::verdicts`] runs them.
mod worst {
    use std::process::{Command, abort};
    use std::{fs, thread};

    #[harness::test(memory = "256M")]
    #[ignore = "verdicts:: runs it"]
    fn before() {}

    #[harness::test(memory = "256M")]
    #[ignore = "verdicts:: runs it"]
    fn panics() {
        println!("said before");
        panic!("this is the message\nof two lines");
    }

    #[harness::test(memory = "256M")]
    #[ignore = "verdicts:: runs it"]
    fn aborts() {
        abort()
    }

    #[harness::test(memory = "256M", timeout = "2s")]
    #[ignore = "verdicts:: runs it"]
    fn loops() {
        loop {
            std::hint::spin_loop();
        }
    }

    #[harness::test(memory = "256M")]
    #[ignore = "verdicts:: runs it"]
    fn eats_memory() {
        let mut all: Vec<Vec<u8>> = Vec::new();
        loop {
            all.push(vec![1; 1 << 20]);
        }
    }

    /// Not all of what is shown: the largest places take long, and tell nothing more.
    #[harness::test(memory = "256M", root)]
    #[ignore = "verdicts:: runs it"]
    fn deletes_the_root() {
        for place in ["/bin", "/sbin", "/lib", "/lib64"] {
            fs::remove_file(place).expect("these are links");
        }
        for place in ["/etc", "/var", "/usr/bin", "/usr/sbin"] {
            let _some_may_stay = fs::remove_dir_all(place);
        }
        assert!(!fs::exists("/usr/bin/env").expect("it can be looked for"));
    }

    #[harness::test(memory = "256M", root)]
    #[ignore = "verdicts:: runs it"]
    fn reboots() {
        fs::write("/proc/sysrq-trigger", "b").expect("root may");
        thread::park();
    }

    #[harness::test(memory = "256M")]
    #[ignore = "verdicts:: runs it"]
    fn leaves_a_daemon() {
        let left = Command::new("sh").args(["-c", "setsid sleep 600 &"]).status().expect("there is a shell");
        assert!(left.success());
    }

    #[harness::test(memory = "256M")]
    #[ignore = "verdicts:: runs it"]
    fn then_after() {
        assert!(fs::exists("/usr/bin/env").expect("it can be looked for"));
        let processes = fs::read_dir("/proc").expect("it is there").flatten();
        let mut names = processes.filter_map(|process| fs::read_to_string(process.path().join("comm")).ok());
        assert!(names.all(|name| name != "sleep\n"), "this is another test's");
    }
}
