// SPDX-License-Identifier: Apache-2.0
//! What is expected of a test's command, and how it fell short of that.

use regex_lite::Regex;
use toml::{Table, Value};

use super::file::{string, texts};
use crate::cli::config::keys;
use crate::outcome::Cause;

/// What is expected of a command.
#[derive(Debug)]
pub(super) struct Expect {
    end: Cause,
    stdout: Vec<Text>,
    stderr: Vec<Text>,
}

/// What is expected of an output.
#[derive(Debug)]
enum Text {
    Exact(String),
    Contains(String),
    Regex(Regex),
}

const FORMS: [&str; 3] = ["exact", "contains", "regex"];

impl Expect {
    /// As a test's table has it: status 0 and any output, unless it says otherwise.
    pub(super) fn read(test: &Table) -> Result<Self, String> {
        let number = |name: &str| {
            let value = test.get(name)?;
            let number = value.as_integer().and_then(|number| u8::try_from(number).ok());
            Some(number.ok_or_else(|| format!("{name}: write a number, as 1")))
        };
        let end = match (number("status").transpose()?, number("signal").transpose()?) {
            (Some(_), Some(_)) => return Err("status and signal: a command ends by one of them".to_owned()),
            (status, None) => Cause::Exited(status.unwrap_or(0)),
            (None, Some(signal)) => Cause::Signaled(signal),
        };
        let output = |name| test.get(name).map_or(Ok(Vec::new()), |value| forms(name, value));
        Ok(Self { end, stdout: output("stdout")?, stderr: output("stderr")? })
    }

    /// Whether its command has to succeed.
    pub(super) fn is_success(&self) -> bool {
        self.end == Cause::Exited(0)
    }

    /// What is not as expected, if anything is.
    pub(super) fn judge(&self, cause: &Cause, stdout: &[u8], stderr: &[u8]) -> Result<(), String> {
        if *cause != self.end {
            return Err(match self.end {
                Cause::Exited(status) => format!("{cause}, expected was status {status}"),
                _ => format!("{cause}, but not by the expected {}", self.end.name()),
            });
        }
        let outputs = [("stdout", &self.stdout, stdout), ("stderr", &self.stderr, stderr)];
        let wrong = |(name, texts, bytes): (&str, &Vec<Text>, &[u8])| -> Vec<String> {
            texts.iter().filter_map(|text| text.wrong(bytes)).map(|wrong| format!("{name} {wrong}")).collect()
        };
        let wrong: Vec<String> = outputs.into_iter().flat_map(wrong).collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }
}

fn forms(name: &str, value: &Value) -> Result<Vec<Text>, String> {
    let forms = match value {
        Value::String(text) => return Ok(vec![Text::Exact(text.clone())]),
        Value::Table(forms) if !forms.is_empty() => forms,
        _ => return Err(format!("{name}: write all of it as \"…\", or {{ contains = \"…\" }} or {{ regex = \"…\" }}")),
    };
    let mut all = Vec::new();
    for (form, value) in forms {
        let place = format!("{name}.{form}");
        let entries = if value.is_array() { texts(&place, value)? } else { vec![string(&place, value)?] };
        for entry in entries {
            all.push(match form.as_str() {
                "exact" => Text::Exact(entry),
                "contains" => Text::Contains(entry),
                "regex" => Text::Regex(Regex::new(&entry).map_err(|error| format!("{place}: {error}"))?),
                other => return Err(format!("{name}: {}", keys::unknown(other, FORMS))),
            });
        }
    }
    Ok(all)
}

impl Text {
    fn wrong(&self, bytes: &[u8]) -> Option<String> {
        match self {
            Self::Exact(text) if text.as_bytes() == bytes => None,
            Self::Exact(text) => Some(differs(text.as_bytes(), bytes)),
            Self::Contains(text) => {
                let there = text.is_empty() || bytes.windows(text.len()).any(|part| part == text.as_bytes());
                (!there).then(|| format!("does not contain {text:?}"))
            }
            Self::Regex(regex) => (!regex.is_match(&String::from_utf8_lossy(bytes)))
                .then(|| format!("does not match {:?}", regex.as_str())),
        }
    }
}

/// Where two texts part.
fn differs(expected: &[u8], found: &[u8]) -> String {
    let mut lines = [expected, found].map(|text| text.split_inclusive(|byte| *byte == b'\n'));
    let mut number = 0;
    loop {
        number += 1;
        let [expected, found] = lines.each_mut().map(Iterator::next);
        if expected != found {
            let shown = |line: Option<&[u8]>| match line {
                Some(line) => format!("{:?}", String::from_utf8_lossy(line)),
                None => "its end".to_owned(),
            };
            return format!("differs in line {number}: it has {}, expected was {}", shown(found), shown(expected));
        }
        if expected.is_none() {
            return "differs".to_owned();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(text: &str, cause: Cause, stdout: &str) -> Result<(), String> {
        let table: Table = text.parse().expect("it is TOML");
        Expect::read(&table).expect("it makes sense").judge(&cause, stdout.as_bytes(), b"warning: old\n")
    }

    #[test]
    fn an_end_is_that_end_and_no_other() {
        assert_eq!(judge("", Cause::Exited(0), "anything"), Ok(()));
        assert_eq!(judge("status = 3", Cause::Exited(3), ""), Ok(()));
        assert_eq!(judge("signal = 6", Cause::Signaled(6), ""), Ok(()));
        let wrong = judge("", Cause::Exited(1), "").expect_err("not 0");
        assert_eq!(wrong, "the command exited with status 1, expected was status 0");
        for (text, cause) in [
            ("status = 124", Cause::Timeout),
            ("status = 137", Cause::Signaled(9)),
            ("signal = 9", Cause::Exited(137)),
            ("status = 127", Cause::NotFound("no such program".to_owned())),
        ] {
            assert!(judge(text, cause, "").is_err(), "{text}");
        }
    }

    #[test]
    fn output_is_compared_whole_or_searched() {
        let fine = [
            "stdout = \"a\\nb\\n\"",
            "stdout = { contains = 'b' }",
            "stdout = { contains = ['a', 'b'], regex = '(?m)^b$' }",
            "stderr = { regex = '^warning: \\w+' }\nstdout = { exact = \"a\\nb\\n\" }",
        ];
        for text in fine {
            assert_eq!(judge(text, Cause::Exited(0), "a\nb\n"), Ok(()), "{text}");
        }
        let wrong = [
            ("stdout = \"a\\nc\\n\"", "stdout differs in line 2: it has \"b\\n\", expected was \"c\\n\""),
            ("stdout = \"a\\n\"", "stdout differs in line 2: it has \"b\\n\", expected was its end"),
            ("stdout = { contains = ['a', 'x'] }", "stdout does not contain \"x\""),
            ("stdout = { regex = '^b' }", "stdout does not match \"^b\""),
            ("stderr = ''", "stderr differs in line 1: it has \"warning: old\\n\", expected was its end"),
        ];
        for (text, words) in wrong {
            assert_eq!(judge(text, Cause::Exited(0), "a\nb\n"), Err(words.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_expected_is_refused() {
        let refused = [
            ("status = 256", "status: write a number"),
            ("status = 1\nsignal = 9", "one of them"),
            ("stdout = { regex = '(' }", "stdout.regex: "),
            ("stdout = { contain = 'x' }", "there is no key \"contain\"; contains is one"),
            ("stdout = {}", "stdout: write all of it"),
        ];
        for (text, words) in refused {
            let error = Expect::read(&text.parse().expect("it is TOML")).expect_err(text);
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
