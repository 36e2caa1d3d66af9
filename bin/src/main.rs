//! `omb`.

fn main() -> std::process::ExitCode {
    omb::omb()
}
