// SPDX-License-Identifier: Apache-2.0
//! The measuring host's init: makes a root that can be left, lets the contenders take turns, takes the counts, and
//! prints each value in a line of its own.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::fs::CWD;
use rustix::mount::{MountFlags, mount, mount_move};
use rustix::process::{chdir, chroot};
use rustix::system::{RebootCommand, reboot};
use rustix::time::{ClockId, clock_gettime};
use serde_json::json;

use super::pack::TELLING_CACHE;
use super::{MARK, STEP, STEPS, TICK, endings, live, trace};

/// Instructions, when a nanosecond is one.
pub(super) fn millions(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e6
}

pub(super) fn say(name: &str, value: f64) {
    // Nobody is left to tell if the console is gone.
    drop(writeln!(io::stdout(), "{MARK}{}", json!([name, value])));
}

/// Measures, and ends the machine.
pub fn inside() {
    match measure() {
        Ok(()) => drop(writeln!(io::stdout(), "{MARK}true")),
        Err(error) => drop(writeln!(io::stdout(), "{error:?}")),
    }
    // The machine has no other end: if this fails, PID 1 ends and the kernel panics, which resets it too.
    let _failed = reboot(RebootCommand::Restart);
}

fn measure() -> Result<()> {
    root().context("cannot make a root")?;
    let rounds: u32 = fs::read_to_string("/rounds")?.trim().parse()?;
    // The first makes the template.
    Run::of(&mut sandbox(Begin::Clone, &["echo", "x"])).context("cannot make a template")?;
    // Images that have just changed are not known again, and the first run reads all of them.
    std::thread::sleep(Duration::from_secs(4));
    for round in 0..=rounds {
        for (name, mut command) in contenders(round)? {
            let run = Run::of(&mut command).with_context(|| format!("cannot run {name}"))?;
            // The first of each does not count: caches.
            if round > 0 {
                say(&format!("{name}/first"), millions(run.first));
                say(&format!("{name}/end"), millions(run.end));
                if let Some(told) = run.told() {
                    say(&format!("{name}/init"), told);
                }
            }
        }
    }
    // Which thread is first still differs a little from run to run.
    for _ in 0..3 {
        for begin in [Begin::Boot, Begin::Clone] {
            trace::counts(begin).context("cannot count system calls")?;
            live::counts(begin).context("cannot look at a run")?;
        }
    }
    endings::measure().context("cannot measure endings")?;
    Ok(())
}

/// A root that is a mount of its own: from the first one no process can change to another.
fn root() -> Result<()> {
    mount("root", "/run", "tmpfs", MountFlags::empty(), None)?;
    for name in ["usr", "lib", "lib64", "etc", "root", "bundle", TELLING_CACHE, "rounds"] {
        copy(&Path::new("/").join(name), &Path::new("/run").join(name))?;
    }
    for name in ["dev", "proc", "sys", "tmp", "var", "bundle/rootfs"] {
        fs::create_dir_all(Path::new("/run").join(name))?;
    }
    symlink("usr/bin", "/run/bin")?;
    chdir("/run")?;
    mount_move("/run", "/")?;
    chroot(".")?;
    chdir("/")?;
    fs::create_dir("/run")?;
    for (kind, place) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/tmp"),
        ("debugfs", "/sys/kernel/debug"),
    ] {
        mount(kind, place, kind, MountFlags::empty(), None).with_context(|| format!("cannot mount {place}"))?;
    }
    // Programs lie where they lay, so that runs do not differ by it.
    fs::write("/proc/sys/kernel/randomize_va_space", "0")?;
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2", MountFlags::empty(), None)?;
    for name in ["usr", "lib", "lib64"] {
        fs::create_dir_all(format!("/bundle/rootfs/{name}"))?;
        mount(format!("/{name}"), format!("/bundle/rootfs/{name}"), "", MountFlags::BIND, None)?;
    }
    for name in ["proc", "dev"] {
        fs::create_dir_all(format!("/bundle/rootfs/{name}"))?;
    }
    Ok(())
}

/// Moves a tree: what has been copied is removed, for memory must hold only one.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let Ok(metadata) = fs::symlink_metadata(from) else { return Ok(()) };
    if metadata.is_dir() {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            copy(&entry.path(), &to.join(entry.file_name()))?;
        }
    } else {
        fs::copy(from, to)?;
        rustix::fs::unlinkat(CWD, from, rustix::fs::AtFlags::empty())?;
    }
    Ok(())
}

/// Waits until it is so long after a tick as for every other run of this host: one whose guests are spared ticks of its own at the
/// wrong moment (see [`super::host`]) spares all of them, and runs repeat the better for it.
pub(super) fn in_step() {
    let steps = std::env::var(STEPS).ok().and_then(|steps| steps.parse().ok());
    let wanted = TICK + STEP * steps.unwrap_or_default();
    let now = clock_gettime(ClockId::Monotonic).tv_nsec as u128 % TICK.as_nanos();
    // Seconds are whole ticks.
    std::thread::sleep(Duration::from_nanos(((wanted.as_nanos() - now) % TICK.as_nanos()) as u64));
}

pub(super) fn command(words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env_clear().env("PATH", "/usr/bin").env("HOME", "/root").current_dir("/tmp");
    command
}

/// What a run's machine begins with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Begin {
    /// Its kernel: a cold run.
    Boot,
    /// A template, which the first such run has made.
    Clone,
}

impl Begin {
    /// What stands before the names of what is counted of such a run.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Boot => "",
            Self::Clone => "clone: ",
        }
    }
}

/// `sandbox` with this command after `run`.
pub(super) fn sandbox(begin: Begin, words: &[&str]) -> Command {
    let boot: &[&str] = match begin {
        Begin::Boot => &["--boot"],
        Begin::Clone => &[],
    };
    command(&[&["sandbox", "run", "--engine", "kvm"], boot, &["--"], words].concat())
}

/// What takes turns: those that are installed.
fn contenders(round: u32) -> Result<Vec<(&'static str, Command)>> {
    let word = ["echo", "x"];
    let mut list = vec![
        ("fork+exec", command(&word)),
        ("sandbox", sandbox(Begin::Boot, &word)),
        ("clone: sandbox", sandbox(Begin::Clone, &word)),
    ];
    let mut telling = sandbox(Begin::Boot, &word);
    telling.env("XDG_CACHE_HOME", format!("/{TELLING_CACHE}"));
    list.push(("sandbox, telling init", telling));
    let installed = |name: &str| Path::new("/usr/bin").join(name).exists();
    if installed("bwrap") {
        let words = "bwrap --unshare-all --ro-bind / / --proc /proc --dev /dev echo x";
        list.push(("bwrap", command(&words.split(' ').collect::<Vec<_>>())));
    }
    if installed("crun") {
        let name = format!("round{round}");
        list.push(("crun", command(&["crun", "--cgroup-manager=disabled", "run", "-b", "/bundle", &name])));
    }
    if installed("qemu-system-x86_64") {
        list.push(("QEMU microvm", qemu()?));
    }
    if installed("firecracker") {
        list.push(("Firecracker", firecracker()?));
    }
    Ok(list)
}

/// Kernel and telling init, where the second store has them.
fn images() -> Result<(String, String)> {
    let (mut kernel, mut initramfs) = (None, None);
    for entry in fs::read_dir(format!("/{TELLING_CACHE}/sandbox/images"))? {
        let directory = entry?.path();
        for (name, place) in [("vmlinux", &mut kernel), ("initramfs.cpio", &mut initramfs)] {
            let path = directory.join(name);
            if path.exists() {
                *place = Some(path.to_string_lossy().into_owned());
            }
        }
    }
    Ok((kernel.context("no kernel")?, initramfs.context("no initramfs")?))
}

fn qemu() -> Result<Command> {
    let (kernel, initramfs) = images()?;
    let mut qemu = command(&["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot"]);
    qemu.args(["-display", "none", "-monitor", "none", "-serial", "stdio", "-accel", "kvm", "-cpu", "host"]);
    qemu.args(["-M", "microvm,acpi=off,pcie=off,usb=off,pit=off,pic=off,rtc=off,isa-serial=on", "-m", "1G"]);
    qemu.args(["-kernel", &kernel, "-initrd", &initramfs, "-append", images::COMMAND_LINE]);
    Ok(qemu)
}

fn firecracker() -> Result<Command> {
    let (kernel, initramfs) = images()?;
    let config = json!({
        "boot-source": { "kernel_image_path": kernel, "initrd_path": initramfs, "boot_args": images::COMMAND_LINE },
        "drives": [],
        "machine-config": { "vcpu_count": 1, "mem_size_mib": 1024 },
    });
    fs::write("/tmp/firecracker.json", config.to_string())?;
    Ok(command(&["firecracker", "--no-api", "--config-file", "/tmp/firecracker.json"]))
}

/// One run of a contender.
struct Run {
    /// From its start to its first output.
    first: Duration,
    /// From its start to its end.
    end: Duration,
    output: String,
}

impl Run {
    fn of(command: &mut Command) -> Result<Self> {
        let (mut reader, writer) = io::pipe()?;
        command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
        in_step();
        let begun = Instant::now();
        let mut child = command.spawn()?;
        // The command holds the pipe's other end open as long as it lives itself.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let (mut bytes, mut buffer, mut first) = (Vec::new(), [0; 4096], None);
        loop {
            let count = reader.read(&mut buffer)?;
            first.get_or_insert_with(|| begun.elapsed());
            if count == 0 {
                break;
            }
            bytes.extend_from_slice(&buffer[..count]);
        }
        let status = child.wait()?;
        let end = begun.elapsed();
        let run = Self { first: first.unwrap_or_default(), end, output: String::from_utf8_lossy(&bytes).into_owned() };
        // A machine that the telling init resets ends as it may; whatever else fails has measured nothing.
        ensure!(status.success() || run.told().is_some(), "{status}: {}", run.output);
        ensure!(!run.output.is_empty(), "no output");
        Ok(run)
    }

    /// What the telling init said, in millions.
    fn told(&self) -> Option<f64> {
        let mut words = self.output.split_whitespace().filter(|word| word.len() == 16);
        words.find_map(|word| u64::from_str_radix(word, 16).ok()).map(|count| count as f64 / 1e6)
    }
}
