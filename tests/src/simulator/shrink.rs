//! Shrinking of failing runs: removes parts of the tape, or sets them to zero, while the same
//! property still fails.
//!
//! Zero is the quiet choice everywhere, and an ended tape continues with zeros. So the remaining
//! choices are those that matter.

use std::time::Duration;

use super::run::{Telling, run_tape};

/// Returns a smaller tape on which `property` still fails, found with about `runs_max` runs.
#[must_use]
pub fn shrink(tape: Vec<u32>, fault_time: Duration, property: &str, runs_max: usize) -> Vec<u32> {
    let fails = |tape: &[u32]| {
        let report = run_tape(tape.to_vec(), fault_time, Telling::Silent);
        report.violation.is_some_and(|violation| violation.property == property)
    };
    let mut best = tape;
    let mut runs = 0;
    let mut part = best.len() / 2;
    while part > 0 {
        let mut at = 0;
        while at < best.len() && runs < runs_max {
            let end = (at + part).min(best.len());
            let without = [&best[..at], &best[end..]].concat();
            let mut quiet = best.clone();
            quiet[at..end].fill(0);
            let is_quiet_already = quiet == best;
            runs += 1;
            if fails(&without) {
                best = without;
                continue;
            }
            if !is_quiet_already {
                runs += 1;
                if fails(&quiet) {
                    best = quiet;
                }
            }
            at = end;
        }
        part /= 2;
    }
    best
}

#[cfg(test)]
mod tests {
    use super::super::run::run_seed;
    use super::*;
    use coracle_core::mutant::Mutant;

    #[test]
    fn a_failing_run_gets_smaller_and_still_fails() {
        let fault_time = Duration::from_millis(500);
        Mutant::activate(Some(Mutant::AckBeforeSync));
        let failing = (0..50).map(|seed| run_seed(seed, fault_time, Telling::Silent));
        let report = failing.into_iter().find(|report| report.violation.is_some()).unwrap();
        let property = report.violation.unwrap().property;
        let before = report.tape.len();
        let smaller = shrink(report.tape, fault_time, property, 12);
        let again = run_tape(smaller.clone(), fault_time, Telling::Silent);
        Mutant::activate(None);
        assert!(smaller.len() < before, "{} of {before} choices are left", smaller.len());
        assert_eq!(again.violation.unwrap().property, property);
    }
}
