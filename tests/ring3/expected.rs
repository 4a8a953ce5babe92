//! What the guest's programs print, and what they should (`expected.txt` explains its form).

use std::collections::BTreeMap;

/// How ring 3 runs, as far as outcomes may depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Nothing runs directly.
    pub translated: bool,
    /// The programs run in their long forms.
    pub long: bool,
}

#[derive(Debug, Default)]
struct Row {
    always: Vec<&'static str>,
    direct: Vec<&'static str>,
    long: Vec<&'static str>,
}

fn table() -> BTreeMap<&'static str, Row> {
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    let mut name = "";
    for line in include_str!("expected.txt").lines() {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let (key, outcome) = line.trim().split_once(": ").expect(line);
        if !line.starts_with(' ') {
            name = key;
            let row = rows.entry(name).or_default();
            assert!(row.always.is_empty(), "{name} stands there twice");
            row.always.push(outcome);
            continue;
        }
        let row = rows.get_mut(name).expect(line);
        match key {
            "direct" => row.direct.push(outcome),
            "long" => row.long.push(outcome),
            _ => panic!("{line}"),
        }
    }
    rows
}

fn fits(pattern: &str, outcome: &str) -> bool {
    if let Some((range, pattern)) = pattern.strip_prefix('{').and_then(|p| p.split_once('}')) {
        let (least, most) = range.split_once('-').expect(range);
        let digits = outcome.chars().take_while(char::is_ascii_digit).count();
        let (number, outcome) = outcome.split_at(digits);
        let [least, most] = [least, most].map(|n| n.parse::<u32>().expect(range));
        let within = number.parse().is_ok_and(|n| (least..=most).contains(&n));
        return within && fits(pattern, outcome);
    }
    match pattern.strip_suffix("...") {
        Some(begin) => outcome.starts_with(begin),
        None => pattern == outcome,
    }
}

/// Everything that is wrong about what the programs printed: outcomes that differ, names that
/// nobody expects, and expected names of these programs (each in its `phases`) that are missing.
pub fn differences(
    lines: impl Iterator<Item = String>,
    programs: &[(&str, &[&str])],
    conditions: Conditions,
) -> Vec<String> {
    let rows = table();
    let mut wrong = Vec::new();
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for line in lines {
        let Some((full, outcome)) = line
            .find("R3:")
            .and_then(|at| line[at + 3..].split_once(':'))
            .filter(|(name, _)| name.contains('/'))
        else {
            continue;
        };
        *seen.entry(full.to_string()).or_default() += 1;
        let name = full.strip_prefix("hot-").unwrap_or(full);
        let Some(row) = rows.get(name) else {
            wrong.push(format!("unexpected: {full}: {outcome}"));
            continue;
        };
        let more: [(bool, &[&str]); 3] = [
            (true, &row.always),
            (!conditions.translated, &row.direct),
            (conditions.long, &row.long),
        ];
        let right = more
            .iter()
            .filter(|(applies, _)| *applies)
            .flat_map(|(_, patterns)| *patterns)
            .any(|pattern| fits(pattern, outcome));
        if !right {
            wrong.push(format!(
                "{full}:\n  expected {}\n  found    {outcome}",
                row.always.join(" or ")
            ));
        }
    }
    for (program, phases) in programs {
        let prefix = format!("{program}/");
        for name in rows
            .iter()
            .filter(|(name, row)| name.starts_with(&prefix) && row.always != ["never"])
            .map(|(name, _)| name)
        {
            for phase in *phases {
                if !seen.contains_key(&format!("{phase}{name}")) {
                    wrong.push(format!("missing: {phase}{name}"));
                }
            }
        }
    }
    wrong
}

#[test]
fn ranges_and_beginnings_fit() {
    for (pattern, outcome, fit) in [
        ("ran", "ran", true),
        ("ran", "ran, eax 0", false),
        ("ran...", "ran, eax 0", true),
        ("{12-14} of 20...", "13 of 20, one taken", true),
        ("{12-14} of 20", "14 of 20", true),
        ("{12-14} of 20", "15 of 20", false),
        ("{12-14} of 20", " of 20", false),
        ("{12-14} of 20", "13 of 21", false),
    ] {
        assert_eq!(fits(pattern, outcome), fit, "{pattern}: {outcome}");
    }
}
