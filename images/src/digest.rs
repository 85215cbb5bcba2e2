// SPDX-License-Identifier: Apache-2.0
//! SHA-256, as the lower-case hexadecimal text manifests hold. The one place that names the `sha2` crate.

use sha2::{Digest as _, Sha256};
use std::io::{self, Read};

/// SHA-256 of some bytes, in hexadecimal.
#[must_use]
pub fn of_bytes(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

/// SHA-256 of all that is left to read, in hexadecimal.
///
/// # Errors
/// Those of reading it.
pub fn of_reader(mut reader: impl Read) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; 256 << 10];
    loop {
        match reader.read(&mut chunk) {
            Ok(0) => return Ok(hex(&hasher.finalize())),
            Ok(read) => hasher.update(&chunk[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The part of a digest that names a directory: enough to tell any two builds on one machine apart.
pub(crate) fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reader_and_bytes_agree_with_the_standard() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

        assert_eq!(of_bytes(b"abc"), expected);
        assert_eq!(of_reader(&b"abc"[..]).unwrap(), expected);
        assert_eq!(short(expected), "ba7816bf8f01");
    }
}
