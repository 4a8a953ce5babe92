//! Code that reads what an executor cannot show as the guest's.
//!
//! MOV from a segment register, PUSH FS and GS, SLDT, STR, SMSW, SGDT, SIDT, LAR, LSL, VERR and VERW
//! do not trap and tell the host's values (Intel SDM vol. 2; vol. 3A, 2.8). Few programs have them,
//! but some depend on them: the GNU C library finds a new thread's descriptor by the selector in
//! GS. So a page is searched for them before it is first executed directly, and one that has them
//! stays translated.
//!
//! Where instructions begin is not known. Bytes that may be such an instruction count if decoding
//! from nearly all of several places before them comes to it: x86 code falls into step within a few
//! instructions. Constants among code look like anything; what stands beside opcodes that programs
//! do not have is taken for constants. A page that is wrongly taken for one of these only runs
//! slower.
//!
//! Left out: PUSH CS, SS, DS and ES, one byte each, whose value nearly always goes back to a segment
//! register, where the monitor takes it for the guest's; what is written, after the search, into a
//! page that is writable and executable at once; CPUID and XGETBV, which programs execute when they
//! start, often beside what they compute with.

use hashbrown::{DefaultHashBuilder, HashMap};
use iced_x86::{Code, Decoder, DecoderError, DecoderOptions, Instruction, Mnemonic, Register};
use ring3_translator::addr::PAGE_SIZE;
use ring3_translator::scan::is_prefix;
use ring3_translator::state::{GuestState, SegReg};
use std::hash::BuildHasher;
use std::ops::Range;

bitflags::bitflags! {
    /// What code reads.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Reads: u8 {
        /// The selector in FS.
        const FS = 1;
        /// The selector in GS.
        const GS = 2;
        /// Other selectors, descriptors, system registers.
        const OTHER = 4;
    }
}

impl Reads {
    /// What an executor hides while the guest is in state `st`: a null selector it shows as it is.
    #[must_use]
    pub fn hidden(st: &GuestState) -> Self {
        let mut hidden = Self::OTHER;
        hidden.set(Self::FS, st.segment(SegReg::Fs).selector != 0);
        hidden.set(Self::GS, st.segment(SegReg::Gs).selector != 0);
        hidden
    }
}

/// Bytes decoded before a possible instruction.
const BEFORE: usize = 96;
/// Of these, bytes before it that must look like code.
const BESIDE: usize = 32;
/// Places from which decoding begins; at least all but one must come to the instruction.
const STARTS: usize = 8;
/// Instructions decoded after it.
const AFTER: usize = 8;

/// What the code in `page` reads, a range of `code`; what is around it tells where
/// instructions begin.
#[must_use]
pub fn search(code: &[u8], page: Range<usize>) -> Reads {
    let mut found = Reads::empty();
    for at in page {
        let may = possible(code, at);
        if !found.contains(may) && is_code(code, at) {
            found |= may;
        }
    }
    found
}

/// What an instruction with its opcode at `at` would read.
fn possible(code: &[u8], at: usize) -> Reads {
    let segment = |modrm: u8| match modrm >> 3 & 7 {
        0..=3 => Reads::OTHER,
        4 => Reads::FS,
        5 => Reads::GS,
        _ => Reads::empty(),
    };
    let opcode = code[at];
    if opcode != 0x8c && opcode != 0x0f {
        return Reads::empty();
    }
    let next = |n| code.get(at + n).copied();
    let group = |n| next(n).map_or(0, |modrm: u8| modrm >> 3 & 7);
    match (opcode, next(1)) {
        (0x8c, Some(modrm)) => segment(modrm),
        // The rest is in the next page.
        (0x8c, None) => Reads::all(),
        (0x0f, Some(0xa0)) => Reads::FS,
        (0x0f, Some(0xa8)) => Reads::GS,
        (0x0f, Some(2 | 3)) => Reads::OTHER,
        (0x0f, Some(0)) if matches!(group(2), 0 | 1 | 4 | 5) => Reads::OTHER,
        (0x0f, Some(1)) if matches!(group(2), 0 | 1 | 4) => Reads::OTHER,
        _ => Reads::empty(),
    }
}

/// True if nearly all ways of decoding come to an instruction of this kind that has its opcode at
/// `at`.
fn is_code(code: &[u8], at: usize) -> bool {
    let first = at.saturating_sub(BEFORE);
    let starts = (0..STARTS).map(|n| (first + n).min(at));
    let missed = starts.filter(|start| !is_reached(&code[*start..], at - start));
    missed.take(2).count() < 2
}

/// Decodes `code` from its first byte.
fn is_reached(code: &[u8], at: usize) -> bool {
    let mut decoder = Decoder::new(32, code, DecoderOptions::NONE);
    let mut instruction = Instruction::default();
    loop {
        let begin = decoder.position();
        decoder.decode_out(&mut instruction);
        let cut = decoder.last_error() == DecoderError::NoMoreBytes;
        if cut || decoder.position() > at {
            let is_it = if cut {
                code[begin..at].iter().all(|byte| is_prefix(*byte))
            } else {
                reads(&instruction)
            };
            return is_it && goes_on(&mut decoder);
        }
        if begin + BESIDE >= at && !is_likely(&instruction) {
            return false;
        }
    }
}

/// True if what follows looks like code.
fn goes_on(decoder: &mut Decoder<'_>) -> bool {
    let mut instruction = Instruction::default();
    for _ in 0..AFTER {
        decoder.decode_out(&mut instruction);
        if decoder.last_error() == DecoderError::NoMoreBytes {
            break;
        }
        if !is_likely(&instruction) {
            return false;
        }
        let end = matches!(instruction.mnemonic(), Mnemonic::Ret | Mnemonic::Jmp);
        if end || instruction.mnemonic() == Mnemonic::Ud2 {
            break;
        }
    }
    true
}

fn reads(instruction: &Instruction) -> bool {
    match instruction.mnemonic() {
        Mnemonic::Mov => matches!(
            instruction.code(),
            Code::Mov_rm16_Sreg | Code::Mov_r32m16_Sreg
        ),
        Mnemonic::Push => matches!(instruction.op0_register(), Register::FS | Register::GS),
        Mnemonic::Sldt
        | Mnemonic::Str
        | Mnemonic::Smsw
        | Mnemonic::Sgdt
        | Mnemonic::Sidt
        | Mnemonic::Lar
        | Mnemonic::Lsl
        | Mnemonic::Verr
        | Mnemonic::Verw => true,
        _ => false,
    }
}

/// False for opcodes that programs of protected systems do not have.
fn is_likely(instruction: &Instruction) -> bool {
    !matches!(
        instruction.mnemonic(),
        Mnemonic::INVALID
            | Mnemonic::In
            | Mnemonic::Out
            | Mnemonic::Insb
            | Mnemonic::Insd
            | Mnemonic::Insw
            | Mnemonic::Outsb
            | Mnemonic::Outsd
            | Mnemonic::Outsw
            | Mnemonic::Cli
            | Mnemonic::Sti
            | Mnemonic::Hlt
            | Mnemonic::Iretd
            | Mnemonic::Arpl
            | Mnemonic::Bound
            | Mnemonic::Into
            | Mnemonic::Int1
            | Mnemonic::Aaa
            | Mnemonic::Aas
            | Mnemonic::Daa
            | Mnemonic::Das
            | Mnemonic::Aam
            | Mnemonic::Aad
            | Mnemonic::Salc
            | Mnemonic::Les
            | Mnemonic::Lds
    )
}

/// Contents of pages that are remembered.
const MAX_KNOWN: usize = 1 << 16;

/// What pages read, by their content: programs share most of their code.
#[derive(Default)]
pub struct Known {
    hasher: DefaultHashBuilder,
    pages: HashMap<u64, Reads>,
}

/// Bytes of the page before that are looked at.
const HEAD: usize = BEFORE + STARTS;
/// Bytes of the page behind: the rest of the longest instruction.
const TAIL: usize = 16;
const PAGE: usize = PAGE_SIZE as usize;

impl Known {
    /// What the page at guest-linear page number `at` reads. `look` fills a buffer from guest-linear
    /// memory, or says that it is not mapped.
    pub fn of(&mut self, at: u32, look: impl Fn(u32, &mut [u8]) -> bool) -> Reads {
        let mut code = [0; HEAD + PAGE + TAIL];
        let begin = at << 12;
        if !look(begin, &mut code[HEAD..HEAD + PAGE]) {
            return Reads::all();
        }
        let before = look(begin.wrapping_sub(HEAD as u32), &mut code[..HEAD]);
        let behind = look(begin.wrapping_add(PAGE as u32), &mut code[HEAD + PAGE..]);
        let known = if before { 0 } else { HEAD };
        let code = &code[known..HEAD + PAGE + if behind { TAIL } else { 0 }];
        let hash = self.hasher.hash_one(code);
        if let Some(known) = self.pages.get(&hash) {
            return *known;
        }
        if self.pages.len() == MAX_KNOWN {
            self.pages.clear();
        }
        let found = search(code, HEAD - known..HEAD - known + PAGE);
        self.pages.insert(hash, found);
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A prologue, loads with displacements and SIB bytes that look like the opcodes, a long jump.
    const ORDINARY: &[u8] = &[
        0x55, 0x89, 0xe5, 0x53, 0x83, 0xec, 0x14, 0x8b, 0x8c, 0x24, 0x8c, 0x00, 0x00, 0x00, 0x8b,
        0x8c, 0x2c, 0x10, 0x01, 0x00, 0x00, 0x0f, 0x8c, 0xd8, 0x01, 0x00, 0x00, 0x89, 0x8c, 0x9c,
        0x00, 0x0f, 0x02, 0xc0, 0xb8, 0x8c, 0xe8, 0x0f, 0xa8, 0x83, 0xc4, 0x14, 0x5b, 0x5d,
    ];

    /// Ordinary code around an instruction at about `at`.
    fn page(at: usize, instruction: &[u8]) -> Vec<u8> {
        let mut page = Vec::new();
        while page.len() < at {
            page.extend_from_slice(ORDINARY);
        }
        page.truncate(page.len() / ORDINARY.len() * ORDINARY.len());
        page.extend_from_slice(instruction);
        while page.len() < PAGE_SIZE as usize {
            page.extend_from_slice(ORDINARY);
        }
        page.truncate(PAGE_SIZE as usize);
        page
    }

    fn whole(page: &[u8]) -> Reads {
        search(page, 0..page.len())
    }

    #[test]
    fn each_instruction_is_found_among_code() {
        let cases: [(&[u8], Reads); 17] = [
            (&[0x8c, 0xe8], Reads::GS),
            (&[0x66, 0x8c, 0xe2], Reads::FS),
            (&[0x8c, 0x65, 0xfe], Reads::FS),
            (&[0x8c, 0xc8], Reads::OTHER),
            (&[0x8c, 0x1d, 0, 0x90, 4, 8], Reads::OTHER),
            (&[0x64, 0x66, 0x8c, 0x10], Reads::OTHER),
            (&[0x0f, 0xa0], Reads::FS),
            (&[0x66, 0x0f, 0xa8], Reads::GS),
            (&[0x0f, 0x00, 0xc0], Reads::OTHER),
            (&[0x0f, 0x00, 0x0c, 0x24], Reads::OTHER),
            (&[0x0f, 0x00, 0xe0], Reads::OTHER),
            (&[0x0f, 0x00, 0xe8], Reads::OTHER),
            (&[0x0f, 0x01, 0x04, 0x24], Reads::OTHER),
            (&[0x0f, 0x01, 0x0c, 0x24], Reads::OTHER),
            (&[0x0f, 0x01, 0xe0], Reads::OTHER),
            (&[0x0f, 0x02, 0xc1], Reads::OTHER),
            (&[0x0f, 0x03, 0xc1], Reads::OTHER),
        ];
        for (instruction, expected) in cases {
            for at in [0, 40, 1000, 4000] {
                let found = whole(&page(at, instruction));
                assert_eq!(found, expected, "{instruction:02x?} at {at}");
            }
        }
    }

    #[test]
    fn ordinary_code_reads_nothing() {
        let memory = page(0, &[]);
        for begin in 0..ORDINARY.len() {
            let found = search(&memory[begin..], HEAD..PAGE - begin);
            assert_eq!(found, Reads::empty(), "out of step by {begin}");
        }
    }

    /// XGETBV, CLTS, loads of segment registers, SMSW's neighbours.
    #[test]
    fn other_instructions_of_the_groups_are_not_meant() {
        for other in [
            &[0x0f, 0x01, 0xd0][..],
            &[0x8e, 0xe8],
            &[0x0f, 0x00, 0xd8],
            &[0x0f, 0xa2],
            &[0x0f, 0xa1],
            &[0x0f, 0xa9],
        ] {
            assert_eq!(whole(&page(1000, other)), Reads::empty(), "{other:02x?}");
        }
    }

    #[test]
    fn an_instruction_that_goes_on_in_the_next_page_counts_as_all() {
        let mut page = vec![0x90; PAGE_SIZE as usize];
        page[4095] = 0x8c;
        assert_eq!(whole(&page), Reads::all());
        page[4094] = 0x66;
        assert_eq!(whole(&page), Reads::all());
        // mov ecx, [esp + ...]
        page[4094] = 0x8b;
        assert_eq!(whole(&page), Reads::empty());
    }

    /// Tables of constants lie among the code of cryptographic libraries.
    #[test]
    fn constants_are_seldom_taken_for_code() {
        let mut seed = 1u64;
        let mut taken = 0;
        for _ in 0..200 {
            let mut page = page(0, &[]);
            for byte in &mut page[1000..3000] {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                *byte = (seed >> 56) as u8;
            }
            taken += u32::from(!whole(&page).is_empty());
        }
        assert!(taken < 80, "{taken} of 200");
    }

    /// Two pages of code at 1000h; an instruction that goes on in the second belongs to the first.
    #[test]
    fn neighbours_are_looked_at_and_contents_known_again() {
        let mut memory = page(0, &[]);
        memory.extend(page(0, &[]));
        memory[4090..4096].fill(0x90);
        memory[4095..4097].copy_from_slice(&[0x0f, 0xa8]);
        let look = |at: u32, to: &mut [u8]| {
            let from = at.wrapping_sub(0x1000) as usize;
            let all = memory.get(from..from.saturating_add(to.len()));
            all.is_some_and(|bytes| {
                to.copy_from_slice(bytes);
                true
            })
        };
        let mut known = Known::default();
        for _ in 0..2 {
            assert_eq!(known.of(1, look), Reads::GS);
            assert_eq!(known.of(2, look), Reads::empty());
            assert_eq!(known.of(3, look), Reads::all(), "not mapped");
        }
        assert_eq!(known.pages.len(), 2);
    }

    /// Not a check: prints what is found in ELF files named in the environment.
    #[test]
    #[ignore = "RING3_ELFS names files: prints the pages in which something is found"]
    fn survey() {
        for file in std::env::var("RING3_ELFS").unwrap().split_whitespace() {
            let bytes = std::fs::read(file).unwrap();
            let word =
                |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
            let half =
                |at: usize| usize::from(u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap()));
            let (mut pages, mut hits, start) = (0, 0, std::time::Instant::now());
            for n in 0..half(44) {
                let header = word(28) + 32 * n;
                if word(header) != 1 || word(header + 24) & 1 == 0 {
                    continue;
                }
                let (offset, size) = (word(header + 4) & !0xfff, word(header + 16));
                let code = &bytes[offset..offset + size];
                for at in (0..size).step_by(PAGE) {
                    let found = search(code, at..(at + PAGE).min(size));
                    pages += 1;
                    if !found.is_empty() {
                        hits += 1;
                        println!("    {at:x} {found:?}");
                    }
                }
            }
            println!(
                "{file}: {hits} of {pages} pages, {:?} each",
                start.elapsed() / pages.max(1)
            );
        }
    }
}
