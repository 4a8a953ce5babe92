//! Key numbers and scan code sets 1, 2 and 3.
//!
//! IBM PS/2 Hardware Interface Technical Reference, "Keyboards": sets 2 and 3; the 8042's
//! translation table maps set 2 to set 1.

/// Precedes the code of a released key in sets 2 and 3.
pub const BREAK_PREFIX: u8 = 0xf0;
/// Precedes the codes of the keys that the first PC keyboard did not have.
pub const EXTENDED_PREFIX: u8 = 0xe0;

/// A key, named by its make code in scan set 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    code: u8,
    extended: bool,
}

impl Key {
    /// Print Screen.
    pub const PRINT_SCREEN: Self = Self {
        code: 0x37,
        extended: true,
    };
    /// Pause; it has no break code of its own.
    pub const PAUSE: Self = Self {
        code: 0x45,
        extended: true,
    };

    /// The key with a set 1 make code: 01h-7Fh, or E001h-E07Fh for extended ones; other values
    /// are no key. E045h is Pause.
    #[must_use]
    pub const fn from_set1(code: u16) -> Option<Self> {
        match code {
            0x01..=0x7f => Some(Self {
                code: code as u8,
                extended: false,
            }),
            0xe001..=0xe07f => Some(Self {
                code: code as u8,
                extended: true,
            }),
            _ => None,
        }
    }

    /// A number below 256, different for every key.
    pub const fn index(self) -> usize {
        self.code as usize | if self.extended { 0x80 } else { 0 }
    }
}

/// The 8042's translation of set 2 codes; codes from 80h on pass unchanged but for F7 and SysRq.
const TO_SET1: [u8; 0x85] = [
    0xff, 0x43, 0x41, 0x3f, 0x3d, 0x3b, 0x3c, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3e, 0x0f, 0x29, 0x59,
    0x65, 0x38, 0x2a, 0x70, 0x1d, 0x10, 0x02, 0x5a, 0x66, 0x71, 0x2c, 0x1f, 0x1e, 0x11, 0x03, 0x5b,
    0x67, 0x2e, 0x2d, 0x20, 0x12, 0x05, 0x04, 0x5c, 0x68, 0x39, 0x2f, 0x21, 0x14, 0x13, 0x06, 0x5d,
    0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5e, 0x6a, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5f,
    0x6b, 0x33, 0x25, 0x17, 0x18, 0x0b, 0x0a, 0x60, 0x6c, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0c, 0x61,
    0x6d, 0x73, 0x28, 0x74, 0x1a, 0x0d, 0x62, 0x6e, 0x3a, 0x36, 0x1c, 0x1b, 0x75, 0x2b, 0x63, 0x76,
    0x55, 0x56, 0x77, 0x78, 0x79, 0x7a, 0x0e, 0x7b, 0x7c, 0x4f, 0x7d, 0x4b, 0x47, 0x7e, 0x7f, 0x6f,
    0x52, 0x53, 0x50, 0x4c, 0x4d, 0x48, 0x01, 0x45, 0x57, 0x4e, 0x51, 0x4a, 0x37, 0x49, 0x46, 0x54,
    0x80, 0x81, 0x82, 0x41, 0x54,
];

/// The inverse of the table, with the codes that keyboards really send where it is ambiguous.
const TO_SET2: [u8; 0x80] = {
    let mut set2 = [0; 0x80];
    let mut i = TO_SET1.len();
    while i > 0 {
        i -= 1;
        let set1 = TO_SET1[i];
        // 83h (F7) and 84h (SysRq) come first and stay; 02h and 7Fh are aliases of them.
        if set1 < 0x80 && set2[set1 as usize] == 0 {
            set2[set1 as usize] = i as u8;
        }
    }
    set2
};

/// Keys whose set 3 code differs from set 2: (set 1 code, extended, set 3 code).
const SET3: &[(u8, bool, u8)] = &[
    (0x01, false, 0x08),
    (0x1d, false, 0x11),
    (0x2b, false, 0x5c),
    (0x38, false, 0x19),
    (0x3a, false, 0x14),
    (0x3b, false, 0x07),
    (0x3c, false, 0x0f),
    (0x3d, false, 0x17),
    (0x3e, false, 0x1f),
    (0x3f, false, 0x27),
    (0x40, false, 0x2f),
    (0x41, false, 0x37),
    (0x42, false, 0x3f),
    (0x43, false, 0x47),
    (0x44, false, 0x4f),
    (0x45, false, 0x76),
    (0x46, false, 0x5f),
    (0x4a, false, 0x84),
    (0x4e, false, 0x7c),
    (0x54, false, 0x57),
    (0x56, false, 0x13),
    (0x57, false, 0x56),
    (0x58, false, 0x5e),
    (0x1c, true, 0x79),
    (0x1d, true, 0x58),
    (0x35, true, 0x77),
    (0x37, true, 0x57),
    (0x38, true, 0x39),
    (0x45, true, 0x62),
    (0x47, true, 0x6e),
    (0x48, true, 0x63),
    (0x49, true, 0x6f),
    (0x4b, true, 0x61),
    (0x4d, true, 0x6a),
    (0x4f, true, 0x65),
    (0x50, true, 0x60),
    (0x51, true, 0x6d),
    (0x52, true, 0x67),
    (0x53, true, 0x64),
    (0x5b, true, 0x8b),
    (0x5c, true, 0x8c),
    (0x5d, true, 0x8d),
];

/// The controller's translation of one byte from set 2 to set 1.
pub fn translate(byte: u8) -> u8 {
    TO_SET1.get(usize::from(byte)).copied().unwrap_or(byte)
}

/// The bytes that a key event sends in a scan set (1-3).
pub fn encode(key: Key, down: bool, set: u8) -> Vec<u8> {
    match set {
        1 => encode_set1(key, down),
        3 => {
            let listed = SET3
                .iter()
                .find(|(c, e, _)| *c == key.code && *e == key.extended);
            match listed.map_or(TO_SET2[usize::from(key.code)], |(_, _, set3)| *set3) {
                0 => Vec::new(),
                code if down => vec![code],
                code => vec![BREAK_PREFIX, code],
            }
        }
        _ => encode_set2(key, down),
    }
}

fn encode_set1(key: Key, down: bool) -> Vec<u8> {
    let code = key.code | if down { 0 } else { 0x80 };
    match (key, down) {
        (Key::PAUSE, true) => vec![0xe1, 0x1d, 0x45, 0xe1, 0x9d, 0xc5],
        (Key::PAUSE, false) => Vec::new(),
        (Key::PRINT_SCREEN, true) => vec![0xe0, 0x2a, 0xe0, 0x37],
        (Key::PRINT_SCREEN, false) => vec![0xe0, 0xb7, 0xe0, 0xaa],
        _ if key.extended => vec![EXTENDED_PREFIX, code],
        _ => vec![code],
    }
}

fn encode_set2(key: Key, down: bool) -> Vec<u8> {
    let code = TO_SET2[usize::from(key.code)];
    match (key, down) {
        (Key::PAUSE, true) => vec![0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77],
        (Key::PAUSE, false) => Vec::new(),
        (Key::PRINT_SCREEN, true) => vec![0xe0, 0x12, 0xe0, 0x7c],
        (Key::PRINT_SCREEN, false) => vec![0xe0, 0xf0, 0x7c, 0xe0, 0xf0, 0x12],
        _ if code == 0 => Vec::new(),
        (Key { extended: true, .. }, true) => vec![EXTENDED_PREFIX, code],
        (Key { extended: true, .. }, false) => vec![EXTENDED_PREFIX, BREAK_PREFIX, code],
        (_, true) => vec![code],
        (_, false) => vec![BREAK_PREFIX, code],
    }
}
