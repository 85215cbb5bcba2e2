// SPDX-License-Identifier: Apache-2.0
//! Options that limit what a command may use, by docker's names where docker has them.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

use super::parse;
use crate::spec::{self, Tmpfs, ULIMITS, Ulimit};

/// Mode of a file system in memory, as docker has it: a `/tmp`.
const PUBLIC: u32 = 0o1777;

/// What a command may use.
#[derive(Debug, Args)]
pub(super) struct Limits {
    /// Processes and threads the command may have, itself included
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pids_limit: Option<u64>,
    /// Resource limit of each process, as in docker: cpu=10, nofile=1024:4096, fsize=1g, core=unlimited, …
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]", value_parser = ulimit)]
    ulimits: Vec<Ulimit>,
    /// What the private layer holds, which takes all writes but those to volumes; half of the memory if not said, and on
    /// a disk (a file in TMPDIR or /var/tmp) if more
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    disk_size: Option<u64>,
    /// What /dev/shm holds; half of the memory if not said
    #[arg(long, value_name = "SIZE", value_parser = parse::size)]
    shm_size: Option<u64>,
    /// Mount an empty file system in memory, as in docker: /cache:size=64m,mode=0755,exec
    #[arg(long = "tmpfs", value_name = "DST[:OPTIONS]", value_parser = tmpfs_parser())]
    tmpfs: Vec<Tmpfs>,
}

impl Limits {
    /// As a Spec has them.
    pub(super) fn spec(&self) -> spec::Limits {
        spec::Limits {
            processes: self.pids_limit,
            ulimits: self.ulimits.clone(),
            private: self.disk_size,
            shm: self.shm_size,
            tmpfs: self.tmpfs.clone(),
        }
    }
}

/// `NAME=SOFT[:HARD]`; a lone limit is both.
pub(super) fn ulimit(text: &str) -> Result<Ulimit, String> {
    let (name, values) = text.split_once('=').ok_or("write it as NAME=SOFT or NAME=SOFT:HARD")?;
    let Some((name, resource)) = ULIMITS.into_iter().find(|(own, _)| *own == name) else {
        let names = ULIMITS.map(|(name, _)| name).join(", ");
        return Err(format!("there is no limit {name:?}; known are {names}"));
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    Ok(Ulimit { name, resource, soft: bound(soft)?, hard: bound(hard)? })
}

fn bound(text: &str) -> Result<u64, String> {
    match text {
        "unlimited" | "-1" => Ok(u64::MAX),
        _ => parse::size(text).map_err(|error| format!("{error}; or unlimited")),
    }
}

fn tmpfs_parser() -> impl TypedValueParser<Value = Tmpfs> {
    OsStringValueParser::new().try_map(|text| tmpfs(&text))
}

/// `DST[:size=SIZE,mode=OCTAL,exec]`. What docker does anyway may be said too.
pub(super) fn tmpfs(text: &OsStr) -> Result<Tmpfs, String> {
    let bytes = text.as_bytes();
    let (target, options) = match bytes.iter().position(|byte| *byte == b':') {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &b""[..]),
    };
    let target = PathBuf::from(std::ffi::OsString::from_vec(target.to_vec()));
    // Collected, a path has no doubled or trailing slash.
    let mut tmpfs = Tmpfs { target: target.components().collect(), size: None, mode: PUBLIC, executable: false };
    if tmpfs.target == Path::new("") {
        return Err("write it as DST or DST:size=64m,mode=1777".to_owned());
    }
    let options = std::str::from_utf8(options).map_err(|error| format!("options: {error}"))?;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=').unwrap_or((option, "")) {
            ("size", size) => tmpfs.size = Some(parse::size(size)?),
            ("mode", mode) => tmpfs.mode = octal(mode)?,
            ("exec", "") => tmpfs.executable = true,
            ("noexec", "") => tmpfs.executable = false,
            ("rw" | "nosuid" | "nodev", "") => {}
            _ => return Err(format!("unknown option {option:?}; known are size=, mode=, exec and noexec")),
        }
    }
    Ok(tmpfs)
}

fn octal(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(mode),
        _ => Err(format!("{text:?} is no mode; write it as 1777 or 0755")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulimits_have_dockers_names() {
        let parsed = ulimit("nofile=1024:4096").expect("parses");
        assert_eq!((parsed.resource, parsed.soft, parsed.hard), (7, 1024, 4096));
        assert_eq!(ulimit("cpu=3").expect("parses").hard, 3);
        assert_eq!(ulimit("core=0:unlimited").expect("parses").hard, u64::MAX);
        assert_eq!(ulimit("memlock=-1").expect("parses").soft, u64::MAX);
        assert_eq!(ulimit("fsize=1k").expect("parses").soft, 1024);
        assert!(ulimit("nofiles=3").expect_err("refused").contains("nofile"));
        for wrong in ["nofile", "nofile=", "nofile=x", "nofile=1:2:3", "=1", "cpu=-2"] {
            assert!(ulimit(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn file_systems_in_memory_have_dockers_options() {
        let parse = |text: &str| tmpfs(OsStr::new(text));
        let plain = Tmpfs { target: "/a".into(), size: None, mode: 0o1777, executable: false };
        assert_eq!(parse("/a/"), Ok(plain.clone()));
        assert_eq!(parse("/a:rw,noexec,nosuid,nodev"), Ok(plain.clone()));
        let full = Tmpfs { size: Some(64 << 20), mode: 0o755, executable: true, ..plain };
        assert_eq!(parse("/a:size=64m,mode=0755,exec"), Ok(full));
        for wrong in ["", ":size=1m", "/a:size=x", "/a:mode=9", "/a:mode=17777", "/a:huge=always", "/a:size"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
