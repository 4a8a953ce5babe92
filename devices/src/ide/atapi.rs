//! CD-ROM drives: packet commands over ATA.
//!
//! ATA/ATAPI-6, 9.8 (PACKET protocol); SFF-8020i and MMC-3 for the commands. Sectors have 2048
//! bytes; one data track in one session. Audio is left out.

use super::drive::{Drive, Fifo2, Kind, Phase, mode_word, put_text};
use super::spec::{error, reason, status};
use crate::block::{BlockBackend, SECTOR};

/// Bytes of a packet command.
pub const PACKET_SIZE: usize = 12;
/// Bytes in a sector of a data CD.
const CD_SECTOR: u64 = 2048;
/// Bytes offered per step of a DMA command.
const DMA_BLOCK: u64 = 65_536;

/// Sense keys with additional sense codes (key, code, qualifier).
mod sense {
    pub type Sense = (u8, u8, u8);
    pub const NONE: Sense = (0, 0, 0);
    pub const NO_MEDIUM: Sense = (2, 0x3a, 0);
    pub const READ_ERROR: Sense = (3, 0x11, 0);
    pub const INVALID_COMMAND: Sense = (5, 0x20, 0);
    pub const OUT_OF_RANGE: Sense = (5, 0x21, 0);
    pub const INVALID_FIELD: Sense = (5, 0x24, 0);
    pub const REMOVAL_PREVENTED: Sense = (5, 0x53, 2);
    pub const MEDIUM_CHANGED: Sense = (6, 0x28, 0);
}

/// Operation codes.
mod op {
    pub const TEST_UNIT_READY: u8 = 0x00;
    pub const REQUEST_SENSE: u8 = 0x03;
    pub const INQUIRY: u8 = 0x12;
    pub const START_STOP_UNIT: u8 = 0x1b;
    pub const PREVENT_REMOVAL: u8 = 0x1e;
    pub const READ_CAPACITY: u8 = 0x25;
    pub const READ_10: u8 = 0x28;
    pub const SEEK_10: u8 = 0x2b;
    pub const READ_TOC: u8 = 0x43;
    pub const GET_CONFIGURATION: u8 = 0x46;
    pub const GET_EVENT_STATUS: u8 = 0x4a;
    pub const READ_DISC_INFORMATION: u8 = 0x51;
    pub const MODE_SENSE_10: u8 = 0x5a;
    pub const READ_12: u8 = 0xa8;
    pub const MECHANISM_STATUS: u8 = 0xbd;
}

/// Where a reply's bytes come from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Bytes(Vec<u8>),
    /// From this byte of the medium on.
    Medium(u64),
}

/// A CD-ROM drive.
pub struct CdRom {
    medium: Option<Box<dyn BlockBackend>>,
    sense: sense::Sense,
    /// A medium was exchanged and the host has not been told.
    changed: bool,
    /// The media event that GET EVENT STATUS reports next: 0 none, 2 new medium, 3 removal.
    event: u8,
    locked: bool,
    source: Source,
    /// Bytes of the reply already offered, and in total.
    offered: u64,
    total: u64,
    limit: u64,
    dma: bool,
}

type Reply = Result<Source, sense::Sense>;

impl CdRom {
    pub fn new(medium: Option<Box<dyn BlockBackend>>) -> Self {
        Self {
            medium,
            sense: sense::NONE,
            changed: false,
            event: 0,
            locked: false,
            source: Source::Bytes(Vec::new()),
            offered: 0,
            total: 0,
            limit: 0,
            dma: false,
        }
    }

    pub fn reset(&mut self) {
        self.locked = false;
        (self.offered, self.total) = (0, 0);
    }

    /// Exchanges the medium as a hand would.
    pub fn set_medium(&mut self, medium: Option<Box<dyn BlockBackend>>) {
        self.event = if medium.is_some() { 2 } else { 3 };
        self.changed = medium.is_some();
        self.medium = medium;
    }

    pub fn has_medium(&self) -> bool {
        self.medium.is_some()
    }

    fn sectors(&self) -> Result<u64, sense::Sense> {
        let medium = self.medium.as_ref().ok_or(sense::NO_MEDIUM)?;
        Ok(medium.sectors() * SECTOR as u64 / CD_SECTOR)
    }

    /// Copies reply bytes; the medium is read in its own sectors.
    fn fill(&mut self, buf: &mut [u8]) -> Result<(), sense::Sense> {
        match &self.source {
            Source::Bytes(bytes) => {
                let from = (self.offered as usize).min(bytes.len());
                for (slot, byte) in buf.iter_mut().zip(&bytes[from..]) {
                    *slot = *byte;
                }
                Ok(())
            }
            Source::Medium(start) => {
                let medium = self.medium.as_mut().ok_or(sense::NO_MEDIUM)?;
                let sector = SECTOR as u64;
                let from = start + self.offered;
                let lead = (from % sector) as usize;
                let mut whole = vec![0; (lead + buf.len()).next_multiple_of(SECTOR)];
                medium
                    .read(from / sector, &mut whole)
                    .map_err(|_| sense::READ_ERROR)?;
                buf.copy_from_slice(&whole[lead..lead + buf.len()]);
                Ok(())
            }
        }
    }

    fn read(&self, first: u32, count: u32) -> Result<(Source, u64), sense::Sense> {
        if u64::from(first) + u64::from(count) > self.sectors()? {
            return Err(sense::OUT_OF_RANGE);
        }
        Ok((
            Source::Medium(u64::from(first) * CD_SECTOR),
            u64::from(count) * CD_SECTOR,
        ))
    }

    /// Runs a packet command: the reply and its length after truncation to what was allocated.
    fn execute(&mut self, p: &[u8; PACKET_SIZE]) -> Result<(Source, u64), sense::Sense> {
        let word = |at: usize| u64::from(u16::from_be_bytes([p[at], p[at + 1]]));
        let long = |at: usize| u32::from_be_bytes([p[at], p[at + 1], p[at + 2], p[at + 3]]);
        if self.changed && !matches!(p[0], op::INQUIRY | op::REQUEST_SENSE | op::GET_EVENT_STATUS) {
            self.changed = false;
            return Err(sense::MEDIUM_CHANGED);
        }
        let (reply, allocated): (Reply, u64) = match p[0] {
            op::READ_10 => return self.read(long(2), word(7) as u32),
            op::READ_12 => return self.read(long(2), long(6)),
            op::TEST_UNIT_READY => (self.sectors().map(|_| Source::Bytes(Vec::new())), 0),
            op::SEEK_10 => (self.read(long(2), 1).map(|_| Source::Bytes(Vec::new())), 0),
            op::REQUEST_SENSE => (Ok(self.request_sense()), p[4].into()),
            op::INQUIRY => (Ok(inquiry()), word(3)),
            op::START_STOP_UNIT => (self.start_stop(p[4]), 0),
            op::PREVENT_REMOVAL => {
                self.locked = p[4] & 1 != 0;
                (Ok(Source::Bytes(Vec::new())), 0)
            }
            op::READ_CAPACITY => (self.read_capacity(), 8),
            op::READ_TOC => (self.read_toc(p), word(7)),
            op::GET_CONFIGURATION => (Ok(self.configuration()), word(7)),
            op::GET_EVENT_STATUS => (self.event_status(p), word(7)),
            op::READ_DISC_INFORMATION => (self.disc_information(), word(7)),
            op::MODE_SENSE_10 => (self.mode_sense(p[2]), word(7)),
            op::MECHANISM_STATUS => (Ok(Source::Bytes(vec![0, 0, 0, 0, 0, 1, 0, 0])), word(8)),
            _ => (Err(sense::INVALID_COMMAND), 0),
        };
        let reply = reply?;
        let len = match &reply {
            Source::Bytes(bytes) => (bytes.len() as u64).min(allocated),
            Source::Medium(_) => allocated,
        };
        Ok((reply, len))
    }

    fn request_sense(&mut self) -> Source {
        let (key, code, qualifier) = std::mem::replace(&mut self.sense, sense::NONE);
        let mut bytes = vec![0; 18];
        (bytes[0], bytes[2], bytes[7]) = (0x70, key, 10);
        (bytes[12], bytes[13]) = (code, qualifier);
        Source::Bytes(bytes)
    }

    fn start_stop(&mut self, operation: u8) -> Reply {
        // LoEj set and Start clear: eject.
        if operation & 3 == 2 {
            if self.locked {
                return Err(sense::REMOVAL_PREVENTED);
            }
            self.set_medium(None);
        }
        Ok(Source::Bytes(Vec::new()))
    }

    fn read_capacity(&self) -> Reply {
        let last = self.sectors()?.saturating_sub(1) as u32;
        let size = CD_SECTOR as u32;
        Ok(Source::Bytes(
            [last.to_be_bytes(), size.to_be_bytes()].concat(),
        ))
    }

    /// READ TOC/PMA/ATIP: formats 0 (tracks) and 1 (sessions).
    fn read_toc(&self, p: &[u8; PACKET_SIZE]) -> Reply {
        let sectors = self.sectors()? as u32;
        let msf = p[1] & 2 != 0;
        let address = |lba: u32| {
            let frames = lba.saturating_add(150);
            let [m, s, f] = [frames / 4500, frames / 75 % 60, frames % 75].map(|n| n as u8);
            if msf { [0, m, s, f] } else { lba.to_be_bytes() }
        };
        let entry = |track: u8, lba: u32| [[0, 0x14, track, 0], address(lba)].concat();
        let format = if p[2] & 0x0f != 0 {
            p[2] & 0x0f
        } else {
            p[9] >> 6
        };
        let mut body = vec![1, 1];
        match (format, p[6]) {
            (0, 0 | 1) => {
                body.extend(entry(1, 0));
                body.extend(entry(0xaa, sectors));
            }
            (0, 0xaa) => body.extend(entry(0xaa, sectors)),
            (1, _) => body.extend(entry(1, 0)),
            _ => return Err(sense::INVALID_FIELD),
        }
        let mut bytes = (body.len() as u16).to_be_bytes().to_vec();
        bytes.extend(body);
        Ok(Source::Bytes(bytes))
    }

    /// GET CONFIGURATION: the profile list and the core features.
    fn configuration(&self) -> Source {
        const CD_ROM: u16 = 0x0008;
        let profile = if self.has_medium() { CD_ROM } else { 0 };
        let [high, low] = profile.to_be_bytes();
        let body = [
            &[0, 0, high, low][..],
            // Profile list: CD-ROM, current if a medium is there.
            &[0, 0, 3, 4, 0, 8, u8::from(self.has_medium()), 0],
            // Core: ATAPI.
            &[0, 1, 7, 8, 0, 0, 0, 2, 0, 0, 0, 0],
            // Removable medium: tray, can eject, can lock.
            &[0, 3, 3, 4, 0x29, 0, 0, 0],
        ]
        .concat();
        let mut bytes = (body.len() as u32).to_be_bytes().to_vec();
        bytes.extend(body);
        Source::Bytes(bytes)
    }

    fn event_status(&mut self, p: &[u8; PACKET_SIZE]) -> Reply {
        const MEDIA: u8 = 0x10;
        if p[1] & 1 == 0 {
            // Asynchronous notification.
            return Err(sense::INVALID_FIELD);
        }
        if p[4] & MEDIA == 0 {
            return Ok(Source::Bytes(vec![0, 2, 0x80, MEDIA]));
        }
        let event = std::mem::take(&mut self.event);
        let present = if self.has_medium() { 2 } else { 0 };
        Ok(Source::Bytes(vec![0, 6, 4, MEDIA, event, present, 0, 0]))
    }

    fn disc_information(&self) -> Reply {
        self.sectors()?;
        let mut bytes = vec![0; 34];
        // A finished disc with one complete session and one track.
        (bytes[1], bytes[2]) = (32, 0x0e);
        bytes[3..7].fill(1);
        bytes[7] = 0x20;
        Ok(Source::Bytes(bytes))
    }

    /// MODE SENSE (10): error recovery (01h) and capabilities (2Ah).
    fn mode_sense(&self, page: u8) -> Reply {
        let recovery = [0x01, 6, 0, 5, 0, 0, 0, 0];
        let mut capabilities = [0; 22];
        (capabilities[0], capabilities[1]) = (0x2a, 20);
        // Reads mode 2 forms 1 and 2, multisession; tray with lock and eject.
        (capabilities[4], capabilities[6]) = (0x70, 0x29 | if self.locked { 2 } else { 0 });
        capabilities[8..10].copy_from_slice(&706u16.to_be_bytes());
        capabilities[12..14].copy_from_slice(&512u16.to_be_bytes());
        capabilities[14..16].copy_from_slice(&706u16.to_be_bytes());
        let pages = match page & 0x3f {
            0x01 => recovery.to_vec(),
            0x2a => capabilities.to_vec(),
            0x3f => [&recovery[..], &capabilities[..]].concat(),
            _ => return Err(sense::INVALID_FIELD),
        };
        let medium_type = if self.has_medium() { 0x01 } else { 0x70 };
        let mut bytes = (pages.len() as u16 + 6).to_be_bytes().to_vec();
        bytes.extend([medium_type, 0, 0, 0, 0, 0]);
        bytes.extend(pages);
        Ok(Source::Bytes(bytes))
    }
}

fn inquiry() -> Source {
    let mut bytes = vec![0x05, 0x80, 0x00, 0x21, 31, 0, 0, 0];
    bytes.extend(*b"RING3   CD-ROM          1.0 ");
    Source::Bytes(bytes)
}

impl Drive {
    fn cd(&mut self) -> Option<&mut CdRom> {
        match &mut self.kind {
            Kind::CdRom(cd) => Some(cd),
            Kind::Disk(_) => None,
        }
    }

    /// The twelve command bytes have arrived.
    pub fn packet(&mut self) {
        let mut packet = [0; PACKET_SIZE];
        packet.copy_from_slice(&self.buffer[..PACKET_SIZE]);
        let dma = self.regs.features.current & 1 != 0;
        let [_, low, high] = self.regs.lba.map(|register| u64::from(register.current));
        // An odd or absent limit means the largest even one (SFF-8020i, 5.1).
        let limit = match (low | high << 8) & !1 {
            0 => 0xfffe,
            even => even,
        };
        let Some(cd) = self.cd() else { return };
        match cd.execute(&packet) {
            Ok((source, total)) => {
                (cd.source, cd.total, cd.offered) = (source, total, 0);
                (cd.limit, cd.dma) = (if dma { DMA_BLOCK } else { limit }, dma);
                self.offer_packet_data();
            }
            Err(sense) => self.packet_failed(sense),
        }
    }

    fn packet_failed(&mut self, sense: sense::Sense) {
        if let Some(cd) = self.cd() {
            cd.sense = sense;
        }
        self.fail(sense.0 << 4 | error::ABRT);
        self.regs.count.current = reason::COMMAND | reason::TO_HOST;
    }

    /// Offers the next part of the reply, or ends the command.
    fn offer_packet_data(&mut self) {
        let Some(cd) = self.cd() else { return };
        let len = (cd.total - cd.offered).min(cd.limit);
        if len == 0 {
            self.complete();
            self.regs.count.current = reason::COMMAND | reason::TO_HOST;
            return;
        }
        let mut buffer = vec![0; len as usize];
        if let Err(sense) = cd.fill(&mut buffer) {
            return self.packet_failed(sense);
        }
        cd.offered += len;
        let dma = cd.dma;
        self.buffer = buffer;
        self.start_phase(Phase::DataIn { dma }, !dma);
        self.regs.status = status::DRDY | status::DSC | status::DRQ;
        self.regs.count.current = reason::TO_HOST;
        if !dma {
            for (register, byte) in self.regs.lba[1..]
                .iter_mut()
                .zip((len as u16).to_le_bytes())
            {
                *register = Fifo2 {
                    current: byte,
                    previous: 0,
                };
            }
        }
    }

    /// The host has taken what was offered.
    pub fn packet_data_done(&mut self) {
        self.phase = Phase::Idle;
        self.offer_packet_data();
    }

    /// IDENTIFY PACKET DEVICE. ATA/ATAPI-6, 8.16.
    pub fn identify_packet(&mut self) {
        let mut w = [0u16; 256];
        // CD-ROM, removable, DRQ within 50 us, 12-byte packets.
        w[0] = 0x85c0;
        put_text(&mut w, 10, 10, "R3-0000002");
        put_text(&mut w, 23, 4, "1.0");
        put_text(&mut w, 27, 20, "RING3 CD-ROM");
        (w[48], w[49], w[50]) = (1, 0x0b00, 0x4000);
        w[53] = 6;
        w[63] = mode_word(self.mwdma);
        w[64] = 3;
        w[65..69].fill(120);
        w[80] = 0x0070;
        (w[82], w[83], w[84]) = (0x0210, 0x4000, 0x4000);
        (w[85], w[87]) = (0x0210, 0x4000);
        w[88] = mode_word(self.udma);
        w[93] = 0x6001;
        if let Some(cd) = self.cd() {
            (cd.offered, cd.total, cd.dma) = (0, 0, false);
        }
        self.buffer = w.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.start_phase(Phase::DataIn { dma: false }, true);
    }
}
