// SPDX-License-Identifier: Apache-2.0
//! Indices and flags of the available and the used ring (virtio 1.2 §2.7.6 to §2.7.10).

use crate::bare::{peek, poke};
use crate::device::{After, Device, PATIENCE, wait};
use crate::machine::Machine;
use crate::ring::WRITE;
use crate::verdict::{Case, PASS, REJECT, Verdict, case, ensure};
use crate::window::{EVENT_IDX, INTERRUPT, INTERRUPT_ACK, NEEDS_RESET, VERSION_1};
use crate::{fs, rng};

const AVAILABLE: &str = "2.7.6.1";
const INTERRUPTS: &str = "2.7.7.1";
const USED: &str = "2.7.10.1";

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case(501, "T13", AVAILABLE, "index beyond the ring's size", |m| jump(m, |next| next.wrapping_add(17))),
    case(502, "T13", AVAILABLE, "index half way round", |m| jump(m, |next| next.wrapping_add(0x8000))),
    case(503, "T13", AVAILABLE, "index one back", |m| jump(m, |next| next.wrapping_sub(1))),
    case(504, "T13", AVAILABLE, "index 16 back", |m| jump(m, |next| next.wrapping_sub(16))),
    case(505, "T13", AVAILABLE, "index beyond the size of a ring of files", jump_files),
    case(506, "T13", AVAILABLE, "index by as much as the ring holds, of one buffer", whole_ring),
    case(507, "T13", AVAILABLE, "random indices, a hundred devices", random),
    case(508, "T13", AVAILABLE, "a thousand kicks of a device that gave up", after_the_end),
    case(509, "T15", AVAILABLE, "index around its end, 66000 requests", wrap),
    case(510, "T15", AVAILABLE, "index around its end, 66000 requests, event index", wrap_with_events),
    case(511, "T22", INTERRUPTS, "flags that do not exist, no event index", |m| flags(m, 0xfffe, 0)),
    case(512, "T22", INTERRUPTS, "flags with the event index", |m| flags(m, 0xffff, EVENT_IDX)),
    case(513, "T22", INTERRUPTS, "no interrupts", no_interrupts),
    case(514, "T22", INTERRUPTS, "random wishes for interrupts", |m| events(m, |turn| turn.wrapping_mul(0x6255))),
    case(515, "T22", INTERRUPTS, "wishes for interrupts in the past", |m| events(m, |turn| turn.wrapping_sub(2))),
    case(516, "T22", INTERRUPTS, "wishes for interrupts in the future", |m| events(m, |turn| turn.wrapping_add(9))),
    case(517, "T22", INTERRUPTS, "wish for an interrupt without the event index", event_without_feature),
    case(518, "T19", USED, "used ring with flags to begin with", used_flags),
    case(519, "T19", USED, "used ring with an index to begin with", used_index),
    case(520, "T19", "2.7.8", "write the device's index while it lives", write_used_index),
    case(521, "T19", "2.7.8", "write entries of the used ring while it lives", write_used_entries),
    case(522, "T22", USED, "write the device's wishes for kicks", write_kick_wishes),
    case(523, "T13", AVAILABLE, "every head at once, and each wrong", wrong_heads),
];

/// An index that no driver can have come to. What was offered before may have been served.
fn jump(machine: &mut Machine, index: fn(u16) -> u16) -> Verdict {
    for device in [&mut machine.rng, &mut machine.vsock] {
        let main = device.main();
        for events in [0, EVENT_IDX] {
            ensure(device.start_with(VERSION_1 | events, 16), "does not start")?;
            let flags = if main == 0 { WRITE } else { 0 };
            device.rings[main].describe(0, device.buffers, 64, flags, 0);
            ensure(matches!(device.serve(0), After::Used { .. }), "does not work")?;
            device.rings[main].set_index(index(device.rings[main].next));
            device.window.notify(main as u32);
            ensure(device.after(main) == After::Broken, "it did not give up")?;
            ensure(device.window.status() & NEEDS_RESET != 0, "it does not say so")?;
        }
    }
    REJECT
}

/// A process of its own cannot say that it gave up; it must not serve any more, and work after a reset.
fn jump_files(machine: &mut Machine) -> Verdict {
    let device = &mut machine.fs;
    for step in [17, 0x8000, u16::MAX] {
        fs::start(device)?;
        device.rings[1].set_index(device.rings[1].next.wrapping_add(step));
        device.window.notify(1);
        ensure(!matches!(device.quiet(1), After::Used { .. }), "it served what was not offered")?;
    }
    REJECT
}

fn whole_ring(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start(), "does not start")?;
    device.rings[0].describe(0, device.buffers, 16, WRITE, 0);
    device.rings[0].next = 16;
    device.rings[0].set_index(16);
    device.window.notify(0);
    for _ in 0..16 {
        ensure(device.after(0) == After::Used { head: 0, length: 16 }, "not served")?;
    }
    PASS
}

fn random(machine: &mut Machine) -> Verdict {
    let (device, mut index) = (&mut machine.rng, 1_u16);
    for _ in 0..100 {
        ensure(device.start(), "does not start")?;
        device.rings[0].describe(0, device.buffers, 16, WRITE, 0);
        for _ in 0..8 {
            index = index.wrapping_mul(25_173).wrapping_add(13_849);
            device.rings[0].set_index(index);
            device.window.notify(0);
        }
        // One of eight random steps may make sense; eight in a row do so once in 2^96 times.
        while matches!(device.after(0), After::Used { .. }) {}
        ensure(device.window.is_broken(), "it did not give up")?;
    }
    REJECT
}

fn after_the_end(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start(), "does not start")?;
    device.rings[0].set_index(1000);
    device.window.notify(0);
    ensure(device.after(0) == After::Broken, "it did not give up")?;
    // The bit that is seen first is the status'.
    ensure(wait(PATIENCE, || (device.window.read(INTERRUPT) & 2 != 0).then_some(())).is_some(), "no interrupt")?;
    device.window.write(INTERRUPT_ACK, u32::MAX);
    for index in 0..1000 {
        device.rings[0].set_index(index);
        device.window.notify(0);
    }
    ensure(device.quiet(0) == After::Broken, "it serves, or forgot")?;
    ensure(device.window.read(INTERRUPT) == 0, "it says so again and again")?;
    REJECT
}

/// Each request is completed once: 258 times 256 of them.
fn around(device: &mut Device) -> Verdict {
    for slot in 0..256 {
        device.rings[0].describe(slot, device.buffers + u64::from(slot), 1, WRITE, 0);
    }
    for _ in 0..258 {
        for slot in 0..256 {
            device.rings[0].offer(slot);
        }
        device.window.notify(0);
        for slot in 0..256 {
            ensure(device.after(0) == After::Used { head: slot, length: 1 }, "lost or doubled")?;
        }
    }
    ensure(device.quiet(0) == After::Silence, "more completions than requests")?;
    PASS
}

fn wrap(machine: &mut Machine) -> Verdict {
    ensure(machine.rng.start_with(VERSION_1, 256), "does not start")?;
    around(&mut machine.rng)
}

fn wrap_with_events(machine: &mut Machine) -> Verdict {
    ensure(machine.rng.start_with(VERSION_1 | EVENT_IDX, 256), "does not start")?;
    around(&mut machine.rng)
}

fn flags(machine: &mut Machine, flags: u16, features: u64) -> Verdict {
    for device in [&mut machine.rng, &mut machine.vsock] {
        let main = device.main();
        ensure(device.start_with(VERSION_1 | features, 16), "does not start")?;
        poke(device.rings[main].available, flags);
        device.rings[main].describe(0, device.buffers, 64, if main == 0 { WRITE } else { 0 }, 0);
        ensure(matches!(device.serve(0), After::Used { .. }), "not served")?;
    }
    PASS
}

fn no_interrupts(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start(), "does not start")?;
    poke(device.rings[0].available, 1_u16);
    for _ in 0..20 {
        ensure(rng::good(device), "does not work")?;
    }
    device.quiet(0);
    ensure(device.window.read(INTERRUPT) == 0, "an interrupt nobody wants")?;
    PASS
}

/// Where the driver says with which entry it wants an interrupt.
fn used_event(device: &Device) -> u64 {
    device.rings[0].available + 4 + 2 * u64::from(device.rings[0].size)
}

/// Whatever is wished for, requests are served.
fn events(machine: &mut Machine, wish: fn(u16) -> u16) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start_with(VERSION_1 | EVENT_IDX, 16), "does not start")?;
    for turn in 0..200 {
        poke(used_event(device), wish(turn));
        ensure(rng::good(device), "not served")?;
    }
    PASS
}

fn event_without_feature(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start(), "does not start")?;
    poke(used_event(device), 0x4000_u16);
    ensure(device.works(), "it counts")?;
    PASS
}

fn used_flags(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.prepare(VERSION_1, 16), "does not start")?;
    poke(device.rings[0].used, u16::MAX);
    device.rings[0].lay_out(device.window);
    ensure(device.window.go_live() && rng::good(device), "not served")?;
    PASS
}

fn used_index(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.prepare(VERSION_1, 16), "does not start")?;
    poke(device.rings[0].used + 2, 0x1234_u16);
    device.rings[0].lay_out(device.window);
    ensure(device.window.go_live(), "does not live")?;
    device.rings[0].describe(0, device.buffers, 16, WRITE, 0);
    device.rings[0].offer(0);
    device.window.notify(0);
    // From there or from 0: it is the driver who cannot tell.
    let moved = || (!matches!(device.rings[0].used_index(), 0x1234)).then_some(());
    ensure(wait(PATIENCE, moved).is_some() || device.window.is_broken(), "no answer")?;
    PASS
}

/// The device keeps its own count.
fn write_used_index(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start() && rng::good(device), "does not start")?;
    for index in [0x7777, 0, u16::MAX] {
        poke(device.rings[0].used + 2, index);
        let count = device.rings[0].seen.wrapping_add(1);
        device.rings[0].offer(0);
        device.window.notify(0);
        let own = || (device.rings[0].used_index() == count).then_some(());
        ensure(wait(PATIENCE, own).is_some(), "it believed the driver")?;
        device.rings[0].seen = count;
    }
    PASS
}

fn write_used_entries(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start(), "does not start")?;
    for _ in 0..40 {
        for at in 0..16 {
            poke(device.rings[0].used + 4 + 8 * at, u64::MAX);
        }
        ensure(rng::good(device), "not served")?;
    }
    PASS
}

fn write_kick_wishes(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start_with(VERSION_1 | EVENT_IDX, 16), "does not start")?;
    let wish = device.rings[0].used + 4 + 8 * 16;
    for turn in 0..40_u16 {
        poke(wish, turn.wrapping_mul(0x5555));
        poke(device.rings[0].used, turn);
        ensure(rng::good(device), "not served")?;
    }
    ensure(peek::<u16>(device.rings[0].available + 2) == device.rings[0].next, "the driver's index was written")?;
    PASS
}

fn wrong_heads(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start(), "does not start")?;
    for head in 0..16 {
        device.rings[0].offer(head * 4099 + 16);
    }
    device.window.notify(0);
    ensure(device.after(0) == After::Broken, "it did not give up")?;
    REJECT
}
