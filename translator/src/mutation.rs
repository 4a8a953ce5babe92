//! Deliberate mistakes for the mutation check: does the suite notice each of them?
//!
//! Without the feature `mutation` (the default) every test of a mutation is the constant false,
//! and no mistake is compiled in. With it, one mistake at a time can be chosen for a processor.

macro_rules! mutations {
    ($($name:ident: $what:literal,)*) => {
        /// One mistake.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mutation {
            $(#[doc = $what] $name,)*
        }

        impl Mutation {
            /// Every mistake with what it breaks.
            pub const ALL: &[(Self, &'static str)] = &[$((Self::$name, $what),)*];
        }
    };
}

mutations! {
    // Lowering: flags.
    SoftLookupFlags: "the soft look-up changes arithmetic flags",
    SegmentCheckFlags: "the segment-limit check changes arithmetic flags",
    ReturnFlags: "RET changes arithmetic flags",
    PushfInterruptFlag: "PUSHF stores IF clear",
    ParityCondition: "JP and JNP are exchanged",
    LoopFlags: "LOOP changes arithmetic flags",
    // Lowering: order of accesses and register changes.
    PushOrder: "PUSH changes the stack pointer before the store",
    PopOrder: "POP to memory changes the stack pointer before the store",
    LeaveOrder: "LEAVE changes the stack pointer before the load",
    StringOrder: "single string stores step EDI before the store",
    // Lowering: values, sizes and wrapping.
    PushSignExtension: "PUSH imm8 does not extend the sign",
    BitOffsetSign: "a negative bit offset counts as a large positive one",
    BitOffsetWord: "a 16-bit bit offset is not sign-extended",
    AddressWrap: "16-bit addresses do not wrap at 64 KiB",
    StackWrap: "a 16-bit stack does not wrap at 64 KiB",
    StackUpperHalf: "stack operations on SP destroy the upper half of ESP",
    LoopUpperHalf: "LOOP with CX destroys the upper half of ECX",
    StringUpperHalf: "string steps of SI and DI destroy the upper halves",
    CountWidth: "JCXZ and LOOP test ECX for CX",
    ReturnWidth: "RET with a 16-bit operand keeps bits 16-31",
    PopAddress: "POP [ESP+n] computes its address before the increment",
    HighByte: "results in AH-BH beside extended registers are lost",
    SelectorUpperHalf: "MOV r32, sreg keeps the upper half of the register",
    LoopCondition: "LOOPE and LOOPNE ignore ZF",
    JumpWidth: "near jumps to a 16-bit target keep bits 16-31",
    // Lowering: calls and returns.
    ReturnAddress: "CALL pushes its own address",
    ReturnRelease: "RET n releases nothing but the address",
    ReturnMatch: "a return site does not compare the target",
    IndirectReturn: "CALL r/m reads its target after the push",
    // Lowering: segments and addresses.
    LimitOff: "segment limits admit one byte too many",
    BaseIgnored: "the base of a segment without a limit is not added",
    FsBaseIgnored: "the base of FS and GS is not added",
    WindowForLimited: "the limit of a segment is not checked",
    AlignmentIgnored: "SSE operands need no alignment",
    CrossingMissed: "soft accesses that cross a page look only at the first byte",
    WriteByReadTag: "soft writes ask for the right to read",
    // Lowering: marks, direction, FPU, shadow.
    FaultPc: "faults name the first instruction of their unit",
    DirectionStep: "STD leaves the step of string instructions",
    FpuState: "FPU instructions do not load the guest's state",
    PendingOrder: "a pending x87 exception comes after faults of the operand",
    // Cache.
    StaleLinks: "links into dropped units stay",
    StaleUnits: "written code keeps its translations",
    StaleJumpCache: "the jump cache keeps dropped units",
    CommitAddress: "a write that changed code goes on at its own instruction",
    // Monitor: checks and traps around each instruction.
    AlignmentCheck: "misaligned operands raise no #AC",
    AlignmentRing: "#AC is raised in rings 0 to 2",
    AlignmentOrder: "#AC comes before #UD, #NM and #MF",
    PortAlignment: "#AC of INS and OUTS comes before the #GP of their port",
    StepMissed: "TF raises no #DB",
    StepLate: "TF counts as it is after the instruction",
    StepStatus: "a single step does not set DR6.BS",
    BreakpointDirection: "reads meet breakpoints on writes",
    LengthFault: "instructions of more than 15 bytes raise #UD",
    // Monitor: paging.
    FaultAddress: "CR2 of a write that crosses a page is its first byte's",
    AccessedBit: "the A bit of a page is not set",
    DirtyBit: "the D bit of a page is not set",
    WriteProtect: "CR0.WP is ignored",
    PageFaultUser: "page-fault error codes have no U bit",
    Invlpg: "INVLPG keeps soft-TLB entries",
    // Monitor: segments, gates, tasks.
    ExpandDown: "expand-down segments are checked as expand-up",
    DescriptorAccessed: "the accessed bit of descriptors is not set",
    GateParameters: "call gates copy one parameter too few",
    TaskBusy: "the busy bit of the old task is kept",
    TaskNested: "a nested task does not have NT set",
    ErrorCode: "faults push no error code",
    GateInterruptFlag: "interrupt gates keep IF",
    IretInterruptFlag: "IRET changes IF whatever IOPL is",
    StiShadow: "STI does not hold off interrupts for one instruction",
    MovSsShadow: "MOV SS does not hold off debug exceptions",
    IoBitmap: "the I/O permission bitmap is read one bit off",
    // Monitor: instructions.
    DecimalCarry: "DAA and DAS ignore the old carry",
    AamFlags: "AAM and AAD leave SF, ZF and PF",
    PushaStack: "PUSHA stores a changed ESP",
    EnterDisplay: "ENTER copies one frame pointer too few",
    XlatWrap: "XLAT with BX does not wrap",
    FpuTags: "FNSTENV marks denormals as valid",
}

impl Mutation {
    /// The mistake with this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(m, _)| format!("{m:?}") == name)
            .map(|(m, _)| *m)
    }
}
