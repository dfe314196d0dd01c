//! Where the service may be led by what a tenant says: the operator's list of
//! endpoints, the root of `local` storage, the buckets that the service's own
//! identity opens, and the addresses that no name may resolve to.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
};

use super::place::Place;
use http::Uri;

/// What the operator allows.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The root of `local` storage; `None`: there is none.
    pub local_root: Option<PathBuf>,
    /// Endpoints that may be called where credentials name one.
    endpoints: Vec<Origin>,
    /// Places that need no credentials.
    identity: Vec<Place>,
}

/// Scheme, host and port of a URL. On the operator's list `*.` may stand before the host: for
/// exactly one label.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    /// Whether an entry of the list means what is called.
    fn covers(&self, called: &Self) -> bool {
        let host = match self.host.strip_prefix("*.") {
            None => self.host == called.host,
            Some(domain) => {
                let label = called.host.strip_suffix(domain).and_then(|label| label.strip_suffix('.'));
                label.is_some_and(|label| !label.is_empty() && !label.contains('.'))
            }
        };
        host && self.scheme == called.scheme && self.port == called.port
    }
}

impl Policy {
    /// From the settings: lists are separated by commas.
    ///
    /// # Errors
    /// What can't be read.
    pub fn new(local_root: Option<PathBuf>, endpoints: &str, identity: &str) -> Result<Self, String> {
        let items = |list: &str| -> Vec<String> {
            list.split(',').map(|item| item.trim().to_owned()).filter(|item| !item.is_empty()).collect()
        };
        let endpoints = items(endpoints)
            .into_iter()
            .map(|url| listed(&url).map_err(|fault| format!("storage_endpoints: {url}: {fault}")));
        let identity = items(identity)
            .into_iter()
            .map(|url| url.parse().map_err(|fault| format!("storage_identity_buckets: {url}: {fault}")));
        Ok(Self {
            local_root,
            endpoints: endpoints.collect::<Result<_, _>>()?,
            identity: identity.collect::<Result<_, _>>()?,
        })
    }

    /// Whether an endpoint may be called that comes of what credentials say.
    ///
    /// # Errors
    /// Why not.
    pub fn allows_endpoint(&self, url: &str) -> Result<(), &'static str> {
        let (origin, _) = origin(url)?;
        if self.endpoints.iter().any(|listed| listed.covers(&origin)) {
            Ok(())
        } else {
            Err("is not among the endpoints the operator allows")
        }
    }

    /// Whether the service's own identity may be used for a place.
    #[must_use]
    pub fn allows_identity(&self, place: &Place) -> bool {
        self.identity.iter().any(|allowed| place.is_within(allowed))
    }
}

/// An entry of the operator's list.
fn listed(url: &str) -> Result<Origin, &'static str> {
    let (any_label, named) = match url.split_once("://*.") {
        Some((scheme, rest)) => (true, format!("{scheme}://{rest}")),
        None => (false, url.to_owned()),
    };
    let (origin, path) = origin(&named)?;
    if !path.is_empty() {
        return Err("must have no path");
    }
    if !any_label {
        return Ok(origin);
    }
    if origin.host.starts_with('[') || origin.host.parse::<Ipv4Addr>().is_ok() {
        return Err("there are no names below an address");
    }
    Ok(Origin { host: format!("*.{}", origin.host), ..origin })
}

/// The origin of an endpoint, and its path.
fn origin(url: &str) -> Result<(Origin, &str), &'static str> {
    let wrong = "must be an http or https URL without user, query and fragment";
    let uri: Uri = url.parse().map_err(|_| wrong)?;
    let (scheme, authority) = (uri.scheme_str().ok_or(wrong)?, uri.authority().ok_or(wrong)?);
    let default = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return Err(wrong),
    };
    if authority.as_str().contains('@') || uri.query().is_some() || url.contains('#') {
        return Err(wrong);
    }
    let path =
        url.get(scheme.len() + 3 + authority.as_str().len()..).unwrap_or_default().trim_end_matches('/');
    let plain =
        |text: &str, others: &[u8]| text.bytes().all(|b| b.is_ascii_alphanumeric() || others.contains(&b));
    // The clients read it once more, by the rules of browsers, and must find the same.
    if !plain(path, b"/-_") || !plain(authority.host(), b".-_[:]") || reqwest::Url::parse(url).is_err() {
        return Err(wrong);
    }
    let origin = Origin {
        scheme: scheme.into(),
        host: authority.host().to_ascii_lowercase(),
        port: authority.port_u16().unwrap_or(default),
    };
    Ok((origin, path))
}

/// The public addresses of a name. To be asked at every connection anew: what a
/// name said when it was checked may be another thing when it is used.
///
/// # Errors
/// If it has none.
pub async fn public_addresses(host: String) -> std::io::Result<Vec<IpAddr>> {
    let found = tokio::net::lookup_host((host.as_str(), 0)).await?;
    let public: Vec<IpAddr> = found.map(|address| address.ip()).filter(|ip| is_public(*ip)).collect();
    if public.is_empty() { Err(std::io::Error::other("the name has no public address")) } else { Ok(public) }
}

/// Whether an address is one of the public internet: not of this machine, its
/// networks, or a cloud's metadata service.
#[must_use]
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || ip.is_broadcast()
        || ip.is_documentation()
        || ip.is_multicast()
        || a == 0
        || a >= 240
        // Shared (RFC 6598), protocol assignments (RFC 6890), benchmarks (RFC 2544).
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b));
    !special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let segments = ip.segments();
    // Addresses that carry one of version 4 are as good as that one: mapped and
    // compatible, NAT64 (RFC 6052), 6to4 (RFC 3056).
    let [.., high, low] = segments;
    let embedded = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match segments {
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => is_public_v4(embedded(high, low)),
        [0x2002, high, low, ..] => is_public_v4(embedded(high, low)),
        // Global unicast is 2000::/3 (RFC 4291), less documentation and Teredo.
        [first, second, ..] => {
            first & 0xe000 == 0x2000 && !(first == 0x2001 && (second == 0xdb8 || second == 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for (ip, public) in [
            ("8.8.8.8", true),
            ("127.0.0.1", false),
            ("10.1.2.3", false),
            ("172.16.0.1", false),
            ("172.32.0.1", true),
            ("192.168.1.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("100.128.0.1", true),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::", false),
            ("::1", false),
            ("fe80::1", false),
            ("fc00::1", false),
            ("fd00:ec2::254", false),
            ("2606:4700::1111", true),
            ("2001:db8::1", false),
            ("::ffff:127.0.0.1", false),
            ("::ffff:8.8.8.8", true),
            ("64:ff9b::a9fe:a9fe", false),
            ("2002:7f00:1::", false),
        ] {
            assert_eq!(is_public(ip.parse().unwrap()), public, "{ip}");
        }
    }

    #[test]
    fn endpoints_are_allowed_by_their_origin() {
        let policy = Policy::new(None, "http://127.0.0.1:9000, https://s3.example.com", "").unwrap();
        for (url, allowed) in [
            ("http://127.0.0.1:9000", true),
            ("http://127.0.0.1:9000/account1", true),
            ("https://S3.example.com:443/", true),
            ("http://s3.example.com", false),
            ("http://127.0.0.1:9001", false),
            ("http://127.0.0.1:9000@evil.com", false),
            ("http://user@127.0.0.1:9000", false),
            ("http://127.0.0.1:9000/?a=b", false),
            ("http://127.0.0.1:9000/../x", false),
            ("file:///etc/passwd", false),
            ("127.0.0.1:9000", false),
        ] {
            assert_eq!(policy.allows_endpoint(url).is_ok(), allowed, "{url}");
        }
        assert!(Policy::new(None, "http://a/path", "").is_err());
        assert!(Policy::new(None, "a", "").is_err());
    }

    #[test]
    fn a_star_on_the_list_is_one_label() {
        let list = "https://*.s3.example.com, http://*.minio:9000, http://plain:9000";
        let policy = Policy::new(None, list, "").unwrap();
        for (url, allowed) in [
            ("https://bucket.s3.example.com", true),
            ("https://Bucket_1-x.S3.example.com:443/", true),
            ("https://s3.example.com", false),
            ("https://.s3.example.com", false),
            ("https://a.b.s3.example.com", false),
            ("https://buckets3.example.com", false),
            ("https://bucket.s3.example.com.evil.com", false),
            ("https://*.s3.example.com", false),
            ("https://%61.s3.example.com", false),
            // No name by the rules that the client reads it with.
            ("https://xn--a.s3.example.com", false),
            ("http://bucket.s3.example.com", false),
            ("http://admin.minio:9000", true),
            ("http://admin.minio:9001", false),
            ("http://minio:9000", false),
            ("http://admin.plain:9000", false),
        ] {
            assert_eq!(policy.allows_endpoint(url).is_ok(), allowed, "{url}");
        }
        for bad in [
            "https://*",
            "https://*.",
            "https://*:9000",
            "https://a.*.com",
            "https://*a.com",
            "https://*.*.com",
            "https://*.example.com/path",
            "*.example.com",
            "http://*.127.0.0.1:9000",
            "http://*.[::1]:9000",
        ] {
            assert!(Policy::new(None, bad, "").is_err(), "{bad}");
        }
    }

    #[test]
    fn the_services_identity_opens_only_what_is_listed() {
        let policy = Policy::new(None, "", "s3://ours/results").unwrap();
        let allows = |url: &str| policy.allows_identity(&url.parse().unwrap());
        assert!(allows("s3://ours/results") && allows("s3://ours/results/a"));
        assert!(!allows("s3://ours") && !allows("s3://theirs/results"));
        assert!(Policy::new(None, "", "nonsense").is_err());
    }

    #[tokio::test]
    async fn a_name_of_this_machine_is_not_resolved() {
        assert!(public_addresses("localhost".into()).await.is_err());
    }
}
