//! Key names and characters as keys of a US keyboard.

use ring3_devices::kbc::Key;

/// Names and set 1 make codes.
const NAMES: &[(&str, u16)] = &[
    ("esc", 0x01),
    ("minus", 0x0c),
    ("equal", 0x0d),
    ("backspace", 0x0e),
    ("tab", 0x0f),
    ("bracket_left", 0x1a),
    ("bracket_right", 0x1b),
    ("ret", 0x1c),
    ("enter", 0x1c),
    ("ctrl", 0x1d),
    ("semicolon", 0x27),
    ("apostrophe", 0x28),
    ("grave_accent", 0x29),
    ("shift", 0x2a),
    ("backslash", 0x2b),
    ("comma", 0x33),
    ("dot", 0x34),
    ("slash", 0x35),
    ("shift_r", 0x36),
    ("kp_multiply", 0x37),
    ("alt", 0x38),
    ("spc", 0x39),
    ("space", 0x39),
    ("caps_lock", 0x3a),
    ("f1", 0x3b),
    ("f2", 0x3c),
    ("f3", 0x3d),
    ("f4", 0x3e),
    ("f5", 0x3f),
    ("f6", 0x40),
    ("f7", 0x41),
    ("f8", 0x42),
    ("f9", 0x43),
    ("f10", 0x44),
    ("num_lock", 0x45),
    ("scroll_lock", 0x46),
    ("kp_subtract", 0x4a),
    ("kp_add", 0x4e),
    ("less", 0x56),
    ("f11", 0x57),
    ("f12", 0x58),
    ("kp_enter", 0xe01c),
    ("ctrl_r", 0xe01d),
    ("kp_divide", 0xe035),
    ("print", 0xe037),
    ("sysrq", 0xe037),
    ("alt_r", 0xe038),
    ("pause", 0xe045),
    ("home", 0xe047),
    ("up", 0xe048),
    ("pgup", 0xe049),
    ("left", 0xe04b),
    ("right", 0xe04d),
    ("end", 0xe04f),
    ("down", 0xe050),
    ("pgdn", 0xe051),
    ("insert", 0xe052),
    ("delete", 0xe053),
    ("meta", 0xe05b),
    ("meta_r", 0xe05c),
    ("menu", 0xe05d),
];

/// Rows of a US keyboard: first make code, plain and shifted characters.
const ROWS: &[(u16, &str, &str)] = &[
    (0x02, "1234567890-=", "!@#$%^&*()_+"),
    (0x10, "qwertyuiop[]", "QWERTYUIOP{}"),
    (0x1e, "asdfghjkl;'`", "ASDFGHJKL:\"~"),
    (0x2b, "\\zxcvbnm,./", "|ZXCVBNM<>?"),
];

const SHIFT: u16 = 0x2a;

/// What cannot be typed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No key has this name.
    #[error("there is no key '{0}'")]
    Name(String),
    /// A US keyboard has no such character.
    #[error("a US keyboard cannot type '{0}'")]
    Character(char),
}

fn by_character(c: char) -> Option<(u16, bool)> {
    match c {
        '\n' | '\r' => return Some((0x1c, false)),
        '\t' => return Some((0x0f, false)),
        '\x08' => return Some((0x0e, false)),
        '\x1b' => return Some((0x01, false)),
        ' ' => return Some((0x39, false)),
        _ => {}
    }
    ROWS.iter().find_map(|&(first, plain, shifted)| {
        let place = |row: &str| row.chars().position(|k| k == c).map(|i| first + i as u16);
        place(plain)
            .map(|code| (code, false))
            .or_else(|| place(shifted).map(|code| (code, true)))
    })
}

fn key(code: u16) -> Option<Key> {
    Key::from_set1(code)
}

/// The keys of a chord such as `ctrl-alt-delete`, in the order in which they go down.
/// # Errors
/// [`KeyError::Name`].
pub fn chord(text: &str) -> Result<Vec<Key>, KeyError> {
    let named = |name: &str| {
        let lower = name.to_ascii_lowercase();
        let by_name = NAMES.iter().find(|n| n.0 == lower).map(|n| n.1);
        let mut chars = lower.chars();
        let single = match (chars.next(), chars.next()) {
            (Some(c), None) => by_character(c).filter(|(_, shifted)| !shifted).map(|k| k.0),
            _ => None,
        };
        by_name
            .or(single)
            .and_then(key)
            .ok_or_else(|| KeyError::Name(name.to_owned()))
    };
    text.split('-').map(named).collect()
}

/// The keys for one character, shift first if it needs it.
/// # Errors
/// [`KeyError::Character`].
pub fn character(c: char) -> Result<Vec<Key>, KeyError> {
    let (code, shifted) = by_character(c).ok_or(KeyError::Character(c))?;
    let codes = if shifted {
        vec![SHIFT, code]
    } else {
        vec![code]
    };
    Ok(codes.into_iter().filter_map(key).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(keys: &[Key]) -> Vec<usize> {
        keys.iter().map(|k| k.index()).collect()
    }

    #[test]
    fn chords_by_name() {
        assert_eq!(
            codes(&chord("ctrl-alt-delete").unwrap()),
            [0x1d, 0x38, 0xd3]
        );
        assert_eq!(codes(&chord("F10").unwrap()), [0x44]);
        assert_eq!(codes(&chord("ctrl-x").unwrap()), [0x1d, 0x2d]);
        assert_eq!(chord("ctrl-nope"), Err(KeyError::Name("nope".into())));
        assert!(chord("").is_err());
    }

    #[test]
    fn every_printable_character_can_be_typed() {
        for c in ' '..='~' {
            assert!(character(c).is_ok(), "{c:?}");
        }
        assert_eq!(codes(&character('A').unwrap()), [0x2a, 0x1e]);
        assert_eq!(codes(&character('/').unwrap()), [0x35]);
        assert_eq!(codes(&character('|').unwrap()), [0x2a, 0x2b]);
        assert_eq!(codes(&character('~').unwrap()), [0x2a, 0x29]);
        assert_eq!(character('é'), Err(KeyError::Character('é')));
    }
}
