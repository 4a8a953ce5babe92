//! Register-level tests of the keyboard controller and its devices. IBM PS/2 Technical Reference:
//! "Keyboard and Auxiliary Device Controller" (commands, status, ports), "Keyboards" (commands, scan
//! code sets), "Mouse" (commands, packets).

use super::*;

/// Lets every waiting byte arrive and reads them, with their source bit.
fn drain(kbc: &mut Kbc) -> Vec<(u8, bool)> {
    let mut bytes = Vec::new();
    let mut now = kbc.now;
    while bytes.len() < 64 {
        now += BYTE_GAP;
        let status = kbc.read_byte(now, COMMAND);
        if status & status::OBF == 0 {
            break;
        }
        bytes.push((kbc.read_byte(now, DATA), status & status::AUX_OBF != 0));
    }
    bytes
}

fn keys(kbc: &mut Kbc) -> Vec<u8> {
    drain(kbc)
        .into_iter()
        .filter(|(_, aux)| !aux)
        .map(|(byte, _)| byte)
        .collect()
}

fn aux(kbc: &mut Kbc) -> Vec<u8> {
    drain(kbc)
        .into_iter()
        .filter(|(_, aux)| *aux)
        .map(|(byte, _)| byte)
        .collect()
}

fn command(kbc: &mut Kbc, command: u8, data: &[u8]) {
    kbc.write_byte(kbc.now, COMMAND, command);
    for byte in data {
        kbc.write_byte(kbc.now, DATA, *byte);
    }
}

fn to_mouse(kbc: &mut Kbc, bytes: &[u8]) -> Vec<u8> {
    let mut answers = Vec::new();
    for byte in bytes {
        command(kbc, command::WRITE_AUX, &[*byte]);
        answers.extend(aux(kbc));
    }
    answers
}

fn press(kbc: &mut Kbc, code: u16) {
    let key = Key::from_set1(code).unwrap();
    kbc.key_event(kbc.now, key, true);
    kbc.key_event(kbc.now, key, false);
}

#[test]
fn controller_self_tests() {
    let mut kbc = Kbc::new();
    for (test, expected) in [
        (0xaa, 0x55),
        (0xab, 0),
        (0xa9, 0),
        (0xa4, 0xf1),
        (0xc0, 0x80),
    ] {
        command(&mut kbc, test, &[]);
        assert_eq!(kbc.read_byte(0, DATA), expected);
    }
    assert_eq!(
        kbc.read_byte(0, COMMAND),
        status::SYS | status::A2 | status::UNLOCKED
    );
}

#[test]
fn command_byte_reads_back_and_gates_interrupts() {
    let mut kbc = Kbc::new();
    command(&mut kbc, 0x60, &[0x43]);
    command(&mut kbc, 0x20, &[]);
    assert_eq!(kbc.read_byte(0, DATA), 0x43);
    press(&mut kbc, 0x1e);
    assert!(kbc.irq() && !kbc.aux_irq());
    kbc.read_byte(0, DATA);
    assert!(!kbc.irq(), "the next byte makes a new edge");
    assert_eq!(kbc.next_deadline(), Some(BYTE_GAP));
    kbc.advance(BYTE_GAP);
    assert!(kbc.irq());
    command(&mut kbc, 0x60, &[0x40]);
    assert!(!kbc.irq());
}

#[test]
fn keys_are_translated_to_set_1() {
    let mut kbc = Kbc::new();
    for (code, bytes) in [
        (0x1e, vec![0x1e, 0x9e]),
        (0x41, vec![0x41, 0xc1]),
        (0x58, vec![0x58, 0xd8]),
        (0xe048, vec![0xe0, 0x48, 0xe0, 0xc8]),
        (0xe037, vec![0xe0, 0x2a, 0xe0, 0x37, 0xe0, 0xb7, 0xe0, 0xaa]),
        (0xe045, vec![0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5]),
    ] {
        press(&mut kbc, code);
        assert_eq!(keys(&mut kbc), bytes, "key {code:#x}");
    }
}

#[test]
fn translation_gives_every_key_its_set_1_code_back() {
    for code in 1..=0x58u16 {
        let mut kbc = Kbc::new();
        press(&mut kbc, code);
        let bytes = keys(&mut kbc);
        assert_eq!(bytes, [code as u8, code as u8 | 0x80], "key {code:#x}");
    }
}

#[test]
fn scan_sets_without_translation() {
    let mut kbc = Kbc::new();
    command(&mut kbc, 0x60, &[0]);
    press(&mut kbc, 0x1e);
    assert_eq!(keys(&mut kbc), [0x1c, 0xf0, 0x1c]);
    kbc.write_byte(kbc.now, DATA, 0xf0);
    kbc.write_byte(kbc.now, DATA, 0);
    assert_eq!(keys(&mut kbc), [0xfa, 0xfa, 2]);
    for (set, bytes) in [(1, vec![0xe0, 0x48, 0xe0, 0xc8]), (3, vec![0x63])] {
        kbc.write_byte(kbc.now, DATA, 0xf0);
        kbc.write_byte(kbc.now, DATA, set);
        keys(&mut kbc);
        press(&mut kbc, 0xe048);
        assert_eq!(keys(&mut kbc), bytes, "set {set}");
    }
}

#[test]
fn keyboard_commands_answer() {
    let mut kbc = Kbc::new();
    for (bytes, answer) in [
        (&[0xff][..], &[0xfa, 0xaa][..]),
        (&[0xf2], &[0xfa, 0xab, 0x41]),
        (&[0xee], &[0xee]),
        (&[0xed, 0x05], &[0xfa, 0xfa]),
        (&[0xf3, 0x00], &[0xfa, 0xfa]),
        (&[0x12], &[0xfe]),
    ] {
        for byte in bytes {
            kbc.write_byte(kbc.now, DATA, *byte);
        }
        assert_eq!(keys(&mut kbc), answer, "command {bytes:x?}");
    }
    assert!(kbc.leds().caps_lock() && kbc.leds().scroll_lock() && !kbc.leds().num_lock());
}

#[test]
fn held_key_repeats_at_the_typematic_rate() {
    let mut kbc = Kbc::new();
    let key = Key::from_set1(0x1e).unwrap();
    kbc.key_event(0, key, true);
    kbc.key_event(0, key, true);
    assert_eq!(keys(&mut kbc), [0x1e], "host repeats are ignored");
    assert_eq!(kbc.next_deadline(), Some(500_000_000));
    kbc.advance(500_000_000);
    assert_eq!(keys(&mut kbc), [0x1e]);
    kbc.advance(u64::MAX / 2);
    assert_eq!(keys(&mut kbc), [0x1e], "a long pause makes one repeat");
    kbc.key_event(kbc.now, key, false);
    assert_eq!(keys(&mut kbc), [0x9e]);
    assert_eq!(kbc.next_deadline(), None);
}

#[test]
fn a_typed_key_does_not_repeat() {
    let mut kbc = Kbc::new();
    kbc.key_event(0, Key::from_set1(0x1e).unwrap(), true);
    kbc.stop_repeat();
    assert_eq!(keys(&mut kbc), [0x1e]);
    assert_eq!(kbc.next_deadline(), None);
    kbc.advance(2_000_000_000);
    assert_eq!(keys(&mut kbc), []);
}

#[test]
fn a_key_that_found_no_room_is_taken_when_there_is() {
    let mut kbc = Kbc::new();
    command(&mut kbc, 0xad, &[]);
    let mut lost = None;
    for code in 2..0x40 {
        let key = Key::from_set1(code).unwrap();
        if !kbc.key_event(0, key, true) {
            lost = Some((key, code as u8));
            break;
        }
    }
    let (key, code) = lost.unwrap();
    assert!(!kbc.key_event(0, key, true), "still no room");
    command(&mut kbc, 0xae, &[]);
    keys(&mut kbc);
    assert!(kbc.key_event(kbc.now, key, true));
    assert_eq!(keys(&mut kbc), [code]);
}

#[test]
fn full_keyboard_buffer_reports_one_overrun() {
    let mut kbc = Kbc::new();
    command(&mut kbc, 0xad, &[]);
    let mut taken = 0;
    for code in 2..0x40 {
        taken += usize::from(kbc.key_event(0, Key::from_set1(code).unwrap(), true));
    }
    command(&mut kbc, 0xae, &[]);
    let bytes = keys(&mut kbc);
    assert_eq!((taken, bytes.len()), (15, 16));
    assert_eq!(bytes[15], 0xff, "code 00h of set 2, translated");
}

#[test]
fn mouse_resets_identifies_and_reports() {
    let mut kbc = Kbc::new();
    assert_eq!(to_mouse(&mut kbc, &[0xff]), [0xfa, 0xaa, 0]);
    assert_eq!(to_mouse(&mut kbc, &[0xf2]), [0xfa, 0]);
    kbc.mouse_event(kbc.now, 5, 5, 0, Buttons::empty());
    assert!(aux(&mut kbc).is_empty(), "reporting is off after reset");
    to_mouse(&mut kbc, &[0xf4]);
    command(&mut kbc, 0x60, &[0x42]);
    kbc.mouse_event(kbc.now, 5, 3, 1, Buttons::LEFT);
    assert!(kbc.aux_irq() && !kbc.irq());
    assert_eq!(aux(&mut kbc), [0x29, 5, 0xfd]);
}

#[test]
fn intellimouse_knock_adds_the_wheel_byte() {
    let mut kbc = Kbc::new();
    to_mouse(&mut kbc, &[0xf3, 200, 0xf3, 100, 0xf3, 80]);
    assert_eq!(to_mouse(&mut kbc, &[0xf2]), [0xfa, 3]);
    to_mouse(&mut kbc, &[0xf3, 200, 0xf3, 200, 0xf3, 80]);
    assert_eq!(to_mouse(&mut kbc, &[0xf2, 0xf4]), [0xfa, 4, 0xfa]);
    kbc.mouse_event(kbc.now, 0, 0, -1, Buttons::EXTRA);
    assert_eq!(aux(&mut kbc), [0x08, 0, 0, 0x2f]);
}

#[test]
fn large_mouse_movement_is_split_over_packets() {
    let mut kbc = Kbc::new();
    to_mouse(&mut kbc, &[0xf4]);
    kbc.mouse_event(kbc.now, 300, 0, 0, Buttons::empty());
    assert_eq!(aux(&mut kbc), [0x08, 255, 0, 0x08, 45, 0]);
}

#[test]
fn output_port_drives_a20_and_reset() {
    let mut kbc = Kbc::new();
    command(&mut kbc, 0xd1, &[0xdd]);
    assert!(!kbc.a20() && !kbc.take_reset_request());
    command(&mut kbc, 0xd0, &[]);
    assert_eq!(kbc.read_byte(0, DATA) & 3, 1);
    command(&mut kbc, 0xdf, &[]);
    assert!(kbc.a20());
    command(&mut kbc, 0xfe, &[]);
    assert!(kbc.take_reset_request() && !kbc.take_reset_request());
}

#[test]
fn loopback_commands_fill_the_output_buffer() {
    let mut kbc = Kbc::new();
    command(&mut kbc, 0xd3, &[0x5a]);
    assert_eq!(kbc.read_byte(0, COMMAND) & 0x21, 0x21);
    assert_eq!(kbc.read_byte(0, DATA), 0x5a);
    command(&mut kbc, 0xd2, &[0xa5]);
    assert_eq!(kbc.read_byte(0, COMMAND) & 0x21, 0x01);
    assert_eq!(kbc.read_byte(0, DATA), 0xa5);
}

#[test]
fn random_register_traffic_never_panics() {
    let mut kbc = Kbc::new();
    let mut seed = 0x1234_5678_u32;
    for step in 0..50_000u64 {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let (value, port) = (
            (seed >> 24) as u8,
            if seed & 0x100 != 0 { DATA } else { COMMAND },
        );
        if seed & 0x200 != 0 {
            kbc.write_byte(step * 50_000, port, value);
        } else {
            kbc.read_byte(step * 50_000, port);
        }
        assert!(kbc.keyboard.has_byte() || kbc.keyboard.take_byte().is_none());
    }
}
