//! Register-level tests of the 8254, from the timing diagrams of its datasheet.

use super::*;

fn program(pit: &mut Pit, tick: Tick, counter: u16, mode: u8, count: u16) {
    let now = time_of(tick);
    pit.write_byte(now, CONTROL, (counter as u8) << 6 | 0x30 | mode << 1);
    pit.write_byte(now, counter, count as u8);
    pit.write_byte(now, counter, (count >> 8) as u8);
}

fn count(pit: &mut Pit, tick: Tick, counter: u16) -> u16 {
    let now = time_of(tick);
    pit.write_byte(now, CONTROL, (counter as u8) << 6);
    u16::from_le_bytes([pit.read_byte(now, counter), pit.read_byte(now, counter)])
}

fn out(pit: &mut Pit, tick: Tick) -> bool {
    pit.advance(time_of(tick));
    pit.irq()
}

fn edges(pit: &mut Pit) -> u32 {
    std::iter::from_fn(|| pit.take_edge().then_some(())).count() as u32
}

#[test]
fn ticks_and_times_are_inverse() {
    for tick in [0, 1, 2, 87, 1_193_182, 1 << 40] {
        assert_eq!(tick_at(time_of(tick)), tick);
        assert!(tick == 0 || tick_at(time_of(tick) - 1) == tick - 1);
    }
}

#[test]
fn mode_0_raises_out_once_after_count_plus_one() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 0, 0, 4);
    assert_eq!(pit.next_deadline(), Some(time_of(5)));
    assert!(!out(&mut pit, 4));
    assert!(out(&mut pit, 5));
    assert_eq!(edges(&mut pit), 1);
    assert_eq!(pit.next_deadline(), None);
    assert_eq!(count(&mut pit, 6, 0), 0xffff, "the count wraps after zero");
    assert!(out(&mut pit, 1_000_000));
    assert_eq!(edges(&mut pit), 0);
}

#[test]
fn mode_2_is_low_for_one_pulse_per_period() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 0, 2, 3);
    edges(&mut pit);
    let wave: Vec<bool> = (1..=7).map(|t| out(&mut pit, t)).collect();
    assert_eq!(wave, [true, true, false, true, true, false, true]);
    assert_eq!(edges(&mut pit), 2);
    assert_eq!(pit.next_deadline(), Some(time_of(10)));
}

#[test]
fn mode_2_counts_from_n_to_one() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 0, 2, 0);
    assert_eq!(count(&mut pit, 1, 0), 0);
    assert_eq!(count(&mut pit, 2, 0), 0xffff);
    assert_eq!(count(&mut pit, 0x1_0000, 0), 1);
    assert_eq!(count(&mut pit, 0x1_0001, 0), 0);
}

#[test]
fn mode_3_halves_and_counts_by_two() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 0, 3, 5);
    let wave: Vec<bool> = (1..=6).map(|t| out(&mut pit, t)).collect();
    assert_eq!(wave, [true, true, true, false, false, true]);
    let values: Vec<u16> = (6..=10).map(|t| count(&mut pit, t, 0)).collect();
    assert_eq!(values, [4, 2, 0, 4, 2]);
}

#[test]
fn new_count_in_mode_2_waits_for_the_period_end() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 0, 2, 10);
    edges(&mut pit);
    pit.write_byte(time_of(4), 0, 20);
    pit.write_byte(time_of(4), 0, 0);
    assert_eq!(pit.next_deadline(), Some(time_of(11)));
    pit.advance(time_of(11));
    assert_eq!(edges(&mut pit), 1);
    assert_eq!(pit.next_deadline(), Some(time_of(31)));
    pit.advance(time_of(71));
    assert_eq!(edges(&mut pit), 3);
}

#[test]
fn new_count_in_mode_3_waits_for_the_half_period() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 0, 3, 10);
    edges(&mut pit);
    pit.write_byte(time_of(3), 0, 20);
    pit.write_byte(time_of(3), 0, 0);
    assert_eq!(pit.next_deadline(), Some(time_of(1 + 5 + 10)));
    pit.advance(time_of(15));
    assert!(!pit.irq());
    pit.advance(time_of(16));
    assert!(pit.irq());
    assert_eq!(edges(&mut pit), 1);
    assert_eq!(pit.next_deadline(), Some(time_of(36)));
}

#[test]
fn deadlines_are_exact_in_one_jump_or_many_steps() {
    for (mode, period) in [(2, 7), (3, 7), (3, 8)] {
        let (mut steps, mut jump) = (Pit::new(), Pit::new());
        program(&mut steps, 0, 0, mode, period);
        program(&mut jump, 0, 0, mode, period);
        edges(&mut steps);
        edges(&mut jump);
        let mut total = 0;
        for tick in 1..100 {
            let due = steps.next_deadline();
            steps.advance(time_of(tick));
            let n = edges(&mut steps);
            assert_eq!(
                n == 1,
                due == Some(time_of(tick)),
                "mode {mode} tick {tick}"
            );
            total += n;
        }
        jump.advance(time_of(99));
        assert_eq!(edges(&mut jump), total);
    }
}

#[test]
fn backlog_over_a_long_pause_is_bounded() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 0, 2, 2);
    pit.advance(u64::MAX / 2);
    assert_eq!(pit.backlog(), MAX_BACKLOG);
}

#[test]
fn gate_2_triggers_the_one_shot_and_out_2_shows_in_port_61h() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 2, 1, 100);
    let out2 = |pit: &mut Pit, t| pit.read_byte(time_of(t), PORT_61H) & 0x20 != 0;
    assert!(out2(&mut pit, 5));
    pit.write_byte(time_of(10), PORT_61H, 1);
    assert!(!out2(&mut pit, 110));
    assert!(out2(&mut pit, 111));
    pit.write_byte(time_of(120), PORT_61H, 0);
    pit.write_byte(time_of(120), PORT_61H, 1);
    assert!(!out2(&mut pit, 121), "retriggered");
}

#[test]
fn gate_2_stops_mode_0_as_calibration_loops_use_it() {
    let mut pit = Pit::new();
    pit.write_byte(0, PORT_61H, 1);
    program(&mut pit, 0, 2, 0, 50);
    pit.write_byte(time_of(11), PORT_61H, 0);
    assert_eq!(count(&mut pit, 1000, 2), 40);
    pit.write_byte(time_of(1000), PORT_61H, 1);
    assert_eq!(pit.read_byte(time_of(1039), PORT_61H) & 0x20, 0);
    assert_eq!(pit.read_byte(time_of(1040), PORT_61H) & 0x20, 0x20);
}

#[test]
fn bcd_counts_in_decimal() {
    let mut pit = Pit::new();
    pit.write_byte(0, CONTROL, 0x35);
    pit.write_byte(0, 0, 0x00);
    pit.write_byte(0, 0, 0x10);
    assert_eq!(count(&mut pit, 2, 0), 0x0999);
    assert_eq!(count(&mut pit, 1000, 0), 0x0001);
    assert_eq!(count(&mut pit, 1001, 0), 0x1000);
}

#[test]
fn read_back_latches_status_then_count() {
    let mut pit = Pit::new();
    program(&mut pit, 0, 0, 2, 1000);
    let now = time_of(11);
    pit.write_byte(now, CONTROL, 0xc2);
    assert_eq!(pit.read_byte(time_of(500), 0), 0x80 | 0x30 | 2 << 1);
    assert_eq!(pit.read_byte(time_of(500), 0), 990u16 as u8);
    assert_eq!(pit.read_byte(time_of(500), 0), 3);
}

#[test]
fn null_count_shows_until_the_first_pulse() {
    let mut pit = Pit::new();
    pit.write_byte(0, CONTROL, 0x34);
    pit.write_byte(0, CONTROL, 0xe2);
    assert_eq!(pit.read_byte(0, 0) & 0x40, 0x40);
    program(&mut pit, 0, 0, 2, 1000);
    pit.write_byte(time_of(1), CONTROL, 0xe2);
    assert_eq!(pit.read_byte(time_of(1), 0) & 0x40, 0);
}

#[test]
fn refresh_bit_toggles() {
    let mut pit = Pit::new();
    let first = pit.read_byte(0, PORT_61H) & 0x10;
    assert_ne!(pit.read_byte(15_100, PORT_61H) & 0x10, first);
    assert_eq!(pit.read_byte(30_200, PORT_61H) & 0x10, first);
}

#[test]
fn single_byte_access_modes() {
    let mut pit = Pit::new();
    pit.write_byte(0, CONTROL, 0x24); // counter 0, high byte only, mode 2
    pit.write_byte(0, 0, 0x02);
    assert_eq!(pit.read_byte(time_of(1), 0), 2);
    pit.write_byte(0, CONTROL, 0x14); // low byte only
    pit.write_byte(0, 0, 0x30);
    assert_eq!(pit.read_byte(time_of(3), 0), 0x2f);
}
