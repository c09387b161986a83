//! Runs the target `certificates` of `coracle_tests::fuzz`.

#![no_main]

use coracle_tests::fuzz::Target;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let target = Target::from_name("certificates").expect("it is in the table");
    (target.run)(input);
});
