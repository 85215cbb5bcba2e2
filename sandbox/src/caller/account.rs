// SPDX-License-Identifier: Apache-2.0
//! Users and groups of this host, by name or number.
//!
//! They are asked for with getent(1), which knows every place where a host may keep them (nsswitch.conf(5)). To ask from
//! within, a program must load the host's own modules, and so be linked to the host's C library.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::spec::User;

/// A user named with `-u`, and what its environment says of it.
#[derive(Debug)]
pub struct Account {
    /// The user.
    pub user: User,
    /// Name, if it has one.
    pub name: Option<OsString>,
    /// Home directory, if it has one.
    pub home: Option<PathBuf>,
}

/// Looks up `USER[:GROUP]`, by name or number. Without a group a known user has its own ones, an unknown number
/// only the group of the same number.
///
/// # Errors
/// Which name is unknown.
pub fn account(text: &str) -> Result<Account, String> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let gid = group.map(group_id).transpose()?;
    let known = match entry("passwd", user) {
        // A number need not be known, so it need not be asked for either.
        Err(_) if user.parse::<u32>().is_ok() => None,
        known => known?,
    };
    let Some(known) = known else {
        let Ok(uid) = user.parse() else { return Err(unknown("user", user, "-u 1000")) };
        return Ok(Account { user: User { uid, gid: gid.unwrap_or(uid), groups: Vec::new() }, name: None, home: None });
    };
    // name:password:uid:gid:comment:home:shell
    let fields: Vec<&[u8]> = known.split(|byte| *byte == b':').collect();
    let &[name, _, uid, primary, _, home, ..] = fields.as_slice() else { return Err(garbled(user)) };
    let (Some(uid), Some(primary)) = (number(uid), number(primary)) else { return Err(garbled(user)) };
    let groups = if gid.is_some() { Vec::new() } else { groups(name, primary)? };
    Ok(Account {
        user: User { uid, gid: gid.unwrap_or(primary), groups },
        name: Some(OsString::from_vec(name.to_vec())),
        home: Some(OsString::from_vec(home.to_vec()).into()),
    })
}

fn group_id(text: &str) -> Result<u32, String> {
    if let Ok(gid) = text.parse() {
        return Ok(gid);
    }
    let group = entry("group", text)?.ok_or_else(|| unknown("group", text, "-u 1000:1000"))?;
    // name:password:gid:members
    group.split(|byte| *byte == b':').nth(2).and_then(number).ok_or_else(|| garbled(text))
}

/// The groups of a user, its own one first.
fn groups(name: &[u8], primary: u32) -> Result<Vec<u32>, String> {
    let line = entry("initgroups", OsString::from_vec(name.to_vec()))?.unwrap_or_default();
    // name number number ...
    let others = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty()).skip(1).filter_map(number);
    Ok([primary].into_iter().chain(others.filter(|other| *other != primary)).collect())
}

/// The line that a database of the host has for a key, if it has one.
fn entry(database: &str, key: impl Into<OsString>) -> Result<Option<Vec<u8>>, String> {
    let mut getent = Command::new("getent");
    getent.args([database, "--"]).arg(key.into()).stdin(Stdio::null()).stderr(Stdio::null());
    let output = getent.output().map_err(|error| format!("cannot ask getent(1) for users of this host: {error}"))?;
    let line = output.stdout.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok((output.status.success() && !line.is_empty()).then(|| line.to_vec()))
}

fn number(text: &[u8]) -> Option<u32> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn unknown(what: &str, name: &str, number: &str) -> String {
    format!("there is no {what} {name:?} on this host; a number need not be known to it ({number})")
}

fn garbled(name: &str) -> String {
    format!("this host's entry of {name:?} makes no sense")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_by_name_and_number() {
        let root = account("root").expect("root exists");
        assert_eq!((root.user.uid, root.home), (0, Some("/root".into())));
        let stranger = account("54321").expect("any number will do");
        assert_eq!((stranger.user.uid, stranger.user.gid, stranger.name), (54321, 54321, None));
        assert_eq!(account("0:54321").expect("group by number").user.gid, 54321);
        assert!(account("no-such-user").expect_err("unknown").contains("no-such-user"));
        assert!(account("root:no-such-group").is_err());
    }

    #[test]
    fn groups_begin_with_the_own_one() {
        assert_eq!(groups(b"no-such-user", 7).expect("getent is there"), [7]);
        assert_eq!(account("root").expect("root exists").user.groups.first(), Some(&0));
    }
}
