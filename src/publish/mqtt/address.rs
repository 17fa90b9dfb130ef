//! Where a broker is: its URL, and whether the way there leaves the house.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What `mqtt://host[:port]` or `mqtts://host[:port]` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// `mqtts`: TLS.
    pub tls: bool,
    /// A name or an address; IPv6 in brackets.
    pub host: String,
    /// 1883, or 8883 with TLS, if the URL does not say it.
    pub port: u16,
}

impl Address {
    /// The messages never repeat the URL: somebody may have put a password in.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let (tls, rest) = match url.split_once("://") {
            Some(("mqtt", rest)) => (false, rest),
            Some(("mqtts", rest)) => (true, rest),
            _ => return Err("must be mqtt://host, mqtts://host, or either with :port"),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return Err(
                "must not hold a user or password: use `username` and OCELLUS_MQTT_PASSWORD or `password_file`",
            );
        }
        let (host, port) = match rest.rsplit_once(':') {
            // The colons of [::1] are not the port's.
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse().ok().filter(|p| *p > 0);
                (host, port.ok_or("has a port that is not 1 to 65535")?)
            }
            _ => (rest, if tls { 8883 } else { 1883 }),
        };
        let host_ok = match unbracketed(host) {
            Some(v6) => v6.parse::<Ipv6Addr>().is_ok(),
            None => {
                let name = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
                !host.is_empty() && host.bytes().all(name)
            }
        };
        if !host_ok {
            return Err("has a host that is neither a name nor an address (IPv6 goes in brackets)");
        }
        let host = host.into();
        Ok(Self { tls, host, port })
    }

    /// Whether what is sent there stays on this machine or its own network: loopback, private and link-local addresses, and names that
    /// the public DNS does not know.
    pub fn is_local(&self) -> bool {
        let host = unbracketed(&self.host).unwrap_or(&self.host);
        match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(a)) => is_local_v4(a),
            Ok(IpAddr::V6(a)) => match a.to_ipv4_mapped() {
                Some(a) => is_local_v4(a),
                None => a.is_loopback() || a.is_unique_local() || a.is_unicast_link_local(),
            },
            Err(_) => is_local_name(host),
        }
    }
}

/// An IPv6 address without its brackets.
pub(super) fn unbracketed(host: &str) -> Option<&str> {
    host.strip_prefix('[').and_then(|h| h.strip_suffix(']'))
}

fn is_local_v4(a: Ipv4Addr) -> bool {
    a.is_loopback() || a.is_private() || a.is_link_local()
}

/// Names without a dot, those of mDNS (RFC 6762), `home.arpa` (RFC 8375), `internal` (reserved by ICANN), and what routers use.
fn is_local_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let zones = ["localhost", "local", "home.arpa", "internal", "lan", "home"];
    let inside = |zone: &&str| {
        let head = name.strip_suffix(*zone);
        head.is_some_and(|h| h.is_empty() || h.ends_with('.'))
    };
    !name.contains('.') || zones.iter().any(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let ok = |url| {
            let a = Address::parse(url).unwrap();
            (a.tls, a.host, a.port)
        };
        for (url, tls, host, port) in [
            ("mqtt://broker.lan", false, "broker.lan", 1883),
            ("mqtts://broker.lan", true, "broker.lan", 8883),
            ("mqtts://b:443/", true, "b", 443),
            ("mqtt://10.0.0.2:1884/", false, "10.0.0.2", 1884),
            ("mqtt://[::1]:1884", false, "[::1]", 1884),
            ("mqtts://[fe80::1]", true, "[fe80::1]", 8883),
        ] {
            assert_eq!(ok(url), (tls, host.into(), port));
        }
        for bad in [
            "",
            "broker",
            "http://b",
            "mqtt://",
            "mqtts://",
            "mqtt://b:0",
            "mqtt://b:99999",
            "mqtt://b:x",
            "mqtt://b/topic",
            "mqtt://[::1",
            "mqtt://::1:1883",
            "mqtt://a b",
            "mqtt://me:secret@b",
        ] {
            let error = Address::parse(bad).unwrap_err();
            assert!(!error.contains("secret"), "{bad:?}");
        }
    }

    #[test]
    fn what_stays_at_home() {
        let local = |host: &str| {
            Address::parse(&format!("mqtt://{host}"))
                .unwrap()
                .is_local()
        };
        for host in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.9",
            "169.254.1.1",
            "[::1]",
            "[fe80::1]",
            "[fd00::1]",
            "[::ffff:192.168.1.1]",
            "localhost",
            "homeassistant.local",
            "broker.lan",
            "BROKER.LAN.",
            "broker",
            "mq.home.arpa",
            "mq.internal",
        ] {
            assert!(local(host), "{host}");
        }
        for host in [
            "8.8.8.8",
            "172.32.0.1",
            "100.64.0.1",
            "[2001:db8::1]",
            "[::ffff:8.8.8.8]",
            "broker.example.org",
            "notlocal.example",
            "evillan.com",
            "xlocal.org",
        ] {
            assert!(!local(host), "{host}");
        }
    }
}
