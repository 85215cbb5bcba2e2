// SPDX-License-Identifier: Apache-2.0
//! Packets that no driver would send, by the million, straight into the multiplexer.
//!
//! Plausible enough to get deep: mostly right addresses and known operations, now and then anything. The generator is
//! seeded, so a failure can be repeated; `SANDBOX_FUZZ_ITERATIONS` makes it run longer.

use super::*;

/// Iterations of a quick run.
const QUICK: u64 = 200_000;
const PORTS: u32 = 4;

/// splitmix64: small, and good enough to choose by.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }

    fn one_in(&mut self, odds: u64) -> bool {
        self.below(odds) == 0
    }

    fn number(&mut self) -> u32 {
        match self.below(8) {
            0 => 0,
            1 => u32::MAX,
            2 => BUFFER_MAX,
            3 => self.below(u64::from(BUFFER_MAX) * 2) as u32,
            4 => 1 << self.below(32),
            5 => self.roll() as u32,
            _ => self.below(4096) as u32,
        }
    }

    /// A packet of the guest: mostly one that its connection survives, for the depths are behind it.
    fn header(&mut self, got: &[u32]) -> Header {
        let index = self.below(u64::from(PORTS)) as u32;
        let mut header = packet(1024 + index, op::RW, 0, 0);
        header.fwd_cnt = got.get(index as usize).copied().unwrap_or(0);
        match self.below(1000) {
            0..600 => header.len = self.below(8192) as u32,
            600..750 => header.op = op::CREDIT_UPDATE,
            750..900 => header.op = op::CREDIT_REQUEST,
            900..920 => (header.op, header.flags) = (op::SHUTDOWN, self.below(4) as u32),
            920..960 => header.buf_alloc = self.number(),
            960..970 => header.fwd_cnt = self.number(),
            970..980 => header.len = self.number(),
            980..985 => header.op = self.below(9) as u16,
            985..990 => header.src_cid = self.roll(),
            990..992 => header.dst_cid = self.roll(),
            992..994 => header.kind = self.roll() as u16,
            994..996 => header.op = self.roll() as u16,
            996..998 => header.flags = self.number(),
            _ => header.src_port = self.number(),
        }
        header
    }
}

/// One guest's life, and what came of it.
struct Life {
    guest: Guest,
    /// Bytes that the guest got, by port.
    got: Vec<u32>,
}

/// What all lives did, so that a generator that gets nowhere is noticed.
#[derive(Debug, Default)]
struct Sum {
    packets: u64,
    lives: u64,
    to_host: u64,
    to_guest: u64,
    resets: u64,
    shutdowns: u64,
    updates: u64,
    deepest_backlog: usize,
}

impl Life {
    fn new() -> Self {
        let streams: Vec<Memory> = (0..PORTS).map(|_| Memory::default()).collect();
        let mut mux = Mux::new((1024..).zip(streams.iter().cloned()).collect());
        for port in 1024..1024 + PORTS {
            mux.take(&packet(port, op::REQUEST, 0, 0), &[]);
        }
        Self { guest: Guest { mux, streams }, got: vec![0; PORTS as usize] }
    }

    /// Whether there is a connection left to break.
    fn goes_on(&self) -> bool {
        self.guest.mux.slots.iter().any(|slot| matches!(slot.state, State::Connected(_)))
    }

    /// The bounds that hold whatever the guest sends.
    fn check(&self, sum: &mut Sum) {
        let mux = &self.guest.mux;
        assert!(mux.resets.len() <= RESETS_MAX);
        assert_eq!(mux.slots.len(), PORTS as usize);
        for slot in &mux.slots {
            if let State::Connected(link) = &slot.state {
                let backlog = link.conn.backlog_len();
                assert!(backlog <= BUFFER_MAX as usize);
                sum.deepest_backlog = sum.deepest_backlog.max(backlog);
            }
        }
    }

    /// One packet of the guest, unless it has to wait.
    fn send(&mut self, dice: &mut Dice, payload: &[u8], sum: &mut Sum) {
        if self.guest.mux.congested() {
            return;
        }
        let header = dice.header(&self.got);
        match payload.get(..header.len as usize).filter(|_| !dice.one_in(1024)) {
            Some(payload) => self.guest.mux.take(&header, payload),
            None => self.guest.mux.refuse(&header),
        }
        sum.packets += 1;
    }

    /// One thing that the host does meanwhile.
    fn host(&mut self, dice: &mut Dice, sum: &mut Sum) {
        let index = dice.below(u64::from(PORTS)) as usize;
        {
            let mut pipe = self.guest.pipe(index);
            match dice.below(256) {
                0 => pipe.host_ended = true,
                1 => pipe.host_deaf = true,
                2..100 => pipe.room = dice.below(1 << 15) as usize,
                _ if pipe.from_host.len() < 4096 && !pipe.host_ended => pipe.from_host.extend([7; 1024]),
                _ => {}
            }
            sum.to_host += pipe.to_host.len() as u64;
            pipe.to_host.clear();
        }
        self.guest.mux.ready(index as u32);
    }

    /// What the guest takes from the device, up to `count` packets.
    fn take(&mut self, count: u64, room: usize, out: &mut [u8], sum: &mut Sum) {
        for _ in 0..count {
            if !self.guest.mux.wants_to_send() {
                return;
            }
            let Some((header, length)) = self.guest.mux.next(room, out) else {
                assert!(!self.guest.mux.wants_to_send(), "nothing to send must stay so until something happens");
                return;
            };
            assert!(length <= room && (header.op == op::RW || length == 0));
            assert_eq!(header.dst_cid, GUEST_CID);
            match header.op {
                op::RST => sum.resets += 1,
                op::SHUTDOWN => sum.shutdowns += 1,
                op::CREDIT_UPDATE => sum.updates += 1,
                op::RW => {
                    let got = &mut self.got[(header.src_port - 1024) as usize];
                    *got = got.wrapping_add(length as u32);
                    sum.to_guest += length as u64;
                }
                other => assert_eq!(other, op::RESPONSE),
            }
        }
    }
}

#[test]
fn hostile_inputs() {
    let wanted = std::env::var("SANDBOX_FUZZ_ITERATIONS").ok().and_then(|value| value.parse().ok());
    let iterations: u64 = wanted.unwrap_or(QUICK);
    let payload = vec![0x5a; BUFFER_MAX as usize];
    let mut out = vec![0; 64 << 10];
    let (mut dice, mut sum) = (Dice(0x5eed), Sum::default());
    while sum.packets < iterations {
        let mut life = Life::new();
        sum.lives += 1;
        while life.goes_on() && sum.packets < iterations && !dice.one_in(8192) {
            life.send(&mut dice, &payload, &mut sum);
            if dice.one_in(2) {
                life.host(&mut dice, &mut sum);
            }
            let (count, room) = (dice.below(4), 1 + dice.below(1 << 16) as usize);
            life.take(count, room, &mut out, &mut sum);
            if dice.one_in(16384) {
                life.guest.mux.reset();
            }
            life.check(&mut sum);
        }
    }
    println!("{sum:?}");
    let enough = iterations / 1000;
    assert!(sum.to_host > iterations && sum.to_guest > iterations, "{sum:?}");
    assert!(sum.resets > enough && sum.shutdowns > enough && sum.updates > enough, "{sum:?}");
    assert!(sum.deepest_backlog > BUFFER_MAX as usize / 2, "{sum:?}");
}
