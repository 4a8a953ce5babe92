//! Boots recipes under QEMU's translator and checks their proofs: a guest that fails here fails
//! by itself, not by this project. `peer NAME…`, or `peer all`; `peer --prepare NAME…` only
//! fetches and builds, and prints the files.

use ring3_guests::cache::Cache;
use ring3_guests::{GuestError, Recipe, Refresh, prepare, session};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    let prepare_only = names.first().is_some_and(|n| n == "--prepare");
    if prepare_only {
        names.remove(0);
    }
    match work(&names, prepare_only) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            eprintln!("{failed} failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("peer: {error}");
            ExitCode::from(2)
        }
    }
}

/// Every flavour that ends by itself.
fn all() -> Result<Vec<String>, GuestError> {
    let mut names = Vec::new();
    for recipe in Recipe::all()? {
        for flavour in recipe.flavours.iter().filter(|f| f.name != "shell") {
            names.push(format!("{}/{}", recipe.name, flavour.name));
        }
    }
    Ok(names)
}

fn work(names: &[String], prepare_only: bool) -> Result<u32, GuestError> {
    let names = if names == ["all"] {
        all()?
    } else {
        names.to_vec()
    };
    let root = Cache::default_root()?;
    let mut failed = 0;
    for name in names {
        let image = prepare(&root, &name, Refresh::IfMissing)?;
        if prepare_only {
            let initrd = image
                .initrd
                .map(|p| p.display().to_string())
                .unwrap_or_default();
            println!(
                "{name}\t{}\t{initrd}\t{}",
                image.kernel.display(),
                image.origin
            );
            continue;
        }
        let serial = root.join(format!("peer-{}.serial", std::process::id()));
        let command = session::qemu_command(&image, &serial);
        match session::run(
            command,
            &serial,
            Duration::from_secs(image.proof.timeout_seconds),
        ) {
            Ok(transcript) => {
                let missing = transcript.missing(&image.proof);
                if missing.is_empty() {
                    println!("ok   {name} ({:.1} s)", transcript.elapsed.as_secs_f64());
                } else {
                    failed += 1;
                    println!("FAIL {name}: {}\n{}", missing.join("; "), transcript.text());
                }
            }
            Err(error) => {
                failed += 1;
                println!("FAIL {name}: {error}");
            }
        }
        // Only a temporary file: that it may stay behind does no harm.
        let _ = std::fs::remove_file(&serial);
    }
    Ok(failed)
}
