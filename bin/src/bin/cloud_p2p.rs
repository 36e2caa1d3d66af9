//! `cloud-p2p`: `omb node` under its earlier name.

fn main() -> std::process::ExitCode {
    omb::cloud_p2p()
}
