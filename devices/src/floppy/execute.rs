//! Execution phases: the data commands, sector by sector.

use super::{Action, Floppy, Phase, Transfer, command, st0, st1};
use crate::block::SECTOR;

impl Floppy {
    pub(super) fn start(&mut self, action: Action) {
        let b = self.bytes;
        let transfer = Transfer {
            action,
            drive: usize::from(b[1] & 3),
            multi_track: b[0] & command::MT != 0,
            cylinder: b[2],
            head: b[3],
            sector: b[4],
            last: b[6],
            fill: 0,
            buffer: [0; SECTOR],
            at: 0,
            len: SECTOR,
        };
        let present = self
            .drive(transfer.drive)
            .is_some_and(|drive| drive.has_medium());
        let protected = self
            .drive(transfer.drive)
            .is_some_and(|drive| drive.protected());
        if !present {
            self.end(&transfer, st0::ABNORMAL, st1::MISSING_MARK);
        } else if b[5] != 2 || b[3] != b[1] >> 2 & 1 {
            // Another sector size or head number than the address marks hold.
            self.end(&transfer, st0::ABNORMAL, st1::NO_DATA);
        } else if action == Action::Write && protected {
            self.end(&transfer, st0::ABNORMAL, st1::NOT_WRITABLE);
        } else if action == Action::Verify {
            self.verify(transfer);
        } else {
            self.begin_block(transfer);
        }
    }

    /// VERIFY reads without data; at most the sectors of one cylinder.
    fn verify(&mut self, mut transfer: Transfer) {
        loop {
            if let Err(st1) = self.load(&mut transfer) {
                return self.end(&transfer, st0::ABNORMAL, st1);
            }
            if !Self::next_sector(&mut transfer) {
                return self.end(&transfer, 0, 0);
            }
        }
    }

    pub(super) fn start_format(&mut self) {
        let b = self.bytes;
        let unit = usize::from(b[1] & 3);
        let cylinder = self.drive(unit).map_or(0, |drive| drive.cylinder);
        let transfer = Transfer {
            action: Action::Format,
            drive: unit,
            multi_track: false,
            cylinder,
            head: b[1] >> 2 & 1,
            sector: 1,
            last: b[3],
            fill: b[5],
            buffer: [0; SECTOR],
            at: 0,
            len: 4,
        };
        let present = self.drive(unit).is_some_and(|drive| drive.has_medium());
        if !present || b[3] == 0 {
            self.end(&transfer, st0::ABNORMAL, st1::MISSING_MARK);
        } else if self.drive(unit).is_some_and(|drive| drive.protected()) {
            self.end(&transfer, st0::ABNORMAL, st1::NOT_WRITABLE);
        } else {
            self.begin_block(transfer);
        }
    }

    /// The sector's place in the image, where the head is.
    fn locate(&mut self, transfer: &Transfer) -> Result<u64, u8> {
        let drive = self.drive(transfer.drive).ok_or(st1::MISSING_MARK)?;
        if transfer.cylinder != drive.cylinder && self.configure[0] & 0x40 == 0 {
            return Err(st1::NO_DATA);
        }
        let drive = self.drive(transfer.drive).ok_or(st1::MISSING_MARK)?;
        // Implied seek (CONFIGURE, EIS).
        drive.seek(transfer.cylinder);
        drive
            .geometry
            .lba(transfer.cylinder, transfer.head, transfer.sector)
            .ok_or(st1::NO_DATA)
    }

    fn load(&mut self, transfer: &mut Transfer) -> Result<(), u8> {
        let lba = self.locate(transfer)?;
        let drive = self.drive(transfer.drive).ok_or(st1::MISSING_MARK)?;
        drive
            .read(lba, &mut transfer.buffer)
            .map_err(|_| st1::DATA_ERROR)
    }

    fn store(&mut self, transfer: &Transfer) -> Result<(), u8> {
        let lba = self.locate(transfer)?;
        let drive = self.drive(transfer.drive).ok_or(st1::MISSING_MARK)?;
        drive
            .write(lba, &transfer.buffer)
            .map_err(|_| st1::DATA_ERROR)
    }

    /// Offers or requests the next block of an execution phase.
    fn begin_block(&mut self, mut transfer: Transfer) {
        transfer.at = 0;
        if transfer.action == Action::Read
            && let Err(st1) = self.load(&mut transfer)
        {
            return self.end(&transfer, st0::ABNORMAL, st1);
        }
        // Without DMA each block asks by interrupt.
        self.interrupt = !self.uses_dma();
        self.phase = Phase::Execution(transfer);
    }

    /// Steps to the next sector; false past the last one of the track or cylinder.
    fn next_sector(transfer: &mut Transfer) -> bool {
        if transfer.sector < transfer.last {
            transfer.sector += 1;
            return true;
        }
        transfer.sector = 1;
        if transfer.multi_track && transfer.head == 0 {
            transfer.head = 1;
            return true;
        }
        transfer.head = if transfer.multi_track {
            0
        } else {
            transfer.head
        };
        transfer.cylinder = transfer.cylinder.wrapping_add(1);
        false
    }

    /// A block was moved whole, or up to the terminal count.
    pub(super) fn block_done(&mut self, terminal: bool) {
        let Phase::Execution(mut transfer) = std::mem::replace(&mut self.phase, Phase::Command)
        else {
            return;
        };
        if transfer.action == Action::Format {
            return self.format_block(transfer, terminal);
        }
        if transfer.action == Action::Write {
            // What the host did not send is written as zeros.
            transfer.buffer[transfer.at..].fill(0);
            if let Err(st1) = self.store(&transfer) {
                return self.end(&transfer, st0::ABNORMAL, st1);
            }
        }
        match (Self::next_sector(&mut transfer), terminal) {
            (_, true) => self.end(&transfer, 0, 0),
            (true, false) => self.begin_block(transfer),
            (false, false) => self.end(&transfer, st0::ABNORMAL, st1::END_OF_CYLINDER),
        }
    }

    /// The address field of a sector to format: C, H, R, N.
    fn format_block(&mut self, mut transfer: Transfer, terminal: bool) {
        let [_, _, sector, ..] = transfer.buffer;
        let mut target = Transfer { sector, ..transfer };
        target.buffer.fill(transfer.fill);
        if let Err(st1) = self.store(&target) {
            return self.end(&transfer, st0::ABNORMAL, st1);
        }
        transfer.last -= 1;
        if transfer.last == 0 || terminal {
            self.end(&transfer, 0, 0);
        } else {
            self.begin_block(transfer);
        }
    }

    /// The result phase of a data command.
    fn end(&mut self, t: &Transfer, st0: u8, st1: u8) {
        let select = (self.bytes[1] & 4) | t.drive as u8;
        self.finish(&[st0 | select, st1, 0, t.cylinder, t.head, t.sector, 2]);
        self.interrupt = true;
    }
}
