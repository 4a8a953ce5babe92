//! What a host may or may not offer, and what follows where it does not.
#![allow(unsafe_code)] // two system calls that only ask

use crate::cpu::cpuid::{CpuModel, Vendor};
use crate::cpu::cpuid_host::cpuid;
use crate::executor;
use std::arch::is_x86_feature_detected;
use std::fs;

/// Something that ring3 can use and can do without.
#[derive(Clone, Debug)]
pub struct Offer {
    /// What it is.
    pub name: &'static str,
    /// Whether it is there, and what is known about it.
    pub found: Result<String, String>,
    /// What follows where it is absent, one line.
    pub otherwise: &'static str,
}

/// Below this many mappings an address space of a guest program may not fit into a process.
const USUAL_MAPPINGS: u64 = 65_530;

/// Everything that is optional. Starts and ends a process to try direct execution.
#[must_use]
pub fn offers() -> Vec<Offer> {
    let offer = |name, found, otherwise| Offer {
        name,
        found,
        otherwise,
    };
    vec![
        offer(
            "direct execution",
            executor::host_support()
                .map(|()| "32-bit code runs, traced and jailed".into())
                .map_err(|e| e.to_string().replace("no direct execution: ", "")),
            "ring 3 stays translated",
        ),
        offer("ptrace", ptrace(), "no direct execution"),
        offer("seccomp filters", seccomp(), "no direct execution"),
        offer(
            "IA32 emulation",
            directly(executor::int80_is_call(), "int 0x80 stops as a system call"),
            "nothing: int 0x80 stops as #GP where ring 3 runs directly",
        ),
        offer(
            "SYSENTER",
            directly(executor::sysenter_traps(), "traps exactly in 32-bit code"),
            "guests are not offered it where ring 3 may run directly",
        ),
        offer(
            "XSAVEOPT",
            feature(is_x86_feature_detected!("xsaveopt")),
            "saving FPU state by XSAVE costs more",
        ),
        offer(
            "fast PEXT",
            fast_pext(),
            "memory accesses of translated ring-3 code are several times slower",
        ),
        offer(
            "AVX",
            feature(is_x86_feature_detected!("avx")),
            "guests are offered no AVX",
        ),
        offer(
            "AVX2",
            feature(is_x86_feature_detected!("avx2")),
            "nothing: guests are offered no AVX2 in any case",
        ),
        offer(
            "invariant TSC",
            invariant_tsc(),
            "a guest's clock may drift where it trusts the TSC",
        ),
        offer(
            "modify_ldt",
            modify_ldt(),
            "only tests need it: 16-bit code cannot be compared with the processor",
        ),
        offer(
            "vm.max_map_count",
            mappings(),
            "large programs lose mappings more often where they run directly",
        ),
        offer(
            "huge pages",
            huge_pages(),
            "guest memory is in pages of 4 KiB: its first touch and TLB misses cost more",
        ),
        offer(
            "/dev/kvm",
            kvm(),
            "nothing: there is no engine that uses it",
        ),
    ]
}

/// What was tried in an executor.
fn directly(works: bool, how: &str) -> Result<String, String> {
    if works {
        Ok(how.into())
    } else {
        Err("it does not, or nothing runs directly".into())
    }
}

fn feature(has: bool) -> Result<String, String> {
    if has {
        Ok("present".into())
    } else {
        Err("not on this processor, or not enabled by the kernel".into())
    }
}

fn sysctl(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|t| t.trim().to_owned())
}

/// Yama's scope 3 forbids it to everyone; Linux Documentation/admin-guide/LSM/Yama.rst.
fn ptrace() -> Result<String, String> {
    match sysctl("/proc/sys/kernel/yama/ptrace_scope").as_deref() {
        Some("3") => Err("kernel.yama.ptrace_scope is 3".into()),
        Some(scope) => Ok(format!("kernel.yama.ptrace_scope is {scope}")),
        None => Ok("not restricted by Yama".into()),
    }
}

fn seccomp() -> Result<String, String> {
    let action = libc::SECCOMP_RET_KILL_PROCESS;
    // SAFETY: the call reads one u32 and changes nothing.
    let result = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_GET_ACTION_AVAIL,
            0,
            &raw const action,
        )
    };
    if result == 0 {
        Ok("present".into())
    } else {
        Err(std::io::Error::last_os_error().to_string())
    }
}

/// AMD processors before Zen 3 (family 19H) execute PEXT in microcode.
fn fast_pext() -> Result<String, String> {
    let amd = CpuModel::host_default().vendor() == Vendor::Amd;
    let signature = cpuid(1, 0)[0];
    let family = (signature >> 8 & 15) + (signature >> 20 & 255);
    if amd && family < 0x19 {
        Err(format!("AMD processor of family {family:02X}h"))
    } else {
        Ok(format!("family {family:02X}h"))
    }
}

/// CPUID 80000007H.EDX[8].
fn invariant_tsc() -> Result<String, String> {
    if cpuid(0x8000_0000, 0)[0] >= 0x8000_0007 && cpuid(0x8000_0007, 0)[3] & 1 << 8 != 0 {
        Ok("present".into())
    } else {
        Err("the processor does not promise it".into())
    }
}

fn modify_ldt() -> Result<String, String> {
    let mut buffer = [0u8; 8];
    // SAFETY: function 0 writes at most the given number of bytes of the local descriptor table.
    let result = unsafe {
        libc::syscall(
            libc::SYS_modify_ldt,
            0,
            buffer.as_mut_ptr(),
            buffer.len() as libc::c_ulong,
        )
    };
    if result >= 0 {
        Ok("present".into())
    } else {
        Err(std::io::Error::last_os_error().to_string())
    }
}

fn mappings() -> Result<String, String> {
    let Some(text) = sysctl("/proc/sys/vm/max_map_count") else {
        return Err("unknown".into());
    };
    match text.parse::<u64>() {
        Ok(n) if n >= USUAL_MAPPINGS => Ok(text),
        _ => Err(text),
    }
}

/// Whether shared memory can have them: the RAM memfd is collapsed by MADV_COLLAPSE or at faults.
fn huge_pages() -> Result<String, String> {
    let path = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
    let Some(text) = sysctl(path) else {
        return Err("the kernel has no transparent huge pages for shared memory".into());
    };
    let chosen = text
        .split_whitespace()
        .find_map(|w| w.strip_prefix('[')?.strip_suffix(']'))
        .unwrap_or(&text)
        .to_owned();
    if chosen == "deny" {
        Err(format!("{path} is {chosen}"))
    } else {
        Ok(format!("shmem_enabled is {chosen}"))
    }
}

fn kvm() -> Result<String, String> {
    fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map(|_| "can be opened".into())
        .map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_offer_is_told_in_one_line() {
        let all = offers();
        assert!(all.len() > 10);
        for offer in all {
            let (Ok(text) | Err(text)) = &offer.found;
            assert!(
                !text.is_empty() && !text.contains('\n'),
                "{}: {text}",
                offer.name
            );
            assert!(!offer.otherwise.is_empty() && !offer.otherwise.contains('\n'));
        }
    }
}
