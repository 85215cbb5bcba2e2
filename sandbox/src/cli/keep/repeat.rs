// SPDX-License-Identifier: Apache-2.0
//! The command line that repeats a run, in the words of a shell. Pure.
//!
//! It holds what files, environment and user have set, each option in its long form. Not the values of variables: they may be
//! secrets, so only names are written down.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, CommandFactory};

use crate::cli::Cli;
use crate::quoting;

/// Options that a repetition has no use for, or that name something that is gone.
const LEFT_OUT: [&str; 7] = ["explain", "report_fd", "report", "keep", "keep_dir", "keep_vm", "no_config"];

/// What stands before the names of the command's variables.
const HEAD: &[u8] = b"#!/bin/sh
# Repeats the run that this directory tells of. No variable's value is written down; the command had
#";

/// A script that repeats the run of these words, in this directory.
pub(super) fn script(
    words: &[OsString],
    directory: &Path,
    environment: &[(OsString, OsString)],
) -> io::Result<Vec<u8>> {
    let mut text = HEAD.to_vec();
    for (name, _) in environment {
        text.push(b' ');
        // A line's end would end the comment.
        text.extend(name.to_string_lossy().escape_debug().to_string().bytes());
    }
    text.push(b'\n');
    let line = quoting::line(directory.as_os_str(), repeated(words).map_err(io::Error::other)?);
    text.extend_from_slice(line.as_bytes());
    text.push(b'\n');
    Ok(text)
}

/// The same run in other words.
fn repeated(words: &[OsString]) -> Result<Vec<OsString>, clap::Error> {
    let cli = Cli::command();
    let matches = cli.clone().try_get_matches_from(words)?;
    let mut own: Vec<OsString> = words.iter().take(1).cloned().collect();
    let Some((verb, matches)) = matches.subcommand() else { return Ok(own) };
    own.extend([verb.into(), "--no-config".into()]);
    let arguments = cli.find_subcommand(verb).into_iter().flat_map(clap::Command::get_arguments);
    for argument in arguments.filter(|argument| !argument.is_hide_set()) {
        own.extend(given(argument, matches));
    }
    own.push("--".into());
    own.extend(matches.get_raw("command").into_iter().flatten().map(OsStr::to_owned));
    Ok(own)
}

/// An option as it was given, if it was.
fn given(argument: &Arg, matches: &ArgMatches) -> Vec<OsString> {
    let id = argument.get_id().as_str();
    let Some(long) = argument.get_long().filter(|_| !LEFT_OUT.contains(&id)) else { return Vec::new() };
    if matches.value_source(id) != Some(ValueSource::CommandLine) {
        return Vec::new();
    }
    if matches!(argument.get_action(), ArgAction::SetTrue) {
        return vec![format!("--{long}").into()];
    }
    let values = matches.get_raw(id).into_iter().flatten();
    let values = values.map(|value| if id == "environment" { name_of(value) } else { value });
    values
        .map(|value| {
            let mut word = OsString::from(format!("--{long}="));
            word.push(value);
            word
        })
        .collect()
}

/// A variable without its value.
fn name_of(entry: &OsStr) -> &OsStr {
    entry.as_bytes().split(|byte| *byte == b'=').next().map_or(entry, OsStr::from_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The last line of the script for what was typed.
    fn line(typed: &[&str]) -> String {
        let words: Vec<OsString> = typed.iter().map(OsString::from).collect();
        let script = script(&words, Path::new("/my work"), &[("TOKEN".into(), "hush".into())]).expect("it parses");
        let text = String::from_utf8(script).expect("it is text");
        assert!(text.lines().count() == 4 && text.contains("# TOKEN\n") && !text.contains("hush"), "{text}");
        text.lines().last().unwrap_or_default().to_owned()
    }

    /// Options in some order, and the command.
    fn parts(text: &str) -> (Vec<&str>, &str) {
        let (options, command) = text.split_once("-- ").expect("there is a command");
        let mut options: Vec<&str> = options.split_whitespace().collect();
        options.sort_unstable();
        (options, command)
    }

    #[test]
    fn it_is_what_was_meant() {
        for (typed, expected) in [
            ("true", "-- true"),
            (
                "-m1G -im 2G -eTOKEN=hush -e LANG --usage echo -c",
                "--env=TOKEN --env=LANG --memory=2G --usage -- echo -c",
            ),
            ("--keep=always --keep-vm --report=x --rm -v a:/b:ro -- it's", "--volume=a:/b:ro -- \"it's\""),
            ("-t -T --timeout 5s -- -x $HOME", "--timeout=5s --no-tty -- -x '$HOME'"),
        ] {
            let all: Vec<&str> = ["sandbox", "run"].into_iter().chain(typed.split(' ')).collect();
            let own = line(&all);
            let rest = own.strip_prefix("cd '/my work' && sandbox run --no-config ").unwrap_or_else(|| panic!("{own}"));
            assert_eq!(parts(rest), parts(expected));
        }
        assert_eq!(line(&["sandbox", "shell"]), "cd '/my work' && sandbox shell --no-config --");
    }
}
