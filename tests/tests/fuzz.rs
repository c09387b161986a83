//! Every fuzz target on its corpus, and on some thousand random changes of it.

use coracle_tests::fuzz::{TARGETS, mutate};

/// The number of changed inputs per target: a few seconds in all.
const RUNS: u32 = 10_000;

#[test]
fn no_input_of_the_corpus_fails() {
    for target in TARGETS {
        for input in target.corpus() {
            (target.run)(&input);
        }
    }
}

#[test]
fn no_change_of_the_corpus_fails() {
    for target in TARGETS {
        let (corpus, mut rng) = (target.corpus(), fastrand::Rng::with_seed(1));
        for _ in 0..RUNS {
            let mut input = corpus[rng.usize(..corpus.len())].clone();
            mutate(&mut input, &corpus[rng.usize(..corpus.len())], &mut rng);
            (target.run)(&input);
        }
    }
}

/// A target without a file would not be fuzzed with coverage.
#[test]
fn each_target_of_coverage_has_its_file() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/fuzz_targets");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap().replace(".rs", ""))
        .collect();
    files.sort();
    let mut names: Vec<_> = TARGETS.iter().map(|target| target.name.to_owned()).collect();
    names.sort();
    assert_eq!(files, names);
}
