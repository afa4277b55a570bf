//! What is wrong with an installation, and what to do about it.
//!
//! Everything is asked through the kube-apiserver, with the rights of whoever asks: the cases that matter most are those
//! in which this server itself does not answer.

mod checks;

use std::time::Duration;

use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{ListParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, Client};
use serde::Serialize;

use super::serving::Place;

/// How long an answer may take.
const CALL: Duration = Duration::from_secs(10);

/// Objects that are read of a kind.
const MOST: u32 = 500;

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It is as it should be.
    Ok,
    /// It works, and will not for long, or not for everybody.
    Warning,
    /// It does not work.
    Error,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was looked at.
    pub check: &'static str,
    /// What was found.
    pub message: String,
    /// What to do about it; empty where there is nothing to do.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mend: String,
}

impl Finding {
    /// Nothing to do.
    pub fn ok(check: &'static str, message: impl Into<String>) -> Self {
        Finding { severity: Severity::Ok, check, message: message.into(), mend: String::new() }
    }

    /// Something to do soon.
    pub fn warning(check: &'static str, message: impl Into<String>, mend: impl Into<String>) -> Self {
        Finding { severity: Severity::Warning, check, message: message.into(), mend: mend.into() }
    }

    /// Something to do now.
    pub fn error(check: &'static str, message: impl Into<String>, mend: impl Into<String>) -> Self {
        Finding { severity: Severity::Error, check, message: message.into(), mend: mend.into() }
    }
}

/// Examines an installation; findings come in the order in which one would look for a fault.
pub async fn examine(client: Client, place: &Place, accounts: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let api_services: Api<APIService> = Api::all(client.clone());
    let api_service = match call(api_services.get_opt(&place.api_service)).await {
        Ok(api_service) => api_service,
        Err(error) => {
            let mend = "check the kubeconfig, and whether you may read apiservices";
            findings.push(Finding::error("kube-apiserver", error, mend));
            return findings;
        }
    };
    let is_available = checks::is_available(api_service.as_ref());
    findings.extend(checks::api_service(place, api_service.as_ref()));
    if !is_available {
        findings.extend(hanging(&client, place).await);
    }
    findings.extend(endpoints(&client, place).await);
    findings.extend(certificate(&client, place).await);
    findings.extend(front_proxy(&client).await);
    for account in accounts {
        findings.extend(rights(&client, place, account).await);
    }
    if is_available {
        findings.extend(catalog_sources(&client, place).await);
    }
    findings
}

/// Looks for namespaces whose deletion waits for this API.
async fn hanging(client: &Client, place: &Place) -> Vec<Finding> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    match call(namespaces.list(&ListParams::default().limit(MOST))).await {
        Ok(list) => checks::hanging(place, &list.items),
        Err(error) => vec![Finding::warning("namespaces", error, "check whether you may list namespaces")],
    }
}

async fn endpoints(client: &Client, place: &Place) -> Vec<Finding> {
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), &place.namespace);
    let selector = format!("kubernetes.io/service-name={}", place.service);
    match call(slices.list(&ListParams::default().labels(&selector))).await {
        Ok(list) => vec![checks::endpoints(place, &list.items)],
        Err(error) => vec![Finding::warning("endpoints", error, "check whether you may list endpointslices")],
    }
}

async fn certificate(client: &Client, place: &Place) -> Vec<Finding> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &place.namespace);
    match call(secrets.get_opt(&place.secret)).await {
        Ok(secret) => vec![checks::certificate(place, secret.as_ref(), time::OffsetDateTime::now_utc())],
        Err(error) => vec![Finding::warning("certificate", error, "check whether you may read the Secret")],
    }
}

async fn front_proxy(client: &Client) -> Vec<Finding> {
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    match call(config_maps.get_opt("extension-apiserver-authentication")).await {
        Ok(config_map) => vec![checks::front_proxy(config_map.as_ref())],
        Err(error) => {
            vec![Finding::warning("front proxy", error, "check whether you may read the ConfigMap")]
        }
    }
}

/// Asks whether a service account may do what it has to.
async fn rights(client: &Client, place: &Place, account: &str) -> Vec<Finding> {
    let reviews: Api<SubjectAccessReview> = Api::all(client.clone());
    let user = format!("system:serviceaccount:{}:{account}", place.namespace);
    let mut missing = Vec::new();
    for attributes in checks::needed_rights(place, account) {
        let what = describe(&attributes);
        let spec = SubjectAccessReviewSpec {
            user: Some(user.clone()),
            groups: Some(vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{}", place.namespace),
                "system:authenticated".to_owned(),
            ]),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        match call(reviews.create(&PostParams::default(), &review)).await {
            Ok(answer) if answer.status.as_ref().is_some_and(|status| status.allowed) => {}
            Ok(_) => missing.push(what),
            Err(error) => {
                let mend = "check whether you may create subjectaccessreviews";
                return vec![Finding::warning("rights", error, mend)];
            }
        }
    }
    if missing.is_empty() {
        return vec![Finding::ok("rights", format!("{account} may do what it has to"))];
    }
    let message = format!("{account} may not {}", missing.join(", "));
    vec![Finding::error("rights", message, "kubectl apply -f config/rbac.yaml")]
}

fn describe(attributes: &ResourceAttributes) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let name = attributes.name.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
    format!("{} {}{name}", text(&attributes.verb), text(&attributes.resource))
}

async fn catalog_sources(client: &Client, place: &Place) -> Vec<Finding> {
    let (version, group) = place.api_service.split_once('.').unwrap_or_default();
    let kind = GroupVersionKind::gvk(group, version, "CatalogSource");
    let resource = ApiResource::from_gvk_with_plural(&kind, "catalogsources");
    let sources: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    match call(sources.list(&ListParams::default().limit(MOST))).await {
        Ok(list) => checks::catalog_sources(&list.items),
        Err(error) => {
            vec![Finding::error("catalogs", error, "look at the log of the apiserver pods")]
        }
    }
}

async fn call<T>(answer: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(CALL, answer).await {
        Ok(answer) => answer.map_err(|error| error.to_string()),
        Err(_) => Err("the kube-apiserver does not answer".to_owned()),
    }
}
