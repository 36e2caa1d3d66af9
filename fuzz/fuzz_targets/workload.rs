//! No text makes the reader of workload files panic, and what it accepts reads back as the same workload.
//!
//! `cargo +nightly fuzz run workload`
#![no_main]

use libfuzzer_sys::fuzz_target;
use omb_bench::config::workload;
use omb_machine::config::Leniency;

fuzz_target!(|text: &str| {
    for leniency in [Leniency::Strict, Leniency::Lenient] {
        if let Ok(parsed) = workload::parse("w.yaml", text, leniency) {
            let resolved = parsed.value.resolved().to_string();
            let again =
                workload::parse("w.json", &resolved, Leniency::Strict).expect("what is resolved is well-formed");
            assert_eq!(again.value, parsed.value);
        }
    }
});
