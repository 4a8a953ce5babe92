//! Which image goes into which drive.

use crate::board::Board;
use crate::firmware::BootDevice;
use crate::image::{self, DriveSpec, ImageError, Interface};

/// Why drives could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// An image.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// More drives than the board has places for.
    #[error("there is room for {room} {what}, not more")]
    TooMany {
        /// Places.
        room: usize,
        /// The kind of drive.
        what: &'static str,
    },
    /// A hard disk needs an image.
    #[error("a hard disk needs an image")]
    EmptyDisk,
}

/// IDE places: (channel, unit).
const IDE: [(usize, usize); 4] = [(0, 0), (0, 1), (1, 0), (1, 1)];
/// The order in which CD-ROM drives take places: the secondary channel first.
const CD_ROM: [(usize, usize); 4] = [(1, 0), (1, 1), (0, 1), (0, 0)];

/// The place of the first CD-ROM drive: what the control socket's `cdrom` exchanges.
pub const FIRST_CD_ROM: (usize, usize) = CD_ROM[0];

/// Opens the images and attaches the drives: hard disks from the primary master on, CD-ROM drives
/// from the secondary master on. There is always a CD-ROM drive if a place is left, so that a disc
/// can be inserted later. Returns the drives by their paths in firmware's device tree.
/// # Errors
/// [`DriveError`] with one sentence that names the image.
pub fn attach(
    board: &mut Board,
    drives: &[DriveSpec],
    snapshot: bool,
) -> Result<Vec<(BootDevice, String)>, DriveError> {
    let ide = |channel, unit| format!("/pci@i0cf8/ide@1,1/drive@{channel}/disk@{unit}");
    let mut paths = Vec::new();
    let mut taken = [false; IDE.len()];
    let mut floppies = 0;
    let claim = |taken: &mut [bool; 4], order: &[(usize, usize); 4]| {
        let place = order.iter().copied().find(|(c, u)| !taken[c * 2 + u]);
        let (channel, unit) = place.ok_or(DriveError::TooMany {
            room: 4,
            what: "IDE drives",
        })?;
        taken[channel * 2 + unit] = true;
        Ok::<_, DriveError>((channel, unit))
    };
    // CD-ROM drives first: their usual place must not depend on the options' order.
    let cd_roms = drives.iter().filter(|d| d.interface == Interface::CdRom);
    for drive in cd_roms.clone() {
        let (channel, unit) = claim(&mut taken, &CD_ROM)?;
        board.attach_cd_rom(channel, unit, open(drive, snapshot)?);
        paths.push((BootDevice::CdRom, ide(channel, unit)));
    }
    for drive in drives {
        match drive.interface {
            Interface::CdRom => {}
            Interface::Ide => {
                let image = open(drive, snapshot)?.ok_or(DriveError::EmptyDisk)?;
                let (channel, unit) = claim(&mut taken, &IDE)?;
                board.attach_disk(channel, unit, image);
                paths.push((BootDevice::Disk, ide(channel, unit)));
            }
            Interface::Floppy if floppies == 2 => {
                return Err(DriveError::TooMany {
                    room: 2,
                    what: "floppy drives",
                });
            }
            Interface::Floppy => {
                board.attach_floppy(floppies, open(drive, snapshot)?);
                let path = format!("/pci@i0cf8/isa@1/fdc@03f0/floppy@{floppies}");
                paths.push((BootDevice::Floppy, path));
                floppies += 1;
            }
        }
    }
    if cd_roms.count() == 0 && !taken[2] {
        board.attach_cd_rom(FIRST_CD_ROM.0, FIRST_CD_ROM.1, None);
        paths.push((BootDevice::CdRom, ide(FIRST_CD_ROM.0, FIRST_CD_ROM.1)));
    }
    Ok(paths)
}

fn open(drive: &DriveSpec, snapshot: bool) -> Result<Option<crate::board::Medium>, DriveError> {
    let Some(path) = &drive.path else {
        return Ok(None);
    };
    Ok(Some(image::open(path, drive.mode(snapshot))?))
}
