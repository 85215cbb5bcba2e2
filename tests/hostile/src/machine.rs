// SPDX-License-Identifier: Apache-2.0
//! The machine that the program finds itself in: what the boot protocol tells of it, and its devices.

use crate::bare::peek;
use crate::device::{Device, Kind};

/// Where the monitor puts windows, a page each, and the most it has.
const WINDOWS: u64 = 0xd000_0000;
const WINDOW_SIZE: u64 = 0x1000;
const WINDOWS_MOST: u64 = 8;

/// Everything a case can use.
pub(crate) struct Machine {
    pub(crate) rng: Device,
    pub(crate) vsock: Device,
    pub(crate) fs: Device,
    /// End of memory.
    pub(crate) memory: u64,
    /// The first case of this boot.
    pub(crate) first: u32,
    /// Streams of the host that no connection has used up yet.
    pub(crate) streams: u32,
    /// A case wanted a stream, and there was none.
    pub(crate) wants_stream: bool,
}

impl Machine {
    /// What there is, by the zero page; or which device is missing.
    pub(crate) fn find(zero_page: u64) -> Result<Self, &'static str> {
        let windows = || (0..WINDOWS_MOST).map(|number| WINDOWS + number * WINDOW_SIZE);
        Ok(Self {
            rng: Device::find(Kind::Rng, windows()).ok_or("rng")?,
            vsock: Device::find(Kind::Vsock, windows()).ok_or("vsock")?,
            fs: Device::find(Kind::Fs, windows()).ok_or("fs")?,
            memory: memory(zero_page),
            first: word(zero_page, b"first="),
            streams: word(zero_page, b"streams="),
            wants_stream: false,
        })
    }

    pub(crate) fn devices(&mut self) -> [&mut Device; 3] {
        [&mut self.rng, &mut self.vsock, &mut self.fs]
    }

    /// Whether every device serves a good driver after a reset; if not, which does not.
    pub(crate) fn works(&mut self) -> Result<(), &'static str> {
        let names = ["rng", "vsock", "fs"];
        self.devices()
            .into_iter()
            .zip(names)
            .try_for_each(|(device, name)| if device.works() { Ok(()) } else { Err(name) })
    }
}

/// End of the last part of memory in the table that the zero page has.
fn memory(zero_page: u64) -> u64 {
    let count: u8 = peek(zero_page + 0x1e8);
    let last = zero_page + 0x2d0 + 20 * u64::from(count.saturating_sub(1));
    peek::<u64>(last) + peek::<u64>(last + 8)
}

/// The number after this word of the command line; 0 without it.
fn word(zero_page: u64, name: &[u8]) -> u32 {
    let line = u64::from(peek::<u32>(zero_page + 0x228));
    let byte = |at: u64| peek::<u8>(line + at);
    let length = (0..).take_while(|at| byte(*at) != 0).count() as u64;
    let begins = |at: &u64| (*at..).zip(name).all(|(at, letter)| byte(at) == *letter);
    let Some(at) = (0..length).find(begins) else { return 0 };
    let digits = (at + name.len() as u64..).map(byte).take_while(u8::is_ascii_digit);
    digits.fold(0, |number, digit| number.wrapping_mul(10).wrapping_add(u32::from(digit - b'0')))
}
