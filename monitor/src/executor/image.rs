//! The executable image of an executor, assembled at run time, and its address-space layout.
//!
//! The image is one read-only page: an ELF header and four code fragments of a few bytes. It has
//! no data, no stack and no initialisation; the monitor points the instruction pointer at a
//! fragment and sees it end at a breakpoint. Everything of ours lies above 4 GiB:
//!
//! | address | what | rights |
//! |---|---|---|
//! | [`IMAGE_BASE`] | this image | r-x |
//! | [`MAILBOX_BASE`] | commands and constants, written by the monitor only | r-- |
//! | [`FRAME_BASE`] | where the kernel writes signal frames | rw- |
//!
//! The frame area is the only writable memory there, and nothing in it is ever trusted or resumed.

use super::ExecutorError;
use iced_x86::BlockEncoderOptions;
use iced_x86::code_asm::{CodeAssembler, CodeLabel, ptr, r8, r9, r10, rax, rbx, rdi, rdx, rsi};

/// Where the image is linked.
pub const IMAGE_BASE: u64 = 0x10_0000_0000;
/// Where the mailbox is mapped.
pub const MAILBOX_BASE: u64 = IMAGE_BASE + 0x1_0000;
/// Size of the mailbox in bytes.
pub const MAILBOX_SIZE: u64 = 0x1_0000;
/// Where the alternate signal stack is mapped.
pub const FRAME_BASE: u64 = IMAGE_BASE + 0x4_0000;
/// Size of the alternate signal stack in bytes (an AVX-512 and AMX frame takes about 14 KiB).
pub const FRAME_SIZE: u64 = 0x1_0000;
/// The end of everything of ours.
pub const IMAGE_END: u64 = FRAME_BASE + FRAME_SIZE;
/// Size of one mailbox command: number, six arguments, one spare word.
pub const COMMAND_BYTES: usize = 64;

/// The assembled image and the addresses inside it.
pub struct ExecutorImage {
    /// The ELF file.
    pub bytes: Vec<u8>,
    /// `syscall; int3`: one system call with the registers as they are. Also the ELF entry.
    pub single: u64,
    /// Runs the commands at RBX until one fails or its number is negative; then a breakpoint.
    pub batch: u64,
    /// The address after the batch's `syscall` instruction: what seccomp sees.
    pub batch_return: u64,
    /// The address after the breakpoint that ends a batch.
    pub batch_end: u64,
    /// `icebp`.
    pub icebp: u64,
    /// `popfq; int3`.
    pub popf: u64,
    /// The signal handler: a breakpoint.
    pub handler: u64,
}

const EHDR: usize = 64;
const PHDR: usize = 56;
const CODE_OFFSET: usize = EHDR + 2 * PHDR;

impl ExecutorImage {
    /// Assembles the image.
    /// # Errors
    /// [`ExecutorError::Image`] if the assembler refuses (a bug).
    pub fn assemble() -> Result<Self, ExecutorError> {
        let bug = |e: iced_x86::IcedError| ExecutorError::Image(e.to_string());
        let mut a = CodeAssembler::new(64).map_err(bug)?;
        let labels = fragments(&mut a).map_err(bug)?;
        let options = BlockEncoderOptions::RETURN_NEW_INSTRUCTION_OFFSETS;
        let code = a
            .assemble_options(IMAGE_BASE + CODE_OFFSET as u64, options)
            .map_err(bug)?;
        let ip = |label: &CodeLabel| code.label_ip(label).map_err(bug);
        let [single, batch, batch_return, done, icebp, popf, handler] = &labels;
        let (single, batch, batch_return) = (ip(single)?, ip(batch)?, ip(batch_return)?);
        let (batch_end, icebp) = (ip(done)? + 1, ip(icebp)?);
        let (popf, handler) = (ip(popf)?, ip(handler)?);
        let mut bytes = elf_header(single, (CODE_OFFSET + code.inner.code_buffer.len()) as u64);
        bytes.extend_from_slice(&code.inner.code_buffer);
        Ok(Self {
            bytes,
            single,
            batch,
            batch_return,
            batch_end,
            icebp,
            popf,
            handler,
        })
    }
}

fn fragments(a: &mut CodeAssembler) -> Result<[CodeLabel; 7], iced_x86::IcedError> {
    let mut single = a.create_label();
    let mut batch = a.create_label();
    let mut batch_return = a.create_label();
    let mut icebp = a.create_label();
    let mut popf = a.create_label();
    let mut handler = a.create_label();
    let mut done = a.create_label();

    a.set_label(&mut single)?;
    a.syscall()?;
    a.int3()?;

    a.set_label(&mut batch)?;
    a.mov(rax, ptr(rbx))?;
    a.test(rax, rax)?;
    a.js(done)?;
    for (i, register) in [rdi, rsi, rdx, r10, r8, r9].into_iter().enumerate() {
        a.mov(register, ptr(rbx + 8 * (i as i32 + 1)))?;
    }
    a.syscall()?;
    a.set_label(&mut batch_return)?;
    a.cmp(rax, -4095)?;
    a.jae(done)?;
    a.add(rbx, COMMAND_BYTES as i32)?;
    a.jmp(batch)?;
    a.set_label(&mut done)?;
    a.int3()?;

    a.set_label(&mut icebp)?;
    a.db(&[0xf1])?;

    a.set_label(&mut popf)?;
    a.popfq()?;
    a.int3()?;

    a.set_label(&mut handler)?;
    a.int3()?;
    Ok([single, batch, batch_return, done, icebp, popf, handler])
}

/// ELF-64 header and two program headers: the file as one r-x segment, and a non-executable stack.
fn elf_header(entry: u64, size: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(4096);
    out.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    let half = |out: &mut Vec<u8>, v: u16| out.extend_from_slice(&v.to_le_bytes());
    let word = |out: &mut Vec<u8>, v: u32| out.extend_from_slice(&v.to_le_bytes());
    let quad = |out: &mut Vec<u8>, v: u64| out.extend_from_slice(&v.to_le_bytes());
    half(&mut out, 2); // ET_EXEC
    half(&mut out, 62); // EM_X86_64
    word(&mut out, 1);
    quad(&mut out, entry);
    quad(&mut out, EHDR as u64);
    quad(&mut out, 0);
    word(&mut out, 0);
    for v in [EHDR as u16, PHDR as u16, 2, 0, 0, 0] {
        half(&mut out, v);
    }
    for (kind, flags, address, size) in [(1u32, 5u32, IMAGE_BASE, size), (0x6474_e551, 6, 0, 0)] {
        word(&mut out, kind);
        word(&mut out, flags);
        for v in [0, address, address, size, size, 4096] {
            quad(&mut out, v);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn image_is_small_and_its_addresses_name_the_right_instructions() {
        let image = ExecutorImage::assemble().expect("assembles");
        assert!(image.bytes.len() < 512, "{} bytes", image.bytes.len());
        let at = |address: u64| &image.bytes[(address - IMAGE_BASE) as usize..];
        assert_eq!(&at(image.single)[..3], &[0x0f, 0x05, 0xcc]);
        assert_eq!(&at(image.batch_return - 2)[..2], &[0x0f, 0x05]);
        assert_eq!(at(image.batch_end - 1)[0], 0xcc);
        assert_eq!(&at(image.popf)[..2], &[0x9d, 0xcc]);
        assert_eq!(at(image.handler)[0], 0xcc);
        assert_eq!(
            u64::from_le_bytes(image.bytes[24..32].try_into().unwrap()),
            image.single
        );
    }
}
