// SPDX-License-Identifier: Apache-2.0
//! Option values: sizes as docker takes them, durations as timeout(1) does, volumes, users.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

use crate::spec::Volume;

/// A size in bytes: a number with an optional suffix b, k, m, g or t (powers of 1024).
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let lower = text.to_ascii_lowercase();
    let trimmed = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let (digits, shift) = match trimmed.char_indices().next_back() {
        Some((at, 'k')) => (&trimmed[..at], 10),
        Some((at, 'm')) => (&trimmed[..at], 20),
        Some((at, 'g')) => (&trimmed[..at], 30),
        Some((at, 't')) => (&trimmed[..at], 40),
        _ => (trimmed, 0),
    };
    let number: u64 = digits.parse().map_err(|error| format!("{error}; write it as 512M or 2G"))?;
    number.checked_mul(1 << shift).ok_or_else(|| "too large".to_owned())
}

/// A duration: a number, also a fraction, with an optional suffix ms, s, m, h or d.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let (digits, unit) = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86400.0)]
        .into_iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))
        .unwrap_or((text, 1.0));
    let number: f64 = digits.parse().map_err(|error| format!("{error}; write it as 90, 2s, 1.5m, 1h or 1d"))?;
    Duration::try_from_secs_f64(number * unit).map_err(|error| error.to_string())
}

/// `SRC:DST[:ro|:rw]`, or a lone `SRC` that is shown at the same path.
pub(super) fn volume(text: &OsStr) -> Result<Volume, String> {
    let parts: Vec<&[u8]> = text.as_bytes().split(|byte| *byte == b':').collect();
    let (source, target, read_only) = match parts[..] {
        [source] => (source, source, false),
        [source, target] => (source, target, false),
        [source, target, b"ro"] => (source, target, true),
        [source, target, b"rw"] => (source, target, false),
        [_, _, mode] => return Err(format!("unknown mode {:?}; use ro or rw", String::from_utf8_lossy(mode))),
        _ => return Err("write it as SRC:DST or SRC:DST:ro".to_owned()),
    };
    if source.is_empty() || target.is_empty() {
        return Err("write it as SRC:DST or SRC:DST:ro, with neither empty".to_owned());
    }
    Ok(Volume { source: path(source), target: path(target), read_only })
}

/// `K=V`, or a `K` whose value is the caller's.
pub(super) fn variable(text: &OsStr) -> (OsString, Option<OsString>) {
    let bytes = text.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => (OsString::from_vec(bytes[..at].to_vec()), Some(OsString::from_vec(bytes[at + 1..].to_vec()))),
        None => (text.to_owned(), None),
    }
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("512M"), Ok(512 << 20));
        assert_eq!(size("2g"), Ok(2 << 30));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size("4096"), Ok(4096));
        assert!(size("").is_err());
        assert!(size("M").is_err());
        assert!(size("-1").is_err());
        assert!(size("99999999999T").is_err());
    }

    #[test]
    fn durations() {
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("3"), Ok(Duration::from_secs(3)));
        assert_eq!(duration("20ms"), Ok(Duration::from_millis(20)));
        assert!(duration("soon").is_err());
        assert!(duration("-1s").is_err());
        assert!(duration("inf").is_err());
    }

    #[test]
    fn volumes() {
        let parsed = volume(OsStr::new("/a:/b:ro")).expect("parses");
        assert_eq!((parsed.source, parsed.target, parsed.read_only), ("/a".into(), "/b".into(), true));
        assert!(!volume(OsStr::new("/a:/b")).expect("parses").read_only);
        assert!(volume(OsStr::new("/a:/b:rx")).is_err());
        assert!(volume(OsStr::new(":/b")).is_err());
        assert!(volume(OsStr::new("/a:/b:ro:x")).is_err());
    }

    #[test]
    fn variables_keep_every_byte() {
        let odd = OsStr::from_bytes(b"K=a=\xff\n");
        assert_eq!(variable(odd), ("K".into(), Some(OsStr::from_bytes(b"a=\xff\n").to_owned())));
        assert_eq!(variable(OsStr::new("K")), ("K".into(), None));
    }
}
