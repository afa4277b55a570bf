//! May they, where a kube-apiserver decides: SubjectAccessReviews, remembered for a short time (C277–C281).

use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::authorization::v1::{
    FieldSelectorAttributes, LabelSelectorAttributes, NonResourceAttributes, ResourceAttributes,
    SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldSelectorRequirement, LabelSelectorRequirement};
use kube::api::PostParams;
use kube::{Api, Client};

use super::expiring::Expiring;
use crate::api::auth::{Attributes, Authorizer, Decision, MASTERS, Operator, Requirement, User};

/// How long an answer holds, whatever it is (C279).
const ANSWER: Duration = Duration::from_secs(10);

/// Answers that are remembered (C279).
const ANSWERS: usize = 8192;

/// Bytes of a question from which on its answer is not remembered (C279).
const MAX_QUESTION: usize = 10_000;

/// How long an answer may take.
const REVIEW: Duration = Duration::from_secs(10);

/// Asks the cluster whether a user may do something.
pub struct DelegatedAuthorizer {
    reviews: Api<SubjectAccessReview>,
    answers: Expiring<String, Decision>,
}

impl DelegatedAuthorizer {
    /// Asks a cluster.
    pub fn new(client: Client) -> Self {
        DelegatedAuthorizer { reviews: Api::all(client), answers: Expiring::new(ANSWERS, ANSWER) }
    }
}

#[async_trait]
impl Authorizer for DelegatedAuthorizer {
    async fn authorize(&self, user: &User, attributes: &Attributes) -> Result<Decision, String> {
        if user.groups.iter().any(|group| group == MASTERS) {
            return Ok(Decision::Allow);
        }
        let spec = question(user, attributes);
        let key = serde_json::to_string(&spec).map_err(|error| error.to_string())?;
        if let Some(answer) = self.answers.get(&key) {
            return Ok(answer);
        }
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let params = PostParams::default();
        let answer = tokio::time::timeout(REVIEW, self.reviews.create(&params, &review)).await;
        let answer = match answer {
            Ok(answer) => answer.map_err(|error| format!("cannot have the access reviewed: {error}"))?,
            Err(_) => {
                return Err("cannot have the access reviewed: the kube-apiserver does not answer".to_owned());
            }
        };
        let status = answer.status.unwrap_or_default();
        let decision = match status.allowed && !status.denied.unwrap_or_default() {
            true => Decision::Allow,
            false => Decision::Deny(status.reason.unwrap_or_default()),
        };
        if key.len() < MAX_QUESTION {
            self.answers.put(key, decision.clone());
        }
        Ok(decision)
    }
}

/// Returns what the cluster is asked (C278).
fn question(user: &User, attributes: &Attributes) -> SubjectAccessReviewSpec {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let mut spec = SubjectAccessReviewSpec {
        user: text(&user.name),
        uid: text(&user.uid),
        groups: Some(user.groups.clone()),
        extra: Some(user.extra.clone()).filter(|extra| !extra.is_empty()),
        ..SubjectAccessReviewSpec::default()
    };
    if attributes.is_resource() {
        let field_selector = terms(&attributes.field_selector).map(|requirements| FieldSelectorAttributes {
            requirements: Some(requirements),
            raw_selector: None,
        });
        let label_selector = terms(&attributes.label_selector).map(|requirements| LabelSelectorAttributes {
            requirements: Some(requirements),
            raw_selector: None,
        });
        spec.resource_attributes = Some(ResourceAttributes {
            verb: text(&attributes.verb),
            group: text(&attributes.group),
            version: text(&attributes.version),
            resource: text(&attributes.resource),
            subresource: text(&attributes.subresource),
            namespace: text(&attributes.namespace),
            name: text(&attributes.name),
            field_selector,
            label_selector,
        });
    } else {
        spec.non_resource_attributes =
            Some(NonResourceAttributes { path: text(&attributes.path), verb: text(&attributes.verb) });
    }
    spec
}

/// A term of a selector, of labels or of fields.
trait Term {
    fn new(key: String, operator: String, values: Option<Vec<String>>) -> Self;
}

impl Term for FieldSelectorRequirement {
    fn new(key: String, operator: String, values: Option<Vec<String>>) -> Self {
        FieldSelectorRequirement { key, operator, values }
    }
}

impl Term for LabelSelectorRequirement {
    fn new(key: String, operator: String, values: Option<Vec<String>>) -> Self {
        LabelSelectorRequirement { key, operator, values }
    }
}

/// Returns the terms of a selector in the form of a review; none where nothing is selected (C20).
fn terms<T: Term>(requirements: &[Requirement]) -> Option<Vec<T>> {
    let term = |requirement: &Requirement| {
        let Requirement { key, operator, values } = requirement;
        let operator = match operator {
            Operator::In => "In",
            Operator::NotIn => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
        };
        T::new(key.clone(), operator.to_owned(), Some(values.clone()).filter(|values| !values.is_empty()))
    };
    (!requirements.is_empty()).then(|| requirements.iter().map(term).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::fake;
    use super::*;

    fn get(path: &str) -> Attributes {
        Attributes { verb: "get".to_owned(), path: path.to_owned(), ..Attributes::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn c279_answers_hold_for_ten_seconds() {
        let (client, asked) = fake::cluster(|_, review| {
            let allowed = review["spec"]["nonResourceAttributes"]["path"] == "/yes";
            (
                201,
                json!({
                    "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}, "spec": {},
                    "status": {"allowed": allowed, "reason": "because"},
                }),
            )
        });
        let authorizer = DelegatedAuthorizer::new(client);
        let alice = User { name: "alice".to_owned(), ..User::default() };
        let times = || asked.lock().unwrap().len();
        for _ in 0..3 {
            assert_eq!(authorizer.authorize(&alice, &get("/yes")).await, Ok(Decision::Allow));
            let refused = authorizer.authorize(&alice, &get("/no")).await;
            assert_eq!(refused, Ok(Decision::Deny("because".to_owned())));
        }
        assert_eq!(times(), 2, "yes and no are remembered alike");
        let bob = User { name: "bob".to_owned(), ..User::default() };
        authorizer.authorize(&bob, &get("/yes")).await.unwrap();
        assert_eq!(times(), 3, "the whole question counts");
        tokio::time::advance(ANSWER).await;
        authorizer.authorize(&alice, &get("/yes")).await.unwrap();
        assert_eq!(times(), 4);
        // A question that is too long is asked each time.
        let long = get(&"/x".repeat(MAX_QUESTION));
        for _ in 0..2 {
            authorizer.authorize(&alice, &long).await.unwrap();
        }
        assert_eq!(times(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn c277_c280_administrators_pass_and_without_an_answer_nobody_else_does() {
        let (client, asked) = fake::cluster(|_, _| fake::failure(500, "InternalError"));
        let authorizer = DelegatedAuthorizer::new(client);
        let passed = authorizer.authorize(&User::administrator(), &get("/yes")).await;
        assert_eq!((passed, asked.lock().unwrap().len()), (Ok(Decision::Allow), 0));
        let alice = User { name: "alice".to_owned(), ..User::default() };
        let failed = authorizer.authorize(&alice, &get("/yes")).await.unwrap_err();
        assert!(failed.starts_with("cannot have the access reviewed"), "{failed}");
        // What is denied is denied, whatever else is said.
        let (client, _) = fake::cluster(|_, _| {
            (
                201,
                json!({
                    "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}, "spec": {},
                    "status": {"allowed": true, "denied": true},
                }),
            )
        });
        let refused = DelegatedAuthorizer::new(client).authorize(&alice, &get("/yes")).await;
        assert_eq!(refused, Ok(Decision::Deny(String::new())));
    }

    #[test]
    fn c278_questions_carry_everything_that_is_known() {
        let user = User {
            name: "alice".to_owned(),
            groups: vec!["dev".to_owned()],
            extra: [("scopes".to_owned(), vec!["a".to_owned()])].into(),
            ..User::default()
        };
        let attributes = Attributes {
            verb: "list".to_owned(),
            group: "core.rukpak.io".to_owned(),
            version: "v1beta1".to_owned(),
            resource: "packages".to_owned(),
            namespace: "test".to_owned(),
            field_selector: vec![Requirement {
                key: "spec.catalogSource".to_owned(),
                operator: Operator::In,
                values: vec!["x".to_owned()],
            }],
            label_selector: vec![Requirement {
                key: "a".to_owned(),
                operator: Operator::Exists,
                values: Vec::new(),
            }],
            path: "/apis/…".to_owned(),
            ..Attributes::default()
        };
        let expected = json!({
            "user": "alice", "groups": ["dev"], "extra": {"scopes": ["a"]},
            "resourceAttributes": {
                "verb": "list", "group": "core.rukpak.io", "version": "v1beta1", "resource": "packages",
                "namespace": "test",
                "fieldSelector": {"requirements": [
                    {"key": "spec.catalogSource", "operator": "In", "values": ["x"]},
                ]},
                "labelSelector": {"requirements": [{"key": "a", "operator": "Exists"}]},
            },
        });
        assert_eq!(serde_json::to_value(question(&user, &attributes)).unwrap(), expected);
        let path =
            Attributes { verb: "get".to_owned(), path: "/metrics".to_owned(), ..Attributes::default() };
        let asked = serde_json::to_value(question(&user, &path)).unwrap();
        assert_eq!(asked["nonResourceAttributes"], json!({"path": "/metrics", "verb": "get"}));
    }
}
