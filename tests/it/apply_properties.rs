//! Server-side apply against a model: who owns which field after any sequence of applies and updates, forced or not
//! (C171–C189).
//!
//! The model knows an object as a set of leaves (a plain field, a label, a finalizer) with values, and managers as sets of
//! leaves. What the server does has to come to the same: values, owners, conflicts, and whether there is a new version.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::objects::SOURCES;
use crate::support::router::{Answer, TestApi};
use crate::support::{rounds, runtime};

/// A place in an object, as a JSON pointer; an item of the finalizers ends with its value.
type Leaf = &'static str;

const IMAGE: Leaf = "/spec/image";
const BUNDLE: Leaf = "/spec/caBundle/name";
const BUNDLE_KEY: Leaf = "/spec/caBundle/key";
const FINALIZERS: &str = "/metadata/finalizers/";

const LEAVES: [Leaf; 11] = [
    IMAGE,
    "/spec/displayName",
    "/spec/publisher",
    "/spec/priority",
    BUNDLE,
    BUNDLE_KEY,
    "/metadata/labels/a",
    "/metadata/labels/b",
    "/metadata/annotations/a",
    "/metadata/finalizers/example.com/a",
    "/metadata/finalizers/example.com/b",
];

/// Leaves that updates change: where a leaf is all that is owned, and not what is around it.
const UPDATED: [Leaf; 4] = [IMAGE, "/spec/displayName", "/spec/publisher", "/spec/priority"];

/// A manager: `Apply` or `Update`, and a name.
type Manager = (&'static str, &'static str);

#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    is_there: bool,
    values: BTreeMap<Leaf, Value>,
    owners: BTreeMap<Manager, BTreeSet<Leaf>>,
}

#[derive(Clone, Debug)]
enum Step {
    Apply { name: &'static str, config: BTreeMap<Leaf, Value>, is_forced: bool },
    Update { name: &'static str, changes: BTreeMap<Leaf, Option<Value>> },
}

/// What becomes of a step.
#[derive(Debug, PartialEq)]
enum Outcome {
    Done(Model),
    /// Managers of an operation that own fields with another value, and the fields.
    Conflicts(BTreeSet<(Manager, Leaf)>),
    Invalid,
    NotFound,
}

impl Model {
    fn after(&self, step: &Step) -> Outcome {
        let mut new = self.clone();
        new.is_there = true;
        match step {
            Step::Apply { name, config, is_forced } => {
                let me = ("Apply", *name);
                let last = new.owners.remove(&me).unwrap_or_default();
                let is_owned = |leaf: &Leaf| new.owners.values().any(|owned| owned.contains(leaf));
                let dropped: Vec<_> =
                    last.into_iter().filter(|leaf| !config.contains_key(leaf) && !is_owned(leaf)).collect();
                new.values.retain(|leaf, _| !dropped.contains(leaf));
                let changed: BTreeSet<Leaf> = config
                    .iter()
                    .filter(|(leaf, value)| self.values.get(*leaf) != Some(value))
                    .map(|(leaf, _)| *leaf)
                    .collect();
                let conflicts: BTreeSet<_> = new
                    .owners
                    .iter()
                    .flat_map(|(manager, owned)| owned.intersection(&changed).map(|leaf| (*manager, *leaf)))
                    .collect();
                if !is_forced && !conflicts.is_empty() {
                    return Outcome::Conflicts(conflicts);
                }
                new.values.extend(config.iter().map(|(leaf, value)| (*leaf, value.clone())));
                new.lose(&changed);
                if !config.is_empty() {
                    new.owners.insert(me, config.keys().copied().collect());
                }
            }
            Step::Update { .. } if !self.is_there => return Outcome::NotFound,
            Step::Update { name, changes } => {
                let (mut gone, mut changed) = (BTreeSet::new(), BTreeSet::new());
                for (leaf, value) in changes {
                    match value {
                        Some(value) if self.values.get(leaf) != Some(value) => {
                            new.values.insert(leaf, value.clone());
                            changed.insert(*leaf);
                        }
                        Some(_) => {}
                        None => {
                            if new.values.remove(leaf).is_some() {
                                gone.insert(*leaf);
                            }
                        }
                    }
                }
                new.lose(&gone);
                new.lose(&changed);
                if !changed.is_empty() {
                    new.owners.entry(("Update", name)).or_default().extend(changed);
                }
            }
        }
        let is_valid = new.values.contains_key(IMAGE)
            && (!new.values.contains_key(BUNDLE_KEY) || new.values.contains_key(BUNDLE));
        if is_valid { Outcome::Done(new) } else { Outcome::Invalid }
    }

    /// Takes leaves from whoever owns them.
    fn lose(&mut self, leaves: &BTreeSet<Leaf>) {
        for owned in self.owners.values_mut() {
            owned.retain(|leaf| !leaves.contains(leaf));
        }
        self.owners.retain(|_, owned| !owned.is_empty());
    }

    /// Reads an object as the model sees it.
    fn of(object: &Value) -> Self {
        let finalizers = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        let value = |leaf: Leaf| match leaf.strip_prefix(FINALIZERS) {
            Some(finalizer) => finalizers.iter().find(|found| *found == finalizer).cloned(),
            None => object.pointer(leaf).cloned(),
        };
        let values = LEAVES.iter().filter_map(|leaf| Some((*leaf, value(leaf)?))).collect();
        let mut owners = BTreeMap::new();
        for entry in object["metadata"]["managedFields"].as_array().into_iter().flatten() {
            let mut leaves = BTreeSet::new();
            owned("", &entry["fieldsV1"], &mut leaves);
            let operation = if entry["operation"] == "Apply" { "Apply" } else { "Update" };
            let name = NAMES.iter().find(|name| entry["manager"] == **name).expect("there is nobody else");
            owners.insert((operation, *name), leaves);
        }
        Model { is_there: true, values, owners }
    }
}

/// Collects the leaves of a set of fields.
fn owned(path: &str, fields: &Value, leaves: &mut BTreeSet<Leaf>) {
    let fields = fields.as_object().expect("a set of fields is an object");
    let below: Vec<_> = fields.iter().filter(|(name, _)| *name != ".").collect();
    if below.is_empty() {
        leaves
            .insert(LEAVES.iter().find(|leaf| **leaf == path).unwrap_or_else(|| panic!("{path} is no leaf")));
    }
    for (name, value) in below {
        let step = match name.split_at(2) {
            ("f:", field) => field.to_owned(),
            ("v:", item) => serde_json::from_str(item).expect("it is a text"),
            _ => panic!("{name} is no step"),
        };
        owned(&format!("{path}/{step}"), value, leaves);
    }
}

/// Puts values where their leaves are.
fn object(values: impl IntoIterator<Item = (Leaf, Value)>) -> Value {
    let mut object = json!({});
    for (leaf, value) in values {
        match leaf.strip_prefix(FINALIZERS) {
            Some(_) => {
                let list = &mut object["metadata"]["finalizers"];
                if list.is_null() {
                    *list = json!([]);
                }
                list.as_array_mut().expect("it is a list").push(value);
            }
            None => {
                let place = leaf[1..].split('/').fold(&mut object, |place, name| &mut place[name]);
                *place = value;
            }
        }
    }
    object
}

const NAMES: [&str; 3] = ["ann", "bob", "cat"];

fn value(leaf: Leaf) -> BoxedStrategy<Value> {
    match leaf {
        IMAGE => prop::sample::select(vec![json!("example.com/a:b"), json!("example.com/c:d")]).boxed(),
        "/spec/priority" => (1..3_i64).prop_map(Value::from).boxed(),
        leaf => match leaf.strip_prefix(FINALIZERS) {
            Some(finalizer) => Just(json!(finalizer)).boxed(),
            None => prop::sample::select(vec![json!("x"), json!("y")]).boxed(),
        },
    }
}

fn leaves<V: Clone + std::fmt::Debug>(
    from: &'static [Leaf],
    value: impl Fn(Leaf) -> BoxedStrategy<V>,
) -> impl Strategy<Value = BTreeMap<Leaf, V>> {
    let each: Vec<_> = from
        .iter()
        .map(|leaf| prop::option::weighted(if *leaf == IMAGE { 0.8 } else { 0.35 }, value(leaf)))
        .collect();
    each.prop_map(move |values| {
        let values = from.iter().zip(values);
        values.filter_map(|(leaf, value)| Some((*leaf, value?))).collect()
    })
}

fn step() -> impl Strategy<Value = Step> {
    let name = || prop::sample::select(NAMES.to_vec());
    let apply = (name(), leaves(&LEAVES, value), any::<bool>())
        .prop_map(|(name, config, is_forced)| Step::Apply { name, config, is_forced });
    let changes = leaves(&UPDATED, |leaf| prop::option::weighted(0.8, value(leaf)).boxed());
    let update = (name(), changes).prop_map(|(name, changes)| Step::Update { name, changes });
    prop_oneof![3 => apply, 1 => update]
}

async fn take(api: &TestApi, step: &Step) -> Answer {
    let path = format!("{SOURCES}/s");
    match step {
        Step::Apply { name, config, is_forced } => {
            let mut object = object(config.clone());
            object["apiVersion"] = json!("core.rukpak.io/v1beta1");
            object["kind"] = json!("CatalogSource");
            api.patch(&format!("{path}?fieldManager={name}&force={is_forced}"), "apply-patch+yaml", &object)
                .await
        }
        Step::Update { name, changes } => {
            let changes = changes.iter().map(|(leaf, value)| (*leaf, value.clone().unwrap_or_default()));
            let patch = object(changes);
            api.patch(&format!("{path}?fieldManager={name}"), "merge-patch+json", &patch).await
        }
    }
}

/// Returns the conflicts that an answer names.
fn conflicts(body: &Value) -> BTreeSet<(Manager, String)> {
    let causes = body["details"]["causes"].as_array().expect("it says which").iter();
    causes
        .map(|cause| {
            let message = cause["message"].as_str().unwrap();
            let name = NAMES.iter().find(|name| message.contains(&format!("{name:?}"))).expect("it says who");
            let operation = if message.contains("using") { "Update" } else { "Apply" };
            ((operation, *name), cause["field"].as_str().unwrap().to_owned())
        })
        .collect()
}

#[test]
fn c171_c189_fields_are_owned_as_a_model_says() {
    let runtime = runtime();
    let strategy = prop::collection::vec(step(), 1..16);
    proptest!(ProptestConfig::with_cases(rounds(128, 5_000)), |(steps in strategy)| {
        runtime.block_on(async {
            let api = TestApi::new();
            let path = format!("{SOURCES}/s");
            let (mut model, mut stored) = (Model::default(), Value::Null);
            for step in steps {
                let answer = take(&api, &step).await;
                match model.after(&step) {
                    Outcome::Done(new) => {
                        let object = answer.expect(if model.is_there { 200 } else { 201 });
                        prop_assert_eq!(&Model::of(&object), &new, "{:?}", step);
                        let is_same = object["metadata"]["resourceVersion"] == stored["metadata"]["resourceVersion"];
                        prop_assert_eq!(is_same, new == model, "{:?}", step);
                        (model, stored) = (new, object);
                        if let Step::Apply { name, config, .. } = step {
                            // To say it again, and with force, changes nothing.
                            let again = Step::Apply { name, config, is_forced: true };
                            prop_assert_eq!(&take(&api, &again).await.expect(200), &stored);
                        }
                    }
                    Outcome::Conflicts(expected) => {
                        let body = answer.expect(409);
                        let expected = expected.into_iter().map(|(manager, leaf)| (manager, leaf.replace('/', ".")));
                        prop_assert_eq!(conflicts(&body), expected.collect::<BTreeSet<_>>(), "{}", body);
                    }
                    Outcome::Invalid => prop_assert_eq!(answer.status.as_u16(), 422, "{:?}: {}", step, answer.text()),
                    Outcome::NotFound => prop_assert_eq!(answer.status.as_u16(), 404),
                }
                // What was refused changed nothing, and what was done is stored.
                if model.is_there {
                    prop_assert_eq!(&api.get(&path).await.expect(200), &stored);
                } else {
                    prop_assert_eq!(api.get(&path).await.status.as_u16(), 404);
                }
            }
            Ok(())
        })?;
    });
}
