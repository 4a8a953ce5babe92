//! Executors in stock.

use super::image::ExecutorImage;
use super::kick::ExecutorKick;
use super::mailbox::Mailbox;
use super::{Executor, ExecutorError, spawn};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Idle executors that a pool keeps.
const MAX_IDLE: usize = 8;

/// Makes executors for one virtual machine's RAM and keeps some that are not in use.
pub struct ExecutorPool {
    image: Arc<ExecutorImage>,
    image_fd: OwnedFd,
    ram: OwnedFd,
    ram_size: u64,
    lowest: u32,
    core: Option<usize>,
    idle: Vec<Executor>,
}

impl ExecutorPool {
    /// A pool for guest RAM `ram`, whose executors run on host processor `core` only if given.
    /// # Errors
    /// [`ExecutorError::Setup`] if the host refuses a memfd.
    pub fn new(ram: BorrowedFd<'_>, core: Option<usize>) -> Result<Self, ExecutorError> {
        let setup = |step| move |source| ExecutorError::Setup { step, source };
        let image = Arc::new(ExecutorImage::assemble()?);
        let size = image.bytes.len() as u64;
        let image_fd = spawn::memfd(c"ring3-executor", size, &image.bytes, true)
            .map_err(setup("an executable memfd"))?;
        let ram = ram
            .try_clone_to_owned()
            .map_err(setup("duplicating the RAM memfd"))?;
        let ram = std::fs::File::from(ram);
        let ram_size = ram.metadata().map_err(setup("the size of RAM"))?.len();
        // Below this, mapping takes a privilege that we may lack.
        let lowest = std::fs::read_to_string("/proc/sys/vm/mmap_min_addr")
            .ok()
            .and_then(|text| text.trim().parse::<u32>().ok())
            .map_or(0x1_0000, |address| {
                address.next_multiple_of(0x1000).max(0x1000)
            });
        Ok(Self {
            image,
            image_fd,
            ram: ram.into(),
            ram_size,
            lowest,
            core,
            idle: Vec::new(),
        })
    }

    /// An executor with nothing mapped and a fresh FPU state. Starts a process if none is idle.
    /// # Errors
    /// What the host refuses.
    pub fn take(&mut self) -> Result<Executor, ExecutorError> {
        while let Some(mut executor) = self.idle.pop() {
            if executor.is_alive() {
                return Ok(executor);
            }
        }
        let setup = |step| move |source| ExecutorError::Setup { step, source };
        let mailbox = Mailbox::new().map_err(setup("the mailbox"))?;
        let fds = (
            self.image_fd.as_raw_fd(),
            self.ram.as_raw_fd(),
            mailbox.fd.as_raw_fd(),
        );
        let pid = spawn::spawn(fds.0, fds.1, fds.2, self.core)?;
        let pidfd = spawn::pidfd(pid)
            .inspect_err(|_| spawn::abandon(pid))
            .map_err(setup("pidfd_open"))?;
        let kick = ExecutorKick::new(pidfd);
        let mut executor = Executor::adopt(
            pid,
            kick,
            Arc::clone(&self.image),
            mailbox,
            (self.ram_size, self.lowest),
        );
        executor.initialise()?;
        Ok(executor)
    }

    /// Takes an executor back: empties it and keeps it, or ends it if enough are idle or it does
    /// not come clean.
    pub fn give_back(&mut self, mut executor: Executor) {
        if self.idle.len() < MAX_IDLE && executor.reset().is_ok() {
            self.idle.push(executor);
        }
    }

    /// The lowest guest-linear address that executors can map, bytes.
    #[must_use]
    pub fn lowest_address(&self) -> u32 {
        self.lowest
    }

    /// Number of idle executors.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.idle.len()
    }
}
