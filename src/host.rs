//! `ring3 host`: what this machine offers.

use crate::exit;
use crate::output::print;
use anyhow::Result;
use ring3_monitor::host::HostReport;
use std::process::ExitCode;

/// Prints the report; the status says whether ring3 can run here.
pub fn run() -> Result<ExitCode> {
    let report = HostReport::collect();
    let mut text = format!("processor: {}\n\nneeded:\n", report.processor);
    for (name, result) in &report.requirements {
        let line = match result {
            Ok(value) => format!("  {name:<20} ok    {value}\n"),
            Err(error) => format!("  {name:<20} LACKS {error}\n"),
        };
        text.push_str(&line);
    }
    text.push_str("\nwanted:\n");
    for offer in &report.offers {
        let line = match &offer.found {
            Ok(value) => format!("  {:<20} yes   {value}\n", offer.name),
            Err(error) => format!("  {:<20} no    {error}; {}\n", offer.name, offer.otherwise),
        };
        text.push_str(&line);
    }
    text.push_str("\nfacts:\n");
    for (name, value) in &report.facts {
        text.push_str(&format!("  {name:<20} {value}\n"));
    }
    print(&text)?;
    Ok(ExitCode::from(if report.first_error().is_some() {
        exit::ERROR
    } else {
        0
    }))
}
