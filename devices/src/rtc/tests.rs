//! Register-level tests of the RTC. MC146818A datasheet: "Time, calendar and alarm locations", "Update
//! cycle", "Interrupts", registers A to D.

use super::*;

/// 2006-10-21 13:37:58 UTC, a Saturday.
const START: i64 = 1_161_437_878;

fn read(rtc: &mut Rtc, now: Nanos, index: u8) -> u8 {
    rtc.write_byte(now, 0, index);
    rtc.read_byte(now, 1)
}

fn write(rtc: &mut Rtc, now: Nanos, index: u8, value: u8) {
    rtc.write_byte(now, 0, index);
    rtc.write_byte(now, 1, value);
}

fn date(rtc: &mut Rtc, now: Nanos) -> [u8; 8] {
    [CENTURY, 9, 8, 7, 6, 4, 2, 0].map(|index| read(rtc, now, index))
}

#[test]
fn time_is_shown_in_bcd_and_advances() {
    let mut rtc = Rtc::new(START);
    assert_eq!(
        date(&mut rtc, 0),
        [0x20, 0x06, 0x10, 0x21, 7, 0x13, 0x37, 0x58]
    );
    assert_eq!(date(&mut rtc, 3 * SECOND)[5..], [0x13, 0x38, 0x01]);
}

#[test]
fn binary_and_twelve_hour_formats() {
    let mut rtc = Rtc::new(START);
    write(&mut rtc, 0, reg::B, reg_b::BINARY);
    assert_eq!(date(&mut rtc, 0)[1..], [6, 10, 21, 7, 0x81, 37, 58]);
    write(&mut rtc, 0, reg::HOURS, 12);
    assert_eq!(read(&mut rtc, 0, reg::HOURS), 12, "12 AM is midnight");
    write(&mut rtc, 0, reg::B, reg_b::BINARY | reg_b::HOURS_24);
    assert_eq!(read(&mut rtc, 0, reg::HOURS), 0);
}

#[test]
fn set_holds_the_registers_and_clearing_it_starts_from_them() {
    let mut rtc = Rtc::new(START);
    write(&mut rtc, 0, reg::B, reg_b::SET | reg_b::HOURS_24);
    for (index, value) in [
        (CENTURY, 0x19),
        (9, 0x99),
        (8, 0x12),
        (7, 0x31),
        (4, 0x23),
        (2, 0x59),
        (0, 0x59),
    ] {
        write(&mut rtc, 5 * SECOND, index, value);
    }
    assert_eq!(read(&mut rtc, 9 * SECOND, 0), 0x59);
    write(&mut rtc, 9 * SECOND, reg::B, reg_b::HOURS_24);
    let after = date(&mut rtc, 10 * SECOND);
    assert_eq!(
        [&after[..4], &after[5..]].concat(),
        [0x20, 0, 1, 1, 0, 0, 0]
    );
}

#[test]
fn update_in_progress_is_set_at_the_end_of_each_second() {
    let mut rtc = Rtc::new(START);
    let uip = |rtc: &mut Rtc, now| read(rtc, now, reg::A) & reg_a::UIP != 0;
    assert!(!uip(&mut rtc, SECOND - 2_300_000));
    assert!(uip(&mut rtc, SECOND - 2_200_000));
    assert!(uip(&mut rtc, SECOND - 1));
    assert!(!uip(&mut rtc, SECOND));
}

#[test]
fn periodic_interrupt_at_1024_hertz() {
    let mut rtc = Rtc::new(START);
    write(&mut rtc, 0, reg::B, reg_b::PIE | reg_b::HOURS_24);
    let due = rtc.next_deadline().unwrap();
    assert_eq!(due, 976_563);
    rtc.advance(due - 1);
    assert!(!rtc.irq());
    rtc.advance(due);
    assert!(rtc.irq());
    assert_eq!(rtc.next_deadline(), None, "the output is already high");
    assert_eq!(read(&mut rtc, due, reg::C), reg_c::IRQF | reg_c::PF);
    assert!(!rtc.irq());
    assert_eq!(rtc.next_deadline(), Some(1_953_125));
}

#[test]
fn update_ended_interrupt_each_second() {
    let mut rtc = Rtc::new(START);
    write(&mut rtc, 100, reg::B, reg_b::UIE | reg_b::HOURS_24);
    assert_eq!(rtc.next_deadline(), Some(SECOND));
    rtc.advance(SECOND);
    assert_eq!(read(&mut rtc, SECOND, reg::C) & 0x90, 0x90);
}

#[test]
fn alarm_fires_at_its_time_and_with_wildcards() {
    let mut rtc = Rtc::new(START);
    for (index, value) in [(1, 0x05), (3, 0x40), (5, 0xff)] {
        write(&mut rtc, 0, index, value);
    }
    write(&mut rtc, 0, reg::B, reg_b::AIE | reg_b::HOURS_24);
    let due = 127 * SECOND; // 13:40:05
    assert_eq!(rtc.next_deadline(), Some(due));
    rtc.advance(due - 1);
    assert!(!rtc.irq());
    rtc.advance(due);
    assert_eq!(read(&mut rtc, due, reg::C) & 0xa0, 0xa0);
    assert_eq!(rtc.next_deadline(), Some(due + 3600 * SECOND));
}

#[test]
fn impossible_alarm_never_fires() {
    let mut rtc = Rtc::new(START);
    for (index, value) in [(1, 0x99), (3, 0xc0), (5, 0xc0)] {
        write(&mut rtc, 0, index, value);
    }
    write(&mut rtc, 0, reg::B, reg_b::AIE | reg_b::HOURS_24);
    assert_eq!(rtc.next_deadline(), None);
    rtc.advance(200_000 * SECOND);
    assert!(!rtc.irq());
}

#[test]
fn divider_reset_stops_the_clock_and_restarts_half_a_second_before_the_next_second() {
    let mut rtc = Rtc::new(START);
    write(&mut rtc, 0, reg::A, 0x76);
    assert_eq!(read(&mut rtc, 10 * SECOND, 0), 0x58);
    write(&mut rtc, 10 * SECOND, reg::A, 0x26);
    assert_eq!(read(&mut rtc, 10 * SECOND + SECOND / 2 - 1, 0), 0x58);
    assert_eq!(read(&mut rtc, 10 * SECOND + SECOND / 2, 0), 0x59);
}

#[test]
fn cmos_bytes_and_nmi_mask() {
    let mut rtc = Rtc::new(0);
    rtc.cmos_mut()[0x15] = 0x80;
    assert_eq!(read(&mut rtc, 0, 0x15), 0x80);
    write(&mut rtc, 0, 0xc0, 0x12);
    assert!(rtc.nmi_disabled());
    assert_eq!(rtc.cmos_mut()[0x40], 0x12);
    assert_eq!(read(&mut rtc, 0, reg::D), 0x80);
}

#[test]
fn nonsense_dates_do_not_panic() {
    let mut rtc = Rtc::new(i64::MAX);
    for index in 0..128 {
        for value in [0, 0x7f, 0x99, 0xff] {
            write(&mut rtc, u64::MAX, index, value);
            date(&mut rtc, u64::MAX);
            rtc.next_deadline();
        }
    }
    let mut early = Rtc::new(i64::MIN);
    date(&mut early, 0);
    early.advance(u64::MAX);
    early.next_deadline();
}
