//! The escape key of an interactive serial console: Ctrl-A x leaves, Ctrl-A h explains,
//! Ctrl-A Ctrl-A is a literal Ctrl-A.

/// Ctrl-A.
const ESCAPE: u8 = 0x01;

/// What Ctrl-A h prints.
pub const HELP: &[u8] = b"\r\n\
Ctrl-A h        this help\r\n\
Ctrl-A x        quit (the guest is not shut down)\r\n\
Ctrl-A Ctrl-A   send Ctrl-A to the guest\r\n";

/// What the user asked of the console itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleCommand {
    /// End the run.
    Quit,
    /// Print [`HELP`].
    Help,
}

/// Takes the escape sequences out of the user's input.
#[derive(Clone, Copy, Debug, Default)]
pub struct EscapeFilter {
    escaped: bool,
}

impl EscapeFilter {
    /// Appends what is meant for the guest to `guest` and returns the commands, in order. An
    /// unknown key after Ctrl-A is dropped.
    pub fn feed(&mut self, input: &[u8], guest: &mut Vec<u8>) -> Vec<ConsoleCommand> {
        let mut commands = Vec::new();
        for &byte in input {
            if !self.escaped {
                if byte == ESCAPE {
                    self.escaped = true;
                } else {
                    guest.push(byte);
                }
                continue;
            }
            self.escaped = false;
            match byte {
                b'x' | b'X' => commands.push(ConsoleCommand::Quit),
                b'h' | b'H' | b'?' => commands.push(ConsoleCommand::Help),
                ESCAPE => guest.push(ESCAPE),
                _ => {}
            }
        }
        commands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_may_be_split_between_reads() {
        let mut filter = EscapeFilter::default();
        let mut guest = Vec::new();
        assert_eq!(filter.feed(b"ab\x01", &mut guest), []);
        assert_eq!(
            filter.feed(b"hc\x01\x01d\x01qe", &mut guest),
            [ConsoleCommand::Help]
        );
        assert_eq!(filter.feed(b"\x01x", &mut guest), [ConsoleCommand::Quit]);
        assert_eq!(guest, b"abc\x01de");
    }
}
