//! What ships has no deliberate bugs in it, not even switched off.

use std::path::Path;

use coracle_core::mutant::Mutant;
use coracle_tests::live::program;

/// Which mutants' names the program at `path` holds.
fn mutants_in(path: &Path) -> Vec<&'static str> {
    let bytes = std::fs::read(path).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    Mutant::all().map(Mutant::name).filter(|name| text.contains(name)).collect()
}

/// The simulator links the core with the feature, and names no mutant of its own: so the names are
/// found where they are.
#[test]
fn the_program_that_ships_holds_no_mutant() {
    let with_feature = mutants_in(Path::new(env!("CARGO_BIN_EXE_simulate")));
    assert_eq!(with_feature.len(), Mutant::all().count(), "{with_feature:?}");
    assert_eq!(mutants_in(program()), [""; 0]);
}
