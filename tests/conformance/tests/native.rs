//! The oracle itself: hand-written expectations from the manual, and determinism.

use ring3_conformance::case::{Case, Outcome, Privilege, Regs, Stop, Width};
use ring3_conformance::engine::Engine;
use ring3_conformance::layout;
use ring3_conformance::native::Native;
use ring3_conformance::vector::Vector;

fn case(width: Width, code: &[u8]) -> Case {
    let d = layout::SEL_DATA32;
    let (base, seg, esp) = match width {
        Width::Code32 => (
            0,
            [d, layout::SEL_CODE32, d, d, d, d],
            layout::STACK + 0x800,
        ),
        Width::Code16 => {
            let d = layout::SEL_DATA16;
            (
                layout::CODE,
                [d, layout::SEL_CODE16, layout::SEL_STACK16, d, d, d],
                0x8800,
            )
        }
    };
    let code_at = layout::CODE + 0x100;
    Case {
        title: String::new(),
        width,
        pieces: vec![code.to_vec()],
        code_at,
        regs: Regs {
            gpr: [1, 2, 3, 4, esp, 5, 6, 7],
            eip: code_at - base,
            eflags: 0x202,
            seg,
        },
        vector: Vector::default(),
        fill: 0,
        patches: Vec::new(),
        undefined: 0,
        undefined_at_fault: 0,
        ignored: Vec::new(),
        privilege: Privilege::Any,
    }
}

fn run(case: &Case) -> Outcome {
    Native::new()
        .expect("the host can run 32-bit code")
        .run(case)
}

#[test]
fn add_sets_result_and_flags() {
    let mut c = case(Width::Code32, &[0x01, 0xd8]); // add eax, ebx
    c.regs.gpr[0] = 0x7fff_ffff;
    c.regs.gpr[3] = 1;
    let o = run(&c);
    assert_eq!(o.stop, Stop::End);
    assert_eq!(
        o.regs.gpr,
        [0x8000_0000, 2, 3, 1, layout::STACK + 0x800, 5, 6, 7]
    );
    assert_eq!(o.regs.eflags & 0x8d5, 0x894); // OF SF AF PF
    assert_eq!(o.regs.eip, c.end());
}

#[test]
fn push_in_16_bit_code_writes_two_bytes_at_the_stack_base() {
    let mut c = case(Width::Code16, &[0x50, 0xb8, 0x34, 0x12]); // push ax; mov ax, 0x1234
    c.regs.gpr[0] = 0xaaaa_5678;
    let o = run(&c);
    assert_eq!(o.stop, Stop::End);
    assert_eq!(o.regs.gpr[0], 0xaaaa_1234);
    assert_eq!(o.regs.gpr[4] & 0xffff, 0x87fe);
    let at = layout::offset_of(layout::STACK + 0x7fe).unwrap();
    assert_eq!(o.memory[at..at + 2], [0x78, 0x56]);
}

#[test]
fn faults_report_vector_error_address_and_eip() {
    let mut c = case(Width::Code32, &[0x40, 0x89, 0x03]); // inc eax; mov [ebx], eax
    c.regs.gpr[3] = layout::READ_ONLY + 8;
    let o = run(&c);
    assert_eq!(
        o.stop,
        Stop::Trap {
            vector: 14,
            error: 7,
            address: layout::READ_ONLY + 8
        }
    );
    assert_eq!(o.regs.eip, c.code_at + 1);
    assert_eq!(o.regs.gpr[0], 2);
    let mut c = case(Width::Code32, &[0xf7, 0xf1]); // div ecx
    c.regs.gpr[1] = 0;
    assert_eq!(
        run(&c).stop,
        Stop::Trap {
            vector: 0,
            error: 0,
            address: 0
        }
    );
    let c = case(Width::Code16, &[0xa1, 0xff, 0xff]); // mov ax, [0xffff]
    assert_eq!(
        run(&c).stop,
        Stop::Trap {
            vector: 13,
            error: 0,
            address: 0
        }
    );
    let c = case(Width::Code32, &[0xf0, 0x01, 0xd8]); // lock add eax, ebx
    assert_eq!(
        run(&c).stop,
        Stop::Trap {
            vector: 6,
            error: 0,
            address: 0
        }
    );
    let c = case(Width::Code32, &[0xf4]); // hlt
    assert_eq!(
        run(&c).stop,
        Stop::Trap {
            vector: 13,
            error: 0,
            address: 0
        }
    );
}

#[test]
fn vector_state_goes_in_and_out() {
    let mut c = case(Width::Code32, &[0x0f, 0x28, 0xca, 0xd9, 0xe8]); // movaps xmm1, xmm2; fld1
    for n in 0..8 {
        c.vector.zmm[n][..32].fill(n as u8 + 1);
    }
    let o = run(&c);
    assert_eq!(o.stop, Stop::End);
    assert_eq!(o.vector.zmm[1][..16], [3; 16]);
    assert_eq!(o.vector.zmm[1][16..32], [2; 16]);
    assert_eq!(o.vector.ftw, 0x80);
    assert_eq!(o.vector.st[0], [0, 0, 0, 0, 0, 0, 0, 0x80, 0xff, 0x3f]);
    let c = case(Width::Code32, &[0xd9, 0xe8]);
    assert_eq!(
        run(&c).vector.zmm,
        Vector::default().zmm,
        "nothing leaks from the parent"
    );
}

#[test]
fn nt_and_id_flags_do_not_leak_into_the_next_case() {
    // push 0x204202; popf
    let set = case(Width::Code32, &[0x68, 0x02, 0x42, 0x20, 0x00, 0x9d]);
    let nop = case(Width::Code32, &[0x90]);
    let o = Native::new().unwrap().run_batch(&[nop.clone(), set, nop]);
    assert_eq!(o[0].regs.eflags & 0x20_4000, 0);
    assert_eq!(o[1].regs.eflags & 0x20_4000, 0x20_4000);
    assert_eq!(o[2].regs.eflags & 0x20_4000, 0);
}

#[test]
fn a_case_that_never_stops_is_lost_and_the_next_one_runs() {
    let hang = case(Width::Code32, &[0xeb, 0xfe]);
    let kill = case(Width::Code32, &[0xcd, 0x80]); // a system call: the jail kills
    let fine = case(Width::Code32, &[0x90]);
    let mut n = Native::new().unwrap();
    let o = n.run_batch(&[fine.clone(), hang, fine.clone(), kill, fine]);
    let stops: Vec<bool> = o.iter().map(|o| o.stop == Stop::End).collect();
    assert_eq!(stops, [true, false, true, false, true]);
    assert_eq!(n.starts, 3);
}

#[test]
fn memory_and_selectors_are_fresh_in_each_case() {
    let mut c = case(Width::Code32, &[0x89, 0x03, 0x1e, 0x07]); // mov [ebx], eax; push ds; pop es
    c.regs.gpr[3] = layout::DATA;
    c.regs.seg[3] = layout::SEL_BASED;
    c.regs.gpr[3] = layout::DATA - 0x0012_3450;
    let nop = case(Width::Code32, &[0x90]);
    let o = Native::new().unwrap().run_batch(&[c, nop]);
    let at = layout::offset_of(layout::DATA).unwrap();
    assert_eq!(o[0].stop, Stop::End);
    assert_eq!(o[0].memory[at], 1);
    assert_eq!(o[0].regs.seg[0], layout::SEL_BASED);
    assert_eq!(o[1].memory[at], 0);
    assert_eq!(o[1].regs.seg[0], layout::SEL_DATA32);
}
