//! `ring3 guests`: guests that have recipes.

use crate::cli::{GuestsCommand, GuestsRunOptions, MachineOptions, Peer};
use crate::exit;
use crate::output::print;
use crate::run;
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use ring3_guests::cache::Cache;
use ring3_guests::drive::Monitor;
use ring3_guests::recipe::Runs;
use ring3_guests::session::ring3_machine;
use ring3_guests::suite::{Suite, members, qemu_is_installed};
use ring3_guests::{Image, Recipe, Refresh, prepare};
use std::path::Path;
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
            print(&description(&image))?;
            Ok(ExitCode::SUCCESS)
        }
        GuestsCommand::Run(options) => {
            if let [name] = &options.names[..]
                && (options.console || Recipe::find(name)?.1.runs == Runs::ByHand)
            {
                return on_terminal(name, &options);
            }
            suite(&options)
        }
    }
}

/// What a guest is made of, and how to boot it.
fn description(image: &Image) -> String {
    let mut text = format!("{}: {}\n", image.name, image.origin);
    let files = [("kernel", &image.kernel), ("initrd", &image.initrd)];
    for (what, file) in files {
        if let Some(file) = file {
            text.push_str(&format!("{what}: {}\n", file.display()));
        }
    }
    for (name, file) in &image.parts {
        text.push_str(&format!("{name}: {}\n", file.display()));
    }
    text.push_str("boots by:");
    let command = ring3_machine(Path::new("ring3"), image);
    for word in std::iter::once(command.get_program()).chain(command.get_args()) {
        let word = word.to_string_lossy();
        let plain = !word.is_empty() && !word.contains([' ', '\'', '"', '$', '\\', '*', '(']);
        if plain {
            text.push_str(&format!(" {word}"));
        } else {
            text.push_str(&format!(" '{}'", word.replace('\'', r"'\''")));
        }
    }
    text.push('\n');
    text
}

/// Boots a guest on this terminal, as `ring3 run` would.
fn on_terminal(name: &str, options: &GuestsRunOptions) -> Result<ExitCode> {
    let mut image = prepare(&Cache::default_root()?, name, Refresh::IfMissing)?;
    if let Some(bytes) = options.memory {
        image.boot.memory = in_kib(bytes);
    }
    run::image(&image, &options.machine)
}

/// Drives guests and prints the table.
fn suite(options: &GuestsRunOptions) -> Result<ExitCode> {
    let names = if options.names.is_empty() {
        members(options.quick)?
    } else {
        let mut names = Vec::new();
        for name in &options.names {
            let (recipe, flavour) = Recipe::find(name)?;
            names.push(format!("{}/{}", recipe.name, flavour.name));
        }
        names
    };
    let peer = match options.peer {
        Peer::None => None,
        Peer::Auto if !qemu_is_installed() => None,
        Peer::Qemu if !qemu_is_installed() => {
            bail!("there is no qemu-system-i386 (Debian's package qemu-system-x86 has it)")
        }
        Peer::Auto | Peer::Qemu => Some(Monitor::Qemu),
    };
    let suite = Suite {
        names,
        subject: Monitor::Ring3 {
            program: std::env::current_exe().context("cannot find this very program")?,
            options: passed_on(&options.machine),
        },
        peer,
        repeat: options.repeat,
        screenshots: options.screenshots.clone(),
        memory: options.memory.map(in_kib),
        times: options.times,
    };
    let passed = suite.run(&mut std::io::stdout().lock())?;
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::ERROR)
    })
}

/// How the machines run.
fn passed_on(options: &MachineOptions) -> Vec<String> {
    let mut words = Vec::new();
    let engine = options.engine.to_possible_value();
    let ring3 = options.ring3.to_possible_value();
    for (option, value) in [("--engine", engine), ("--ring3", ring3)] {
        if let Some(value) = value {
            words.extend([option.to_owned(), value.get_name().to_owned()]);
        }
    }
    words
}

fn in_kib(bytes: u64) -> String {
    format!("{}K", bytes >> 10)
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
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
