//! Register-level tests of the local APIC. Sections are those of Intel SDM vol. 3A.

use super::*;

fn write(apic: &mut Lapic, now: Nanos, register: u16, value: u32) {
    MmioDevice::write(apic, now, register.into(), &value.to_le_bytes());
}
fn read(apic: &mut Lapic, now: Nanos, register: u16) -> u32 {
    let mut word = [0; 4];
    MmioDevice::read(apic, now, register.into(), &mut word);
    u32::from_le_bytes(word)
}
fn enabled() -> Lapic {
    let mut apic = Lapic::new(0);
    write(&mut apic, 0, reg::SVR, 0x1ff);
    apic
}

/// 11.8.3, 11.8.4, 11.8.5: priorities, acceptance, EOI.
#[test]
fn priorities_nest_and_eoi_ends_the_highest() {
    let mut apic = enabled();
    apic.accept(0x41, false);
    apic.accept(0x52, true);
    assert_eq!(apic.acknowledge(), 0x52);
    assert_eq!(apic.pending(), None);
    apic.accept(0x60, false);
    assert_eq!(apic.acknowledge(), 0x60);
    write(&mut apic, 0, reg::EOI, 0);
    assert_eq!(apic.take_eoi(), None, "edge-triggered");
    write(&mut apic, 0, reg::EOI, 0);
    assert_eq!(apic.take_eoi(), Some(0x52));
    assert_eq!(apic.acknowledge(), 0x41);
    assert_eq!(read(&mut apic, 0, reg::ISR + 0x20), 2);
}

/// 11.8.3.1: task and processor priority.
#[test]
fn task_priority_blocks() {
    let mut apic = enabled();
    write(&mut apic, 0, reg::TPR, 0x50);
    apic.accept(0x5f, false);
    assert_eq!(apic.pending(), None);
    write(&mut apic, 0, reg::TPR, 0x40);
    assert_eq!(apic.pending(), Some(0x5f));
    assert_eq!(read(&mut apic, 0, reg::PPR), 0x40);
}

/// 11.5.4: one-shot, divide configuration, current count.
#[test]
fn one_shot_timer_counts_down_and_fires_once() {
    let mut apic = enabled();
    write(&mut apic, 0, reg::TIMER_DIVIDE, 3); // by 16
    write(&mut apic, 0, reg::LVT_TIMER, 0x30);
    write(&mut apic, 0, reg::TIMER_INITIAL, 100);
    assert_eq!(apic.next_deadline(), Some(16_000));
    assert_eq!(read(&mut apic, 8_000, reg::TIMER_CURRENT), 50);
    apic.advance(15_999);
    assert_eq!(apic.pending(), None);
    apic.advance(16_000);
    assert_eq!((apic.acknowledge(), apic.next_deadline()), (0x30, None));
    assert_eq!(read(&mut apic, 17_000, reg::TIMER_CURRENT), 0);
}

/// 11.5.4: periodic mode.
#[test]
fn periodic_timer_keeps_its_phase_over_a_pause() {
    let mut apic = enabled();
    write(&mut apic, 0, reg::TIMER_DIVIDE, 0x0b); // by 1
    write(&mut apic, 0, reg::LVT_TIMER, 0x2_0030);
    write(&mut apic, 0, reg::TIMER_INITIAL, 100);
    apic.advance(1_000_000_300);
    assert_eq!(apic.acknowledge(), 0x30);
    assert_eq!(apic.next_deadline(), Some(1_000_001_000));
}

/// 11.5.4.1: TSC deadlines.
#[test]
fn deadline_fires_once_and_only_in_its_mode() {
    let mut apic = enabled();
    write(&mut apic, 0, reg::LVT_TIMER, 0x30);
    assert!(!apic.set_deadline(0, Some(500)) && !apic.deadline_armed());
    write(&mut apic, 0, reg::LVT_TIMER, 0x4_0030);
    write(&mut apic, 0, reg::TIMER_INITIAL, 10);
    assert_eq!(apic.next_deadline(), None, "the initial count is ignored");
    assert!(apic.set_deadline(0, Some(500)));
    assert_eq!(apic.next_deadline(), Some(500));
    apic.advance(499);
    assert_eq!(apic.pending(), None);
    apic.advance(500);
    assert_eq!((apic.acknowledge(), apic.deadline_armed()), (0x30, false));
    // One in the past fires at once; zero disarms; another mode disarms.
    apic.set_deadline(600, Some(1));
    assert!(apic.requested(0x30));
    apic.set_deadline(600, Some(700));
    apic.set_deadline(600, None);
    assert_eq!(apic.next_deadline(), None);
    apic.set_deadline(600, Some(700));
    write(&mut apic, 600, reg::LVT_TIMER, 0x2_0030);
    assert_eq!((apic.deadline_armed(), apic.next_deadline()), (false, None));
}

/// 11.6.1: interrupt command register.
#[test]
fn command_register_sends_messages() {
    let mut apic = enabled();
    write(&mut apic, 0, reg::ICR_HIGH, 0x0200_0000);
    write(&mut apic, 0, reg::ICR_LOW, 0x4610);
    let ipi = apic.take_ipi().unwrap();
    assert_eq!(
        (ipi.target, ipi.delivery, ipi.vector),
        (Target::Physical(2), Delivery::StartUp, 0x10)
    );
    write(&mut apic, 0, reg::ICR_LOW, 0x000c_40fe);
    assert_eq!(apic.take_ipi().map(|ipi| ipi.target), Some(Target::Others));
    write(&mut apic, 0, reg::ICR_LOW, 0x8500);
    assert!(apic.take_ipi().unwrap().deassert);
}

/// 11.6.2.2: logical destinations.
#[test]
fn logical_destinations_flat_and_cluster() {
    let mut apic = enabled();
    write(&mut apic, 0, reg::LDR, 0x1200_0000);
    assert!(apic.matches_logical(0x02) && !apic.matches_logical(0x04));
    write(&mut apic, 0, reg::DFR, 0);
    assert!(apic.matches_logical(0x12) && apic.matches_logical(0xf2));
    assert!(!apic.matches_logical(0x22));
}

/// 11.4.7.2: disabled by software.
#[test]
fn disabled_apic_masks_and_passes_the_8259() {
    let mut apic = Lapic::new(3);
    assert!(apic.accepts_extint());
    write(&mut apic, 0, reg::LVT_TIMER, 0x30);
    assert_eq!(read(&mut apic, 0, reg::LVT_TIMER), 0x1_0030);
    write(&mut apic, 0, reg::SVR, 0x1ff);
    assert!(!apic.accepts_extint());
    write(&mut apic, 0, reg::LVT_LINT0, 0x700);
    assert!(apic.accepts_extint());
    assert_eq!(read(&mut apic, 0, reg::ID), 3 << 24);
}

/// 11.5.1: LINT0 and LINT1; MultiProcessor Specification 1.4, 3.6.2.2.
#[test]
fn virtual_wire_passes_intr_and_nmi() {
    let mut apic = Lapic::new(0);
    write(&mut apic, 0, reg::SVR, 0x1ff);
    assert!(!apic.accepts_extint() && !apic.accepts_nmi());
    apic.set_virtual_wire();
    assert!(apic.accepts_extint() && apic.accepts_nmi());
    assert_eq!(read(&mut apic, 0, reg::LVT_LINT0), 0x700);
    assert!(apic.accept(0x55, false) && apic.requested(0x55));
    write(&mut apic, 0, reg::SVR, 0xff);
    assert!(!apic.accept(0x56, false));
}

/// 11.5.2, 11.5.3: illegal vectors, error status.
#[test]
fn illegal_vectors_are_latched_as_errors() {
    let mut apic = enabled();
    write(&mut apic, 0, reg::LVT_ERROR, 0x77);
    apic.accept(3, false);
    assert_eq!(apic.pending(), Some(0x77));
    assert_eq!(read(&mut apic, 0, reg::ESR), 0, "shown by a write");
    write(&mut apic, 0, reg::ESR, 0);
    assert_eq!(read(&mut apic, 0, reg::ESR), error::RECEIVED_ILLEGAL_VECTOR);
    write(&mut apic, 0, reg::ICR_LOW, 0x0004_0005);
    assert_eq!(apic.take_ipi(), None);
    // Neither the remote read register nor anything above the timer exists.
    read(&mut apic, 0, 0x0c0);
    write(&mut apic, 0, 0x3f0, 1);
    write(&mut apic, 0, reg::ESR, 0);
    let both = error::SEND_ILLEGAL_VECTOR | error::ILLEGAL_REGISTER;
    assert_eq!(read(&mut apic, 0, reg::ESR), both);
    write(&mut apic, 0, reg::ESR, 0);
    assert_eq!(read(&mut apic, 0, reg::ESR), 0);
}

/// 11.4.7.1, table 11-1: values after reset, and what is read-only.
#[test]
fn registers_after_reset() {
    let mut apic = Lapic::new(1);
    for (register, value) in [
        (reg::ID, 1 << 24),
        (reg::VERSION, 0x0005_0014),
        (reg::TPR, 0),
        (reg::LDR, 0),
        (reg::DFR, u32::MAX),
        (reg::SVR, 0xff),
        (reg::ICR_LOW, 0),
        (reg::LVT_TIMER, 0x1_0000),
        (reg::LVT_ERROR, 0x1_0000),
        (reg::TIMER_INITIAL, 0),
        (reg::TIMER_DIVIDE, 0),
    ] {
        assert_eq!(read(&mut apic, 0, register), value, "{register:#x}");
    }
    for register in [reg::VERSION, reg::PPR, reg::IRR, reg::TIMER_CURRENT] {
        let before = read(&mut apic, 0, register);
        write(&mut apic, 0, register, 0xffff_ffff);
        assert_eq!(read(&mut apic, 0, register), before, "{register:#x}");
    }
}

/// 11.4.1: registers lie at multiples of 16 and are doublewords.
#[test]
fn bytes_beyond_a_register_are_zero_and_narrow_writes_do_nothing() {
    let mut apic = enabled();
    let mut bytes = [0xaa; 8];
    MmioDevice::read(&mut apic, 0, reg::VERSION.into(), &mut bytes);
    assert_eq!(bytes, [0x14, 0, 5, 0, 0, 0, 0, 0]);
    MmioDevice::write(&mut apic, 0, reg::TPR.into(), &[0x50]);
    assert_eq!(read(&mut apic, 0, reg::TPR), 0);
}
