//! What runs cases.

use crate::case::{Case, Outcome};

/// A processor, real or translated.
pub trait Engine {
    /// A short name for reports.
    fn name(&self) -> String;
    /// True if it runs cases at CPL 3, so that cases whose outcome depends on CPL are comparable.
    fn accepts_user_only(&self) -> bool;
    /// Whether this engine has every instruction of the case; else each raises #UD.
    fn accepts(&self, case: &Case) -> bool;
    /// XCR0-like mask of the state components that it has: bit 0 x87, 1 SSE, 2 AVX, 5-7 AVX-512.
    fn components(&self) -> u64;
    /// Runs the cases, each from its own initial state; one outcome for each, in order.
    fn run_batch(&mut self, cases: &[Case]) -> Vec<Outcome>;
    /// Runs one case.
    fn run(&mut self, case: &Case) -> Outcome {
        self.run_batch(std::slice::from_ref(case))
            .pop()
            .unwrap_or_else(|| Outcome::lost("no outcome"))
    }
}
