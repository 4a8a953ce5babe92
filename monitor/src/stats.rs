//! The report of a run: what ran where, and what it cost.

use crate::clock::VmClock;
use crate::vcpu::Vcpu;
use crate::vcpu::core::Core;
use serde_json::{Value, json};
use std::fmt;

/// Counters of a finished run.
pub struct Report(Value);

/// The entries of a list that are not 0, by index.
fn numbered(list: &[u64]) -> Value {
    let entries = list.iter().enumerate().filter(|(_, v)| **v > 0);
    Value::Object(entries.map(|(i, v)| (i.to_string(), json!(v))).collect())
}

/// Direct execution.
fn direct(core: &Core) -> Value {
    let d = &core.direct.stats;
    json!({

    "promotions": d.promotions, "demotions": d.demotions, "ended": d.ended,
    "promotion_us": (d.promotion_ns / 1000).checked_div(d.promotions).unwrap_or(0),
    "promotion_max_us": d.promotion_max_ns / 1000,
    "trap_ns": d.trap_ns.0, "trap_cpu_ns": d.trap_ns.1, "entries": d.entries, "time_ms": d.time_ns / 1_000_000,
    "misses": d.misses, "write_misses": d.write_misses, "page_faults": d.page_faults,
    "system_calls": d.system_calls, "gate_calls": d.gate_calls,
    "exceptions": numbered(&d.exceptions), "kicks": d.kicks,
    "foreign": d.foreign, "selectors": d.selectors,
    "translated_pages": d.translated_pages, "fpu_loads": d.fpu_loads,
    "pages_mapped": d.pages_mapped, "pages_dropped": d.pages_dropped, "evictions": d.evictions,
    "most_mappings": d.most_mappings, "started": d.started, "killed": d.killed, "errors": d.errors,
    "last_error": d.last_error, "promoted": core.direct.promoted(), "watched_tables": core.direct.watched_tables(),
    })
}

impl Report {
    /// Reads every counter.
    #[must_use]
    pub fn collect(vcpu: &Vcpu, clock: &VmClock) -> Self {
        let core = vcpu.core();
        let s = &core.stats;
        let t = core.translator.stats();
        let m = &core.mmu.stats;
        let w = &core.mmu.window.stats;
        let named = |counts: &mut dyn Iterator<Item = (iced_x86::Mnemonic, u64)>| {
            let mut list: Vec<_> = counts
                .map(|(k, v)| (format!("{k:?}").to_lowercase(), v))
                .collect();
            list.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
            Value::Object(list.into_iter().map(|(k, v)| (k, json!(v))).collect())
        };
        let mut adapted: Vec<String> = core
            .translator
            .adapted_sites()
            .map(|p| format!("{p:#x}"))
            .collect();
        adapted.sort();
        let ns = t.time.as_nanos() as u64;
        Self(json!({
            "vm_time_ms": clock.now_ns() / 1_000_000,
            "entries": { "window": s.entries[0], "soft": s.entries[1] },
            "exits": {
                "link": s.exits[0], "indirect": s.exits[1], "helper": s.exits[2], "fault": s.exits[3], "end": s.exits[4],
            },
            "callouts": named(&mut s.callouts_by_mnemonic()),
            "unsupported": named(&mut s.unsupported.iter().map(|(k, v)| (*k, *v))),
            "exceptions": numbered(&s.exceptions),
            "interrupts": s.interrupts,
            "software_interrupts": s.software_interrupts,
            "halts": s.halts,
            "host_faults": numbered(&s.host_faults),
            "polls": s.polls,
            "soft_misses": s.soft_misses,
            "jump_cache_switches": s.table_switches,
            "translator": {
                "units": t.units, "instructions": t.instructions, "guest_bytes": t.guest_bytes,
                "host_bytes": t.host_bytes, "links": t.links, "invalidated": t.invalidated, "flushes": t.flushes,
                "time_us": ns / 1000, "ns_per_instruction": ns.checked_div(t.instructions).unwrap_or(0),
            },
            "memory": {
                "tlb_fills": m.tlb_fills, "flush_all": m.flush_all, "flush_non_global": m.flush_non_global,
                "invlpg": m.invlpg, "fetch_walks": m.fetch_walks, "window_misses": m.window_misses, "logged_writes": m.logged_writes,
                "window_maps": w.maps, "window_pages": w.pages, "window_drops": w.drops, "window_protects": w.protects,
                "window_mappings": core.mmu.window.len(),
            },
            "direct": direct(core),
            "adapted_sites": adapted,
        }))
    }

    /// As one JSON object.
    #[must_use]
    pub fn json(&self) -> String {
        self.0.to_string()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        table(f, "", &self.0)
    }
}

fn table(f: &mut fmt::Formatter<'_>, prefix: &str, value: &Value) -> fmt::Result {
    match value {
        Value::Object(map) => {
            for (key, v) in map {
                let name = if prefix.is_empty() {
                    key.clone()
                } else {
                    format!("{prefix}.{key}")
                };
                table(f, &name, v)?;
            }
            Ok(())
        }
        Value::Array(list) => {
            writeln!(f, "{prefix:<40} {:>16}", list.len())?;
            for item in list {
                writeln!(f, "    {}", item.as_str().unwrap_or_default())?;
            }
            Ok(())
        }
        v => writeln!(f, "{prefix:<40} {v:>16}"),
    }
}
