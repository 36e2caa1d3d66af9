//! omb-examples: small programs that show the machines of the core at work, without a network or a clock.
//!
//! The YAML files beside this package are what `omb run` reads.
