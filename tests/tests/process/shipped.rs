//! The shipped program holds no mutants (deliberate bugs), not even disabled ones.

use std::path::Path;

use coracle_core::mutant::Mutant;
use coracle_tests::live::program;

/// Returns the mutants whose names occur in the program at `path`.
fn mutants_in(path: &Path) -> Vec<&'static str> {
    let bytes = std::fs::read(path).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    Mutant::all().map(Mutant::name).filter(|name| text.contains(name)).collect()
}

/// The check can fail: the simulator links the core with the mutants' feature, and the names are
/// found in it, although its own code names no mutant.
#[test]
fn the_program_that_ships_holds_no_mutant() {
    let with_feature = mutants_in(Path::new(env!("CARGO_BIN_EXE_simulate")));
    assert_eq!(with_feature.len(), Mutant::all().count(), "{with_feature:?}");
    assert_eq!(mutants_in(program()), [""; 0]);
}
