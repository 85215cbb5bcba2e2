// SPDX-License-Identifier: Apache-2.0
use super::*;
use proptest::prelude::*;

fn exec() -> Exec {
    Exec {
        argc: 2,
        envc: 1,
        strings: ByteBuf::from(*b"sh\0\xff\n,=\0K=V\0"),
        absent: 3,
        cwd: ByteBuf::from(*b"/tmp"),
        uid: 1000,
        gid: 1000,
        groups: vec![4, 24],
        umask: 0o022,
        rlimits: vec![Rlimit { resource: 3, soft: 8 << 20, hard: u64::MAX }],
        memory_max: 1 << 30,
        processes_max: Some(64),
        hostname: ByteBuf::from(*b"sandbox"),
        clock: Clock { seconds: -1, nanoseconds: 999_999_999 },
        entropy: [7; 32],
        terminal: Some(Terminal {
            size: Size { rows: 24, columns: 80, width: 0, height: 0 },
            modes: ByteBuf::from([1; TERMIOS]),
            error: true,
        }),
    }
}

/// One with this number everywhere.
fn tally(number: u64) -> Tally {
    Tally {
        usage: Usage {
            user_us: number,
            system_us: number,
            memory_peak: number,
            processes_peak: number,
            faults: number,
            major_faults: number,
            private_bytes: number,
            transfer: Some(Transfer { read: number, written: number }),
        },
        met: Met { oom_kills: u32::try_from(number).unwrap_or(u32::MAX), processes_refused: number, full: number },
    }
}

fn collect<M: Message>(bytes: &[u8], step: usize) -> Result<Vec<M>, Error> {
    let mut decoder = Decoder::default();
    let mut messages = Vec::new();
    for part in bytes.chunks(step) {
        decoder.push(part, |message| messages.push(message))?;
    }
    Ok(messages)
}

#[test]
fn frames_survive_any_cut() {
    let sent = vec![ToGuest::Ping, ToGuest::Exec(exec()), ToGuest::Signal { signal: 15, group: true }];
    let bytes: Vec<u8> = sent.iter().flat_map(|message| encode(message).unwrap()).collect();
    for step in 1..=bytes.len() {
        assert_eq!(collect::<ToGuest>(&bytes, step).unwrap(), sent, "in steps of {step}");
    }
}

#[test]
fn truncation_delivers_nothing() {
    let frame = encode(&FromGuest::Hello { version: VERSION }).unwrap();
    for length in 0..frame.len() {
        assert_eq!(collect::<FromGuest>(&frame[..length], 1).unwrap(), []);
    }
}

#[test]
fn wrong_header_is_named() {
    let good = encode(&FromGuest::Pong(tally(0))).unwrap();
    let mut magic = good.clone();
    magic[0] = b'x';
    assert_eq!(collect::<FromGuest>(&magic, 64), Err(Error::Magic(*b"xb")));
    let mut version = good.clone();
    version[2] = 9;
    assert_eq!(collect::<FromGuest>(&version, 64), Err(Error::Version(9)));
    let mut long = good;
    long[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(collect::<FromGuest>(&long, 64), Err(Error::TooLong(u32::MAX)));
}

#[test]
fn trailing_bytes_in_a_payload_are_refused() {
    let mut frame = encode(&FromGuest::Pong(tally(0))).unwrap();
    frame.push(0);
    frame[4] += 1;
    assert_eq!(collect::<FromGuest>(&frame, 64), Err(Error::Payload));
}

#[test]
fn too_long_a_message_is_not_sent() {
    let mut long = exec();
    long.strings = ByteBuf::from(vec![1; TO_GUEST_MAX]);
    assert!(matches!(encode(&ToGuest::Exec(long)), Err(Error::Unsendable(_))));
}

#[test]
fn every_guest_message_fits_its_limit() {
    let ended = Ended { end: End::Signaled(255), tally: tally(u64::MAX) };
    assert!(encode(&FromGuest::Ended(ended)).is_ok());
    assert!(encode(&FromGuest::Pong(tally(u64::MAX))).is_ok());
}

/// Frames of real messages with bytes changed, cut and joined, and plain noise: never a panic, never more held than one
/// frame, and whatever comes out of it is a message that can be framed again. `SANDBOX_FUZZ_ITERATIONS` makes it run
/// longer; the seed is fixed, so a failure can be repeated.
#[test]
fn hostile_frames() {
    let wanted = std::env::var("SANDBOX_FUZZ_ITERATIONS").ok().and_then(|value| value.parse().ok());
    let models: Vec<Vec<u8>> = [
        FromGuest::Hello { version: VERSION },
        FromGuest::Mounted,
        FromGuest::Started,
        FromGuest::NotStarted { step: Step::MountVolume(7), errno: 2 },
        FromGuest::Failed { step: Step::Exec, errno: -1 },
        FromGuest::Ended(Ended { end: End::Signaled(9), tally: tally(1 << 40) }),
        FromGuest::Drained { stdout: 300, stderr: u64::MAX },
        FromGuest::Pong(tally(7)),
    ]
    .iter()
    .map(|message| encode(message).unwrap())
    .collect();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut delivered, mut refused) = (0u64, 0u64);
    let mut decoder = Decoder::<FromGuest>::default();
    for _ in 0..wanted.unwrap_or(200_000u64) {
        let mut bytes = models[dice.below(models.len())].clone();
        for _ in 0..dice.below(4) {
            let at = dice.below(bytes.len());
            bytes[at] = dice.next() as u8;
        }
        bytes.truncate(bytes.len() - dice.below(8).saturating_sub(5).min(bytes.len()));
        let again = |message: FromGuest| {
            delivered += 1;
            assert!(encode(&message).is_ok());
        };
        if decoder.push(&bytes, again).is_err() {
            refused += 1;
            decoder = Decoder::default();
        }
        assert!(decoder.buffer.len() <= HEADER_LEN + FROM_GUEST_MAX);
    }
    // A generator that never gets past the header would test nothing.
    assert!(delivered > refused / 8 && refused > delivered / 8, "{delivered} delivered, {refused} refused");
}

/// A small generator (xorshift64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

proptest! {
    /// Arbitrary bytes, half of them behind a valid header, never panic and never hold more than one frame.
    #[test]
    fn hostile_bytes_are_bounded(
        valid_header in any::<bool>(), body in proptest::collection::vec(any::<u8>(), 0..2048), step in 1usize..300,
    ) {
        let mut bytes = Vec::new();
        if valid_header {
            bytes.extend_from_slice(&MAGIC);
            bytes.extend_from_slice(&VERSION.to_le_bytes());
            bytes.extend_from_slice(&(body.len() as u32).to_le_bytes());
        }
        bytes.extend_from_slice(&body);
        let mut decoder = Decoder::<FromGuest>::default();
        for part in bytes.chunks(step) {
            if decoder.push(part, |_| ()).is_err() {
                break;
            }
            prop_assert!(decoder.buffer.len() <= HEADER_LEN + FROM_GUEST_MAX);
        }
    }
}

#[test]
fn a_size_is_one_number() {
    let size = Size { rows: 50, columns: 132, width: u16::MAX, height: 0 };
    assert_eq!(Size::from(u64::from(size)), size);
}
