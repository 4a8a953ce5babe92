//! Floppy drives and the formats of their media.

use crate::block::{BlockBackend, BlockError, SECTOR};

/// Cylinders, heads and sectors per track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Cylinders.
    pub cylinders: u8,
    /// Heads.
    pub heads: u8,
    /// Sectors per track.
    pub sectors: u8,
}

/// The formats of PC disks, smallest first.
const FORMATS: [Geometry; 9] = [
    Geometry {
        cylinders: 40,
        heads: 1,
        sectors: 8,
    },
    Geometry {
        cylinders: 40,
        heads: 1,
        sectors: 9,
    },
    Geometry {
        cylinders: 40,
        heads: 2,
        sectors: 8,
    },
    Geometry {
        cylinders: 40,
        heads: 2,
        sectors: 9,
    },
    Geometry {
        cylinders: 80,
        heads: 2,
        sectors: 9,
    },
    Geometry {
        cylinders: 80,
        heads: 2,
        sectors: 15,
    },
    Geometry {
        cylinders: 80,
        heads: 2,
        sectors: 18,
    },
    Geometry {
        cylinders: 80,
        heads: 2,
        sectors: 21,
    },
    Geometry {
        cylinders: 80,
        heads: 2,
        sectors: 36,
    },
];

impl Geometry {
    /// The format that holds an image of this many sectors; larger images show their beginning.
    #[must_use]
    pub fn of(sectors: u64) -> Self {
        let total = |g: &Self| u64::from(g.cylinders) * u64::from(g.heads) * u64::from(g.sectors);
        FORMATS
            .into_iter()
            .find(|g| total(g) >= sectors)
            .unwrap_or(FORMATS[8])
    }

    /// The number of a sector within the image.
    pub fn lba(self, cylinder: u8, head: u8, sector: u8) -> Option<u64> {
        let exists =
            cylinder < self.cylinders && head < self.heads && (1..=self.sectors).contains(&sector);
        let track = u64::from(cylinder) * u64::from(self.heads) + u64::from(head);
        exists.then(|| track * u64::from(self.sectors) + u64::from(sector) - 1)
    }
}

/// A drive.
pub struct Drive {
    medium: Option<Box<dyn BlockBackend>>,
    pub geometry: Geometry,
    pub cylinder: u8,
    /// The disk change line.
    pub changed: bool,
}

impl Drive {
    pub fn new(medium: Option<Box<dyn BlockBackend>>) -> Self {
        let mut drive = Self {
            medium: None,
            geometry: FORMATS[6],
            cylinder: 0,
            changed: true,
        };
        drive.set_medium(medium);
        drive
    }

    pub fn set_medium(&mut self, medium: Option<Box<dyn BlockBackend>>) {
        if let Some(medium) = &medium {
            self.geometry = Geometry::of(medium.sectors());
        }
        self.medium = medium;
        self.changed = true;
    }

    /// The kind of drive that the medium belongs to, as the CMOS tells it (byte 10h): 1 360 KB,
    /// 2 1.2 MB, 3 720 KB, 4 1.44 MB, 5 2.88 MB. An empty drive is a 1.44 MB one.
    pub fn kind(&self) -> u8 {
        match (self.geometry.cylinders, self.geometry.sectors) {
            (40, _) => 1,
            (_, 9) => 3,
            (_, 15) => 2,
            (_, 36) => 5,
            _ => 4,
        }
    }

    pub fn has_medium(&self) -> bool {
        self.medium.is_some()
    }

    pub fn protected(&self) -> bool {
        self.medium
            .as_ref()
            .is_some_and(|medium| medium.read_only())
    }

    /// Moves the head; a step with a medium present clears the change line.
    pub fn seek(&mut self, cylinder: u8) {
        self.cylinder = cylinder;
        self.changed &= !self.has_medium();
    }

    pub fn read(&mut self, lba: u64, buf: &mut [u8; SECTOR]) -> Result<(), BlockError> {
        self.medium
            .as_mut()
            .ok_or(BlockError::OutOfRange)?
            .read(lba, buf)
    }

    pub fn write(&mut self, lba: u64, data: &[u8; SECTOR]) -> Result<(), BlockError> {
        self.medium
            .as_mut()
            .ok_or(BlockError::OutOfRange)?
            .write(lba, data)
    }
}
