//! `client`: `omb client` under its earlier name.

fn main() -> std::process::ExitCode {
    omb::client()
}
