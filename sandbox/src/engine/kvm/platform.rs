// SPDX-License-Identifier: Apache-2.0
//! What our machine has of a PC: a serial port, and two registers that reset it. Every other port reads as all ones,
//! like a bus that nobody drives.
//!
//! No timer, clock chip, keyboard or video: the guest keeps time by the local APIC and kvmclock. The serial port is a
//! 16550 by the vm-superio crate. It writes to a socket that does not block: a processor never waits for whoever reads
//! the console, and what does not fit is lost. It writes by lines, because a socket takes hundreds of messages, however
//! short they are.

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

use super::bus::Bus;
use super::layout;
use crate::sys::{eventfd, kvm};

/// The command to the keyboard controller that pulls the processor's reset line.
const PULSE_RESET: u8 = 0xfe;

/// The bit of the chipset's reset register that does the same.
const RESET: u8 = 1 << 2;

/// Why there is no platform.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The console's socket.
    #[error("cannot make the console's socket non-blocking")]
    Console(#[source] io::Error),
    /// The serial port's interrupt.
    #[error("cannot make the serial port's interrupt")]
    Interrupt(#[source] Errno),
}

/// What a write to a port asks of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    Reset,
}

/// The devices behind I/O ports.
pub(super) struct Platform {
    ports: Bus<Port>,
    interrupt: EventFd,
}

enum Port {
    Serial(Box<Mutex<Serial<Pulse, vm_superio::serial::NoEvents, Lines>>>),
    Keyboard,
    ResetControl,
}

/// Where lines go that the guest prints.
struct Lines {
    socket: UnixStream,
    line: Vec<u8>,
}

impl Lines {
    /// A longer line goes in parts.
    const LONGEST: usize = 512;

    fn new(socket: UnixStream) -> Self {
        Self { socket, line: Vec::with_capacity(Self::LONGEST) }
    }

    fn send(&mut self) {
        // Full, or nobody's any more: then it is lost.
        let _sent = self.socket.write(&self.line);
        self.line.clear();
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            self.line.push(*byte);
            if *byte == b'\n' || self.line.len() == Self::LONGEST {
                self.send();
            }
        }
        Ok(bytes.len())
    }

    /// Asked for after every byte, so not done.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.send();
    }
}

/// The serial port's interrupt line.
struct Pulse(EventFd);

impl Trigger for Pulse {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

impl Platform {
    /// A platform whose serial port writes to `console`.
    pub(super) fn new(console: UnixStream) -> Result<Self, Error> {
        console.set_nonblocking(true).map_err(Error::Console)?;
        let interrupt = kvm::event(eventfd::create().map_err(Error::Interrupt)?);
        let line = interrupt
            .try_clone()
            .map_err(|error| Error::Interrupt(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        let serial = Port::Serial(Box::new(Mutex::new(Serial::new(Pulse(line), Lines::new(console)))));
        let one = |port| port..port + 1;
        let ports = Bus::new(vec![
            (layout::SERIAL, serial),
            (one(layout::KEYBOARD_COMMAND), Port::Keyboard),
            (one(layout::RESET_CONTROL), Port::ResetControl),
        ]);
        Ok(Self { ports, interrupt })
    }

    /// The serial port's interrupt, to be wired to [`layout::SERIAL_IRQ`].
    pub(super) fn interrupt(&self) -> &EventFd {
        &self.interrupt
    }

    /// Reads from a port as often as there are bytes: the devices have registers of one byte, and a string instruction
    /// reads the same one again and again.
    pub(super) fn read(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        match self.ports.find(port.into(), 1) {
            Some((Port::Serial(serial), offset)) => {
                let mut serial = serial.lock().unwrap_or_else(PoisonError::into_inner);
                for byte in data {
                    *byte = serial.read(offset as u8);
                }
            }
            // Ready for a command.
            Some((Port::Keyboard, _)) | Some((Port::ResetControl, _)) => data.fill(0),
            None => {}
        }
    }

    /// Writes to a port, byte by byte.
    pub(super) fn write(&self, port: u16, data: &[u8]) -> Effect {
        let asks = |reset: &dyn Fn(u8) -> bool| {
            if data.iter().any(|byte| reset(*byte)) { Effect::Reset } else { Effect::Nothing }
        };
        match self.ports.find(port.into(), 1) {
            Some((Port::Serial(serial), offset)) => {
                let mut serial = serial.lock().unwrap_or_else(PoisonError::into_inner);
                for byte in data {
                    // What could fail is the interrupt's counter, which KVM empties.
                    let _pulsed = serial.write(offset as u8, *byte);
                }
                Effect::Nothing
            }
            Some((Port::Keyboard, _)) => asks(&|byte| byte == PULSE_RESET),
            Some((Port::ResetControl, _)) => asks(&|byte| byte & RESET != 0),
            None => Effect::Nothing,
        }
    }
}

impl std::fmt::Debug for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Platform").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn platform() -> (Platform, UnixStream) {
        let (guest, host) = UnixStream::pair().unwrap();
        host.set_nonblocking(true).unwrap();
        (Platform::new(guest).unwrap(), host)
    }

    fn read(platform: &Platform, port: u16) -> u8 {
        let mut byte = [0x5a];
        platform.read(port, &mut byte);
        byte[0]
    }

    #[test]
    fn what_the_guest_prints_arrives() {
        let (platform, mut host) = platform();
        assert_eq!(read(&platform, 0x3fd) & 0x60, 0x60, "ready for more");
        assert_eq!(platform.write(0x3f8, b"panic\n"), Effect::Nothing);
        let mut seen = [0; 16];
        assert_eq!(host.read(&mut seen).unwrap(), 6);
        assert_eq!(&seen[..6], b"panic\n");
    }

    #[test]
    fn a_console_that_nobody_reads_does_not_stop_the_guest() {
        const PRINTED: usize = 2000 * 101;
        let (platform, mut host) = platform();
        for _ in 0..2000 {
            platform.write(0x3f8, &[b'x'; 100]);
            platform.write(0x3f8, b"\n");
        }
        let mut seen = vec![0; PRINTED];
        let count = host.read(&mut seen).unwrap();
        assert!(count > 10 * 101 && count < PRINTED, "a part of it: {count}");
        drop(host);
        platform.write(0x3f8, b"nobody\n");
        assert_eq!(read(&platform, 0x3fd) & 0x60, 0x60, "still ready");
    }

    #[test]
    fn a_line_without_end_arrives_in_parts_and_its_rest_at_the_end() {
        let (platform, mut host) = platform();
        platform.write(0x3f8, &[b'x'; 600]);
        let mut seen = [0; 1024];
        assert_eq!(host.read(&mut seen).unwrap(), 512);
        drop(platform);
        assert_eq!(host.read(&mut seen).unwrap(), 88);
        assert_eq!(host.read(&mut seen).unwrap(), 0);
    }

    #[test]
    fn ports_without_a_device_read_as_all_ones_and_take_anything() {
        let (platform, _host) = platform();
        for port in [0, 0x20, 0x60, 0x70, 0x71, 0x2f8, 0x400, 0xcf8, 0xcfc, 0xffff] {
            assert_eq!(read(&platform, port), 0xff, "port {port:#x}");
            assert_eq!(platform.write(port, &[0xfe, 6]), Effect::Nothing, "port {port:#x}");
        }
    }

    #[test]
    fn either_way_of_resetting_a_pc_resets() {
        let (platform, _host) = platform();
        assert_eq!(read(&platform, 0x64), 0);
        assert_eq!(platform.write(0x64, &[0xaa]), Effect::Nothing);
        assert_eq!(platform.write(0x64, &[0xfe]), Effect::Reset);
        assert_eq!(platform.write(0xcf9, &[0x02]), Effect::Nothing);
        assert_eq!(platform.write(0xcf9, &[0x06]), Effect::Reset);
    }

    #[test]
    fn the_transmitter_interrupts_when_it_is_asked_to() {
        let (platform, _host) = platform();
        platform.write(0x3f9, &[0x02]);
        platform.write(0x3f8, b"x");
        assert!(platform.interrupt().read().unwrap() > 0);
    }
}
