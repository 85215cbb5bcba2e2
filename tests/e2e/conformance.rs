// SPDX-License-Identifier: Apache-2.0
//! File systems under test suites of others: pjdfstest and fsx, on the private layer and on a writable volume.
//!
//! What pjdfstest finds must be what docs/conformance.md says, case by case and in number: a failure that is not
//! explained there fails, and so does an explanation of a case that passes.

mod exerciser;
mod score;

use std::path::PathBuf;

use harness::{Case, Need};
use tests::Bench;
use tests::tier::volumes;

macro_rules! case {
    ($name:ident $(, $need:expr)*) => {
        Case { name: concat!("conformance::", stringify!($name)), needs: &[TOOLS, $($need),*], body: $name }
    };
}

pub(crate) const CASES: &[Case] = &[
    case!(pjdfstest_on_private_layer),
    case!(pjdfstest_on_merged_directory),
    // Files there get owners, which needs a worker that may give them any.
    case!(pjdfstest_on_volume, Need::Root),
    case!(fsx_on_private_layer),
    case!(fsx_on_volume),
    Case { name: "soak::fsx_on_private_layer", needs: &[TOOLS], body: exerciser::soak_private_layer },
    Case { name: "soak::fsx_on_volume", needs: &[TOOLS], body: exerciser::soak_volume },
];

type Result = std::result::Result<(), String>;

/// Where `make tools` put the suites.
const TOOLS: Need = Need::Variable("SANDBOX_TOOLS");

/// Everything but chflags(2) and NFSv4's access control lists, which Linux has not. The sleeps are longer than a tick,
/// which is how often the kernel looks at the clock for a file's times; the users are those that every system has.
const CONFIGURATION: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
secondary_fs = "/dev/shm"
[dummy_auth]
entries = [["daemon", "daemon"], ["bin", "bin"]]
[settings]
naptime = 0.02
"#;

/// Runs the suite in the directory given. The cases that remount it read-only come last and in a process of their own:
/// an earlier case leaves an unlinked file open, which makes the file system busy (on ext4 too).
/// They want the root of a mount, and not the root directory: hence the bind mount, which is no other file system.
const SCRIPT: &str = r#"
mkdir -p "$1" /dev/shm/place && mount --bind "$1" /dev/shm/place || exit
/tools/pjdfstest -c configuration.toml -p /dev/shm/place
{ cat configuration.toml; echo 'allow_remount = true'; } > /dev/shm/remounting.toml
/tools/pjdfstest -c /dev/shm/remounting.toml -p /dev/shm/place erofs
exit 0
"#;

/// The option that shows the suites to the guest.
fn tools() -> String {
    let place = PathBuf::from(std::env::var_os("SANDBOX_TOOLS").expect("it is a need of every case here"));
    format!("{}:/tools:ro", place.display())
}

/// Runs it in a directory of the guest; `place` is what the document calls that.
fn pjdfstest(bench: &Bench, volume: Option<&str>, directory: &str, place: &str) -> Result {
    bench.write("configuration.toml", CONFIGURATION);
    let tools = tools();
    let volumes = [Some(tools.as_str()), volume].into_iter().flatten().flat_map(|volume| ["-v", volume]);
    let command = ["-u", "0", "--", "sh", "-c", SCRIPT, "pjdfstest", directory];
    let ran = bench.run(volumes.chain(command)).wait();
    ran.expect(0, "exited");
    score::check(&ran.text(), place)
}

fn pjdfstest_on_private_layer() -> Result {
    pjdfstest(&Bench::new(), None, "/scratch", "private layer")
}

/// A directory of the host's with something in it, seen through the private layer.
fn pjdfstest_on_merged_directory() -> Result {
    let bench = Bench::new();
    bench.write("below", "the host's");
    pjdfstest(&bench, None, ".", "private layer")
}

fn pjdfstest_on_volume() -> Result {
    let data = tempfile::tempdir_in(volumes()).map_err(|error| error.to_string())?;
    pjdfstest(&Bench::new(), Some(&format!("{}:/data", data.path().display())), "/data", "volume")
}

fn fsx_on_private_layer() -> Result {
    exerciser::private_layer(1)
}

fn fsx_on_volume() -> Result {
    exerciser::volume(1)
}
