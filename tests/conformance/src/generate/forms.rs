//! The table of instruction forms.

use crate::case::Width;
use iced_x86::{Code, EncodingKind, Mnemonic, OpCodeOperandKind as K};

/// Whether the register-or-memory operand is a register or memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// No operand that could be either.
    Fixed,
    /// It is a register.
    Register,
    /// It is memory.
    Memory,
}

/// An instruction form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Form {
    /// iced's name of the encoding.
    pub code: Code,
    /// Code size.
    pub width: Width,
    /// Choice for the register-or-memory operand.
    pub shape: Shape,
}

impl Form {
    /// A stable name for reports and seeds.
    #[must_use]
    pub fn name(&self) -> String {
        let shape = match self.shape {
            Shape::Fixed => "",
            Shape::Register => "/r",
            Shape::Memory => "/m",
        };
        format!("{:?}{shape}@{}", self.code, self.width.bits())
    }
    /// A hash of the name, to derive the form's own random numbers.
    #[must_use]
    pub fn salt(&self) -> u64 {
        self.name().bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
        })
    }
}

/// A form that is not tested, and why.
#[derive(Clone, Debug)]
pub struct Excluded {
    /// The encoding.
    pub code: Code,
    /// Code size.
    pub width: Width,
    /// Why.
    pub reason: &'static str,
}

/// True for operand kinds that are a register or memory.
#[must_use]
pub fn is_either(kind: K) -> bool {
    use K::*;
    matches!(
        kind,
        r8_or_mem
            | r16_or_mem
            | r32_or_mem
            | r32_or_mem_mpx
            | mm_or_mem
            | xmm_or_mem
            | ymm_or_mem
            | zmm_or_mem
            | bnd_or_mem_mpx
            | k_or_mem
    )
}

/// The forms, and the encodings left out.
#[must_use]
pub fn table() -> (Vec<Form>, Vec<Excluded>) {
    let (mut forms, mut excluded) = (Vec::new(), Vec::new());
    for code in Code::values() {
        let op = code.op_code();
        if !op.is_instruction() {
            continue;
        }
        for width in [Width::Code16, Width::Code32] {
            if !op.is_available_in_mode(width.bits()) {
                continue;
            }
            if let Some(reason) = exclusion(code) {
                excluded.push(Excluded {
                    code,
                    width,
                    reason,
                });
                continue;
            }
            if op.op_kinds().iter().any(|k| is_either(*k)) {
                forms.push(Form {
                    code,
                    width,
                    shape: Shape::Register,
                });
                forms.push(Form {
                    code,
                    width,
                    shape: Shape::Memory,
                });
            } else {
                forms.push(Form {
                    code,
                    width,
                    shape: Shape::Fixed,
                });
            }
        }
    }
    (forms, excluded)
}

/// Why an encoding cannot be compared with the host, if it cannot.
fn exclusion(code: Code) -> Option<&'static str> {
    use Mnemonic::*;
    let op = code.op_code();
    if op.encoding() == EncodingKind::MVEX {
        return Some("Knights Corner encoding; no other processor decodes it");
    }
    if op.op_kinds().iter().any(|k| matches!(k, K::tr_reg)) {
        return Some("test registers: the 80386/80486 only");
    }
    match code.mnemonic() {
        Cpuid | Rdtsc | Rdtscp | Rdpid | Rdpmc | Rdpru | Xgetbv => {
            Some("the virtual machine's value is meant to differ from the host's")
        }
        Ud0 => Some("AMD and Intel decode it with different lengths"),
        Rdrand | Rdseed => Some("random by definition"),
        Sgdt | Sidt | Sldt | Str | Smsw => {
            Some("reads system state that the host kernel replaces (UMIP)")
        }
        Lar | Lsl | Verr | Verw => {
            Some("depends on the host kernel's descriptors: system conformance")
        }
        Syscall | Sysenter | Sysexit | Sysret | Sysexitq | Sysretq => {
            Some("enters the host kernel: system conformance")
        }
        Int => Some("delivered through the interrupt table: system conformance"),
        Int1 => Some("debug trap: system conformance"),
        Vmcall | Vmmcall | Vmfunc | Vmgexit => Some("would reach the host's own hypervisor"),
        Monitorx | Mwaitx | Umonitor | Umwait | Tpause | Monitor | Mwait => {
            Some("waits; its effect is a matter of time")
        }
        Xsaveopt => Some("what it leaves out depends on the last XRSTOR of the same image"),
        Getsec | Encls | Enclu | Enclv | Seamcall | Seamret | Seamops | Tdcall => {
            Some("security extension entry points")
        }
        Ptwrite | Skinit | Rsm | Loadall => Some("changes the host's operating mode"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_covers_what_every_program_uses() {
        let (forms, excluded) = table();
        assert!(forms.len() > 4000, "{}", forms.len());
        for code in [
            Code::Add_rm32_r32,
            Code::Push_r16,
            Code::Fld1,
            Code::Addps_xmm_xmmm128,
        ] {
            assert!(forms.iter().any(|f| f.code == code), "{code:?}");
        }
        assert!(excluded.iter().any(|e| e.code == Code::Cpuid));
    }
}
