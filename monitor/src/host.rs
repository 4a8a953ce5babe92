//! What the machine that ring3 runs on must offer, and what else it offers.
#![allow(unsafe_code)] // a trial reservation and AT_HWCAP2 go through libc

mod offers;

pub use offers::{Offer, offers};

use crate::cpu::cpuid_host::cpuid;
use std::arch::is_x86_feature_detected;

/// A requirement that this host does not meet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// No BMI2.
    #[error(
        "this processor has no BMI2 (RORX, SHLX), which translated code uses: a processor from 2013 or later is needed"
    )]
    NoBmi2,
    /// FSGSBASE is absent or not enabled by the kernel.
    #[error(
        "FSGSBASE is not available to programs: it needs a processor from 2012 or later and Linux 5.9 or later, without the 'nofsgsbase' option"
    )]
    NoFsGsBase,
    /// No XSAVE.
    #[error(
        "XSAVE is not available to programs: check that the kernel was not started with 'noxsave'"
    )]
    NoXsave,
    /// The XSAVE image is larger than the monitor keeps room for.
    #[error(
        "this processor's XSAVE image has {0} bytes and ring3 keeps room for 4096: start the kernel with AMX disabled"
    )]
    XsaveTooLarge(u32),
    /// memfd_create failed.
    #[error("the kernel gave no memfd for guest memory: {0}")]
    NoMemfd(String),
    /// No room for the linear window.
    #[error(
        "cannot reserve 8 GiB of address space for the guest's linear window: {0}; check 'ulimit -v'"
    )]
    NoAddressSpace(String),
}

/// What was found out about the host.
#[derive(Clone, Debug)]
pub struct HostReport {
    /// The processor's name.
    pub processor: String,
    /// Each requirement and whether it is met.
    pub requirements: Vec<(&'static str, Result<String, HostError>)>,
    /// What can be done without.
    pub offers: Vec<Offer>,
    /// Facts that nothing depends on: name and value.
    pub facts: Vec<(&'static str, String)>,
}

impl HostReport {
    /// Looks at the host. Takes a few milliseconds, and a process that is started and ended.
    #[must_use]
    pub fn collect() -> Self {
        let requirements = vec![
            ("BMI2", check_bmi2()),
            ("FSGSBASE", check_fsgsbase()),
            ("XSAVE", check_xsave()),
            ("memfd", check_memfd()),
            ("address space", check_window()),
        ];
        let clock = crate::clock::VmClock::new();
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let facts = vec![
            ("processors", cpus.to_string()),
            (
                "time stamp counter",
                format!("{:.1} MHz", clock.tsc_hz() as f64 / 1e6),
            ),
            (
                "vm.mmap_min_addr",
                read_sysctl("/proc/sys/vm/mmap_min_addr"),
            ),
        ];
        Self {
            processor: processor_name(),
            requirements,
            offers: offers(),
            facts,
        }
    }

    /// The first requirement that is not met.
    #[must_use]
    pub fn first_error(&self) -> Option<&HostError> {
        self.requirements.iter().find_map(|(_, r)| r.as_ref().err())
    }
}

/// Checks what a machine needs before it is built.
/// # Errors
/// The first requirement that this host does not meet.
pub fn check_requirements() -> Result<(), HostError> {
    check_bmi2()?;
    check_fsgsbase()?;
    check_xsave()?;
    check_memfd()?;
    check_window()?;
    Ok(())
}

fn check_bmi2() -> Result<String, HostError> {
    if is_x86_feature_detected!("bmi2") {
        Ok("present".into())
    } else {
        Err(HostError::NoBmi2)
    }
}

/// AT_HWCAP2 bit 1 says that the kernel lets programs use WRGSBASE. Linux
/// `arch/x86/include/uapi/asm/hwcap2.h`.
fn check_fsgsbase() -> Result<String, HostError> {
    const HWCAP2_FSGSBASE: u64 = 1 << 1;
    // SAFETY: getauxval reads the process's auxiliary vector and has no preconditions.
    let hwcap2 = unsafe { libc::getauxval(libc::AT_HWCAP2) };
    if hwcap2 & HWCAP2_FSGSBASE == 0 {
        return Err(HostError::NoFsGsBase);
    }
    Ok("enabled".into())
}

fn check_xsave() -> Result<String, HostError> {
    if !is_x86_feature_detected!("xsave") {
        return Err(HostError::NoXsave);
    }
    // Leaf 0xD.0: EBX is the size of the image for the features that XCR0 enables now.
    let [_, bytes, ..] = cpuid(0xd, 0);
    if bytes as usize > ring3_translator::state::XSAVE_BYTES {
        return Err(HostError::XsaveTooLarge(bytes));
    }
    Ok(format!("{bytes} bytes of state"))
}

fn check_memfd() -> Result<String, HostError> {
    let fail = |e: nix::Error| HostError::NoMemfd(e.desc().to_owned());
    let fd = nix::sys::memfd::memfd_create(c"ring3-check", nix::sys::memfd::MFdFlags::MFD_CLOEXEC)
        .map_err(fail)?;
    nix::unistd::ftruncate(&fd, 4096).map_err(fail)?;
    Ok("works".into())
}

/// The window is 4 GiB, aligned to 4 GiB, plus guards: 8 GiB and some always hold one.
fn check_window() -> Result<String, HostError> {
    const TRIAL: usize = 9 << 30;
    // SAFETY: an anonymous PROT_NONE mapping at an address of the kernel's choice touches
    // nothing that exists; it is unmapped below with the same length.
    let at = unsafe {
        libc::mmap(
            core::ptr::null_mut(),
            TRIAL,
            libc::PROT_NONE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if at == libc::MAP_FAILED {
        return Err(HostError::NoAddressSpace(
            std::io::Error::last_os_error().to_string(),
        ));
    }
    // SAFETY: exactly the mapping made above, which nothing refers to.
    unsafe { libc::munmap(at, TRIAL) };
    Ok("a 4 GiB window fits".into())
}

fn read_sysctl(path: &str) -> String {
    std::fs::read_to_string(path).map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}

/// CPUID leaves 0x80000002-4: the brand string.
fn processor_name() -> String {
    if cpuid(0x8000_0000, 0)[0] < 0x8000_0004 {
        return "unknown".into();
    }
    let bytes: Vec<u8> = (0x8000_0002..=0x8000_0004)
        .flat_map(|leaf| cpuid(leaf, 0))
        .flat_map(u32::to_le_bytes)
        .take_while(|&b| b != 0)
        .collect();
    String::from_utf8_lossy(&bytes).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn report_and_check_agree() {
        let report = HostReport::collect();
        assert_eq!(report.first_error().cloned(), check_requirements().err());
        assert!(!report.processor.is_empty());
    }

    #[test]
    fn each_error_is_one_sentence() {
        for e in [
            HostError::NoBmi2,
            HostError::NoFsGsBase,
            HostError::NoXsave,
            HostError::XsaveTooLarge(9000),
            HostError::NoMemfd("x".into()),
            HostError::NoAddressSpace("x".into()),
        ] {
            assert!(!e.to_string().contains('\n') && e.to_string().len() > 20);
        }
    }
}
