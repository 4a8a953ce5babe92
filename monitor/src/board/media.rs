//! Drives, their media, the screen and firmware's configuration, as the machine attaches them.

use super::Board;
use super::wiring::Slot;
use ring3_devices::block::BlockBackend;
use ring3_devices::fw_cfg::FwCfg;
use ring3_devices::ide::MediumError;
use ring3_devices::kbc::{Buttons, Key};
use ring3_devices::vga::{Frame, Linear, TextScreen};

/// An image as chips take it.
pub type Medium = Box<dyn BlockBackend>;

impl Board {
    /// Attaches a hard disk as unit 0 or 1 of IDE channel 0 or 1.
    pub fn attach_disk(&mut self, channel: usize, unit: usize, image: Medium) {
        self.chips
            .pci
            .functions
            .ide
            .attach_disk(channel, unit, image);
        self.after_change(Slot::Ide);
    }

    /// Attaches a CD-ROM drive as unit 0 or 1 of IDE channel 0 or 1.
    pub fn attach_cd_rom(&mut self, channel: usize, unit: usize, medium: Option<Medium>) {
        self.chips
            .pci
            .functions
            .ide
            .attach_cd_rom(channel, unit, medium);
        self.after_change(Slot::Ide);
    }

    /// Exchanges or removes the medium of a CD-ROM drive.
    /// # Errors
    /// [`MediumError::NoDrive`].
    pub fn set_cd_rom(
        &mut self,
        channel: usize,
        unit: usize,
        medium: Option<Medium>,
    ) -> Result<(), MediumError> {
        let ide = &mut self.chips.pci.functions.ide;
        let outcome = ide.set_medium(channel, unit, medium);
        self.after_change(Slot::Ide);
        outcome
    }

    /// Attaches floppy drive 0 or 1, with or without a medium.
    pub fn attach_floppy(&mut self, unit: usize, medium: Option<Medium>) {
        self.chips.floppy.attach(unit, medium);
        self.after_change(Slot::Floppy);
    }

    /// Exchanges or removes a diskette; false if there is no such drive.
    pub fn set_floppy(&mut self, unit: usize, medium: Option<Medium>) -> bool {
        let there = self.chips.floppy.set_medium(unit, medium);
        self.after_change(Slot::Floppy);
        there
    }

    /// The kinds of the floppy drives by the codes of CMOS byte 10h; 0 for none.
    #[must_use]
    pub fn floppy_kinds(&self) -> [u8; 2] {
        [self.chips.floppy.kind(0), self.chips.floppy.kind(1)]
    }

    /// Sets CMOS bytes, (index, value), now and at each reset.
    pub fn set_cmos(&mut self, bytes: Vec<(u8, u8)>) {
        for &(index, value) in &bytes {
            self.chips.rtc.cmos_mut()[usize::from(index & 0x7f)] = value;
        }
        self.config.cmos.extend(bytes);
    }

    /// What firmware finds through its configuration device.
    pub fn set_fw_cfg(&mut self, fw_cfg: FwCfg) {
        self.chips.fw_cfg = fw_cfg;
    }

    /// A key goes down or up; false if the keyboard's buffer was full and the event is lost.
    pub fn key_event(&mut self, key: Key, down: bool) -> bool {
        let taken = self
            .chips
            .keyboard
            .key_event(self.clock.now_ns(), key, down);
        self.after_change(Slot::Keyboard);
        taken
    }

    /// Like [`Self::key_event`] with the key down, but it never repeats: a script's key comes once,
    /// however late a busy host releases it.
    pub fn type_key(&mut self, key: Key) -> bool {
        let taken = self.key_event(key, true);
        self.chips.keyboard.stop_repeat();
        self.after_change(Slot::Keyboard);
        taken
    }

    /// The mouse moves by `dx` to the right, `dy` down and `dz` wheel clicks towards the user.
    pub fn mouse_event(&mut self, dx: i32, dy: i32, dz: i32, buttons: Buttons) {
        self.chips
            .keyboard
            .mouse_event(self.clock.now_ns(), dx, dy, dz, buttons);
        self.after_change(Slot::Keyboard);
    }

    /// The ACPI power button.
    pub fn press_power_button(&mut self) {
        self.chips.pm.press_power_button();
        self.after_change(Slot::Pm);
    }

    /// The text screen; `None` in graphics modes.
    #[must_use]
    pub fn screen_text(&self) -> Option<TextScreen> {
        self.chips.pci.functions.vga.text()
    }

    /// How often the picture changed otherwise than by the linear framebuffer
    /// ([`ring3_devices::vga::Vga::changes`]), what it shows of that, and whether it shows graphics.
    #[must_use]
    pub fn picture(&self) -> (u64, Option<Linear>, bool) {
        let vga = &self.chips.pci.functions.vga;
        (vga.changes(), vga.linear(), vga.is_graphics())
    }

    /// The picture on the screen.
    #[must_use]
    pub fn screen(&self) -> Frame {
        self.chips.pci.functions.vga.render()
    }
}
