//! No text makes the reader of driver files panic.
//!
//! `cargo +nightly fuzz run driver`
#![no_main]

use libfuzzer_sys::fuzz_target;
use omb_bench::config::driver;
use omb_machine::config::Leniency;

fuzz_target!(|text: &str| {
    for leniency in [Leniency::Strict, Leniency::Lenient] {
        if let Ok(parsed) = driver::parse("d.yaml", text, leniency) {
            let _ = parsed.value.resolved();
        }
    }
});
