// SPDX-License-Identifier: Apache-2.0
//! The probe's guest: a few instructions that no kernel does without, in long mode at CPL 0, and what they must leave in
//! memory. Pure data; [`super::trial`] runs it.
//!
//! A KVM that emulates instead of virtualizing tends to know the common instructions and to fail at the odd ones, so
//! the odd ones are here. The code needs a single exit: it notes the step it is in, and halts when it is through or when
//! an exception comes that it did not ask for. Encodings after AMD64 APM vol. 3 and Intel SDM vol. 2.

use std::ops::Range;

/// Page tables that map the first 2 MiB to themselves (APM vol. 2 §5.3).
pub(super) const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const PD: u64 = 0x3000;
/// Interrupt gates of the 32 exceptions, and what they lead to.
pub(super) const IDT: u64 = 0x4000;
const STUBS: u64 = 0x5000;
/// Segments: none, code, data (APM vol. 2 §4.8).
pub(super) const GDT: u64 = 0x4800;
pub(super) const SEGMENTS: [u64; 3] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
pub(super) const CODE_SEGMENT: u16 = 8;
pub(super) const DATA_SEGMENT: u16 = 16;
/// The program, and its stack, which grows down.
pub(super) const CODE: u64 = 0x6000;
pub(super) const STACK: u64 = 0x8000;
/// All of the guest's memory.
pub(super) const SIZE: usize = 0xa000;

/// Where the program notes the number of its present step, and an exception its own; what stands there until then.
const STEP: u32 = 0x8000;
const VECTOR: u32 = 0x8001;
const NO_VECTOR: u8 = 0xff;

/// Operands and results.
const STORED: u32 = 0x8010;
const OLD: u32 = 0x8020;
const NEW: u32 = 0x8030;
const PAIR: u32 = 0x8040;
const SWAPPED: u32 = 0x8050;
const RETURN: u32 = 0x8060;
const VALUE: u32 = 0x8070;
const LOADED: u32 = 0x8080;
const MIXED: u32 = 0x8090;
const MASKED: u32 = 0x80a0;
/// Areas of fxrstor, fxsave (512 bytes) and xrstor (512 bytes and a header of 64).
const FX_IN: u32 = 0x9000;
const FX_OUT: u32 = 0x9200;
const X_IN: u32 = 0x9400;

/// In those areas: control words, and the first two vector registers.
const CONTROL: usize = 0;
const MXCSR: usize = 24;
const XMM0: usize = 160;
const XMM1: usize = 176;
/// And which parts of the state xrstor finds there.
const PRESENT: usize = 512;
/// The x87 registers and the vector registers, whose upper halves are a part by themselves.
const X87_AND_SSE: u64 = 0b011;
const AVX: u64 = 0b100;

/// What of the host's processor decides what the guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Features {
    /// CR4.OSXSAVE may be set, and xsetbv and xrstor are there.
    pub(super) xsave: bool,
    /// VEX-encoded instructions on vector registers are there.
    pub(super) avx: bool,
    /// VEX-encoded instructions on general registers are there, which need no state of their own.
    pub(super) bmi: bool,
}

impl Features {
    /// What the guest sets XCR0 to, if it does: the parts of the state that its instructions need.
    pub(super) fn xcr0(self) -> Option<u64> {
        match self {
            Self { xsave: false, .. } => None,
            Self { avx: false, .. } => Some(X87_AND_SSE),
            Self { avx: true, .. } => Some(X87_AND_SSE | AVX),
        }
    }
}

/// Which of the [`Features`] a step takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Nothing,
    Xsave,
    Avx,
    Bmi,
}

/// Machine code without its operand in memory, and that operand's address, which ends the instruction.
struct Instruction(&'static [u8], Option<u32>);

const fn op(code: &'static [u8]) -> Instruction {
    Instruction(code, None)
}

const fn at(code: &'static [u8], address: u32) -> Instruction {
    Instruction(code, Some(address))
}

struct Step {
    name: &'static str,
    needs: Need,
    code: &'static [Instruction],
    result: u32,
    /// What must be there; nothing if it depends on where the step is.
    expected: &'static [u8],
}

const PATTERN: [u8; 16] = *b"first pattern \x5a\xa5";
const OTHER: [u8; 16] = *b"other pattern \xc3\x3c";
/// What vpxor and andn make of the two.
const BOTH: [u8; 16] = (u128::from_le_bytes(PATTERN) ^ u128::from_le_bytes(OTHER)).to_le_bytes();
const MASK: [u8; 16] = (!u128::from_le_bytes(PATTERN) & u128::from_le_bytes(OTHER)).to_le_bytes();

#[rustfmt::skip]
const STEPS: &[Step] = &[
    Step {
        name: "a 64-bit store",
        needs: Need::Nothing,
        code: &[
            at(&[0x48, 0x8b, 0x04, 0x25], OLD),             // mov rax, [OLD]
            at(&[0x48, 0x89, 0x04, 0x25], STORED),          // mov [STORED], rax
        ],
        result: STORED,
        expected: PATTERN.split_at(8).0,
    },
    Step {
        name: "a write of CR3",
        needs: Need::Nothing,
        code: &[
            op(&[0x0f, 0x20, 0xd8]),                        // mov rax, cr3
            op(&[0x0f, 0x22, 0xd8]),                        // mov cr3, rax
            at(&[0x48, 0x89, 0x04, 0x25], STORED + 8),      // mov [STORED + 8], rax
        ],
        result: STORED + 8,
        expected: &PML4.to_le_bytes(),
    },
    Step {
        name: "lock cmpxchg16b",
        needs: Need::Nothing,
        code: &[
            at(&[0x48, 0x8b, 0x04, 0x25], OLD),             // mov rax, [OLD]
            at(&[0x48, 0x8b, 0x14, 0x25], OLD + 8),         // mov rdx, [OLD + 8]
            at(&[0x48, 0x8b, 0x1c, 0x25], NEW),             // mov rbx, [NEW]
            at(&[0x48, 0x8b, 0x0c, 0x25], NEW + 8),         // mov rcx, [NEW + 8]
            at(&[0xf0, 0x48, 0x0f, 0xc7, 0x0c, 0x25], PAIR),// lock cmpxchg16b [PAIR]
            at(&[0x0f, 0x94, 0x04, 0x25], SWAPPED),         // setz [SWAPPED]
        ],
        result: PAIR,
        // the new pair, and in SWAPPED behind it that there was an exchange
        expected: b"other pattern \xc3\x3c\x01",
    },
    Step {
        name: "fxrstor",
        needs: Need::Nothing,
        code: &[
            at(&[0x48, 0x0f, 0xae, 0x0c, 0x25], FX_IN),     // fxrstor64 [FX_IN]
            at(&[0x48, 0x0f, 0xae, 0x04, 0x25], FX_OUT),    // fxsave64 [FX_OUT]
        ],
        result: FX_OUT + XMM0 as u32,
        expected: &PATTERN,
    },
    Step {
        name: "int3 through the IDT",
        needs: Need::Nothing,
        code: &[op(&[0xcc])],                               // int3
        // the stub stores the address it returns to
        result: RETURN,
        expected: &[],
    },
    Step {
        name: "andn, VEX-encoded",
        needs: Need::Bmi,
        code: &[
            at(&[0x48, 0x8b, 0x04, 0x25], OLD),             // mov rax, [OLD]
            at(&[0xc4, 0xe2, 0xf8, 0xf2, 0x14, 0x25], NEW), // andn rdx, rax, [NEW]
            at(&[0x48, 0x89, 0x14, 0x25], MASKED),          // mov [MASKED], rdx
        ],
        result: MASKED,
        expected: MASK.split_at(8).0,
    },
    Step {
        name: "xrstor",
        needs: Need::Xsave,
        code: &[
            op(&[0x31, 0xc9]),                              // xor ecx, ecx
            op(&[0x0f, 0x01, 0xd0]),                        // xgetbv
            op(&[0x83, 0xc8, 0x03]),                        // or eax, 3
            op(&[0x0f, 0x01, 0xd1]),                        // xsetbv
            op(&[0x83, 0xe0, 0x03]),                        // and eax, 3
            op(&[0x31, 0xd2]),                              // xor edx, edx
            at(&[0x48, 0x0f, 0xae, 0x2c, 0x25], X_IN),      // xrstor64 [X_IN]
            at(&[0xf3, 0x0f, 0x7f, 0x0c, 0x25], LOADED),    // movdqu [LOADED], xmm1
        ],
        result: LOADED,
        expected: &OTHER,
    },
    Step {
        name: "vpxor, VEX-encoded",
        needs: Need::Avx,
        code: &[
            op(&[0x31, 0xc9]),                              // xor ecx, ecx
            op(&[0x0f, 0x01, 0xd0]),                        // xgetbv
            op(&[0x83, 0xc8, 0x07]),                        // or eax, 7
            op(&[0x0f, 0x01, 0xd1]),                        // xsetbv
            at(&[0xc5, 0xf1, 0xef, 0x14, 0x25], VALUE),     // vpxor xmm2, xmm1, [VALUE]
            at(&[0xc5, 0xfa, 0x7f, 0x14, 0x25], MIXED),     // vmovdqu [MIXED], xmm2
        ],
        result: MIXED,
        expected: &BOTH,
    },
];

/// hlt
const HLT: u8 = 0xf4;
/// What exception 3 does: mov rax, [rsp]; mov [RETURN], rax; iretq
const BREAKPOINT: u8 = 3;
const STUB_SIZE: u64 = 16;

/// A guest ready to run: its memory, and what to make of it afterwards.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) memory: Vec<u8>,
    /// Name, place and content of each result.
    results: Vec<(&'static str, Range<usize>, Vec<u8>)>,
}

impl Guest {
    pub(super) fn new(features: Features) -> Self {
        let mut guest = Self { memory: vec![0; SIZE], results: Vec::new() };
        guest.tables();
        guest.operands();
        let mut at = CODE;
        let able = |step: &&Step| match step.needs {
            Need::Nothing => true,
            Need::Xsave => features.xsave,
            Need::Avx => features.xsave && features.avx,
            Need::Bmi => features.bmi,
        };
        for (step, number) in STEPS.iter().filter(able).zip(1..) {
            let mut code = note(STEP, number);
            for Instruction(bytes, address) in step.code {
                code.extend_from_slice(bytes);
                code.extend(address.iter().flat_map(|address| address.to_le_bytes()));
            }
            guest.put(at, &code);
            at += code.len() as u64;
            let expected = if step.expected.is_empty() { at.to_le_bytes().to_vec() } else { step.expected.to_vec() };
            let begin = step.result as usize;
            guest.results.push((step.name, begin..begin + expected.len(), expected));
        }
        let mut code = note(STEP, guest.results.len() as u8 + 1);
        code.push(HLT);
        guest.put(at, &code);
        guest
    }

    fn put(&mut self, address: u64, bytes: &[u8]) {
        let begin = address as usize;
        self.memory[begin..begin + bytes.len()].copy_from_slice(bytes);
    }

    /// Page tables, segments, exceptions.
    fn tables(&mut self) {
        const PRESENT_AND_WRITABLE: u64 = 0b11;
        const HUGE: u64 = 1 << 7;
        self.put(PML4, &(PDPT | PRESENT_AND_WRITABLE).to_le_bytes());
        self.put(PDPT, &(PD | PRESENT_AND_WRITABLE).to_le_bytes());
        self.put(PD, &(HUGE | PRESENT_AND_WRITABLE).to_le_bytes());
        self.put(GDT, &SEGMENTS.map(u64::to_le_bytes).concat());
        for vector in 0..32u8 {
            let stub = STUBS + u64::from(vector) * STUB_SIZE;
            let code = if vector == BREAKPOINT {
                let mut code = vec![0x48, 0x8b, 0x04, 0x24, 0x48, 0x89, 0x04, 0x25];
                code.extend(RETURN.to_le_bytes());
                code.extend([0x48, 0xcf]);
                code
            } else {
                let mut code = note(VECTOR, vector);
                code.push(HLT);
                code
            };
            self.put(stub, &code);
            // An interrupt gate of CPL 0 (APM vol. 2 §4.8.4); the stub lies below 64 KiB.
            let gate = 0x8e00_u64 << 32 | u64::from(CODE_SEGMENT) << 16 | stub;
            self.put(IDT + u64::from(vector) * 16, &gate.to_le_bytes());
        }
    }

    fn operands(&mut self) {
        self.put(VECTOR.into(), &[NO_VECTOR]);
        for (address, value) in [(OLD, PATTERN), (NEW, OTHER), (PAIR, PATTERN), (VALUE, PATTERN)] {
            self.put(address.into(), &value);
        }
        for (area, register, value) in [(FX_IN, XMM0, PATTERN), (X_IN, XMM1, OTHER)] {
            // As after reset: all exceptions masked (APM vol. 1 §6.2.3, vol. 2 §11.5).
            self.put(u64::from(area) + CONTROL as u64, &0x037f_u16.to_le_bytes());
            self.put(u64::from(area) + MXCSR as u64, &0x1f80_u32.to_le_bytes());
            self.put(u64::from(area) + register as u64, &value);
        }
        self.put(u64::from(X_IN) + PRESENT as u64, &X87_AND_SSE.to_le_bytes());
    }

    /// The step that the memory of a guest that has stopped says it was in.
    pub(super) fn step(&self, memory: &[u8]) -> &'static str {
        let number = usize::from(memory[STEP as usize]);
        let name = |number: usize| self.results.get(number).map(|(name, ..)| *name);
        match number.checked_sub(1) {
            None => "the first instruction",
            Some(index) => name(index).unwrap_or("the end"),
        }
    }

    /// What is wrong with the memory of a guest that has halted, if anything is.
    pub(super) fn flaw(&self, memory: &[u8]) -> Option<String> {
        let vector = memory[VECTOR as usize];
        if vector != NO_VECTOR {
            return Some(format!("exception {vector} at {}", self.step(memory)));
        }
        if usize::from(memory[STEP as usize]) != self.results.len() + 1 {
            return Some(format!("a halt at {}", self.step(memory)));
        }
        let wrong = |(_, place, expected): &&(&str, Range<usize>, Vec<u8>)| memory[place.clone()] != **expected;
        self.results.iter().find(wrong).map(|(name, ..)| format!("a wrong result of {name}"))
    }
}

/// mov byte [address], value
fn note(address: u32, value: u8) -> Vec<u8> {
    let mut code = vec![0xc6, 0x04, 0x25];
    code.extend(address.to_le_bytes());
    code.push(value);
    code
}

#[cfg(test)]
mod tests;
