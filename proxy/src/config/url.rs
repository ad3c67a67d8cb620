//! The URLs of a configuration: where to listen (an address that can be bound) and what to advertise (a name that
//! others dial). Rules and texts are etcd's: `http` or `https`, `host:port`, no path.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::{problem::BadValue, values::Parsed};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    Http,
    Https,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

/// `scheme://host:port`. The host is whatever the operator wrote; it has not been resolved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Url {
    pub scheme: Scheme,
    /// Without the brackets of an IPv6 address.
    pub host: String,
    pub port: u16,
}

impl Url {
    pub(super) fn parse(text: &str) -> Parsed<Self> {
        let wrong_scheme =
            || BadValue::new(format!("URL scheme must be http, https, unix, or unixs: {text}"));
        let (scheme, rest) = text.split_once("://").ok_or_else(wrong_scheme)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" | "unixs" => {
                return Err(BadValue::new(format!("sockets of the file system are not supported: {text}")));
            }
            _ => return Err(wrong_scheme()),
        };
        if let Some(slash) = rest.find(['/', '?', '#']) {
            return Err(BadValue::new(match rest.as_bytes()[slash] {
                b'/' => format!("URL must not contain a path: {text}"),
                _ => format!("URL must not contain a query or fragment: {text}"),
            }));
        }
        let shape = || BadValue::new(format!("URL address does not have the form \"host:port\": {text}"));
        let (host, port) = rest.rsplit_once(':').ok_or_else(shape)?;
        let host = match host.strip_prefix('[') {
            Some(inner) => {
                let inner = inner.strip_suffix(']').ok_or_else(shape)?;
                inner.parse::<Ipv6Addr>().map_err(|_| shape())?;
                inner
            }
            None if host.contains([':', '[', ']', '@', ' ', '$', '(', ')']) => return Err(shape()),
            None => host,
        };
        let port = port.parse().map_err(|_| shape())?;
        Ok(Self { scheme, host: host.to_owned(), port })
    }

    /// A list separated by commas, sorted as etcd sorts it, each once.
    pub(super) fn list(text: &str) -> Parsed<Vec<Self>> {
        let mut urls =
            super::values::list(text).iter().map(|url| Self::parse(url)).collect::<Parsed<Vec<_>>>()?;
        urls.sort();
        urls.dedup();
        Ok(urls)
    }

    /// Whether both name the same place, with `localhost` and `127.0.0.1` taken as one.
    pub(super) fn same_place(&self, other: &Self) -> bool {
        fn canonical(host: &str) -> &str {
            if host == "localhost" { "127.0.0.1" } else { host }
        }
        self.scheme == other.scheme
            && self.port == other.port
            && canonical(&self.host) == canonical(&other.host)
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "{}://[{}]:{}", self.scheme, self.host, self.port)
        } else {
            write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
        }
    }
}

/// Where to listen: an address that can be bound without asking a name server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenUrl {
    pub scheme: Scheme,
    /// Port 0 asks the system for a free one.
    pub address: SocketAddr,
}

impl ListenUrl {
    /// A name other than `localhost` is refused: which of its addresses would be bound is for a name server to say.
    pub(super) fn from_url(url: &Url) -> Parsed<Self> {
        let ip = match url.host.as_str() {
            "" => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            host => {
                host.parse().map_err(|_| BadValue::new(format!("expected IP in URL for binding ({url})")))?
            }
        };
        Ok(Self { scheme: url.scheme, address: SocketAddr::new(ip, url.port) })
    }
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_etcd_reads_them() {
        for (text, shown) in [
            ("http://127.0.0.1:2379", "http://127.0.0.1:2379"),
            ("https://[::1]:2379", "https://[::1]:2379"),
            ("HTTPS://node-1.example:1", "https://node-1.example:1"),
        ] {
            assert_eq!(Url::parse(text).unwrap().to_string(), shown);
        }
        for (text, why) in [
            ("127.0.0.1:2379", "URL scheme must be http, https, unix, or unixs: 127.0.0.1:2379"),
            ("ftp://a:1", "URL scheme must be http, https, unix, or unixs: ftp://a:1"),
            ("http://127.0.0.1", "URL address does not have the form \"host:port\": http://127.0.0.1"),
            ("http://::1:2379", "URL address does not have the form \"host:port\": http://::1:2379"),
            ("http://a:65536", "URL address does not have the form \"host:port\": http://a:65536"),
            ("http://$(hostname:1", "URL address does not have the form \"host:port\": http://$(hostname:1"),
            ("http://a:1/x", "URL must not contain a path: http://a:1/x"),
            ("unix:///run/s", "sockets of the file system are not supported: unix:///run/s"),
        ] {
            assert_eq!(Url::parse(text), Err(BadValue::new(why)));
        }
    }

    #[test]
    fn only_addresses_can_be_bound() {
        let bind = |text: &str| ListenUrl::from_url(&Url::parse(text).unwrap()).map(|url| url.to_string());
        assert_eq!(bind("http://localhost:2379").unwrap(), "http://127.0.0.1:2379");
        assert_eq!(bind("https://[::]:0").unwrap(), "https://[::]:0");
        assert_eq!(
            bind("http://example.com:2379"),
            Err(BadValue::new("expected IP in URL for binding (http://example.com:2379)"))
        );
    }
}
