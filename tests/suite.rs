//! The guests that take seconds, driven by their recipes. `ring3 guests run --all` runs all of
//! them, and the same under QEMU.

use std::process::Command;

#[test]
fn quick_guests_do_what_their_recipes_say() {
    let output = Command::new(env!("CARGO_BIN_EXE_ring3"))
        .args(["guests", "run", "--quick", "--peer", "none"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{error}");
    assert!(text.contains("| grub-floppy/commands "), "{text}");
}

#[test]
fn a_guest_that_fails_is_told_with_the_reason_and_in_the_exit_status() {
    let output = Command::new(env!("CARGO_BIN_EXE_ring3"))
        .args(["guests", "run", "debian-686/boot", "tiny-real"])
        .args(["--peer", "none", "--memory", "8M"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("| debian-686/boot | 0/1 "), "{text}");
    assert!(text.contains("| tiny-real/check | ok "), "{text}");
    assert!(text.contains("1 of 2 passed"), "{text}");
    assert!(text.contains("MiB of memory to start"), "{text}");
}
