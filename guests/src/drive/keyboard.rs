//! Characters and key names in QEMU's names of keys (its `QKeyCode`), on a US keyboard.

/// Characters that are no letters or digits: the key, plain and with shift.
const KEYS: &[(&str, char, char)] = &[
    ("1", '1', '!'),
    ("2", '2', '@'),
    ("3", '3', '#'),
    ("4", '4', '$'),
    ("5", '5', '%'),
    ("6", '6', '^'),
    ("7", '7', '&'),
    ("8", '8', '*'),
    ("9", '9', '('),
    ("0", '0', ')'),
    ("minus", '-', '_'),
    ("equal", '=', '+'),
    ("bracket_left", '[', '{'),
    ("bracket_right", ']', '}'),
    ("backslash", '\\', '|'),
    ("semicolon", ';', ':'),
    ("apostrophe", '\'', '"'),
    ("grave_accent", '`', '~'),
    ("comma", ',', '<'),
    ("dot", '.', '>'),
    ("slash", '/', '?'),
];

/// The keys that make a character, shift first.
pub(super) fn character(c: char) -> Option<Vec<String>> {
    let plain = |name: &str| Some(vec![name.to_owned()]);
    match c {
        'a'..='z' => return plain(&c.to_string()),
        'A'..='Z' => return Some(vec!["shift".into(), c.to_ascii_lowercase().to_string()]),
        ' ' => return plain("spc"),
        '\n' => return plain("ret"),
        '\t' => return plain("tab"),
        '\x1b' => return plain("esc"),
        '\x08' => return plain("backspace"),
        _ => {}
    }
    KEYS.iter().find_map(|&(name, low, high)| {
        if c == low {
            Some(vec![name.to_owned()])
        } else if c == high {
            Some(vec!["shift".to_owned(), name.to_owned()])
        } else {
            None
        }
    })
}

/// The keys of a chord such as `ctrl-alt-delete`.
pub(super) fn chord(text: &str) -> Vec<String> {
    text.split('-')
        .map(|key| match key {
            "enter" => "ret".into(),
            "space" => "spc".into(),
            other => other.to_ascii_lowercase(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_printable_character_has_keys() {
        for c in ' '..='~' {
            assert!(character(c).is_some(), "{c:?}");
        }
        assert_eq!(character('{').unwrap(), ["shift", "bracket_left"]);
        assert!(character('é').is_none());
        assert_eq!(chord("ctrl-alt-enter"), ["ctrl", "alt", "ret"]);
    }
}
