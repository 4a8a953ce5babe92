//! The data-flow analysis over a unit's host code: every instruction, on every way to it.

use super::rules::forbidden;
use super::step::{Check, apply, asked, guest_registers_are_clean, through_cache};
use super::value::{Facts, Lookup, Val};
use super::{Neighbours, UnitCode, Violation};
use crate::off;
use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Formatter, Instruction, InstructionInfoFactory,
    IntelFormatter, OpKind, Register,
};

/// Decodes all of a unit; both halves must end exactly where their last instruction ends.
fn decode(u: &UnitCode<'_>) -> Result<Vec<Instruction>, Violation> {
    let mut list = Vec::new();
    let mut decoder = Decoder::with_ip(64, u.code, u.base, DecoderOptions::NONE);
    while decoder.can_decode() {
        let insn = decoder.decode();
        let at = (insn.ip() - u.base) as u32;
        let fail = |why: &str| Violation {
            offset: at,
            text: text(&insn),
            why: why.into(),
        };
        if insn.is_invalid() {
            return Err(fail("not an instruction"));
        }
        if at < u.hot && at + insn.len() as u32 > u.hot {
            return Err(fail("an instruction that lies in both halves"));
        }
        list.push(insn);
    }
    Ok(list)
}

pub(super) fn text(insn: &Instruction) -> String {
    let mut t = String::new();
    IntelFormatter::new().format(insn, &mut t);
    t
}

struct Analysis<'a, 'u> {
    u: &'a UnitCode<'u>,
    near: &'a Neighbours<'a>,
    insns: Vec<Instruction>,
    /// Index of the instruction at each offset.
    at: Vec<Option<u32>>,
    before: Vec<Option<Facts>>,
    work: Vec<usize>,
    info: InstructionInfoFactory,
}

/// Checks one unit; the number of host instructions.
pub(super) fn run(u: &UnitCode<'_>, near: &Neighbours<'_>) -> Result<usize, Vec<Violation>> {
    let insns = decode(u).map_err(|v| vec![v])?;
    let mut at = vec![None; u.code.len()];
    for (n, i) in insns.iter().enumerate() {
        at[(i.ip() - u.base) as usize] = Some(n as u32);
    }
    let mut a = Analysis {
        u,
        near,
        before: vec![None; insns.len()],
        insns,
        at,
        work: Vec::new(),
        info: InstructionInfoFactory::new(),
    };
    let mut found = Vec::new();
    let exits = u.exits.iter().map(|&e| (e, Val::Unset));
    for (entry, r13) in [(0, Val::U32), (u.body, Val::Unset)]
        .into_iter()
        .chain(exits)
    {
        if a.enter(u.base + u64::from(entry), &Facts::entry(r13))
            .is_err()
        {
            found.push(a.violation(0, "an entry that is no instruction".into()));
        }
    }
    while let Some(n) = a.work.pop() {
        if let Err(why) = a.visit(n) {
            found.push(a.violation(n, why));
            if found.len() > 8 {
                return Err(found);
            }
        }
    }
    if found.is_empty() {
        for n in 0..a.insns.len() {
            if a.before[n].is_none() {
                found.push(a.violation(n, "code that nothing reaches".into()));
                break;
            }
        }
        for &(offset, _) in u.marks {
            if a.at.get(offset as usize).is_none_or(Option::is_none)
                && offset as usize != u.code.len()
            {
                found.push(a.violation(0, format!("a mark at {offset:#x}, inside an instruction")));
            }
        }
    }
    if found.is_empty() {
        Ok(a.insns.len())
    } else {
        Err(found)
    }
}

impl Analysis<'_, '_> {
    fn violation(&self, n: usize, why: String) -> Violation {
        let insn = self.insns.get(n).copied().unwrap_or_default();
        Violation {
            offset: insn.ip().wrapping_sub(self.u.base) as u32,
            text: text(&insn),
            why,
        }
    }

    /// Control reaches `target` inside the unit with `f`.
    fn enter(&mut self, target: u64, f: &Facts) -> Check<()> {
        let n = usize::try_from(target.wrapping_sub(self.u.base))
            .ok()
            .and_then(|o| self.at.get(o).copied().flatten())
            .ok_or("a branch into the middle of an instruction")? as usize;
        match &mut self.before[n] {
            Some(old) => {
                if old.merge(f) {
                    self.work.push(n);
                }
            }
            none => {
                *none = Some(*f);
                self.work.push(n);
            }
        }
        Ok(())
    }

    fn inside(&self, target: u64) -> bool {
        target.wrapping_sub(self.u.base) < self.u.code.len() as u64
    }

    fn visit(&mut self, n: usize) -> Check<()> {
        let insn = self.insns[n];
        let Some(mut f) = self.before[n] else {
            return Ok(());
        };
        if let Some(why) = forbidden(&insn) {
            return Err(why.into());
        }
        match insn.code() {
            Code::Pushfq => {
                let next = self.insns.get(n + 1);
                let popped = next.is_some_and(|p| {
                    p.code() == Code::Pop_r64 && p.op0_register() == Register::R11
                });
                if !popped {
                    return Err("PUSHFQ that POP R11 does not follow".into());
                }
                if self.is_target(insn.next_ip()) {
                    return Err("a branch between PUSHFQ and POP".into());
                }
                return self.fall(n, &f);
            }
            Code::Pop_r64 => {
                if n == 0 || self.insns[n - 1].code() != Code::Pushfq {
                    return Err("POP that PUSHFQ does not precede".into());
                }
                f.set(11, Val::U32);
                return self.fall(n, &f);
            }
            _ => {}
        }
        match insn.flow_control() {
            FlowControl::Next => {
                if matches!(insn.code(), Code::Cld | Code::Std) {
                    self.step_follows(n)?;
                }
                self.constants(&insn)?;
                apply(&insn, &mut f, &mut self.info)?;
                self.fall(n, &f)
            }
            FlowControl::UnconditionalBranch if insn.op0_kind() == OpKind::NearBranch64 => {
                self.branch(insn.near_branch_target(), &f)
            }
            FlowControl::ConditionalBranch if insn.op0_kind() == OpKind::NearBranch64 => {
                self.conditional(n, &insn, &f)
            }
            FlowControl::Call if insn.op0_kind() == OpKind::NearBranch64 => self.call(n, &insn, f),
            FlowControl::IndirectBranch if insn.code() == Code::Jmp_rm64 => {
                guest_registers_are_clean(&f)?;
                through_cache(&insn, &f, self.u.table)
            }
            FlowControl::IndirectCall if insn.code() == Code::Call_rm64 => {
                guest_registers_are_clean(&f)?;
                through_cache(&insn, &f, self.u.table)?;
                self.fall(n, &Facts::entry(Val::U32))
            }
            FlowControl::Return if insn.code() == Code::Retnq => {
                if !f.regs[13].is_u32() {
                    return Err(format!("returns with r13 being {:?}", f.regs[13]));
                }
                guest_registers_are_clean(&f)
            }
            _ => Err("a control transfer of no permitted form".into()),
        }
    }

    fn is_target(&self, ip: u64) -> bool {
        self.insns.iter().any(|i| {
            i.op_count() > 0 && i.op0_kind() == OpKind::NearBranch64 && i.near_branch_target() == ip
        })
    }

    fn fall(&mut self, n: usize, f: &Facts) -> Check<()> {
        let next = self.insns[n].next_ip();
        let offset = next - self.u.base;
        if offset == u64::from(self.u.hot) || offset >= self.u.code.len() as u64 {
            return Err("code that runs on beyond the end of its half".into());
        }
        self.enter(next, f)
    }

    fn conditional(&mut self, n: usize, insn: &Instruction, f: &Facts) -> Check<()> {
        let target = insn.near_branch_target();
        if !insn.is_jcc_short_or_near() {
            if insn.code() != Code::Jrcxz_rel8_64 || !self.inside(target) {
                return Err("a conditional branch of no permitted form".into());
            }
            let mut zero = *f;
            match f.regs[1] {
                Val::Miss(l) => zero.hit = Some(l),
                Val::High => {
                    for r in &mut zero.regs {
                        if *r == Val::Candidate {
                            *r = Val::Count;
                        }
                    }
                }
                Val::StepLessOne => zero.forward = true,
                v if v.is_number() => {}
                v => return Err(format!("tests rcx, which is {v:?}")),
            }
            zero.set(1, Val::Const(0));
            self.enter(target, &zero)?;
        } else {
            self.branch(target, f)?;
        }
        self.fall(n, f)
    }

    /// A direct jump, perhaps out of the unit.
    fn branch(&mut self, target: u64, f: &Facts) -> Check<()> {
        if self.inside(target) {
            return self.enter(target, f);
        }
        guest_registers_are_clean(f)?;
        let s = self.u.stubs;
        let looks_up = target == s.jump_miss || target == s.return_lookup[self.u.table];
        if looks_up {
            return if f.regs[13].is_u32() {
                Ok(())
            } else {
                Err(format!("looks up r13, which is {:?}", f.regs[13]))
            };
        }
        if target == s.exit_link || target == s.exit_end || self.near.accepts(target, self.u.table)
        {
            return Ok(());
        }
        Err(format!(
            "a jump to {target:#x}, which is no exit and no unit"
        ))
    }

    fn call(&mut self, n: usize, insn: &Instruction, f: Facts) -> Check<()> {
        let target = insn.near_branch_target();
        if self.inside(target) {
            // A guest call that is not linked: the callee exits, and returns here by r13.
            guest_registers_are_clean(&f)?;
            self.enter(target, &f)?;
            return self.fall(n, &Facts::entry(Val::U32));
        }
        guest_registers_are_clean(&f)?;
        let s = self.u.stubs;
        let mut after = Facts::entry(Val::Unset);
        after.regs[8] = f.regs[8];
        after.regs[11] = f.regs[11];
        let found = |l: Lookup, after: &mut Facts| {
            after.regs[13] = f.regs[13];
            after.regs[14] = Val::Delta(l);
        };
        match target {
            t if t == s.callout => match f.regs[9] {
                Val::Const(site) if self.u.sites.contains(&site) => {}
                v => return Err(format!("a callout with r9 {v:?}, sites {:?}", self.u.sites)),
            },
            t if t == s.soft_read => found(asked(&f, self.u.table, false)?, &mut after),
            t if t == s.soft_write => found(asked(&f, self.u.table, true)?, &mut after),
            t if t == s.commit => {
                if !matches!(f.regs[9], Val::Const(_)) {
                    return Err(format!("a commit with r9 {:?}", f.regs[9]));
                }
            }
            t if t == s.segment_check => {
                // The helper's info says whether it writes; either is permitted.
                if asked(&f, self.u.table, false).is_err() {
                    asked(&f, self.u.table, true)?;
                }
                after.regs[13] = Val::U32;
            }
            t if t == s.fpu_load => {
                after = f;
                after.set(13, Val::Unset);
                after.set(14, Val::Unset);
            }
            t if self.near.accepts(t, self.u.table) => after.regs[13] = Val::U32,
            t => return Err(format!("a call of {t:#x}, which is no helper and no unit")),
        }
        self.fall(n, &after)
    }

    /// Constants that the monitor indexes tables with.
    fn constants(&self, insn: &Instruction) -> Check<()> {
        let link = insn.code() == Code::Mov_rm32_imm32
            && insn.memory_base() == Register::R15
            && insn.memory_displacement64() == off!(exit_arg) as u64;
        if link && !self.u.links.contains(&insn.immediate32()) {
            return Err(format!(
                "link {}, the unit has {:?}",
                insn.immediate32(),
                self.u.links
            ));
        }
        Ok(())
    }

    /// CLD and STD come with the step that string instructions take from `GuestState`.
    fn step_follows(&self, n: usize) -> Check<()> {
        let want = if self.insns[n].code() == Code::Cld {
            1
        } else {
            -1
        };
        let next = self.insns.get(n + 1);
        let follows = next.is_some_and(|i| {
            i.code() == Code::Mov_rm64_imm32
                && i.memory_base() == Register::R15
                && i.memory_displacement64() == off!(string_step) as u64
                && i.immediate32to64() == want
        });
        if follows {
            Ok(())
        } else {
            Err("DF changes and the string step does not".into())
        }
    }
}
