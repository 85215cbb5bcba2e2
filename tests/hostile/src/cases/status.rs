// SPDX-License-Identifier: Apache-2.0
//! Steps of the initialisation out of order, and features that cannot be (virtio 1.2 §2.1.1, §2.2.1, §3.1.1).

use crate::device::{After, Device};
use crate::machine::Machine;
use crate::ring::WRITE;
use crate::verdict::{Case, PASS, REJECT, Verdict, case, ensure};
use crate::window::{
    ACKNOWLEDGE, DRIVER, DRIVER_BANK, DRIVER_FEATURES, DRIVER_OK, EVENT_IDX, FAILED, FEATURES_OK, INDIRECT, LAYING_OUT,
    LIVE, NEEDS_RESET, STATUS, VERSION_1,
};
use crate::{rng, vsock};

const STEPS: &str = "3.1.1";
const FIELD: &str = "2.1.1";
const FEATURES: &str = "2.2.1";
/// The first two steps.
const BEGUN: u32 = ACKNOWLEDGE | DRIVER;

#[rustfmt::skip]
pub(super) const CASES: &[Case] = &[
    case(201, "T4", STEPS, "DRIVER_OK first of all", |m| refuses(m, &[DRIVER_OK])),
    case(202, "T4", STEPS, "every step at once", |m| refuses(m, &[LIVE])),
    case(203, "T4", STEPS, "DRIVER before ACKNOWLEDGE", |m| refuses(m, &[DRIVER])),
    case(204, "T4", STEPS, "FEATURES_OK before DRIVER", |m| refuses(m, &[ACKNOWLEDGE, ACKNOWLEDGE | FEATURES_OK])),
    case(205, "T4", STEPS, "DRIVER_OK without FEATURES_OK", |m| refuses(m, &[ACKNOWLEDGE, BEGUN, BEGUN | DRIVER_OK])),
    case(206, "T4", STEPS, "FEATURES_OK and DRIVER_OK at once", |m| refuses(m, &[ACKNOWLEDGE, BEGUN, LIVE])),
    case(207, "T4", FIELD, "clear DRIVER", |m| refuses(m, &[ACKNOWLEDGE, BEGUN, ACKNOWLEDGE])),
    case(208, "T4", FIELD, "clear DRIVER_OK of a live device", clear_driver_ok),
    case(209, "T4", FIELD, "bits that do not exist", |m| refuses(m, &[ACKNOWLEDGE | 16])),
    case(210, "T4", FIELD, "bits beyond the eighth", |m| refuses(m, &[ACKNOWLEDGE | 0x100])),
    case(211, "T4", FIELD, "all bits of a live device", all_bits),
    case(212, "T4", FIELD, "set and clear the device's own bit", own_bit),
    case(213, "T4", FIELD, "go on after FAILED", after_failed),
    case(214, "T4", FIELD, "go on after the device needs a reset", after_needs_reset),
    case(215, "T4", STEPS, "each sequence of four steps", sequences),
    case(216, "T5", FEATURES, "accept the 64th feature", |m| disagrees(m, VERSION_1 | 1 << 63)),
    case(217, "T5", FEATURES, "accept a packed ring", |m| disagrees(m, VERSION_1 | 1 << 34)),
    case(218, "T5", FEATURES, "accept ring reset", |m| disagrees(m, VERSION_1 | 1 << 40)),
    case(219, "T5", FEATURES, "accept a feature of the device that it has not", |m| disagrees(m, VERSION_1 | 1 << 7)),
    case(220, "T5", FEATURES, "accept everything", |m| disagrees(m, u64::MAX)),
    case(221, "T5", FEATURES, "accept no version", |m| disagrees(m, INDIRECT | EVENT_IDX)),
    case(222, "T5", FEATURES, "accept nothing", |m| disagrees(m, 0)),
    case(223, "T5", FEATURES, "accept features beyond the 64th", beyond),
    case(224, "T5", STEPS, "accept features before DRIVER", early_features),
    case(225, "T5", STEPS, "accept other features after FEATURES_OK", late_features),
    case(226, "T5", STEPS, "accept other features of a live device", live_features),
    case(227, "T4", STEPS, "go on though FEATURES_OK does not stick", though_disagreed),
    case(228, "T6", "2.4", "a hundred resets", resets),
    case(229, "T6", "2.4", "reset while requests are in flight", reset_in_flight),
    case(230, "T17", "2.4", "reset with 256 buffers outstanding", reset_outstanding),
    case(231, "T6", "3.3.1", "take buffers away by a reset, and write over them", reuse),
];

/// No device goes live by these steps, and each says that it was not right.
fn refuses(machine: &mut Machine, steps: &[u32]) -> Verdict {
    for device in machine.devices() {
        device.window.reset();
        for step in steps {
            device.window.write(STATUS, *step);
        }
        ensure(device.window.status() & DRIVER_OK == 0, "it lives")?;
        ensure(device.window.status() & (NEEDS_RESET | FAILED) != 0, "it does not say so")?;
    }
    REJECT
}

fn clear_driver_ok(machine: &mut Machine) -> Verdict {
    for device in machine.devices() {
        ensure(device.start(), "does not start")?;
        device.window.write(STATUS, LAYING_OUT);
        ensure(device.window.is_broken(), "it does not say so")?;
    }
    REJECT
}

fn all_bits(machine: &mut Machine) -> Verdict {
    for device in machine.devices() {
        ensure(device.start(), "does not start")?;
        device.window.write(STATUS, u32::MAX);
        ensure(device.window.is_broken(), "it does not say so")?;
    }
    REJECT
}

fn own_bit(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start(), "does not start")?;
    device.window.write(STATUS, LIVE | NEEDS_RESET);
    ensure(device.window.status() == LIVE, "the driver set it")?;
    device.window.write(STATUS, LIVE);
    ensure(rng::good(device), "does not work afterwards")?;
    // And the other way round: once the device has set it, nothing but a reset clears it.
    device.window.write(STATUS, LIVE | 16);
    device.window.write(STATUS, LIVE);
    ensure(device.window.status() & NEEDS_RESET != 0, "the driver cleared it")?;
    REJECT
}

fn after_failed(machine: &mut Machine) -> Verdict {
    for device in machine.devices() {
        ensure(device.prepare(VERSION_1, 16), "does not start")?;
        device.window.write(STATUS, LAYING_OUT | FAILED);
        ensure(device.window.status() & FAILED != 0, "FAILED does not stick")?;
        device.rings[0].lay_out(device.window);
        device.window.write(STATUS, LIVE | FAILED);
        device.window.write(STATUS, LIVE);
        ensure(device.window.status() & DRIVER_OK == 0, "it lives")?;
    }
    REJECT
}

fn after_needs_reset(machine: &mut Machine) -> Verdict {
    for device in machine.devices() {
        device.window.reset();
        device.window.write(STATUS, DRIVER_OK);
        for step in [ACKNOWLEDGE, BEGUN, LAYING_OUT, LIVE] {
            device.window.write(STATUS, step);
        }
        ensure(device.window.status() & DRIVER_OK == 0, "it lives")?;
    }
    REJECT
}

/// A device lives if and only if its steps are the right ones.
fn sequences(machine: &mut Machine) -> Verdict {
    const STEPS: [u32; 6] = [ACKNOWLEDGE, BEGUN, LAYING_OUT, LIVE, BEGUN | DRIVER_OK, LIVE | FAILED];
    let window = machine.rng.window;
    for sequence in 0..STEPS.len().pow(4) {
        window.reset();
        let mut state = 0;
        for step in (0..4).map(|place| STEPS[sequence / STEPS.len().pow(place) % STEPS.len()]) {
            window.write(STATUS, step);
            if step == BEGUN {
                window.accept(VERSION_1);
            }
            // A repeated step changes nothing, one that is due counts, any other is the end.
            let order = [ACKNOWLEDGE, BEGUN, LAYING_OUT, LIVE];
            state = match state {
                4 if step == LIVE => 4,
                9 => 9,
                _ if step == order[state.min(3)] => state + 1,
                1..=4 if step == order[state - 1] => state,
                _ => 9,
            };
        }
        ensure((window.status() & DRIVER_OK != 0 && !window.is_broken()) == (state == 4), "a wrong sequence")?;
    }
    REJECT
}

fn disagrees(machine: &mut Machine, features: u64) -> Verdict {
    for device in machine.devices() {
        ensure(!device.prepare(features, 16), "it agreed")?;
        ensure(device.window.status() & FEATURES_OK == 0, "FEATURES_OK sticks")?;
    }
    REJECT
}

fn beyond(machine: &mut Machine) -> Verdict {
    for device in machine.devices() {
        let window = device.window;
        window.reset();
        window.write(STATUS, ACKNOWLEDGE);
        window.write(STATUS, BEGUN);
        window.accept(VERSION_1);
        window.write(DRIVER_BANK, 2);
        window.write(DRIVER_FEATURES, 1);
        window.write(STATUS, LAYING_OUT);
        ensure(window.status() & FEATURES_OK == 0, "it agreed")?;
    }
    REJECT
}

fn early_features(machine: &mut Machine) -> Verdict {
    let window = machine.rng.window;
    window.reset();
    window.accept(VERSION_1);
    window.write(STATUS, ACKNOWLEDGE);
    window.accept(VERSION_1);
    window.write(STATUS, BEGUN);
    window.write(STATUS, LAYING_OUT);
    ensure(window.status() & FEATURES_OK == 0, "features were taken before DRIVER")?;
    REJECT
}

fn late_features(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.prepare(VERSION_1, 16), "does not start")?;
    device.window.accept(u64::MAX);
    device.rings[0].lay_out(device.window);
    ensure(device.window.go_live() && rng::good(device), "they counted")?;
    REJECT
}

/// Were the event index agreed on after the fact, no interrupt would come.
fn live_features(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start(), "does not start")?;
    device.window.accept(VERSION_1 | EVENT_IDX | INDIRECT);
    let ring = device.rings[0];
    crate::bare::poke(ring.available + 4 + 2 * u64::from(ring.size), 0x4000_u16);
    ensure(rng::good(device) && device.interrupts(), "they count")?;
    REJECT
}

fn though_disagreed(machine: &mut Machine) -> Verdict {
    for device in machine.devices() {
        ensure(!device.prepare(VERSION_1 | 1 << 63, 16), "it agreed")?;
        for ring in &device.rings[..device.count()] {
            ring.lay_out(device.window);
        }
        ensure(!device.window.go_live(), "it lives")?;
    }
    REJECT
}

fn resets(machine: &mut Machine) -> Verdict {
    for device in machine.devices() {
        for _ in 0..100 {
            ensure(device.start(), "does not start")?;
        }
    }
    PASS
}

/// Fills a ring of 256 entries with requests.
fn fill(device: &mut Device, ring: usize, length: u32, flags: u16) {
    for slot in 0..256 {
        let queue = &mut device.rings[ring];
        queue.describe(slot, device.buffers + 0x1000 * u64::from(slot), length, flags, 0);
        queue.offer(slot);
    }
    device.window.notify(ring as u32);
}

fn reset_in_flight(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    for _ in 0..20 {
        ensure(device.start_with(VERSION_1, 256), "does not start")?;
        fill(device, 0, 0x1000, WRITE);
        device.window.reset();
        ensure(device.window.status() == 0, "not reset")?;
        // From here on the ring is ours: nothing may change in it.
        let index = device.rings[0].used_index();
        device.rings[0].seen = index;
        ensure(device.quiet(0) == After::Silence, "completions after the reset")?;
    }
    PASS
}

fn reset_outstanding(machine: &mut Machine) -> Verdict {
    let device = &mut machine.vsock;
    for _ in 0..20 {
        ensure(device.start_with(VERSION_1, 256), "does not start")?;
        fill(device, vsock::RX, 0x1000, WRITE);
        fill(device, vsock::EVENT, 0x1000, WRITE);
        device.window.reset();
        ensure(device.window.status() == 0, "not reset")?;
    }
    PASS
}

fn reuse(machine: &mut Machine) -> Verdict {
    let device = &mut machine.rng;
    ensure(device.start_with(VERSION_1, 256), "does not start")?;
    fill(device, 0, 0x1000, WRITE);
    device.window.reset();
    let first = device.buffers;
    for at in 0..0x200 {
        crate::bare::poke(first + 8 * at, 0x0123_4567_89ab_cdef_u64);
    }
    ensure(device.quiet(0) != After::Broken, "broken after a reset")?;
    let same = |at: u64| crate::bare::peek::<u64>(first + 8 * at) == 0x0123_4567_89ab_cdef_u64;
    ensure((0..0x200).all(same), "the device wrote after its reset")?;
    PASS
}
