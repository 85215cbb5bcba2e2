// SPDX-License-Identifier: Apache-2.0
//! Words as a shell reads them, for lines that repeat a run. The one place that names the `shlex` crate.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use shlex::bytes::Quoter;

/// A word that a shell reads as this one, whatever bytes are in it.
pub(crate) fn quoted(word: &OsStr) -> OsString {
    // The crate quotes `--memory=1G`, too, which nobody does by hand.
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./=:,+@%".contains(byte);
    if !word.is_empty() && word.as_bytes().iter().all(plain) {
        return word.to_owned();
    }
    // Only a byte of zero could be refused, which no shell can be given and no command was.
    let quoted = Quoter::new().allow_nul(true).quote(word.as_bytes()).unwrap_or_default();
    OsString::from_vec(quoted.into_owned())
}

/// A line that goes to a directory and runs these words there.
pub(crate) fn line(directory: &OsStr, words: impl IntoIterator<Item = OsString>) -> OsString {
    let mut line = OsString::from("cd ");
    line.push(quoted(directory));
    line.push(" &&");
    for word in words {
        line.push(" ");
        line.push(quoted(&word));
    }
    line
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_means_nothing_to_a_shell_stays_as_it_is() {
        for plain in ["plain", "-v=a:b", "/t/x-1.2", "a,b@c"] {
            assert_eq!(quoted(OsStr::new(plain)), plain);
        }
        assert_eq!(line(OsStr::new("/my work"), ["echo".into(), String::new().into()]), "cd '/my work' && echo ''");
    }

    /// What a shell makes of these words when they are quoted.
    fn read(words: &[OsString]) -> Vec<OsString> {
        let mut script = OsString::from("printf '%s\\0'");
        for word in words {
            script.push(" ");
            script.push(quoted(word));
        }
        let output = Command::new("sh").arg("-c").arg(&script).output().expect("there is a shell").stdout;
        let words = output.split_inclusive(|byte| *byte == 0);
        words.map(|word| OsString::from_vec(word[..word.len() - 1].to_vec())).collect()
    }

    #[test]
    fn a_shell_reads_what_means_much_to_it() {
        let words =
            ["", "a b", "it's", "$HOME", "`x`", "\"", "a\nb", "*", "~", "!x", "\\", "\u{e9}", "#", "{a,b}", "^x", "-"];
        let words = words.map(OsString::from);
        assert_eq!(read(&words), words);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        /// What a shell makes of quoted words are those words.
        #[test]
        fn a_shell_reads_what_was_quoted(words in proptest::collection::vec(proptest::collection::vec(1u8.., 0..30), 1..4)) {
            let words: Vec<OsString> = words.into_iter().map(OsString::from_vec).collect();
            prop_assert_eq!(read(&words), words);
        }
    }
}
