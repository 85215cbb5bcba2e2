// SPDX-License-Identifier: Apache-2.0
//! Lists of strings in the form that execve(2) takes, without copying a string.
//!
//! Not for the call itself ([`super::execve`]).

use alloc::vec::Vec;
use core::{
    ffi::{CStr, c_char},
    marker::PhantomData,
    ptr,
};

/// Lists of string pointers as execve(2) wants them, into bytes that it borrows.
#[derive(Debug)]
pub struct Strings<'a> {
    pub(super) pointers: Vec<*const c_char>,
    bytes: PhantomData<&'a [u8]>,
}

impl<'a> Strings<'a> {
    /// Cuts the first `count` NUL-terminated strings off `bytes`: the list, and the bytes behind it.
    pub fn cut(mut bytes: &'a [u8], count: usize) -> Option<(Self, &'a [u8])> {
        // A string takes a byte at least, so a hostile count cannot reserve more than eight times what was sent.
        if count > bytes.len() {
            return None;
        }
        let mut pointers = Vec::with_capacity(count + 1);
        for _ in 0..count {
            let string = CStr::from_bytes_until_nul(bytes).ok()?;
            pointers.push(string.as_ptr());
            bytes = &bytes[string.count_bytes() + 1..];
        }
        pointers.push(ptr::null());
        Some((Self { pointers, bytes: PhantomData }, bytes))
    }

    /// The list that a shell needs to run the script `path` with this list's arguments, as execvp(3) does.
    pub fn for_shell<'b>(&'b self, shell: &'b CStr, path: &'b CStr) -> Strings<'b> {
        let mut pointers = Vec::with_capacity(self.pointers.len() + 1);
        pointers.extend([shell.as_ptr(), path.as_ptr()]);
        pointers.extend_from_slice(self.pointers.get(1..).unwrap_or(&[ptr::null()]));
        Strings { pointers, bytes: PhantomData }
    }
}
