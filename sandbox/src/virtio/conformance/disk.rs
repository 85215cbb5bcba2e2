// SPDX-License-Identifier: Apache-2.0
//! The block device behind each front-end, by its ring.

use super::driver::{Buffer, DATA, Driver, WRITE};
use super::front::Kind;
use crate::virtio::disk::{Disk, REQUEST_MAX};
use std::fs::File;
use std::os::unix::fs::FileExt;

const SECTORS: u64 = 64;
const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;

const DONE: u8 = 0;
const FAILED: u8 = 1;
const UNKNOWN: u8 = 2;

/// What no request leaves as its status.
const UNTOUCHED: u8 = 0xaa;

const STATUS: u64 = DATA + 0x800;
const CONTENT: u64 = DATA + 0x1000;

/// A disk whose bytes say in which sector they are.
fn file() -> File {
    let file = tempfile::tempfile().expect("file");
    for sector in 0..SECTORS {
        file.write_all_at(&[sector as u8; 512], sector * 512).expect("write");
    }
    file
}

fn each(case: impl Fn(&mut Driver, &File)) {
    for kind in Kind::ALL {
        let file = file();
        let device = Disk::new(file.try_clone().expect("a second descriptor")).expect("device");
        let mut driver = Driver::new(kind, Box::new(device));
        driver.start_all();
        case(&mut driver, &file);
    }
}

fn buffer(address: u64, length: u32, flags: u16) -> Buffer {
    Buffer { address, length, flags }
}

/// Makes a request with these buffers between header and status; its status, and how many bytes were written.
fn request(driver: &mut Driver, kind: u32, sector: u64, data: &[Buffer]) -> (u8, u32) {
    let mut header = Vec::from(kind.to_le_bytes());
    header.extend([0; 4]);
    header.extend(sector.to_le_bytes());
    driver.write_memory(DATA, &header);
    driver.write_memory(STATUS, &[UNTOUCHED]);
    let mut chain = vec![buffer(DATA, 16, 0)];
    chain.extend_from_slice(data);
    chain.push(buffer(STATUS, 1, WRITE));
    driver.offer(0, &chain);
    driver.kick(0);
    let written = driver.wait_used(0);
    (driver.read_memory(STATUS, 1)[0], written)
}

fn reads(driver: &mut Driver, sector: u64) -> bool {
    driver.write_memory(CONTENT, &[0xff; 512]);
    request(driver, IN, sector, &[buffer(CONTENT, 512, WRITE)]) == (DONE, 513)
        && driver.read_memory(CONTENT, 512) == [sector as u8; 512]
}

#[test]
fn capacity_is_in_its_configuration() {
    each(|driver, _| {
        assert_eq!(driver.config(0, 8), SECTORS.to_le_bytes());
        assert_eq!(driver.config(12, 4), 126_u32.to_le_bytes());
        assert_eq!(driver.features() & (1 << 2 | 1 << 9), 1 << 2 | 1 << 9);
    });
}

#[test]
fn what_is_written_is_read() {
    each(|driver, file| {
        assert!(reads(driver, 0) && reads(driver, SECTORS - 1));
        driver.write_memory(CONTENT, &[7; 1024]);
        // In three pieces, none of which is a sector.
        let pieces = [buffer(CONTENT, 100, 0), buffer(CONTENT + 100, 900, 0), buffer(CONTENT + 1000, 24, 0)];
        assert_eq!(request(driver, OUT, 5, &pieces), (DONE, 1));
        let mut bytes = [0; 2048];
        file.read_exact_at(&mut bytes, 4 * 512).expect("read");
        assert_eq!((bytes[..512].to_vec(), bytes[512..1536].to_vec()), (vec![4; 512], vec![7; 1024]));
        assert_eq!(bytes[1536..], [7; 512]);
        assert_eq!(request(driver, FLUSH, 0, &[]), (DONE, 1));
    });
}

#[test]
fn a_disk_ends_where_it_says() {
    each(|driver, file| {
        let places = [(SECTORS, 512), (SECTORS - 1, 1024), (u64::MAX, 512), (u64::MAX / 512, 512), (0, 511), (0, 513)];
        for (sector, length) in places {
            assert_eq!(request(driver, OUT, sector, &[buffer(CONTENT, length, 0)]), (FAILED, 1), "{sector}");
            // What could not be read is given as nothing, and not as what was there.
            driver.write_memory(CONTENT, &[0xff; 513]);
            let read = request(driver, IN, sector, &[buffer(CONTENT, length, WRITE)]);
            assert_eq!(read, (FAILED, length + 1), "{sector}");
            assert_eq!(driver.read_memory(CONTENT, length as usize), vec![0; length as usize]);
        }
        assert_eq!(file.metadata().expect("state").len(), SECTORS * 512, "it did not grow");
        assert!(reads(driver, SECTORS - 1));
    });
}

#[test]
fn a_request_of_no_known_kind_is_said_to_be_so() {
    each(|driver, _| {
        for kind in [2, 3, 11, 13, 0x8000_0000, u32::MAX] {
            assert_eq!(request(driver, kind, 0, &[buffer(CONTENT, 512, WRITE)]), (UNKNOWN, 513), "{kind}");
        }
        assert_eq!(request(driver, GET_ID, 0, &[buffer(CONTENT, 20, WRITE)]), (DONE, 21));
        assert_eq!(request(driver, GET_ID, 0, &[buffer(CONTENT, 19, WRITE)]), (UNKNOWN, 20));
        // Nothing to read or to write is not wrong.
        assert_eq!(request(driver, IN, 0, &[]), (DONE, 1));
        assert_eq!(request(driver, OUT, 0, &[]), (DONE, 1));
    });
}

#[test]
fn bad_requests_complete_empty_and_the_ring_lives_on() {
    let long = REQUEST_MAX as u32;
    let chains: [(&str, Vec<Buffer>); 6] = [
        ("half a header", vec![buffer(DATA, 15, 0), buffer(STATUS, 1, WRITE)]),
        ("no header", vec![buffer(STATUS, 1, WRITE)]),
        ("no status", vec![buffer(DATA, 16, 0)]),
        ("no status behind data", vec![buffer(DATA, 16, 0), buffer(CONTENT, 512, 0)]),
        // The same megabyte several times.
        ("too much to read", [vec![buffer(DATA, 16, 0)], vec![buffer(DATA, long / 4 + 1, WRITE); 4]].concat()),
        ("too much to write", [vec![buffer(DATA, long / 4 + 16, 0); 4], vec![buffer(STATUS, 1, WRITE)]].concat()),
    ];
    each(|driver, _| {
        for (what, chain) in &chains {
            driver.write_memory(DATA, &[0; 16]);
            driver.write_memory(STATUS, &[UNTOUCHED]);
            driver.offer(0, chain);
            driver.kick(0);
            assert_eq!(driver.wait_used(0), 0, "{what}");
            assert_eq!(driver.read_memory(STATUS, 1), [UNTOUCHED], "{what}");
            assert!(reads(driver, 3), "after {what}");
        }
    });
}

/// The host's disk is full, or broken: the request fails, and nothing else does.
#[test]
fn what_the_host_cannot_do_fails_the_request() {
    for kind in Kind::ALL {
        let mut driver = {
            let file = file();
            let read_only =
                File::open(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file))).expect("open");
            Driver::new(kind, Box::new(Disk::new(read_only).expect("device")))
        };
        driver.start_all();
        assert_eq!(request(&mut driver, OUT, 0, &[buffer(CONTENT, 512, 0)]), (FAILED, 1));
        assert!(reads(&mut driver, 9));
    }
}

#[test]
fn a_file_that_shrinks_fails_what_is_read_beyond() {
    each(|driver, file| {
        file.set_len(512).expect("cut short");
        assert_eq!(request(driver, IN, 1, &[buffer(CONTENT, 512, WRITE)]), (FAILED, 513));
        assert!(reads(driver, 0));
    });
}
