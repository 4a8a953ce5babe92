//! `ring3 guests`: guests that have recipes.

use crate::cli::GuestsCommand;
use crate::run::{configuration, start};
use anyhow::Result;
use ring3_guests::cache::Cache;
use ring3_guests::{Recipe, Refresh, prepare};
use ring3_monitor::config::{BootSource, parse_memory_size};
use std::io::Write;
use std::process::ExitCode;

/// Runs one of the subcommands.
pub fn run(command: GuestsCommand) -> Result<ExitCode> {
    match command {
        GuestsCommand::List => list(),
        GuestsCommand::Fetch { name, refresh } => {
            let refresh = if refresh {
                Refresh::Always
            } else {
                Refresh::IfMissing
            };
            let image = prepare(&Cache::default_root()?, &name, refresh)?;
            let mut text = format!(
                "{}: {}\nkernel: {}\n",
                image.name,
                image.origin,
                image.kernel.display()
            );
            if let Some(initrd) = &image.initrd {
                text.push_str(&format!("initrd: {}\n", initrd.display()));
            }
            let _ = std::io::stdout().write_all(text.as_bytes());
            Ok(ExitCode::SUCCESS)
        }
        GuestsCommand::Run {
            name,
            memory,
            machine,
        } => {
            let image = prepare(&Cache::default_root()?, &name, Refresh::IfMissing)?;
            let memory = match memory {
                Some(bytes) => bytes,
                None => parse_memory_size(&image.memory)?,
            };
            let boot = BootSource::Linux {
                kernel: image.kernel,
                initrd: image.initrd,
                cmdline: image.append,
            };
            start(configuration(boot, memory, image.debug_exit, &machine)?)
        }
    }
}

fn list() -> Result<ExitCode> {
    let mut text = String::new();
    for recipe in Recipe::all()? {
        text.push_str(&format!("{:<24} {}\n", recipe.name, recipe.description));
        if recipe.flavours.len() > 1 {
            for flavour in &recipe.flavours {
                let name = format!("{}/{}", recipe.name, flavour.name);
                text.push_str(&format!("  {name:<30} {}\n", flavour.description));
            }
        }
    }
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(ExitCode::SUCCESS)
}
