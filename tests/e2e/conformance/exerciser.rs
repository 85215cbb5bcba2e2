// SPDX-License-Identifier: Apache-2.0
//! fsx: random operations on one file, each read compared with what memory says.

use std::time::Duration;

use tests::Bench;
use tests::tier::share;

use super::{Result, tools};

/// Every operation that fsx knows, in three rounds: synchronized mappings, mappings that are left to the kernel, and a
/// file that is larger than what is read ahead.
const ROUNDS: [&str; 3] = ["", "nomsyncafterwrite = true", "flen = 8388608"];

/// No operation of no bytes: fsx 0.3.2 takes the answer that POSIX demands for a `posix_fallocate` of none, `EINVAL`,
/// for a failure, and draws one in a million operations.
const WEIGHTS: &str = "
[opsize]
min = 1
[weights]
close_open = 1
invalidate = 1
mapread = 10
mapwrite = 10
read = 10
write = 10
truncate = 10
fsync = 1
fdatasync = 1
posix_fallocate = 5
punch_hole = 5
sendfile = 5
posix_fadvise = 2
copy_file_range = 5
";

/// Operations of each round: what took an emulated machine some eighteen seconds in all.
const ON_PRIVATE_LAYER: [u64; 3] = [24_000, 24_000, 6000];
const ON_VOLUME: [u64; 3] = [8000, 8000, 3000];

/// How many times that is half an hour, for each of the two places.
const SOAK: u64 = 100;

/// More than half an hour: other tests and other users take their part of the processors.
const SOAK_LIMIT: Duration = Duration::from_secs(3 * 3600);

fn exercise(volume: Option<&str>, directory: &str, operations: [u64; 3], times: u64) -> Result {
    let bench = Bench::new();
    let mut script = format!("set -e; mkdir -p {directory}; cd {directory}");
    for (round, (option, operations)) in ROUNDS.iter().zip(operations.map(share)).enumerate() {
        bench.write(&format!("round{round}.toml"), format!("{option}\n{WEIGHTS}"));
        // Many seeds and not many operations: fsx 0.3.2 never unmaps what it has read by a mapping, and a process may
        // have 65,530 mappings.
        script += &format!(
            "; for seed in $(seq {times}); do \
             /tools/fsx -f \"$OLDPWD/round{round}.toml\" -S $seed -N {operations} -P /dev/shm file; done"
        );
    }
    let tools = tools();
    let volumes = [Some(tools.as_str()), volume].into_iter().flatten().flat_map(|volume| ["-v", volume]);
    let call = bench.run(volumes.chain(["--", "sh", "-c", &script]));
    let ran = if times == 1 { call.wait() } else { call.within(SOAK_LIMIT).wait() };
    ran.prints(&vec!["All operations completed A-OK!"; ROUNDS.len() * times as usize].join("\n"));
    Ok(())
}

pub(super) fn private_layer(times: u64) -> Result {
    exercise(None, "/scratch", ON_PRIVATE_LAYER, times)
}

pub(super) fn volume(times: u64) -> Result {
    let data = Bench::new();
    exercise(Some(&format!("{}:/data", data.path().display())), "/data", ON_VOLUME, times)
}

pub(super) fn soak_private_layer() -> Result {
    private_layer(SOAK)
}

pub(super) fn soak_volume() -> Result {
    volume(SOAK)
}
