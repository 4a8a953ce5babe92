//! One translator under test: translates inputs, checks what came out.

use crate::input::Input;
use ring3_monitor::cpu::cpuid::CpuModel;
use ring3_translator::cache::{Key, Source, Translator, UnitId};
use ring3_translator::classify::FeatureSet;
use ring3_translator::scan::MAX_INSTRUCTIONS;
use ring3_translator::state_box::StateBox;
use ring3_translator::verify;

/// Most host bytes for one guest instruction.
pub const BYTES_PER_INSTRUCTION: usize = 640;
/// Most host bytes of any unit: what the cache keeps free for the next one.
pub const UNIT_BYTES: usize = 64 * 1024;
/// Most sites, links and marks for one guest instruction.
const RECORDS_PER_INSTRUCTION: usize = 16;

/// What one translation came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Made {
    /// Guest instructions.
    pub instructions: usize,
    /// Host instructions.
    pub host_instructions: usize,
    /// Host bytes.
    pub host_bytes: usize,
    /// The next translation takes its place: nothing may jump to it.
    pub once: bool,
}

/// A cache with a processor state.
pub struct Subject {
    /// The cache.
    pub translator: Translator,
    /// The state that its jump caches are in.
    pub state: StateBox,
}

impl Subject {
    /// A cache of `bytes` for the host's processor model.
    /// # Errors
    /// When the host refuses the memory, or the fixed code breaks a rule.
    pub fn new(bytes: usize) -> Result<Self, String> {
        let model = CpuModel::host_default();
        let features = FeatureSet::new(|f| model.supports(f));
        let translator = Translator::new(bytes, &features).map_err(|e| e.to_string())?;
        let mut state = StateBox::new();
        translator.clear_jump_caches(&mut state);
        verify::prelude(&translator).map_err(|v| list("fixed code", &v))?;
        Ok(Self { translator, state })
    }

    /// Translates an input and checks what was emitted. None: the bytes hold no whole instruction.
    /// # Errors
    /// What is wrong with the emitted code.
    pub fn translate(&mut self, input: &Input) -> Result<Option<(UnitId, Made)>, String> {
        if !self.translator.has_room() {
            self.translator.flush(&mut self.state);
        }
        for &at in &input.adapted {
            self.translator
                .adapt(&mut self.state, input.phys + u64::from(at));
        }
        let source = Source {
            key: Key {
                phys: input.phys,
                eip: input.eip,
                mode: input.mode,
            },
            bytes: &input.bytes,
            second_page: Some((input.phys & !0xfff) + 0x5000),
            chain: input.chain,
            chain_pages: input.chain_pages,
        };
        // A unit for one use has no links: the run loop makes them in single-instruction modes.
        let unchained = !input.chain || input.mode.is_single_instruction();
        let once = unchained && input.phys & 0x1000 != 0;
        let result = if once {
            self.translator.translate_once(&source)
        } else {
            self.translator.translate(&source)
        };
        let Ok(id) = result else {
            return Ok(None);
        };
        let made = self.check(id)?;
        Ok(Some((id, Made { once, ..made })))
    }

    /// Checks a unit's code as it is now, and its size.
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, id: UnitId) -> Result<Made, String> {
        let host_instructions =
            verify::translated(&self.translator, id).map_err(|v| list("emitted code", &v))?;
        let emitted = self.translator.emitted(id);
        let made = Made {
            instructions: self.translator.instructions(id) as usize,
            host_instructions,
            host_bytes: emitted.code.len(),
            once: false,
        };
        let records = emitted.sites.len() + emitted.links.len() + emitted.marks.len();
        if made.instructions > MAX_INSTRUCTIONS
            || made.host_bytes > (made.instructions + 1) * BYTES_PER_INSTRUCTION
            || made.host_bytes > UNIT_BYTES
            || records > (made.instructions + 1) * RECORDS_PER_INSTRUCTION
        {
            return Err(format!("a unit too large: {made:?}, {records} records"));
        }
        Ok(made)
    }
}

fn list(what: &str, violations: &[verify::Violation]) -> String {
    let lines: Vec<String> = violations.iter().map(|v| format!("  {v}")).collect();
    format!("{what} breaks the rules:\n{}", lines.join("\n"))
}
