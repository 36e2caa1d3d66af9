//! sim-tests: what must hold whatever goes wrong.
//!
//! `cargo test -p sim-tests` plays seeds; `MADSIM_TEST_SEED=42 cargo test -p sim-tests` plays one of them again.

#[cfg(not(madsim))]
compile_error!(
    "the simulation needs `--cfg madsim`, which this workspace's .cargo/config.toml sets. It is missing because \
     RUSTFLAGS is set, which overrides that file, or because cargo was called from outside the workspace. \
     Unset RUSTFLAGS, and call cargo inside the workspace."
);

#[cfg(madsim)]
pub mod explore;
#[cfg(madsim)]
pub mod invariant;
#[cfg(madsim)]
pub mod oracle;
