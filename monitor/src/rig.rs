//! A processor on a bare board, for tests and measurements of translated code: flat segments, no
//! firmware, events captured instead of delivered.
//!
//! ```no_run
//! use ring3_monitor::rig::{Form, Rig, RigStop};
//! let mut rig = Rig::new(16 << 20, Form::Window)?;
//! rig.write(0x40_0000, &[0xb8, 1, 0, 0, 0, 0xcc]); // mov eax, 1; int3
//! rig.state_mut().rip = 0x40_0000;
//! assert!(matches!(rig.run(), RigStop::Event(_)));
//! # Ok::<(), std::io::Error>(())
//! ```

use crate::board::{Board, BoardConfig};
use crate::clock::VmClock;
use crate::config::EngineKind;
use crate::cpu::cpuid::CpuModel;
use crate::cpu::env::TlbFlush;
use crate::cpu::event::Event;
use crate::host_fault::Registration;
use crate::memory::GuestRam;
use crate::vcpu::core::Captured;
use crate::vcpu::{Vcpu, VcpuExit};
use ring3_devices::vga::VRAM_SIZE;
use ring3_translator::addr::PAGE_SIZE;
use ring3_translator::state::{GuestState, SegAttr, SegReg, Segment, cr0, cr4, eflags};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// How memory accesses of the code under test are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Ring 0: the supervisor window.
    Window,
    /// Ring 3: the soft TLB.
    Soft,
    /// Ring 3, one instruction per unit.
    Step,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RigStop {
    /// An exception, software interrupt or the like; RIP is as for its delivery.
    Event(Event),
    /// HLT.
    Halted,
    /// Anything else: text for the report.
    Other(String),
}

/// See the module's text. Use it on the thread that made it.
pub struct Rig {
    vcpu: Vcpu,
    ram: Arc<GuestRam>,
    _registration: Registration,
}

impl Rig {
    /// A processor with `memory` bytes of RAM in 32-bit flat protected mode without paging.
    /// # Errors
    /// When the host refuses memory or signal handlers.
    pub fn new(memory: u64, form: Form) -> io::Result<Self> {
        let clock = Arc::new(VmClock::new());
        let mut board = Board::new(
            BoardConfig {
                memory,
                serial_ports: 1,
                ..BoardConfig::default()
            },
            Arc::clone(&clock),
        );
        let ram = Arc::new(GuestRam::with_video(memory, VRAM_SIZE as u64)?);
        board.connect_memory(Arc::clone(&ram));
        let engine = if form == Form::Step {
            EngineKind::Step
        } else {
            EngineKind::Bt
        };
        let mut vcpu = Vcpu::new(
            Arc::clone(&ram),
            Arc::new(Mutex::new(board)),
            clock,
            CpuModel::host_default(),
            engine,
        )?;
        let registration = vcpu.attach_thread()?;
        let (st, core) = vcpu.parts_mut();
        core.capture = Some(Captured::default());
        st.cr0 = cr0::PE | cr0::ET | cr0::NE | cr0::MP | cr0::WP;
        st.cr4 = cr4::OSFXSR | cr4::OSXMMEXCPT | cr4::OSXSAVE;
        st.xcr0 = core.model.xcr0_bits();
        let mut rig = Self {
            vcpu,
            ram,
            _registration: registration,
        };
        rig.set_flat(if form == Form::Window { 0 } else { 3 }, true);
        Ok(rig)
    }

    /// Loads flat segments for privilege level `cpl`; `code32` chooses CS.D and SS.B.
    pub fn set_flat(&mut self, cpl: u8, code32: bool) {
        let st = self.vcpu.state_mut();
        let rights = u16::from(cpl) << 5 | 0x8080 | if code32 { 0x4000 } else { 0 };
        let flat = |selector: u16, kind: u16| Segment {
            base: 0,
            limit: u32::MAX,
            selector: selector | u16::from(cpl),
            attr: SegAttr(rights | 0x10 | kind),
            usable: true,
            ..Segment::default()
        };
        st.cpl = cpl;
        for reg in SegReg::ALL {
            st.set_segment(
                reg,
                if reg == SegReg::Cs {
                    flat(8, 0xb)
                } else {
                    flat(16, 3)
                },
            );
        }
        st.set_eflags(eflags::FIXED | eflags::IF);
    }

    /// Turns 32-bit paging on: identity, user and writable, without the pages in `holes` and with
    /// `read_only` pages not writable. The tables lie at the top of RAM.
    pub fn enable_paging(&mut self, holes: &[Range<u32>], read_only: &[Range<u32>]) {
        let user = self.vcpu.state().cpl == 3;
        let rights = if user { 0x67 } else { 0x63 };
        let directory = self.ram.size() - PAGE_SIZE;
        let tables = self.ram.size().div_ceil(4 << 20);
        let contains = |list: &[Range<u32>], at: u64| {
            list.iter()
                .any(|r| u64::from(r.start) <= at && at < u64::from(r.end))
        };
        for t in 0..tables {
            let table = directory - (t + 1) * PAGE_SIZE;
            self.ram
                .write_unwatched(directory + t * 4, &((table | rights) as u32).to_le_bytes());
            for p in 0..1024u64 {
                let at = (t << 22) + (p << 12);
                let mut entry = at | rights;
                if at >= self.ram.size() || contains(holes, at) {
                    entry = 0;
                } else if contains(read_only, at) {
                    entry &= !2;
                }
                self.ram
                    .write_unwatched(table + p * 4, &(entry as u32).to_le_bytes());
            }
        }
        let (st, core) = self.vcpu.parts_mut();
        st.cr3 = directory;
        st.cr0 |= cr0::PG;
        core.mmu.flush(st, TlbFlush::All);
    }

    /// The register file.
    #[must_use]
    pub fn state(&self) -> &GuestState {
        self.vcpu.state()
    }

    /// The register file. Change segments with its methods only.
    pub fn state_mut(&mut self) -> &mut GuestState {
        self.vcpu.state_mut()
    }

    /// The processor.
    pub fn vcpu_mut(&mut self) -> &mut Vcpu {
        &mut self.vcpu
    }

    /// Writes physical memory; translations of it are dropped.
    pub fn write(&mut self, pa: u64, data: &[u8]) {
        self.ram.write_unwatched(pa, data);
        let (st, core) = self.vcpu.parts_mut();
        let end = pa + data.len() as u64;
        let mut page = pa & !(PAGE_SIZE - 1);
        while page < end {
            core.written(st, page, PAGE_SIZE);
            page += PAGE_SIZE;
        }
    }

    /// Reads physical memory.
    pub fn read(&self, pa: u64, buf: &mut [u8]) {
        self.ram.read(pa, buf);
    }

    /// Runs from CS:RIP to the next event.
    pub fn run(&mut self) -> RigStop {
        self.vcpu.state_mut().halted = 0;
        match self.vcpu.run_or_halt() {
            None => RigStop::Halted,
            Some(VcpuExit::Event(event)) => RigStop::Event(event),
            Some(other) => RigStop::Other(format!("{other:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Form, Rig, RigStop};
    use crate::cpu::event::Event;
    use crate::cpu::fault::Vector;

    const CODE: u64 = 0x40_0000;

    fn run(form: Form, code: &[u8]) -> (Rig, RigStop) {
        let mut rig = Rig::new(16 << 20, form).unwrap();
        rig.write(CODE, code);
        let st = rig.state_mut();
        st.rip = CODE;
        st.set_reg32(4, 0x20_0000);
        let stop = rig.run();
        (rig, stop)
    }

    #[test]
    fn a_loop_with_a_call_runs_in_every_form() {
        // mov ecx,10; xor eax,eax; l: call f; dec ecx; jnz l; int3; f: add eax,ecx; ret
        let code = [
            0xb9, 10, 0, 0, 0, 0x31, 0xc0, 0xe8, 4, 0, 0, 0, 0x49, 0x75, 0xf8, 0xcc, 0x01, 0xc8,
            0xc3,
        ];
        for form in [Form::Window, Form::Soft, Form::Step] {
            let (rig, stop) = run(form, &code);
            assert!(
                matches!(stop, RigStop::Event(Event::Software { vector: 3, .. })),
                "{form:?}: {stop:?}"
            );
            assert_eq!(rig.state().reg32(0), 55, "{form:?}");
        }
    }

    #[test]
    fn a_division_by_zero_is_precise() {
        // mov ebx,7; xor ecx,ecx; div ecx
        let code = [0xbb, 7, 0, 0, 0, 0x31, 0xc9, 0xf7, 0xf1];
        for form in [Form::Window, Form::Soft, Form::Step] {
            let (rig, stop) = run(form, &code);
            assert!(
                matches!(stop, RigStop::Event(Event::Exception(f)) if f.vector == Vector::De),
                "{form:?}: {stop:?}"
            );
            assert_eq!(rig.state().rip, CODE + 7);
            assert_eq!(rig.state().reg32(3), 7);
        }
    }

    #[test]
    fn code_that_changes_itself_runs_the_new_code() {
        // mov byte [CODE+8], 2 ; mov eax, 1 (imm at +8) ; int3
        let code = [
            0xc6, 0x05, 0x08, 0x00, 0x40, 0x00, 0x02, 0xb8, 1, 0, 0, 0, 0xcc,
        ];
        for form in [Form::Window, Form::Soft, Form::Step] {
            let (rig, stop) = run(form, &code);
            assert!(matches!(stop, RigStop::Event(_)), "{form:?}: {stop:?}");
            assert_eq!(rig.state().reg32(0), 2, "{form:?}");
        }
    }
}
