//! Register layout of the VGA and of the Bochs display interface.

/// Offsets from port 3B0h.
pub mod port {
    pub const MONO_CRTC_INDEX: u16 = 0x04;
    pub const MONO_CRTC_DATA: u16 = 0x05;
    pub const MONO_STATUS: u16 = 0x0a;
    pub const ATTRIBUTE: u16 = 0x10;
    pub const ATTRIBUTE_READ: u16 = 0x11;
    /// Write: miscellaneous output; read: input status 0.
    pub const MISC: u16 = 0x12;
    pub const SEQUENCER_INDEX: u16 = 0x14;
    pub const SEQUENCER_DATA: u16 = 0x15;
    pub const DAC_MASK: u16 = 0x16;
    /// Write: read index; read: state.
    pub const DAC_READ: u16 = 0x17;
    pub const DAC_WRITE: u16 = 0x18;
    pub const DAC_DATA: u16 = 0x19;
    pub const FEATURE: u16 = 0x1a;
    pub const MISC_READ: u16 = 0x1c;
    pub const GRAPHICS_INDEX: u16 = 0x1e;
    pub const GRAPHICS_DATA: u16 = 0x1f;
    pub const CRTC_INDEX: u16 = 0x24;
    pub const CRTC_DATA: u16 = 0x25;
    pub const STATUS: u16 = 0x2a;
}
/// Miscellaneous output register.
pub mod misc {
    pub const COLOUR: u8 = 0x01;
    pub const RAM_ENABLE: u8 = 0x02;
}
/// Sequencer registers.
pub mod seq {
    pub const CLOCKING: usize = 1;
    pub const MAP_MASK: usize = 2;
    pub const FONT: usize = 3;
    pub const MEMORY_MODE: usize = 4;
    /// Clocking: blank the screen.
    pub const SCREEN_OFF: u8 = 0x20;
    /// Clocking: every dot is shown twice.
    pub const HALF_CLOCK: u8 = 0x08;
    /// Clocking: characters of eight dots.
    pub const EIGHT_DOTS: u8 = 0x01;
    pub const ODD_EVEN_OFF: u8 = 0x04;
    pub const CHAIN4: u8 = 0x08;
}
/// Graphics controller registers.
pub mod gc {
    pub const SET_RESET: usize = 0;
    pub const ENABLE_SET_RESET: usize = 1;
    pub const COMPARE: usize = 2;
    pub const ROTATE: usize = 3;
    pub const READ_MAP: usize = 4;
    pub const MODE: usize = 5;
    pub const MISC: usize = 6;
    pub const DONT_CARE: usize = 7;
    pub const BIT_MASK: usize = 8;
}
/// CRT controller registers.
pub mod crtc {
    pub const H_DISPLAY_END: usize = 0x01;
    pub const OVERFLOW: usize = 0x07;
    pub const PRESET_ROW: usize = 0x08;
    pub const MAX_SCAN: usize = 0x09;
    pub const CURSOR_START: usize = 0x0a;
    pub const CURSOR_END: usize = 0x0b;
    pub const START_HIGH: usize = 0x0c;
    pub const CURSOR_HIGH: usize = 0x0e;
    pub const V_RETRACE_END: usize = 0x11;
    pub const V_DISPLAY_END: usize = 0x12;
    pub const OFFSET: usize = 0x13;
    pub const UNDERLINE: usize = 0x14;
    pub const MODE: usize = 0x17;
    pub const LINE_COMPARE: usize = 0x18;
    /// Mode control: bit 0 of the row scan counter replaces address bit 13 if clear, bit 1 of it
    /// address bit 14.
    pub const NOT_CMS0: u8 = 0x01;
    pub const NOT_CMS1: u8 = 0x02;
    /// Mode control: addresses are those of bytes, not of words.
    pub const BYTE_MODE: u8 = 0x40;
}
/// Attribute controller registers (0-15 are the palette).
pub mod attr {
    pub const MODE: usize = 0x10;
    pub const PLANE_ENABLE: usize = 0x12;
    pub const PANNING: usize = 0x13;
    pub const COLOUR_SELECT: usize = 0x14;
    /// Mode: the ninth dot continues the characters C0h-DFh.
    pub const LINE_GRAPHICS: u8 = 0x04;
    pub const BLINK: u8 = 0x08;
    /// Mode: what lies below the line compare is not panned.
    pub const PANNING_COMPATIBILITY: u8 = 0x20;
    pub const P54S: u8 = 0x80;
}
/// Bochs display interface indices and bits.
pub mod dispi {
    pub const ID: u16 = 0;
    pub const XRES: u16 = 1;
    pub const YRES: u16 = 2;
    pub const BPP: u16 = 3;
    pub const ENABLE: u16 = 4;
    pub const BANK: u16 = 5;
    pub const VIRT_WIDTH: u16 = 6;
    pub const VIRT_HEIGHT: u16 = 7;
    pub const X_OFFSET: u16 = 8;
    pub const Y_OFFSET: u16 = 9;
    pub const MEMORY: u16 = 10;
    pub const ENABLED: u16 = 0x01;
    pub const GET_CAPS: u16 = 0x02;
    pub const DAC_8BIT: u16 = 0x20;
    pub const NO_CLEAR: u16 = 0x80;
    pub const ID0: u16 = 0xb0c0;
    pub const ID5: u16 = 0xb0c5;
}
