//! How the user names an image: `FILE[,format=raw|qcow2,if=ide|floppy|cdrom,ro,backing]`.

use super::OpenMode;
use super::qcow2_header::MAGIC;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// How an image is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFormat {
    /// As it is.
    Raw,
    /// QEMU's copy-on-write format, version 2 and 3.
    Qcow2,
}

/// The drive that holds an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// A hard disk on an IDE channel.
    Ide,
    /// A diskette in a floppy drive.
    Floppy,
    /// A disc in an ATAPI drive.
    CdRom,
}

/// A drive and its medium.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriveSpec {
    /// The image; `None`: an empty drive.
    pub path: Option<PathBuf>,
    /// Its format; `None`: what its first bytes say.
    pub format: Option<ImageFormat>,
    /// The drive.
    pub interface: Interface,
    /// The guest cannot write to it.
    pub read_only: bool,
    /// The file that a qcow2 image names as lying below it may be read.
    pub backing: bool,
}

impl DriveSpec {
    /// How its image is to be opened.
    #[must_use]
    pub fn mode(&self, snapshot: bool) -> OpenMode {
        OpenMode {
            format: self.format,
            read_only: self.read_only,
            snapshot,
            backing: self.backing,
            quiet: false,
        }
    }

    /// A medium in a drive, its format by its contents; discs are read-only.
    #[must_use]
    pub fn new(path: PathBuf, interface: Interface) -> Self {
        Self {
            path: Some(path),
            format: None,
            interface,
            read_only: interface == Interface::CdRom,
            backing: false,
        }
    }
}

/// Parses `FILE[,format=raw|qcow2][,if=ide|floppy|cdrom][,ro][,backing]`. A comma in a file name is
/// written twice.
/// # Errors
/// A sentence for the user.
pub fn parse_drive(text: &str) -> Result<DriveSpec, String> {
    let mut words: Vec<String> = vec![String::new()];
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, words.last_mut()) {
            (',', Some(word)) if chars.peek() == Some(&',') => {
                chars.next();
                word.push(',');
            }
            (',', _) => words.push(String::new()),
            (c, Some(word)) => word.push(c),
            _ => {}
        }
    }
    if words[0].is_empty() {
        return Err(format!("'{text}' names no image file"));
    }
    let mut drive = DriveSpec::new(PathBuf::from(&words[0]), Interface::Ide);
    for word in &words[1..] {
        match word.as_str() {
            "ro" => drive.read_only = true,
            "backing" => drive.backing = true,
            "format=raw" => drive.format = Some(ImageFormat::Raw),
            "format=qcow2" => drive.format = Some(ImageFormat::Qcow2),
            "if=ide" => drive.interface = Interface::Ide,
            "if=floppy" => drive.interface = Interface::Floppy,
            "if=cdrom" => (drive.interface, drive.read_only) = (Interface::CdRom, true),
            _ => {
                return Err(format!(
                    "'{word}' is no property of an image: use format=raw|qcow2, if=ide|floppy|cdrom, ro, backing"
                ));
            }
        }
    }
    Ok(drive)
}

/// The format that an image's first bytes show.
/// # Errors
/// When it cannot be read.
pub(super) fn detect(file: &File) -> io::Result<ImageFormat> {
    let mut magic = [0; 4];
    let n = file.read_at(&mut magic, 0)?;
    Ok(if n == 4 && &magic == MAGIC {
        ImageFormat::Qcow2
    } else {
        ImageFormat::Raw
    })
}
