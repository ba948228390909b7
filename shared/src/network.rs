//! Networks: how clients are counted by their addresses, and which proxies are trusted.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A range of addresses, such as `10.0.0.0/8` or `::1`. It is made from parsed addresses only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Network {
    /// Zero beyond the prefix.
    address: IpAddr,
    prefix_bits: u8,
}

/// Why a text is not a [`Network`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an address, or a network such as 10.0.0.0/8, whose address is zero beyond its prefix")]
pub struct InvalidNetwork;

/// A single household or machine is given this much of IPv6, and changes its address within it at will.
const IPV6_CLIENT_BITS: u8 = 64;

impl Network {
    /// What one client has: an address of IPv4, or a /64 of IPv6.
    #[must_use]
    pub fn of_client(address: IpAddr) -> Self {
        match address.to_canonical() {
            address @ IpAddr::V4(_) => Self { address, prefix_bits: 32 },
            address @ IpAddr::V6(_) => {
                Self { address: masked(address, IPV6_CLIENT_BITS), prefix_bits: IPV6_CLIENT_BITS }
            }
        }
    }

    /// An address of IPv4 that is written as one of IPv6 (`::ffff:10.0.0.1`) is one of IPv4.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && masked(address, self.prefix_bits) == self.address
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn masked(address: IpAddr, prefix_bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(u32::from(32 - prefix_bits)).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(u32::from(128 - prefix_bits)).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

impl FromStr for Network {
    type Err = InvalidNetwork;
    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| InvalidNetwork)?;
        let prefix_bits = match prefix {
            None => bits(address),
            // A number would also be read from `+8` and `08`.
            Some(prefix) => {
                prefix.parse::<u8>().ok().filter(|bits| bits.to_string() == prefix).ok_or(InvalidNetwork)?
            }
        };
        if prefix_bits <= bits(address) && masked(address, prefix_bits) == address {
            Ok(Self { address, prefix_bits })
        } else {
            Err(InvalidNetwork)
        }
    }
}

/// The address alone when it is the whole network.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, prefix_bits } = *self;
        if prefix_bits == bits(address) {
            write!(f, "{address}")
        } else {
            write!(f, "{address}/{prefix_bits}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_have_one_spelling() {
        for text in ["10.0.0.0/8", "127.0.0.1", "0.0.0.0/0", "::/0", "::1", "fd00::/8", "2001:db8::/64"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "/",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0/8",
            "::1/129",
            "::1/64",
            "localhost",
            "10.0.0.1:80",
            "[::1]",
            " ::1",
            "10.0.0.0/8/8",
        ] {
            assert_eq!(text.parse::<Network>(), Err(InvalidNetwork), "{text}");
        }
    }

    #[test]
    fn what_a_network_contains() {
        let contains = |network: &str, address: &str| {
            network.parse::<Network>().unwrap().contains(address.parse().unwrap())
        };
        assert!(contains("10.0.0.0/8", "10.255.0.1") && !contains("10.0.0.0/8", "11.0.0.1"));
        assert!(contains("127.0.0.1", "127.0.0.1") && !contains("127.0.0.1", "127.0.0.2"));
        assert!(contains("0.0.0.0/0", "203.0.113.7") && !contains("0.0.0.0/0", "::1"));
        assert!(contains("10.0.0.0/8", "::ffff:10.0.0.1"), "IPv4 within IPv6");
        assert!(contains("fd00::/8", "fdff::1") && !contains("::/0", "10.0.0.1"));
    }

    #[test]
    fn clients_are_counted_by_what_they_are_given() {
        let of = |text: &str| Network::of_client(text.parse().unwrap()).to_string();
        assert_eq!(of("203.0.113.7"), "203.0.113.7");
        assert_eq!(of("::ffff:203.0.113.7"), "203.0.113.7");
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::/64");
        assert_eq!(of("2001:db8:1:2::9"), "2001:db8:1:2::/64");
    }
}
