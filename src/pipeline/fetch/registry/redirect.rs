//! Where a registry may lead to.
//!
//! Registries send clients on to wherever they store blobs. What they must not do is send this program to places that
//! only it can reach: to itself, to what listens on the same machine, to the metadata service of a cloud. A registry that
//! is itself in such a place may lead to others there.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::{Action, Attempt, Policy};

/// Redirects that are followed one after the other.
const MAX_REDIRECTS: usize = 8;

/// The variables that name proxies.
const PROXIES: [&str; 3] = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"];

/// A kind of place that not everybody can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nearby {
    /// This machine.
    Loopback,
    /// This link: where clouds have their metadata services.
    LinkLocal,
    /// No single machine at all.
    Nowhere,
}

impl Nearby {
    fn of(address: IpAddr) -> Option<Self> {
        let address = address.to_canonical();
        let is_link_local = match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        let is_nowhere = match address {
            // Connections to 0.0.0.0/8 end on this machine.
            IpAddr::V4(address) => address.octets()[0] == 0 || address == Ipv4Addr::BROADCAST,
            IpAddr::V6(address) => address.is_unspecified(),
        };
        if address.is_loopback() {
            Some(Nearby::Loopback)
        } else if is_link_local {
            Some(Nearby::LinkLocal)
        } else if is_nowhere || address.is_multicast() {
            Some(Nearby::Nowhere)
        } else {
            None
        }
    }

    /// Returns what a host is, as far as its name says it.
    fn of_host(host: &str) -> Option<Self> {
        let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
        if host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost") {
            return Some(Nearby::Loopback);
        }
        Self::of(host.parse().ok()?)
    }
}

/// Returns what redirects of a registry are followed: not from TLS to where others could listen, nor to where only this
/// program can go. On the way to another host, reqwest takes the authorisation off.
pub(super) fn redirects(registry: &str) -> Policy {
    let registry = registry.to_owned();
    Policy::custom(move |attempt| follow(attempt, &registry))
}

/// Returns whether a registry may send this program to a host, as far as its name says it.
pub(super) fn may_lead_to(registry: &str, host: &str) -> bool {
    Nearby::of_host(host).is_none_or(|target| Nearby::of_host(registry) == Some(target))
}

fn follow(attempt: Attempt<'_>, registry: &str) -> Action {
    let is_from_tls = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
    if attempt.previous().len() > MAX_REDIRECTS {
        return attempt.error(format!("more than {MAX_REDIRECTS} redirects"));
    }
    if !matches!(attempt.url().scheme(), "https" | "http") {
        return attempt.error("a redirect to something other than http");
    }
    if is_from_tls && attempt.url().scheme() != "https" {
        return attempt.error("a redirect from https to plain http");
    }
    if !may_lead_to(registry, attempt.url().host_str().unwrap_or_default()) {
        return attempt.error("a redirect to an address that is nobody else's business");
    }
    attempt.follow()
}

/// Finds the addresses of names, but none that is nearby, unless it is the name of the registry itself or of a proxy: what
/// a name stands for is up to whoever owns it.
pub(super) struct Resolver {
    trusted: Vec<String>,
}

impl Resolver {
    pub(super) fn for_registry(registry: &str) -> Arc<Self> {
        let proxies = PROXIES.iter().flat_map(|name| [name.to_string(), name.to_lowercase()]);
        let mut trusted: Vec<_> =
            proxies.filter_map(|name| std::env::var(name).ok()).filter_map(|proxy| host(&proxy)).collect();
        trusted.push(registry.to_ascii_lowercase());
        Arc::new(Resolver { trusted })
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_ascii_lowercase();
        let is_trusted = self.trusted.contains(&name);
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let mut allowed = found.clone();
            allowed.retain(|address| is_trusted || Nearby::of(address.ip()).is_none());
            if allowed.is_empty() && !found.is_empty() {
                return Err(format!("`{name}` stands for an address that is nobody else's business").into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Returns the host of a proxy, which may be named with a scheme or without.
fn host(proxy: &str) -> Option<String> {
    let url = match proxy.contains("://") {
        true => reqwest::Url::parse(proxy),
        false => reqwest::Url::parse(&format!("http://{proxy}")),
    };
    Some(url.ok()?.host_str()?.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_only_this_machine_can_reach_are_known_however_they_are_written() {
        for (host, expected) in [
            ("127.0.0.1", Some(Nearby::Loopback)),
            ("[::1]", Some(Nearby::Loopback)),
            ("[::ffff:127.0.0.1]", Some(Nearby::Loopback)),
            ("LOCALHOST.", Some(Nearby::Loopback)),
            ("x.localhost", Some(Nearby::Loopback)),
            ("169.254.169.254", Some(Nearby::LinkLocal)),
            ("[fe80::1]", Some(Nearby::LinkLocal)),
            ("[::ffff:169.254.169.254]", Some(Nearby::LinkLocal)),
            ("0.0.0.0", Some(Nearby::Nowhere)),
            ("[::]", Some(Nearby::Nowhere)),
            ("255.255.255.255", Some(Nearby::Nowhere)),
            ("224.0.0.1", Some(Nearby::Nowhere)),
            ("10.0.0.1", None),
            ("quay.io", None),
            ("localhost.example.com", None),
        ] {
            assert_eq!(Nearby::of_host(host), expected, "{host}");
        }
        // A URL's parser makes an address of what does not look like one.
        for text in ["http://2130706433/", "http://0x7f.1/", "http://127.1/"] {
            let url = reqwest::Url::parse(text).unwrap();
            assert_eq!(Nearby::of_host(url.host_str().unwrap()), Some(Nearby::Loopback), "{text}");
        }
    }

    #[tokio::test]
    async fn a_name_of_somebody_else_does_not_stand_for_this_machine() {
        let resolved =
            |registry: &str| Resolver::for_registry(registry).resolve("localhost".parse().unwrap());
        assert!(resolved("localhost").await.is_ok());
        let error = resolved("quay.io").await.err().unwrap().to_string();
        assert_eq!(error, "`localhost` stands for an address that is nobody else's business");
    }

    #[test]
    fn proxies_are_named_in_several_ways() {
        for proxy in ["http://user:word@Proxy.test:3128/", "proxy.test:3128", "proxy.test"] {
            assert_eq!(host(proxy).as_deref(), Some("proxy.test"), "{proxy}");
        }
    }
}
