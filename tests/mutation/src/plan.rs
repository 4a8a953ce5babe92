//! Which part of the suite is expected to notice which mistake.

use crate::part::Part::{self, Forms, Programs, Table, Tiny};
use ring3_system_conformance::tables;
use ring3_translator::mutation::Mutation;

const ALL: &str = "window,soft,step";

/// The parts to begin with.
pub fn first(mutation: Mutation) -> Vec<Part> {
    use Mutation as M;
    let forms = |only| vec![Forms(only, ALL)];
    match mutation {
        M::SoftLookupFlags | M::CrossingMissed | M::AlignmentCheck => {
            vec![Forms("Mov_r32_rm32/m@32", "soft")]
        }
        M::AlignmentOrder => forms("Vpbroadcastd_xmm_xmmm32/m"),
        M::StepMissed => forms("Mov_r32_rm32/r@32"),
        M::StepLate => forms("Popf"),
        M::PendingOrder => vec![Forms("Fadd_m", "soft")],
        M::LengthFault => forms("Add_"),
        M::FaultAddress => vec![Forms("Mov_rm32_r32/m@32", "soft")],
        M::SegmentCheckFlags
        | M::LimitOff
        | M::BaseIgnored
        | M::FsBaseIgnored
        | M::WindowForLimited
        | M::FaultPc => forms("Mov_r32_rm32/m@32"),
        M::ReturnFlags | M::ReturnRelease | M::ReturnWidth => forms("Retn"),
        M::PushfInterruptFlag => forms("Pushf"),
        M::ParityCondition => forms("Jp_"),
        M::LoopFlags | M::LoopUpperHalf => forms("Loop_rel8"),
        M::PushOrder => forms("Push_r32"),
        M::PopOrder | M::PopAddress => forms("Pop_rm32"),
        M::LeaveOrder => forms("Leave"),
        M::StringOrder | M::StringUpperHalf => forms("Stos"),
        M::PushSignExtension => forms("Pushd_imm8"),
        M::BitOffsetSign => forms("Bts_rm32_r32/m"),
        M::BitOffsetWord => forms("Bts_rm16_r16/m"),
        M::AddressWrap => forms("Mov_r32_rm32/m@16"),
        M::StackWrap | M::StackUpperHalf => forms("Push_r16@16"),
        M::CountWidth => forms("Jcxz"),
        M::HighByte => forms("Mov_r8_rm8/m"),
        M::SelectorUpperHalf => forms("Mov_r32m16_Sreg"),
        M::LoopCondition => forms("Loope"),
        M::JumpWidth => forms("Jmp_rm16"),
        M::ReturnAddress => forms("Call_rel32"),
        M::IndirectReturn => forms("Call_rm32"),
        M::AlignmentIgnored => forms("Movaps"),
        M::FpuState => forms("Fld_"),
        M::DecimalCarry => forms("Daa"),
        M::AamFlags => forms("Aam"),
        M::PushaStack => forms("Pusha"),
        M::EnterDisplay => forms("Enter"),
        M::XlatWrap => forms("Xlat"),
        M::FpuTags => forms("Fnstenv"),
        M::DirectionStep | M::ReturnMatch => vec![Programs(100, "window,soft")],
        M::StaleLinks
        | M::StaleUnits
        | M::StaleJumpCache
        | M::CommitAddress
        | M::WriteByReadTag => {
            vec![Tiny("tiny-smc"), Programs(100, "window,soft")]
        }
        M::StiShadow => vec![Tiny("tiny-irq")],
        M::MovSsShadow => vec![Tiny("tiny-debug")],
        M::Invlpg => vec![Tiny("tiny-paging")],
        M::AccessedBit | M::DirtyBit => vec![Table("accessed-dirty")],
        M::WriteProtect | M::PageFaultUser => vec![Table("paging-rights")],
        M::TaskBusy | M::TaskNested => vec![Table("task-switches")],
        M::AlignmentRing | M::PortAlignment => vec![Table("alignment")],
        M::StepStatus => vec![Table("single-step")],
        M::BreakpointDirection => vec![Table("breakpoints")],
        M::ExpandDown => vec![Table("limits")],
        M::DescriptorAccessed => vec![Table("segment-loads")],
        M::GateParameters => vec![Table("call-gates")],
        M::ErrorCode => vec![Table("double-faults")],
        M::GateInterruptFlag | M::IretInterruptFlag | M::IoBitmap => vec![Tiny("tiny-rings")],
    }
}

/// Everything else that is quick.
pub fn rest() -> Vec<Part> {
    let tables = tables::all().into_iter().map(|t| Table(t.name));
    let guests = [
        "tiny-real",
        "tiny-rings",
        "tiny-paging",
        "tiny-pae",
        "tiny-v86",
        "tiny-tasks",
        "tiny-smc",
        "tiny-debug",
        "tiny-irq",
        "tiny-rep",
        "tiny-fpu",
    ]
    .map(Tiny);
    [Programs(100, "window,soft")]
        .into_iter()
        .chain(tables)
        .chain(guests)
        .collect()
}
