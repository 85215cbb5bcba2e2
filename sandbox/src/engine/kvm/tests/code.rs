// SPDX-License-Identifier: Apache-2.0
//! Machine code for tiny guests, a function for each thing they do (AMD64 APM vol. 3), and the ELF file around it.

use super::layout;

/// Where a guest leaves its result.
pub(super) const RESULT: u64 = 0x8000;

/// Where [`map`] and [`map_second`] put what they map: the last two pages of 2 MiB below 1 GiB.
pub(super) const MAPPED: u64 = 511 << 21;
pub(super) const MAPPED_SECOND: u64 = 510 << 21;

/// The table of interrupt gates, and what the processor finds it by.
pub(super) const GATES: u64 = 0x9000;
pub(super) const GATES_POINTER: u64 = 0xa000;
const STACK: u32 = 0x9_0000;

/// `mov dword [address], value`
pub(super) fn store(address: u64, value: u32) -> Vec<u8> {
    with(&[0xc7, 0x04, 0x25], &[address as u32, value])
}

/// `mov eax, [address]`
pub(super) fn load(address: u64) -> Vec<u8> {
    with(&[0x8b, 0x04, 0x25], &[address as u32])
}

/// `mov [RESULT], eax`
pub(super) fn save() -> Vec<u8> {
    with(&[0x89, 0x04, 0x25], &[RESULT as u32])
}

/// `mov eax, [address]; test eax, eax; jz` back
pub(super) fn load_loop(address: u64) -> Vec<u8> {
    [load(address), vec![0x85, 0xc0, 0x74, 0xf5]].concat()
}

/// Makes 2 MiB of the guest's address space appear at [`MAPPED`].
pub(super) fn map(address: u64) -> Vec<u8> {
    map_at(MAPPED, address)
}

/// The same at [`MAPPED_SECOND`].
pub(super) fn map_second(address: u64) -> Vec<u8> {
    map_at(MAPPED_SECOND, address)
}

fn map_at(place: u64, address: u64) -> Vec<u8> {
    // large, writable, present
    const FLAGS: u32 = 0x83;
    let entry = layout::PD + (place >> 21) * 8;
    [store(entry, address as u32 & !0x1f_ffff | FLAGS), store(entry + 4, 0)].concat()
}

/// `mov dx, port; mov al, value; out dx, al`
pub(super) fn port_out(port: u16, value: u8) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0x66, 0xba, low, high, 0xb0, value, 0xee]
}

/// `xor eax, eax; mov dx, port; in al, dx`
pub(super) fn port_in(port: u16) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0x31, 0xc0, 0x66, 0xba, low, high, 0xec]
}

/// The same with `in eax, dx`
pub(super) fn port_in_long(port: u16) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    vec![0x31, 0xc0, 0x66, 0xba, low, high, 0xed]
}

/// A line of one letter.
pub(super) fn print(letter: u8) -> Vec<u8> {
    [port_out(0x3f8, letter), port_out(0x3f8, b'\n')].concat()
}

/// By the keyboard controller; then for ever, in case that does nothing.
pub(super) fn reset() -> Vec<u8> {
    [port_out(0x64, 0xfe), forever()].concat()
}

/// `jmp` to itself
pub(super) fn forever() -> Vec<u8> {
    vec![0xeb, 0xfe]
}

/// `hlt` with interrupts off
pub(super) fn halt() -> Vec<u8> {
    vec![0xfa, 0xf4]
}

/// `ud2`
pub(super) fn undefined() -> Vec<u8> {
    vec![0x0f, 0x0b]
}

/// `mov eax, address; jmp rax`
pub(super) fn jump(address: u64) -> Vec<u8> {
    [with(&[0xb8], &[address as u32]), vec![0xff, 0xe0]].concat()
}

/// `lidt [GATES_POINTER]; mov esp, STACK`
pub(super) fn load_interrupt_table() -> Vec<u8> {
    [with(&[0x0f, 0x01, 0x1c, 0x25], &[GATES_POINTER as u32]), with(&[0xbc], &[STACK])].concat()
}

/// `sti`, and `hlt` for ever
pub(super) fn wait_for_interrupts() -> Vec<u8> {
    vec![0xfb, 0xf4, 0xeb, 0xfd]
}

/// An interrupt gate of long mode (AMD64 APM vol. 2 §4.8.4) to this address below 4 GiB.
pub(super) fn gate(handler: u64) -> [u8; 16] {
    const INTERRUPT_GATE: u64 = 0x8e00;
    let [low, high] = [handler & 0xffff, handler >> 16 & 0xffff];
    let word = low | u64::from(super::state::CODE) << 16 | INTERRUPT_GATE << 32 | high << 48;
    u128::from(word).to_le_bytes()
}

/// What `lidt` reads: the table's limit and address.
pub(super) fn gates() -> [u8; 10] {
    (u128::from(GATES) << 16 | 0xfff).to_le_bytes()[..10].try_into().expect("there are 16")
}

fn with(code: &[u8], words: &[u32]) -> Vec<u8> {
    code.iter().copied().chain(words.iter().flat_map(|word| word.to_le_bytes())).collect()
}

/// An ELF file with one segment: this code, at the first address a kernel may have.
pub(super) fn elf(code: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    // an executable for x86-64 of version 1
    file.extend([2_u16, 62].map(u16::to_le_bytes).concat());
    file.extend(1_u32.to_le_bytes());
    // entry, program headers, no section headers, no flags
    file.extend([layout::HIGH, 64, 0].map(u64::to_le_bytes).concat());
    file.extend(0_u32.to_le_bytes());
    file.extend([64_u16, 56, 1, 0, 0, 0].map(u16::to_le_bytes).concat());
    // to be loaded, readable and executable
    file.extend([1_u32, 5].map(u32::to_le_bytes).concat());
    let size = code.len() as u64;
    file.extend([HEADERS, layout::HIGH, layout::HIGH, size, size, 0x1000].map(u64::to_le_bytes).concat());
    file.extend(code);
    file
}
