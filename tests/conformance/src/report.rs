//! The printed report: what was covered, what was not and why, what diverged.

use crate::compare::{describe, flag_text};
use crate::coverage::DIMENSIONS;
use crate::runner::{Failure, PROGRAMS, Results};
use crate::text;
use std::collections::BTreeMap;
use std::fmt::Write;

/// The mnemonic of a form's name.
#[must_use]
pub fn family(form: &str) -> String {
    let mut parts = form.split(['_', '@', '/']);
    let first = parts.next().unwrap_or(form);
    let encoding = matches!(first, "VEX" | "EVEX" | "XOP" | "D3NOW");
    parts
        .next()
        .filter(|_| encoding)
        .unwrap_or(first)
        .to_lowercase()
}

/// The report as text. `verbose` lists every form that is not covered by name.
#[must_use]
pub fn render(results: &Results, seed: u64, verbose: bool) -> String {
    let mut t = String::new();
    let _ = writeln!(t, "seed {seed}");
    coverage(&mut t, results, verbose);
    for (engine, cases) in &results.compared {
        let bad: u32 = results
            .diverging
            .iter()
            .filter(|((e, _), _)| e == engine)
            .map(|(_, n)| n)
            .sum();
        let forms = results
            .diverging
            .keys()
            .filter(|(e, _)| e == engine)
            .count();
        let _ = writeln!(
            t,
            "engine {engine}: {cases} cases compared, {bad} diverge in {forms} forms"
        );
    }
    for ((engine, why), n) in &results.not_run {
        let _ = writeln!(t, "engine {engine}: {n} cases not run: {why}");
    }
    if !results.diverging.is_empty() {
        let _ = writeln!(t, "\ndivergences by family (cases, forms):");
        let mut families: BTreeMap<(String, String), (u32, u32)> = BTreeMap::new();
        for ((engine, form), n) in &results.diverging {
            let entry = families.entry((engine.clone(), family(form))).or_default();
            entry.0 += n;
            entry.1 += 1;
        }
        let mut sorted: Vec<_> = families.into_iter().collect();
        sorted.sort_by_key(|(_, (cases, _))| std::cmp::Reverse(*cases));
        for ((engine, family), (cases, forms)) in sorted {
            let _ = writeln!(t, "  {engine:8} {family:16} {cases:6} {forms:4}");
        }
        for failure in &results.failures {
            t.push('\n');
            t.push_str(&render_failure(failure));
        }
    }
    t
}

fn coverage(t: &mut String, results: &Results, verbose: bool) {
    let mut forms = results.forms.clone();
    let programs = forms.remove(PROGRAMS).unwrap_or_default();
    let cases: u32 = forms.values().map(|f| f.cases).sum();
    let ran = forms.values().filter(|f| f.ended > 0).count();
    let only_ud = forms.values().filter(|f| f.only_undefined()).count();
    let only_trap = forms
        .values()
        .filter(|f| f.cases > 0 && f.ended == 0 && !f.only_undefined())
        .count();
    let lost: u32 = forms.values().map(|f| f.lost).sum();
    let trapped: u32 = forms.values().map(|f| f.trapped + f.undefined).sum();
    let _ = writeln!(
        t,
        "forms: {} in the table, {} left out",
        forms.len(),
        results.excluded.len()
    );
    let _ = writeln!(t, "  {ran} executed to the end on the host at least once");
    let _ = writeln!(
        t,
        "  {only_ud} raise #UD on the host (not supported by it); compared as such"
    );
    let _ = writeln!(
        t,
        "  {only_trap} only raise other exceptions at CPL 3; compared as such"
    );
    let _ = writeln!(
        t,
        "cases on the host: {cases}, of these {trapped} with exceptions, {lost} lost"
    );
    let _ = writeln!(
        t,
        "cases with an instruction that the guest's processor does not offer: {}, compared with #UD",
        results.absent
    );
    let _ = writeln!(
        t,
        "random programs on the host: {} of 32-bit and {} of 16-bit code, {} checkpoints; {} of {} \
         reached their end",
        results.programs[1],
        results.programs[0],
        results.checkpoints,
        programs.ended,
        programs.cases
    );
    let _ = writeln!(t, "what the cases exercise (cases, forms):");
    for name in DIMENSIONS {
        let (cases, forms) = results
            .dimensions
            .get(name)
            .map_or((0, 0), |seen| (seen.cases, seen.forms));
        let _ = writeln!(t, "  {cases:8} {forms:6}  {name}");
    }
    let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for e in &results.excluded {
        let name = format!("{:?}@{}", e.code, e.width.bits());
        reasons.entry(e.reason.to_string()).or_default().push(name);
    }
    for (name, f) in forms.iter().filter(|(_, f)| f.cases == 0) {
        let reason = f
            .unmade
            .clone()
            .unwrap_or_else(|| "no case was asked for".into());
        reasons.entry(reason).or_default().push(name.clone());
    }
    let _ = writeln!(t, "forms not covered:");
    for (reason, names) in &reasons {
        let _ = writeln!(t, "  {:5}  {reason}", names.len());
        if verbose {
            for line in names.chunks(6) {
                let _ = writeln!(t, "         {}", line.join(" "));
            }
        }
    }
    if verbose {
        let _ = writeln!(t, "forms that only raise exceptions on the host:");
        for (name, f) in forms.iter().filter(|(_, f)| f.cases > 0 && f.ended == 0) {
            let kind = if f.only_undefined() { "#UD" } else { "other" };
            let _ = writeln!(t, "  {name} {kind}");
        }
    }
}

/// A failure as reproducible text.
#[must_use]
pub fn render_failure(f: &Failure) -> String {
    let mut t = String::new();
    let _ = writeln!(
        t,
        "# ---- {} diverges from the host in {}",
        f.engine, f.form
    );
    let r = &f.expected.regs;
    let _ = writeln!(
        t,
        "# host: {}, eip {:08x}, flags {}",
        describe(&f.expected.stop),
        r.eip,
        flag_text(r.eflags)
    );
    for d in &f.differences {
        let _ = writeln!(t, "# {}: expected {}, got {}", d.what, d.expected, d.got);
    }
    for line in disassemble(&f.case) {
        let _ = writeln!(t, "#   {line}");
    }
    t.push_str(&text::print(&f.case));
    t
}

fn disassemble(case: &crate::case::Case) -> Vec<String> {
    use iced_x86::{Decoder, DecoderOptions, Formatter, IntelFormatter};
    let code = case.code();
    let mut formatter = IntelFormatter::new();
    Decoder::with_ip(
        case.width.bits(),
        &code,
        u64::from(case.regs.eip),
        DecoderOptions::NONE,
    )
    .iter()
    .take(60)
    .map(|i| {
        let mut text = format!("{:08x}  ", i.ip());
        formatter.format(&i, &mut text);
        text
    })
    .collect()
}
