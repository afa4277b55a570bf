//! The checks: what objects of the cluster say about an installation. Nothing is asked here.

use k8s_openapi::api::authorization::v1::ResourceAttributes;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::core::DynamicObject;
use time::{Duration, OffsetDateTime};

use super::Finding;
use crate::cluster::front_proxy::Trust;
use crate::cluster::serving::Place;
use crate::tls::expiry::expiry;

/// The time that a certificate should at least have left: it is rotated long before.
const SOON: Duration = Duration::days(7);

/// Names that a message lists.
const MOST_NAMES: usize = 5;

/// Returns whether the kube-apiserver can reach the API.
pub(super) fn is_available(api_service: Option<&APIService>) -> bool {
    availability(api_service).is_some_and(|(status, _)| status == "True")
}

/// Returns the Available condition: its status, and what it says.
fn availability(api_service: Option<&APIService>) -> Option<(&str, String)> {
    let conditions = api_service?.status.as_ref()?.conditions.as_ref()?;
    let available = conditions.iter().find(|condition| condition.type_ == "Available")?;
    let said = [available.reason.as_deref(), available.message.as_deref()];
    Some((&available.status, said.into_iter().flatten().collect::<Vec<_>>().join(": ")))
}

pub(super) fn api_service(place: &Place, api_service: Option<&APIService>) -> Vec<Finding> {
    const CHECK: &str = "APIService";
    let name = &place.api_service;
    let Some(found) = api_service else {
        let message = format!("there is no APIService {name}");
        return vec![Finding::error(CHECK, message, "kubectl apply -f config/apiservice.yaml")];
    };
    let mut findings = Vec::new();
    let spec = found.spec.clone().unwrap_or_default();
    let service = spec.service.unwrap_or_default();
    let leads_to = (service.namespace.unwrap_or_default(), service.name.unwrap_or_default());
    if leads_to != (place.namespace.clone(), place.service.clone()) {
        let message = format!(
            "{name} leads to {}/{}, not to {}/{}",
            leads_to.0, leads_to.1, place.namespace, place.service
        );
        findings.push(Finding::error(CHECK, message, "kubectl apply -f config/apiservice.yaml"));
    }
    if spec.insecure_skip_tls_verify == Some(true) {
        let mend = "restart the apiserver pods: they fill in caBundle";
        findings.push(Finding::warning(CHECK, format!("{name} trusts any certificate"), mend));
    } else if spec.ca_bundle.is_none_or(|bundle| bundle.0.is_empty()) {
        let mend = "look at the log of the apiserver pods: they fill in caBundle, and need the right to";
        findings.push(Finding::error(CHECK, format!("{name} has no caBundle"), mend));
    }
    match availability(api_service) {
        Some(("True", _)) => findings.push(Finding::ok(CHECK, format!("{name} is available"))),
        Some((_, said)) => {
            let mend =
                "see the findings below; as long as this lasts, no namespace of the cluster can be deleted";
            findings.push(Finding::error(CHECK, format!("{name} is not available: {said}"), mend));
        }
        None => {
            let mend = "wait a moment; if this stays, look at the log of the kube-apiserver";
            findings.push(Finding::warning(CHECK, format!("{name} was not looked at yet"), mend));
        }
    }
    findings
}

/// Namespaces whose deletion waits for discovery; called when the API is not available.
pub(super) fn hanging(place: &Place, namespaces: &[Namespace]) -> Vec<Finding> {
    let waits = |namespace: &&Namespace| {
        let conditions = namespace.status.as_ref().and_then(|status| status.conditions.as_ref());
        let is_failure = |condition: &k8s_openapi::api::core::v1::NamespaceCondition| {
            condition.type_ == "NamespaceDeletionDiscoveryFailure" && condition.status == "True"
        };
        namespace.metadata.deletion_timestamp.is_some()
            && conditions.is_some_and(|conditions| conditions.iter().any(is_failure))
    };
    let names: Vec<_> =
        namespaces.iter().filter(waits).filter_map(|namespace| namespace.metadata.name.clone()).collect();
    if names.is_empty() {
        return Vec::new();
    }
    let message =
        format!("{} namespaces cannot be deleted while the API is away: {}", names.len(), some(&names));
    let mend = format!(
        "bring the apiserver pods back, or give the API up: kubectl delete apiservice {} (what is stored stays)",
        place.api_service
    );
    vec![Finding::error("namespaces", message, mend)]
}

pub(super) fn endpoints(place: &Place, slices: &[EndpointSlice]) -> Finding {
    const CHECK: &str = "endpoints";
    let Place { namespace, service, .. } = place;
    let all: Vec<_> = slices.iter().flat_map(|slice| &slice.endpoints).collect();
    let is_ready = |endpoint: &&&k8s_openapi::api::discovery::v1::Endpoint| {
        endpoint.conditions.as_ref().is_none_or(|conditions| conditions.ready.unwrap_or(true))
    };
    let ready = all.iter().filter(is_ready).count();
    let logs = format!("kubectl logs -n {namespace} -l app.kubernetes.io/component=apiserver");
    match (all.len(), ready) {
        (0, _) => {
            let mend = format!(
                "kubectl get pods -n {namespace}; are they scheduled, and does the Service select them?"
            );
            Finding::error(CHECK, format!("Service {namespace}/{service} has no pods"), mend)
        }
        (count, 0) => {
            Finding::error(CHECK, format!("none of the {count} pods of {namespace}/{service} is ready"), logs)
        }
        (_, 1) => {
            let mend = "run two replicas, so that the API stays when one of them is moved";
            Finding::warning(CHECK, format!("one pod of {namespace}/{service} is ready"), mend)
        }
        (count, ready) => {
            Finding::ok(CHECK, format!("{ready} of {count} pods of {namespace}/{service} are ready"))
        }
    }
}

pub(super) fn certificate(place: &Place, secret: Option<&Secret>, now: OffsetDateTime) -> Finding {
    const CHECK: &str = "certificate";
    let name = format!("{}/{}", place.namespace, place.secret);
    let mend = "look at the log of the apiserver pods: they keep it, and need the right to";
    let Some(secret) = secret else {
        return Finding::error(CHECK, format!("there is no Secret {name}"), mend);
    };
    let pem = secret.data.as_ref().and_then(|data| data.get("tls.crt"));
    let expires = pem.and_then(|pem| expiry(&pem.0));
    match expires.map(|expires| expires - now) {
        None => Finding::error(CHECK, format!("Secret {name} holds no certificate"), mend),
        Some(left) if left.is_negative() => {
            Finding::error(CHECK, format!("the serving certificate in {name} has expired"), mend)
        }
        Some(left) if left < SOON => {
            let message =
                format!("the serving certificate in {name} expires in {} hours", left.whole_hours());
            Finding::warning(CHECK, message, mend)
        }
        Some(left) => {
            Finding::ok(CHECK, format!("the serving certificate is good for {} days", left.whole_days()))
        }
    }
}

pub(super) fn front_proxy(config_map: Option<&ConfigMap>) -> Finding {
    const CHECK: &str = "front proxy";
    let mend = "start the kube-apiserver with --requestheader-client-ca-file, --proxy-client-cert-file and \
                --requestheader-username-headers: it has to say for whom it sends requests";
    let Some(config_map) = config_map else {
        let message = "there is no ConfigMap kube-system/extension-apiserver-authentication";
        return Finding::error(CHECK, message, mend);
    };
    match Trust::parse(&config_map.data.clone().unwrap_or_default()) {
        Err(error) => Finding::error(CHECK, format!("extension-apiserver-authentication: {error:#}"), mend),
        Ok(trust) => match trust.proxy {
            Some(proxy) if !proxy.user_headers.is_empty() => {
                Finding::ok(CHECK, "the kube-apiserver can say for whom it sends requests")
            }
            _ => Finding::error(CHECK, "extension-apiserver-authentication names no front proxy", mend),
        },
    }
}

/// Returns what a service account has to be allowed.
pub(super) fn needed_rights(place: &Place, account: &str) -> Vec<ResourceAttributes> {
    let right = |group: &str, resource: &str, verb: &str, namespace: Option<&str>, name: Option<&str>| {
        ResourceAttributes {
            group: Some(group.to_owned()),
            resource: Some(resource.to_owned()),
            verb: Some(verb.to_owned()),
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            ..ResourceAttributes::default()
        }
    };
    if account.ends_with("controller") {
        return vec![
            right("", "secrets", "get", None, None),
            right("", "configmaps", "get", None, None),
            right("events.k8s.io", "events", "create", None, None),
        ];
    }
    let own = Some(&*place.namespace);
    let authentication = Some("extension-apiserver-authentication");
    vec![
        right("authentication.k8s.io", "tokenreviews", "create", None, None),
        right("authorization.k8s.io", "subjectaccessreviews", "create", None, None),
        right("", "configmaps", "watch", Some("kube-system"), authentication),
        right("", "namespaces", "get", None, None),
        right("apiregistration.k8s.io", "apiservices", "patch", None, Some(&place.api_service)),
        right("", "secrets", "update", own, Some(&place.secret)),
    ]
}

pub(super) fn catalog_sources(sources: &[DynamicObject]) -> Vec<Finding> {
    const CHECK: &str = "catalogs";
    let mut findings = Vec::new();
    for source in sources {
        let namespace = source.metadata.namespace.as_deref().unwrap_or_default();
        let own_name = source.metadata.name.as_deref().unwrap_or_default();
        let name = format!("{namespace}/{own_name}");
        let conditions = source.data["status"]["conditions"].as_array();
        let condition = |kind: &str| conditions.and_then(|all| all.iter().find(|one| one["type"] == kind));
        let message =
            |kind: &str| condition(kind).and_then(|one| one["message"].as_str()).unwrap_or_default();
        let is = |kind: &str, status: &str| condition(kind).is_some_and(|one| one["status"] == status);
        let mend = format!("kubectl describe catalogsource {own_name} -n {namespace}");
        if is("Degraded", "True") && !is("Ready", "True") {
            findings.push(Finding::error(
                CHECK,
                format!("{name} is not served: {}", message("Degraded")),
                mend,
            ));
        } else if is("Degraded", "True") {
            findings.push(Finding::warning(CHECK, format!("{name}: {}", message("Degraded")), mend));
        } else if !is("Ready", "True") {
            let mend = "look at the log of the controller pods";
            findings.push(Finding::warning(CHECK, format!("{name} was not read yet"), mend));
        }
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, format!("{} CatalogSources are served", sources.len())));
    }
    findings
}

fn some(names: &[String]) -> String {
    let shown = names.iter().take(MOST_NAMES).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > MOST_NAMES { format!("{shown}, …") } else { shown }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::doctor::Severity;

    fn place() -> Place {
        Place {
            namespace: "packageserver-system".to_owned(),
            secret: "packageserver-serving".to_owned(),
            service: "packageserver".to_owned(),
            api_service: "v1beta1.core.rukpak.io".to_owned(),
        }
    }

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn worst(findings: &[Finding]) -> Severity {
        findings.iter().map(|finding| finding.severity).max().unwrap()
    }

    #[test]
    fn an_api_service_that_does_not_lead_here_is_an_error() {
        let service = |spec: Value, available: &str| -> APIService {
            read(json!({
                "metadata": {"name": "v1beta1.core.rukpak.io"},
                "spec": spec,
                "status": {"conditions": [{"type": "Available", "status": available, "reason": "R", "message": "m"}]},
            }))
        };
        let good = json!({
            "groupPriorityMinimum": 1000, "versionPriority": 15, "caBundle": "eA==",
            "service": {"namespace": "packageserver-system", "name": "packageserver"},
        });
        assert_eq!(worst(&api_service(&place(), Some(&service(good.clone(), "True")))), Severity::Ok);
        assert!(is_available(Some(&service(good.clone(), "True"))));
        let findings = api_service(&place(), Some(&service(good.clone(), "False")));
        assert_eq!(findings[0].message, "v1beta1.core.rukpak.io is not available: R: m");
        let mut elsewhere = good.clone();
        elsewhere["service"]["name"] = "other".into();
        assert_eq!(worst(&api_service(&place(), Some(&service(elsewhere, "True")))), Severity::Error);
        let mut bare = good;
        bare["caBundle"] = Value::Null;
        assert_eq!(worst(&api_service(&place(), Some(&service(bare, "True")))), Severity::Error);
        assert!(api_service(&place(), None)[0].mend.contains("kubectl apply"));
    }

    #[test]
    fn namespaces_that_wait_for_discovery_are_named_with_the_way_out() {
        let namespace = |name: &str, condition: &str| -> Namespace {
            read(json!({
                "metadata": {"name": name, "deletionTimestamp": "2026-01-01T00:00:00Z"},
                "status": {"conditions": [{"type": condition, "status": "True"}]},
            }))
        };
        let failure = "NamespaceDeletionDiscoveryFailure";
        let findings =
            hanging(&place(), &[namespace("a", failure), namespace("b", "NamespaceContentRemaining")]);
        assert_eq!(findings[0].message, "1 namespaces cannot be deleted while the API is away: a");
        assert!(findings[0].mend.contains("kubectl delete apiservice v1beta1.core.rukpak.io"));
        assert!(hanging(&place(), &[namespace("b", "NamespaceContentRemaining")]).is_empty());
    }

    #[test]
    fn endpoints_count() {
        let slice = |ready: &[bool]| -> EndpointSlice {
            let endpoints: Vec<_> = ready
                .iter()
                .map(|ready| json!({"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}))
                .collect();
            read(json!({"addressType": "IPv4", "endpoints": endpoints}))
        };
        for (ready, severity) in [
            (&[][..], Severity::Error),
            (&[false, false], Severity::Error),
            (&[true, false], Severity::Warning),
            (&[true, true], Severity::Ok),
        ] {
            assert_eq!(endpoints(&place(), &[slice(ready)]).severity, severity, "{ready:?}");
        }
        assert_eq!(endpoints(&place(), &[]).severity, Severity::Error);
    }

    #[test]
    fn certificates_are_looked_at_for_their_time() {
        use crate::tls::authority::{Authority, Validity};
        let now = OffsetDateTime::now_utc();
        let day = std::time::Duration::from_secs(24 * 60 * 60);
        let (authority, _) = Authority::generate("x", Validity { from: now, lifetime: 100 * day }).unwrap();
        let names = ["x".to_owned()];
        let signed = authority.server(&names, &[], Validity { from: now, lifetime: 30 * day }).unwrap();
        let mut secret = Secret::default();
        let data = secret.data.get_or_insert_default();
        data.insert("tls.crt".to_owned(), k8s_openapi::ByteString(signed.certificate.into_bytes()));
        for (after, severity) in [(0, Severity::Ok), (25, Severity::Warning), (31, Severity::Error)] {
            assert_eq!(certificate(&place(), Some(&secret), now + day * after).severity, severity, "{after}");
        }
        assert_eq!(certificate(&place(), None, now).severity, Severity::Error);
        assert_eq!(certificate(&place(), Some(&Secret::default()), now).severity, Severity::Error);
    }

    #[test]
    fn catalogs_that_fail_are_named() {
        let source = |name: &str, ready: &str, degraded: &str| -> DynamicObject {
            read(json!({
                "apiVersion": "core.rukpak.io/v1beta1", "kind": "CatalogSource",
                "metadata": {"name": name, "namespace": "test"},
                "status": {"conditions": [
                    {"type": "Ready", "status": ready},
                    {"type": "Degraded", "status": degraded, "message": "no such image"},
                ]},
            }))
        };
        let found = catalog_sources(&[
            source("a", "True", "False"),
            source("b", "True", "True"),
            source("c", "False", "True"),
        ]);
        let lines: Vec<_> =
            found.iter().map(|finding| (finding.severity, finding.message.as_str())).collect();
        assert_eq!(
            lines,
            [
                (Severity::Warning, "test/b: no such image"),
                (Severity::Error, "test/c is not served: no such image"),
            ]
        );
        assert_eq!(found[0].mend, "kubectl describe catalogsource b -n test");
        assert_eq!(catalog_sources(&[]), [Finding::ok("catalogs", "0 CatalogSources are served")]);
    }
}
