// SPDX-License-Identifier: Apache-2.0
//! What the host has to give: its memory, or that of the control groups we are in, and its processors.
//!
//! Of the memory an eighth stays with the host. A machine's memory is all that it may come to use, so that what is let in
//! never has to be taken back; but processors are shared, as those of processes are, [`OVERCOMMIT`] times over.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::thread;

use super::Need;
use super::ledger::Entry;

/// Virtual processors for each of the host's. A machine whose command waits, for a user or for a disk, needs none; with all
/// of them busy a test takes four times as long, which is within what limits of time allow.
const OVERCOMMIT: u32 = 4;

const CGROUPS: &str = "/sys/fs/cgroup";

/// What machines may have together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Bytes.
    pub(super) memory: u64,
    /// Of these free at the moment, whoever uses the rest.
    pub(super) available: u64,
    /// Virtual processors.
    pub(super) cpus: u32,
}

impl Room {
    /// Of this host, as it is now.
    pub(super) fn of_host() -> Self {
        let meminfo = read(Path::new("/proc/meminfo")).unwrap_or_default();
        let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
        // What cannot be told limits nothing.
        let memory = kibibytes(&meminfo, "MemTotal:").unwrap_or(u64::MAX);
        let (total, left) = cgroups(&groups, memory, read);
        let available = kibibytes(&meminfo, "MemAvailable:").unwrap_or(u64::MAX).min(left);
        // This one knows affinity and control groups already.
        let cpus = thread::available_parallelism().map_or(u32::MAX, |count| count.get().try_into().unwrap_or(u32::MAX));
        Self { memory: total - total / 8, available, cpus: cpus.saturating_mul(OVERCOMMIT) }
    }

    /// Whether there is room for this beside others. Alone there always is: who wants a machine larger than the host
    /// gets what the host can do, as ever.
    pub(super) fn fits(&self, need: Need, others: &[Entry]) -> bool {
        let memory = others.iter().fold(need.memory, |sum, other| sum.saturating_add(other.memory));
        let cpus = others.iter().fold(need.cpus, |sum, other| sum.saturating_add(other.cpus));
        others.is_empty() || (memory <= self.memory && need.memory <= self.available && cpus <= self.cpus)
    }
}

/// The value of a line of `/proc/meminfo`, in bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The beginning of a file that the kernel makes, by one call.
fn read(path: &Path) -> Option<String> {
    let mut bytes = [0; 4096];
    let count = File::open(path).ok()?.read(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(bytes.get(..count)?).into_owned())
}

/// The least limit of the control groups that we are in, version 1 or 2, of those below that of the host; and the least that is
/// left of one. In a container the names in `/proc` may be those outside of it; then the root of what is mounted is all
/// there is to see.
fn cgroups(text: &str, host: u64, read: impl Fn(&Path) -> Option<String>) -> (u64, u64) {
    let (mut limit, mut left) = (host, u64::MAX);
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, names) = match controllers {
            "" => (PathBuf::from(CGROUPS), ["memory.max", "memory.current", ""]),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (Path::new(CGROUPS).join("memory"), ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_"])
            }
            _ => continue,
        };
        let own = root.join(path.trim_start_matches('/'));
        for group in own.ancestors().take_while(|group| group.starts_with(&root)) {
            let number = |name: &str| read(&group.join(name))?.trim().parse::<u64>().ok();
            // "max" is no number, and no limit.
            let Some(most) = number(names[0]).filter(|most| *most < host) else { continue };
            limit = limit.min(most);
            let stat = read(&group.join("memory.stat")).unwrap_or_default();
            let used = number(names[1]).unwrap_or(0).saturating_sub(cached(&stat, names[2]));
            left = left.min(most.saturating_sub(used));
        }
    }
    (limit, left)
}

/// The pages of files that a group would give back, in bytes. Memory of machines is not among them, though it counts as a file's.
fn cached(stat: &str, prefix: &str) -> u64 {
    let value = |line: &str| {
        let (name, value) = line.strip_prefix(prefix)?.split_once(' ')?;
        ["inactive_file", "active_file"].contains(&name).then(|| value.parse::<u64>().ok())?
    };
    stat.lines().filter_map(value).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(memory: u64, cpus: u32) -> Entry {
        Entry { slot: 0, memory, cpus, pid: 1, kept: false }
    }

    #[test]
    fn a_machine_fits_beside_others_within_memory_and_processors() {
        let room = Room { memory: 10, available: 6, cpus: 4 };
        let need = |memory, cpus| Need { memory, cpus, kept: false };
        assert!(room.fits(need(5, 1), &[entry(5, 3)]));
        assert!(!room.fits(need(5, 1), &[entry(6, 1)]), "too much memory in all");
        assert!(!room.fits(need(7, 1), &[entry(1, 1)]), "not so much is free");
        assert!(!room.fits(need(1, 2), &[entry(1, 3)]), "too many processors");
        assert!(!room.fits(need(1, 1), &[entry(u64::MAX, u32::MAX)]), "nonsense takes all");
        assert!(room.fits(need(11, 9), &[]), "alone anything goes");
    }

    #[test]
    fn memory_is_read_in_kibibytes() {
        let text = "MemTotal:       24684092 kB\nMemFree: 1 kB\nMemAvailable:   24034040 kB\n";
        assert_eq!(kibibytes(text, "MemAvailable:"), Some(24_034_040 << 10));
        assert_eq!(kibibytes(text, "Swap:"), None);
    }

    #[test]
    fn the_least_limit_of_all_groups_counts() {
        let files = [
            ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/memory.max", "1000\n"),
            ("/sys/fs/cgroup/a/memory.current", "700\n"),
            ("/sys/fs/cgroup/a/memory.stat", "anon 500\nfile 300\nshmem 100\ninactive_file 150\nactive_file 50\n"),
            ("/sys/fs/cgroup/memory/job/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "900\n"),
            ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "100\n"),
        ];
        let read =
            |path: &Path| files.iter().find(|(name, _)| path == Path::new(name)).map(|(_, text)| (*text).to_owned());
        assert_eq!(cgroups("0::/a/b\n", 5000, read), (1000, 500));
        assert_eq!(cgroups("4:cpu,cpuacct:/x\n5:memory:/job\n", 5000, read).0, 900);
        assert_eq!(
            cgroups("4:memory:/of/the/host/outside\n", 5000, read),
            (900, 800),
            "a container sees only its root"
        );
        assert_eq!(cgroups("0::/\nnonsense\n", 5000, read), (5000, u64::MAX));
    }

    #[test]
    fn this_host_has_something_to_give() {
        let room = Room::of_host();
        assert!(room.memory > 64 << 20 && room.cpus >= OVERCOMMIT, "{room:?}");
    }
}
