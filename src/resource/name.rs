//! What names, labels and annotations may look like in Kubernetes.

/// Characters of a DNS label, and of the value of a label.
const MAX_LABEL: usize = 63;

/// Characters of the name of an object.
const MAX_NAME: usize = 253;

/// Returns whether a text is an RFC 1123 label, as names of namespaces are.
pub fn is_dns_label(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty()
        && name.len() <= MAX_LABEL
        && name.bytes().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Returns whether a text is an RFC 1123 subdomain, as names of objects are. Its labels have no limit of their own.
pub fn is_dns_subdomain(name: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    name.len() <= MAX_NAME && name.split('.').all(is_label)
}

/// Returns whether a text can be the value of a label, or the name part of a key; not the empty one, which is a
/// value too.
pub fn fits_label(value: &str) -> bool {
    let bytes = value.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let ends_well = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    bytes.len() <= MAX_LABEL && bytes.iter().all(inner) && ends_well(bytes.first()) && ends_well(bytes.last())
}

/// Returns whether a text is the key of a label or an annotation: a name, with or without a domain before it.
pub fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((domain, name)) => is_dns_subdomain(domain) && fits_label(name),
        None => fits_label(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_kubernetes() {
        for name in ["a", "kube-green", "3scale"] {
            assert!(is_dns_label(name) && is_dns_subdomain(name), "{name}");
        }
        assert!(is_dns_subdomain("kube-green.v0.3.0"));
        assert!(is_dns_label(&"a".repeat(63)) && !is_dns_label(&"a".repeat(64)));
        assert!(is_dns_subdomain(&"a".repeat(253)) && !is_dns_subdomain(&"a".repeat(254)));
        for name in ["", "-a", "a-", "A", "a_b", "a/b", "../a", "a..b", ".a", "a.", "a b", "ä"] {
            assert!(!is_dns_label(name) && !is_dns_subdomain(name), "{name}");
        }
    }

    #[test]
    fn keys_of_labels_have_a_domain_or_none() {
        for key in ["a", "core.rukpak.io/catalog", "app.kubernetes.io/part-of", "A_b.C"] {
            assert!(is_qualified_name(key), "{key}");
        }
        for key in ["", "/a", "a/", "a/b/c", "A.io/b", "-a", &"a".repeat(64)] {
            assert!(!is_qualified_name(key), "{key}");
        }
        assert!(fits_label(&"a".repeat(63)) && !fits_label(&"a".repeat(64)));
    }
}
