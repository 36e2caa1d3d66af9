//! The source of a connection.

use std::net::{IpAddr, Ipv6Addr};

/// What counts as one source: the owner of an IPv6 address has 2^64 of them.
#[must_use]
pub fn source(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}
