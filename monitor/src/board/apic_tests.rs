//! Interrupts through the APICs of an assembled board.

use super::*;
use crate::board::wiring::{HPET_BASE, IOAPIC_BASE, LAPIC_BASE};

const TPR: u64 = 0x80;
const EOI: u64 = 0xb0;
const SVR: u64 = 0xf0;
const ICR: u64 = 0x300;
const LINT0: u64 = 0x350;
const LINT1: u64 = 0x360;
const VECTOR: u8 = 0x41;

fn board() -> (Board, Arc<VmClock>) {
    let clock = Arc::new(VmClock::manual(1_700_000_000));
    let config = BoardConfig {
        memory: 64 << 20,
        serial_ports: 2,
        ..BoardConfig::default()
    };
    (Board::new(config, Arc::clone(&clock)), clock)
}

fn write(board: &mut Board, pa: u64, value: u32) {
    board.mmio_write(pa, &value.to_le_bytes());
}

fn read(board: &mut Board, pa: u64) -> u32 {
    let mut word = [0; 4];
    board.mmio_read(pa, &mut word);
    u32::from_le_bytes(word)
}

fn local(board: &mut Board, register: u64, value: u32) {
    write(board, LAPIC_BASE + register, value);
}

/// An entry of the I/O APIC's redirection table.
fn redirect(board: &mut Board, pin: u32, entry: u32) {
    for (register, value) in [(0x11 + 2 * pin, 0), (0x10 + 2 * pin, entry)] {
        write(board, IOAPIC_BASE, register);
        write(board, IOAPIC_BASE + 0x10, value);
    }
}

/// Both 8259s initialised with every input masked.
fn mask_pics(board: &mut Board) {
    for (port, value) in [
        (0x20, 0x11),
        (0x21, 0x20),
        (0x21, 4),
        (0x21, 1),
        (0x21, 0xff),
        (0xa0, 0x11),
        (0xa1, 0x28),
        (0xa1, 2),
        (0xa1, 1),
        (0xa1, 0xff),
    ] {
        board.port_out(port, 1, value);
    }
}

/// Counter 0 as Linux programs it: a tick each 1009 counts, about 846 us.
fn start_timer(board: &mut Board) {
    for (port, value) in [(0x43, 0x34), (0x40, 0xf1), (0x40, 0x03)] {
        board.port_out(port, 1, value);
    }
}

#[test]
fn the_timer_comes_by_input_2_one_tick_after_the_other() {
    let (mut board, clock) = board();
    mask_pics(&mut board);
    redirect(&mut board, 2, VECTOR.into());
    start_timer(&mut board);
    clock.advance(5_000_000);
    board.run_timers();
    let mut ticks = 0;
    while board.interrupt_pending() {
        assert_eq!(board.acknowledge(), VECTOR);
        assert!(!board.interrupt_pending(), "in service");
        local(&mut board, EOI, 0);
        ticks += 1;
    }
    // The rising edge of the programming itself, and five periods.
    assert_eq!(ticks, 6);
    assert!(board.next_deadline().unwrap() > clock.now_ns());
    // Masked everywhere: one edge is remembered by the 8259s, none by the I/O APIC.
    redirect(&mut board, 2, 0x1_0000 | u32::from(VECTOR));
    clock.advance(5_000_000);
    board.run_timers();
    redirect(&mut board, 2, VECTOR.into());
    assert!(!board.interrupt_pending());
}

#[test]
fn virtual_wire_carries_the_8259s_until_lint0_is_masked() {
    let (mut board, clock) = board();
    mask_pics(&mut board);
    start_timer(&mut board);
    board.port_out(0x21, 1, 0xfe);
    assert!(board.interrupt_pending());
    local(&mut board, LINT0, 0x1_0700);
    assert!(!board.interrupt_pending());
    local(&mut board, LINT0, 0x700);
    assert_eq!(board.acknowledge(), 0x20);
    board.port_out(0x20, 1, 0x20);
    // Globally disabled, the processor has its INTR pin back, and nothing answers.
    local(&mut board, LINT0, 0x1_0700);
    board.set_apic_base(0xfee0_0100);
    assert_eq!(read(&mut board, LAPIC_BASE + SVR), u32::MAX);
    clock.advance(1_000_000);
    board.run_timers();
    assert_eq!(board.acknowledge(), 0x20);
}

#[test]
fn task_priority_holds_interrupts_back() {
    let (mut board, _) = board();
    mask_pics(&mut board);
    redirect(&mut board, 4, VECTOR.into());
    local(&mut board, TPR, 0x40);
    // COM1: interrupts on and to the bus, transmitter empty.
    for (port, value) in [(0x3fc, 8), (0x3f9, 2)] {
        board.port_out(port, 1, value);
    }
    let flag = board.interrupt_flag();
    assert!(!flag.load(Ordering::Acquire));
    local(&mut board, TPR, 0x30);
    assert!(flag.load(Ordering::Acquire));
    assert_eq!(board.acknowledge(), VECTOR);
}

#[test]
fn a_level_comes_again_after_the_end_of_interrupt() {
    let (mut board, _) = board();
    mask_pics(&mut board);
    board.port_out(0xb2, 1, 0xf1);
    redirect(&mut board, 9, 0x8000 | u32::from(VECTOR));
    // Power button enabled and pressed: the system control interrupt.
    board.port_out(PM_BASE + 2, 2, 0x100);
    board.press_power_button();
    for _ in 0..3 {
        assert_eq!(board.acknowledge(), VECTOR);
        assert!(!board.interrupt_pending());
        local(&mut board, EOI, 0);
        assert!(board.interrupt_pending(), "the line is still active");
    }
    assert_eq!(board.acknowledge(), VECTOR);
    board.port_out(PM_BASE, 2, 0x100);
    local(&mut board, EOI, 0);
    assert!(!board.interrupt_pending());
}

#[test]
fn interrupts_to_oneself_nmis_and_init() {
    let (mut board, _) = board();
    local(&mut board, ICR, 0x4_0000 | u32::from(VECTOR));
    assert_eq!(board.acknowledge(), VECTOR);
    local(&mut board, ICR, 0xc_0000 | 0x55);
    assert!(!board.interrupt_pending(), "nobody else is there");
    local(&mut board, ICR, 0x4_0400);
    assert!(board.effects_pending() && board.take_effects().nmi);
    board.raise_nmi();
    assert!(board.take_effects().nmi, "LINT1");
    local(&mut board, LINT1, 0x1_0400);
    board.raise_nmi();
    assert!(!board.take_effects().nmi);
    local(&mut board, ICR, 0x8_4500);
    assert_eq!(board.take_request(), Some(MachineRequest::Reset));
}

#[test]
fn the_local_apic_moves_and_is_back_after_a_reset() {
    let (mut board, _) = board();
    board.set_apic_base(0xf000_0900);
    assert_eq!(read(&mut board, LAPIC_BASE + SVR), u32::MAX);
    assert_eq!(read(&mut board, 0xf000_0000 + SVR), 0x1ff);
    board.reset();
    assert_eq!(read(&mut board, LAPIC_BASE + SVR), 0x1ff);
    assert_eq!(read(&mut board, IOAPIC_BASE + 0x1000), u32::MAX);
}

#[test]
fn hpet_replaces_the_timer_and_drives_its_own_inputs() {
    let (mut board, clock) = board();
    mask_pics(&mut board);
    redirect(&mut board, 2, VECTOR.into());
    redirect(&mut board, 20, 0x8000 | 0x51);
    start_timer(&mut board);
    while board.interrupt_pending() {
        board.acknowledge();
        local(&mut board, EOI, 0);
    }
    // Comparator 0 periodic each 10000 ticks (1 ms), comparator 2 level-triggered on input 20.
    for (register, value) in [
        (0x100, 0x14c),
        (0x108, 10_000),
        (0x108, 10_000),
        (0x140, 20 << 9 | 0x106),
        (0x148, 15_000),
        (0x10, 3),
    ] {
        write(&mut board, HPET_BASE + register, value);
    }
    clock.advance(999_999);
    board.run_timers();
    assert!(!board.interrupt_pending(), "the 8254 is cut off");
    clock.advance(1);
    board.run_timers();
    assert_eq!(board.acknowledge(), VECTOR);
    local(&mut board, EOI, 0);
    assert_eq!(board.next_deadline(), Some(1_500_000));
    clock.advance(500_000);
    board.run_timers();
    assert_eq!(board.acknowledge(), 0x51);
    write(&mut board, HPET_BASE + 0x20, 4);
    local(&mut board, EOI, 0);
    assert!(!board.interrupt_pending());
    // The host was late by three ticks: none is lost.
    clock.advance(2_600_000);
    board.run_timers();
    for _ in 0..3 {
        assert_eq!(board.acknowledge(), VECTOR);
        local(&mut board, EOI, 0);
    }
    assert!(!board.interrupt_pending());
}

/// With legacy replacement the RTC has lost IRQ 8 to the HPET; its alarm comes as RTC_STS.
#[test]
fn an_alarm_behind_the_hpet_is_an_acpi_event() {
    let (mut board, clock) = board();
    mask_pics(&mut board);
    redirect(&mut board, 8, 0x48);
    redirect(&mut board, 9, 0xa000 | 0x59);
    local(&mut board, SVR, 0x1ff);
    write(&mut board, HPET_BASE + 0x10, 3);
    board.port_out(0xb2, 1, 0xf1);
    board.port_out(PM_BASE + 2, 2, 0x400);
    // Any hour, any minute, second 23; the clock shows 22:13:20.
    for (index, value) in [(1, 0x23), (3, 0xff), (5, 0xff), (0x0b, 0x22)] {
        board.port_out(0x70, 1, index);
        board.port_out(0x71, 1, value);
    }
    assert_eq!(board.next_deadline(), Some(3_000_000_000));
    clock.advance(2_999_999_999);
    board.run_timers();
    assert!(!board.interrupt_pending());
    clock.advance(1);
    board.run_timers();
    assert_eq!(board.acknowledge(), 0x59, "the SCI, not IRQ 8");
    assert_eq!(board.port_in(PM_BASE, 2) & 0x400, 0x400);
    board.port_out(PM_BASE, 2, 0x400);
    local(&mut board, EOI, 0);
    assert!(!board.interrupt_pending());
}

#[test]
fn a_deadline_of_the_local_timer_is_the_boards_deadline() {
    let (mut board, clock) = board();
    local(&mut board, 0x320, 0x4_0000 | u32::from(VECTOR));
    // The manual clock's counter runs at 1 GHz.
    assert!(board.set_tsc_deadline(Some(clock.time_of_tsc(700))));
    assert_eq!(board.next_deadline(), Some(700));
    clock.advance(700);
    board.run_timers();
    assert_eq!(
        (board.acknowledge(), board.tsc_deadline_armed()),
        (VECTOR, false)
    );
    assert_eq!(clock.time_of_tsc(3), 700);
}
