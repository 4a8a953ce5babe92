//! Register layout and commands of the 8042 keyboard controller.

/// Status register.
pub mod status {
    pub const OBF: u8 = 0x01;
    pub const SYS: u8 = 0x04;
    /// The last write went to the command port.
    pub const A2: u8 = 0x08;
    /// The keyboard lock is open.
    pub const UNLOCKED: u8 = 0x10;
    /// The output buffer holds a byte of the auxiliary device.
    pub const AUX_OBF: u8 = 0x20;
}
/// Command byte (controller RAM byte 0).
pub mod command_byte {
    pub const KEYBOARD_INTERRUPT: u8 = 0x01;
    pub const AUX_INTERRUPT: u8 = 0x02;
    pub const SYS: u8 = 0x04;
    pub const KEYBOARD_DISABLED: u8 = 0x10;
    pub const AUX_DISABLED: u8 = 0x20;
    pub const TRANSLATE: u8 = 0x40;
}
/// Output port.
pub mod output_port {
    /// Low: the processor is held in reset.
    pub const RESET_N: u8 = 0x01;
    pub const A20: u8 = 0x02;
    pub const KEYBOARD_OBF: u8 = 0x10;
    pub const AUX_OBF: u8 = 0x20;
}
/// Controller commands.
pub mod command {
    pub const READ_RAM: u8 = 0x20;
    pub const READ_RAM_LAST: u8 = 0x3f;
    pub const WRITE_RAM: u8 = 0x60;
    pub const WRITE_RAM_LAST: u8 = 0x7f;
    pub const PASSWORD_TEST: u8 = 0xa4;
    pub const DISABLE_AUX: u8 = 0xa7;
    pub const ENABLE_AUX: u8 = 0xa8;
    pub const TEST_AUX: u8 = 0xa9;
    pub const SELF_TEST: u8 = 0xaa;
    pub const TEST_KEYBOARD: u8 = 0xab;
    pub const DISABLE_KEYBOARD: u8 = 0xad;
    pub const ENABLE_KEYBOARD: u8 = 0xae;
    pub const READ_INPUT_PORT: u8 = 0xc0;
    pub const READ_OUTPUT_PORT: u8 = 0xd0;
    pub const WRITE_OUTPUT_PORT: u8 = 0xd1;
    pub const WRITE_KEYBOARD_OUTPUT: u8 = 0xd2;
    pub const WRITE_AUX_OUTPUT: u8 = 0xd3;
    pub const WRITE_AUX: u8 = 0xd4;
    pub const A20_OFF: u8 = 0xdd;
    pub const A20_ON: u8 = 0xdf;
    pub const READ_TEST_INPUTS: u8 = 0xe0;
    /// F0h-FFh pulse the output port lines whose bits are zero.
    pub const PULSE: u8 = 0xf0;
}
/// Answers of PS/2 devices.
pub mod answer {
    pub const ACK: u8 = 0xfa;
    pub const RESEND: u8 = 0xfe;
    pub const SELF_TEST_PASSED: u8 = 0xaa;
    pub const ECHO: u8 = 0xee;
}
