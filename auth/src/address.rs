//! What an IP address is for.
//!
//! One invariant: an address that is not known to be global is not called so; one that wraps another is at best what it
//! wraps. Knows nothing of who may go where.
//!
//! Sources: the IANA IPv4 and IPv6 Special-Purpose Address Registries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address is for. Whatever is not plainly global is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Anybody's.
    Global,
    /// This machine's.
    Loopback,
    /// Of a private network (RFC 1918, RFC 4193).
    Private,
    /// Link-local (cloud metadata lives there), shared, multicast, documentation, reserved, translated, unspecified.
    Never,
}

impl Kind {
    /// What this address is for.
    pub(crate) fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self::of_v4(address),
            IpAddr::V6(address) => Self::of_v6(address),
        }
    }

    /// The IANA IPv4 Special-Purpose Address Registry; what it does not call globally reachable is not.
    fn of_v4(address: Ipv4Addr) -> Self {
        match address.octets() {
            [127, ..] => Self::Loopback,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Self::Private,
            [0, ..]
            | [100, 64..=127, ..]
            | [169, 254, ..]
            | [192, 0, 0 | 2, _]
            | [192, 88, 99, _]
            // A cloud's own services (Azure), in the middle of global addresses.
            | [168, 63, 129, 16]
            | [198, 18 | 19, ..]
            | [198, 51, 100, _]
            | [203, 0, 113, _]
            | [224..=255, ..] => Self::Never,
            _ => Self::Global,
        }
    }

    /// Of IPv6 only `2000::/3` is global unicast, and of that not what the registry takes out again. Addresses that wrap
    /// an IPv4 address are what they wrap, at best: a translator on the way would go there.
    fn of_v6(address: Ipv6Addr) -> Self {
        if address == Ipv6Addr::LOCALHOST {
            return Self::Loopback;
        }
        if let Some(mapped) = address.to_ipv4_mapped() {
            return Self::of_v4(mapped);
        }
        let wraps = |high: u16, low: u16| {
            let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
            match Self::of_v4(Ipv4Addr::new(a, b, c, d)) {
                Self::Global => Self::Global,
                _ => Self::Never,
            }
        };
        match address.segments() {
            // NAT64 (RFC 6052) and 6to4 (RFC 3056).
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => wraps(high, low),
            [0x2002, high, low, ..] => wraps(high, low),
            // ISATAP (RFC 5214, section 6.1), whatever its prefix is.
            [_, _, _, _, 0 | 0x200, 0x5efe, high, low] if wraps(high, low) == Self::Never => Self::Never,
            // Teredo, benchmarking, ORCHID and the other protocol assignments of 2001::/23; documentation.
            [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Self::Never,
            // A cloud's metadata (AWS), in the middle of private addresses.
            [0xfd00, 0x0ec2, ..] => Self::Never,
            [0xfc00..=0xfdff, ..] => Self::Private,
            [0x2000..=0x3fff, ..] => Self::Global,
            _ => Self::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::egress::Reach;

    const LOOPBACK: Reach = Reach {
        loopback: true,
        private: false,
        plain: false,
    };

    #[test]
    fn only_global_addresses_are_allowed() {
        let allowed = |text: &str| Reach::default().allows(text.parse().expect("an address"));
        for address in [
            "1.1.1.1",
            "93.184.216.34",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
        ] {
            assert!(allowed(address), "{address}");
        }
        for address in [
            "127.0.0.1",
            "127.8.9.10",
            "0.0.0.0",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "fe80::1",
            "fec0::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "100::1",
        ] {
            assert!(!allowed(address), "{address}");
        }
    }

    #[test]
    fn reach_adds_loopback_and_private_networks_and_nothing_else() {
        let allowed = |reach: Reach, text: &str| reach.allows(text.parse().expect("an address"));
        let private = Reach {
            private: true,
            loopback: false,
            plain: false,
        };
        for address in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(
                allowed(LOOPBACK, address) && !allowed(private, address),
                "{address}"
            );
        }
        for address in ["10.1.2.3", "192.168.0.1", "fd12::1"] {
            assert!(
                !allowed(LOOPBACK, address) && allowed(private, address),
                "{address}"
            );
        }
        let both = Reach {
            private: true,
            loopback: true,
            plain: false,
        };
        for address in [
            "168.63.129.16",
            "fd00:ec2::254",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "::",
            "64:ff9b::10.0.0.1",
            "fe80::1",
        ] {
            assert!(!allowed(both, address), "{address}");
        }
    }
}
