//! What the processor's semantics ask of it ([`Env`]): memory, TLBs, ports, the local APIC, time.

use super::{Core, a20_mask};
use crate::cpu::cpuid::Vendor;
use crate::cpu::env::{Access, Env, Privilege, TlbFlush};
use crate::cpu::fault::Fault;
use core::sync::atomic::Ordering;
use ring3_translator::addr::{LinAddr, PAGE_SIZE, PhysAddr};
use ring3_translator::mutation::Mutation;
use ring3_translator::state::GuestState;

/// Splits `len` bytes at a linear address at page boundaries: (address, offset in the buffer, len).
fn pieces(at: LinAddr, len: usize) -> impl Iterator<Item = (u32, usize, usize)> {
    let mut done = 0;
    core::iter::from_fn(move || {
        if done >= len {
            return None;
        }
        let lin = (at.0 as u32).wrapping_add(done as u32);
        let room = (PAGE_SIZE as usize) - (lin as usize & (PAGE_SIZE as usize - 1));
        let piece = room.min(len - done);
        let item = (lin, done, piece);
        done += piece;
        Some(item)
    })
}

impl Env for Core {
    fn read(
        &mut self,
        st: &mut GuestState,
        at: LinAddr,
        buf: &mut [u8],
        who: Privilege,
    ) -> Result<(), Fault> {
        let lin = at.0 as u32;
        if (lin as usize & 0xfff) + buf.len() <= PAGE_SIZE as usize {
            let pa = self.resolve(st, lin, Access::Read, who)?;
            self.note(st, lin, buf.len(), Access::Read);
            self.read_physical(pa, buf);
            return Ok(());
        }
        for (lin, _, _) in pieces(at, buf.len()) {
            self.resolve(st, lin, Access::Read, who)?;
        }
        self.note(st, lin, buf.len(), Access::Read);
        for (lin, offset, len) in pieces(at, buf.len()) {
            let pa = self.resolve(st, lin, Access::Read, who)?;
            self.read_physical(pa, &mut buf[offset..offset + len]);
        }
        Ok(())
    }

    fn write(
        &mut self,
        st: &mut GuestState,
        at: LinAddr,
        data: &[u8],
        who: Privilege,
    ) -> Result<(), Fault> {
        let lin = at.0 as u32;
        if (lin as usize & 0xfff) + data.len() <= PAGE_SIZE as usize {
            let pa = self.resolve(st, lin, Access::Write, who)?;
            self.note(st, lin, data.len(), Access::Write);
            self.write_physical(st, pa, data);
            return Ok(());
        }
        for (lin, _, _) in pieces(at, data.len()) {
            self.resolve(st, lin, Access::Write, who)?;
        }
        self.note(st, lin, data.len(), Access::Write);
        for (lin, offset, len) in pieces(at, data.len()) {
            let pa = self.resolve(st, lin, Access::Write, who)?;
            self.write_physical(st, pa, &data[offset..offset + len]);
        }
        Ok(())
    }

    fn probe(
        &mut self,
        st: &mut GuestState,
        at: LinAddr,
        len: u32,
        access: Access,
        who: Privilege,
    ) -> Result<(), Fault> {
        for (lin, _, _) in pieces(at, len as usize) {
            let page = self.resolve(st, lin, access, who);
            page.map_err(|mut fault| {
                if st.broken(Mutation::FaultAddress) {
                    fault.address = Some(at.0);
                }
                fault
            })?;
        }
        Ok(())
    }

    fn ram_address(
        &mut self,
        st: &mut GuestState,
        at: LinAddr,
        access: Access,
        who: Privilege,
    ) -> Option<PhysAddr> {
        let pa = self.resolve(st, at.0 as u32, access, who).ok()?;
        self.mmu.ram.is_ram(pa).then_some(PhysAddr(pa))
    }

    fn alignment_first(&self) -> bool {
        self.model.vendor() == Vendor::Amd
    }

    fn flush_tlb(&mut self, st: &mut GuestState, what: TlbFlush) {
        self.mmu.flush(st, what);
        if self.direct.is_on() {
            let (now, entries) = (self.clock.now_ns(), self.kernel_entries());
            self.direct.switched(st, now, entries);
        }
        self.clear_table(st, 1);
        if (what == TlbFlush::All || self.non_global_code) && !self.code_pages_hold(st) {
            self.forget_code_pages(st);
        }
        self.leave = true;
    }

    fn invalidate_page(&mut self, st: &mut GuestState, at: LinAddr) {
        let lin = at.0 as u32;
        self.mmu.invalidate_page(st, lin);
        let page = (lin >> 12) as usize;
        if self.user_code[page / 64] & 1 << (page % 64) != 0 {
            self.user_code[page / 64] &= !(1 << (page % 64));
            self.clear_table(st, 1);
            self.leave = true;
        }
        if self.code_pages.frame(lin >> 12).is_some() {
            self.forget_code_pages(st);
            self.leave = true;
        }
    }

    fn read_pdptes(&mut self, cr3: u64) -> [u64; 4] {
        let at = cr3 & 0xffff_ffe0;
        core::array::from_fn(|i| self.mmu.ram.read_u64(at + i as u64 * 8))
    }

    fn port_in(&mut self, port: u16, size: u8) -> u32 {
        let mut board = self.board();
        let value = board.port_in(port, size);
        self.after_board_write(board);
        value
    }

    fn port_in_run(&mut self, port: u16, size: u8, data: &mut [u8]) {
        let mut board = self.board();
        board.port_in_run(port, size, data);
        self.after_board_write(board);
    }

    fn port_out(&mut self, port: u16, size: u8, value: u32) {
        let mut board = self.board();
        board.port_out(port, size, value);
        let attention = board.request_pending()
            || board.effects_pending()
            || a20_mask(&board) != self.mmu.a20_mask;
        self.after_board_write(board);
        if attention {
            self.leave = true;
            self.kicker.attention.store(true, Ordering::Relaxed);
        }
    }

    fn tsc(&mut self) -> u64 {
        self.clock.tsc()
    }

    fn timers_overdue(&mut self) -> bool {
        let Some(io) = &self.io else {
            return false;
        };
        let due = io.deadline();
        // Once for each deadline: the thread itself moves it when it gets to run.
        if due == self.overdue || due > self.clock.now_ns() {
            return false;
        }
        self.overdue = due;
        let mut board = self.board();
        board.run_timers();
        let pending = board.interrupt_pending();
        self.after_board_write(board);
        pending
    }

    fn event_waiting(&mut self) -> bool {
        self.intr.load(Ordering::Acquire) || self.kicker.attention.load(Ordering::Acquire)
    }

    fn set_apic_base(&mut self, value: u64) {
        let mut board = self.board();
        board.set_apic_base(value);
        self.after_board_write(board);
    }

    fn set_tsc_deadline(&mut self, counter: Option<u64>) -> bool {
        let due = counter.map(|counter| self.clock.time_of_tsc(counter));
        let mut board = self.board();
        let taken = board.set_tsc_deadline(due);
        self.after_board_write(board);
        taken
    }

    fn tsc_deadline_armed(&mut self) -> bool {
        self.board().tsc_deadline_armed()
    }
}
