//! sim-tests: what must hold whatever goes wrong.

#[cfg(not(madsim))]
compile_error!(
    "the simulation is built without `--cfg madsim`, so it would run on real time and sockets and prove nothing. The flag stands in \
     .cargo/config.toml; a RUSTFLAGS variable, or calling cargo from outside the workspace, hides it. Cure: unset RUSTFLAGS, or \
     add `--cfg madsim` to it, and run cargo inside the workspace."
);
