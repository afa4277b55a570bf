use k8s_openapi::jiff::Timestamp;
use proptest::prelude::*;

use super::super::fields::display;
use super::super::samples::{any_json, structure, value};
use super::*;

const VERSION: &str = "example.com/v1";

/// An object and its managers, with a clock that goes on by a second with each step.
struct State {
    structure: Structure,
    object: Value,
    managers: Managers,
    seconds: i64,
}

impl State {
    fn new() -> Self {
        State { structure: structure(), object: json!({}), managers: Managers::default(), seconds: 0 }
    }

    /// An object that somebody created.
    fn created(name: &str, object: Value) -> Self {
        let mut state = Self::new();
        state.managers = state.step(name, |managers, author| managers.created(author, &object));
        state.object = object;
        state
    }

    fn step<T>(&mut self, name: &str, change: impl FnOnce(Managers, &Author<'_>) -> T) -> T {
        self.seconds += 1;
        let now = Time(Timestamp::from_second(self.seconds).unwrap());
        let (structure, api_version) = (&self.structure, VERSION);
        let author = Author { structure, api_version, name, subresource: "", now: &now };
        change(self.managers.clone(), &author)
    }

    fn update(&mut self, name: &str, object: Value) -> &mut Self {
        let old = self.object.clone();
        self.managers = self.step(name, |managers, author| managers.updated(author, &old, &object));
        self.object = object;
        self
    }

    /// Applies a configuration, and returns the conflicts as they are told.
    fn apply(&mut self, name: &str, config: Value, is_forced: bool) -> Vec<String> {
        let live = self.object.clone();
        match self.step(name, |managers, author| managers.applied(author, &live, &config, is_forced)) {
            Ok((object, managers)) => {
                (self.object, self.managers) = (object, managers);
                Vec::new()
            }
            Err(conflicts) => conflicts
                .iter()
                .map(|conflict| format!("{} {}", conflict.manager.describe(VERSION), conflict.field()))
                .collect(),
        }
    }

    fn applied(&mut self, name: &str, config: Value) -> &mut Self {
        assert_eq!(self.apply(name, config, false), Vec::<String>::new());
        self
    }

    fn forced(&mut self, name: &str, config: Value) -> &mut Self {
        assert_eq!(self.apply(name, config, true), Vec::<String>::new());
        self
    }

    /// Makes what somebody owns by updates theirs by applying, as kubectl does it.
    fn hand_over(&mut self, name: &str) {
        let manager = |operation| Manager { operation, name: name.to_owned(), subresource: String::new() };
        if let Some(entry) = self.managers.entries.remove(&manager(Operation::Update)) {
            let applied = self.managers.entries.entry(manager(Operation::Apply)).or_default();
            applied.fields = std::mem::take(&mut applied.fields).union(&entry.fields);
            applied.time = entry.time;
        }
    }

    /// Returns who owns what, as text.
    fn owners(&self) -> Vec<String> {
        let entries = self.managers.entries.iter().map(|(manager, entry)| {
            let paths: Vec<_> = entry.fields.paths().iter().map(|path| display(path)).collect();
            format!("{} {:?}: {}", manager.name, manager.operation, paths.join(" "))
        });
        entries.collect()
    }

    #[track_caller]
    fn is(&self, object: Value, owners: &[&str]) {
        assert_eq!(self.object, object);
        assert_eq!(self.owners(), owners);
    }
}

#[test]
fn c180_what_is_not_said_any_more_goes_if_nobody_else_says_it() {
    let mut state = State::new();
    state
        .applied("one", json!({"text": "x", "labels": {"a": "1", "b": "1"}}))
        .applied("two", json!({"labels": {"b": "1"}}))
        .applied("one", json!({"text": "x"}));
    state.is(json!({"text": "x", "labels": {"b": "1"}}), &["one Apply: .text", "two Apply: .labels.b"]);
    state.applied("two", json!({}));
    state.is(json!({"text": "x"}), &["one Apply: .text"]);
}

#[test]
fn c180_what_an_update_owns_too_stays() {
    let mut state = State::created("creator", json!({"text": "x"}));
    state.applied("one", json!({"text": "x", "number": 1})).applied("one", json!({"number": 1}));
    state.is(json!({"text": "x", "number": 1}), &["one Apply: .number", "creator Update: .text"]);
}

#[test]
fn c180_items_go_with_what_is_in_them() {
    let mut state = State::new();
    state
        .applied("one", json!({"items": [{"name": "a", "value": "1"}, {"name": "b"}]}))
        .applied("two", json!({"items": [{"name": "b", "value": "2"}]}))
        .applied("one", json!({"items": []}));
    let owners = [r#"two Apply: .items[name="b"] .items[name="b"].name .items[name="b"].value"#];
    state.is(json!({"items": [{"name": "b", "value": "2"}]}), &owners);
}

#[test]
fn c178_another_value_is_a_conflict_and_the_same_is_shared() {
    let mut state = State::created("creator", json!({"text": "x", "labels": {"a": "1"}}));
    state.applied("one", json!({"object": {"a": "1"}}));
    let config = json!({"text": "y", "labels": {"a": "2", "b": "2"}, "object": {"a": "2"}});
    let conflicts = state.apply("two", config, false);
    let expected = [
        r#""one" .object.a"#,
        r#""creator" using example.com/v1 .text"#,
        r#""creator" using example.com/v1 .labels.a"#,
    ];
    assert_eq!(conflicts, expected);
    state.applied("two", json!({"text": "x", "object": {"a": "1"}}));
    let owners =
        ["one Apply: .object.a", "two Apply: .text .object.a", "creator Update: .labels .text .labels.a"];
    state.is(json!({"text": "x", "labels": {"a": "1"}, "object": {"a": "1"}}), &owners);
}

#[test]
fn c179_force_takes_what_is_in_conflict_and_nothing_else() {
    let mut state = State::new();
    state.applied("one", json!({"text": "x", "number": 1})).forced("two", json!({"text": "y", "number": 1}));
    state.is(json!({"text": "y", "number": 1}), &["one Apply: .number", "two Apply: .number .text"]);
    // Who lost a field gets it back the same way only.
    assert_eq!(state.apply("one", json!({"text": "x", "number": 1}), false), [r#""two" .text"#]);
}

#[test]
fn c181_an_update_takes_what_it_changes_from_everybody() {
    let mut state = State::new();
    state
        .applied("one", json!({"text": "x", "object": {"a": "1", "b": "1"}}))
        .applied("two", json!({"text": "x"}))
        .update("edit", json!({"text": "y", "object": {"b": "1"}}));
    state.is(json!({"text": "y", "object": {"b": "1"}}), &["one Apply: .object.b", "edit Update: .text"]);
    // To change it back is a change too.
    state.update("edit", json!({"text": "x", "object": {"b": "1"}}));
    assert_eq!(state.owners(), ["one Apply: .object.b", "edit Update: .text"]);
}

#[test]
fn c193_who_takes_over_from_an_update_leaves_what_others_put_there() {
    let mut state =
        State::created("client-side", json!({"object": {"a": "1"}, "labels": {"a": "1"}, "text": "x"}));
    state
        .update("edit", json!({"object": {"a": "1", "b": "1"}, "labels": {"a": "1", "b": "1"}, "text": "x"}));
    state.hand_over("client-side");
    state.applied("client-side", json!({"text": "x"}));
    let owners = ["client-side Apply: .text", "edit Update: .labels.b .object.b"];
    state.is(json!({"object": {"b": "1"}, "labels": {"b": "1"}, "text": "x"}), &owners);
}

#[test]
fn c181_whole_values_have_one_owner() {
    let mut state = State::new();
    state.applied("one", json!({"whole": {"a": "1"}, "list": ["a"]}));
    let conflicts = state.apply("two", json!({"whole": {"b": "1"}, "list": ["a"]}), false);
    assert_eq!(conflicts, [r#""one" .whole"#]);
    state.forced("two", json!({"whole": {"b": "1"}, "list": ["a"]}));
    state.is(json!({"whole": {"b": "1"}, "list": ["a"]}), &["one Apply: .list", "two Apply: .list .whole"]);
}

#[test]
fn c188_what_was_there_before_the_first_apply_has_an_owner() {
    let mut state = State::new();
    state.object = json!({"text": "x", "labels": {"a": "1"}});
    // Nothing is noted of updates as long as there are no managers (C189).
    state.update("edit", json!({"text": "y", "labels": {"a": "1"}}));
    assert_eq!(state.owners(), Vec::<String>::new());
    let conflicts = state.apply("one", json!({"text": "x"}), false);
    assert_eq!(conflicts, [r#""before-first-apply" using example.com/v1 .text"#]);
    state.applied("one", json!({"labels": {"b": "1"}}));
    let owners = ["one Apply: .labels.b", "before-first-apply Update: .labels .text .labels.a"];
    state.is(json!({"text": "y", "labels": {"a": "1", "b": "1"}}), &owners);
}

#[test]
fn c188_the_oldest_of_too_many_updaters_become_one() {
    let labels = |count: usize| {
        let labels: Map<_, _> = (0..count).map(|number| (format!("l{number:02}"), json!("1"))).collect();
        json!({"labels": labels})
    };
    let mut state = State::created("m00", labels(1));
    for count in 2..=MAX_UPDATERS {
        state.update(&format!("m{:02}", count - 1), labels(count));
    }
    assert_eq!(state.managers.entries.len(), MAX_UPDATERS);
    state.update("m10", labels(11));
    let expected = "ancient-changes Update: .labels .labels.l00 .labels.l01";
    assert_eq!((&*state.owners()[0], state.managers.entries.len()), (expected, MAX_UPDATERS));
    for count in 12..=30 {
        state.update(&format!("m{:02}", count - 1), labels(count));
        assert_eq!(state.managers.entries.len(), MAX_UPDATERS, "{count}");
    }
    let written = state.managers.write(VERSION).unwrap();
    assert_eq!(written[0]["manager"], "ancient-changes");
    assert_eq!(written[0]["time"], "1970-01-01T00:00:21Z");
    // Appliers are not counted, and are first whenever they came.
    state.applied("applier", json!({"text": "x"}));
    let written = state.managers.write(VERSION).unwrap();
    assert_eq!(
        (written.as_array().unwrap().len(), &written[0]["manager"]),
        (MAX_UPDATERS + 1, &json!("applier"))
    );
}

#[test]
fn c183_c184_managers_are_written_sorted() {
    let mut state = State::created("zoe", json!({"text": "x"}));
    state.update("anna", json!({"text": "x", "number": 1})).applied("will", json!({"labels": {"a": "1"}}));
    let written = state.managers.write(VERSION).unwrap();
    let entry = |manager: &str, operation: &str, second: i64, fields: Value| {
        json!({
            "manager": manager, "operation": operation, "apiVersion": VERSION, "fieldsType": "FieldsV1",
            "time": format!("1970-01-01T00:00:0{second}Z"), "fieldsV1": fields,
        })
    };
    let expected = json!([
        entry("will", "Apply", 3, json!({"f:labels": {"f:a": {}}})),
        entry("zoe", "Update", 1, json!({"f:text": {}})),
        entry("anna", "Update", 2, json!({"f:number": {}})),
    ]);
    assert_eq!(written, expected);
    assert_eq!(Managers::read(&written, VERSION).unwrap(), state.managers);
    assert_eq!(Managers::default().write(VERSION), None);
}

#[test]
fn c189_managers_can_be_cleared_and_are_kept_otherwise() {
    let live = State::created("one", json!({"text": "x"}));
    let with = |managers: Option<Value>| {
        let mut object = Map::new();
        object.insert("metadata".to_owned(), json!({}));
        if let Some(managers) = managers {
            object["metadata"]["managedFields"] = managers;
        }
        object
    };
    let live = with(live.managers.write(VERSION));
    let before = |managers: Option<Value>| Managers::before_update(&live, &with(managers), VERSION);
    let kept = Managers::of(&live, VERSION);
    assert!(!kept.entries.is_empty());
    assert_eq!(before(Some(json!([{}]))), Managers::default());
    let good = json!({
        "manager": "m", "operation": "Update", "apiVersion": VERSION, "fieldsType": "FieldsV1", "fieldsV1": {"f:a": {}},
    });
    let without = |field: &str| {
        let mut entry = good.clone();
        entry.as_object_mut().unwrap().remove(field);
        entry
    };
    let changed = |field: &str, value: Value| {
        let mut entry = good.clone();
        entry[field] = value;
        entry
    };
    for invalid in [
        None,
        Some(json!([])),
        Some(json!([{}, {}])),
        Some(json!("x")),
        Some(json!([without("operation")])),
        Some(json!([without("apiVersion")])),
        Some(json!([without("fieldsType")])),
        Some(json!([good, changed("operation", json!("Create"))])),
        Some(json!([changed("fieldsType", json!("FieldsV2"))])),
        Some(json!([changed("fieldsV1", json!({"f:a": 1}))])),
        Some(json!([changed("fieldsV1", json!({"k:x": {}}))])),
        Some(json!([changed("time", json!("yesterday"))])),
        Some(json!([changed("manager", json!("x".repeat(129)))])),
        Some(json!([changed("subresource", json!("x".repeat(257)))])),
        // Of another version, which is not served.
        Some(json!([changed("apiVersion", json!("example.com/v0"))])),
    ] {
        assert_eq!(before(invalid.clone()), kept, "{invalid:?}");
    }
    let set = before(Some(json!([good])));
    assert_eq!(set.write(VERSION), Some(json!([good])));
}

#[test]
fn c178_messages_name_managers_and_fields() {
    let conflict = |name: &str, operation, subresource: &str, field: &str| Conflict {
        manager: Manager { name: name.to_owned(), operation, subresource: subresource.to_owned() },
        path: vec![Element::field("spec"), Element::field(field)],
    };
    let one = conflict("kubectl-edit", Operation::Update, "", "image");
    let text =
        r#"Apply failed with 1 conflict: conflict with "kubectl-edit" using example.com/v1: .spec.image"#;
    assert_eq!(message(std::slice::from_ref(&one), VERSION), text);
    let status = conflict("b", Operation::Update, "status", "x");
    let several = [
        conflict("b", Operation::Apply, "", "x"),
        one.clone(),
        status,
        conflict("b", Operation::Apply, "", "y"),
    ];
    let text = "Apply failed with 4 conflicts: conflicts with \"b\":\n- .spec.x\n- .spec.y\nconflicts with \"b\" with \
                subresource \"status\" using example.com/v1:\n- .spec.x\nconflicts with \"kubectl-edit\" using \
                example.com/v1:\n- .spec.image";
    assert_eq!(message(&several, VERSION), text);
}

#[derive(Clone, Debug)]
enum Step {
    Apply { config: Value, is_forced: bool },
    Update(Value),
    HandOver,
}

fn steps() -> impl Strategy<Value = Vec<(String, Step)>> {
    let step = prop_oneof![
        3 => (value(), any::<bool>()).prop_map(|(config, is_forced)| Step::Apply { config, is_forced }),
        2 => value().prop_map(Step::Update),
        1 => Just(Step::HandOver),
    ];
    proptest::collection::vec(("[abc]", step), 1..10)
}

/// Returns whether a place is in an item of a list or an entry of a map, and goes with it; or where there is no schema, in
/// what may become a value of another kind.
fn lies_in_an_item(structure: &Structure, path: &[Element]) -> bool {
    let names: Vec<_> = path.iter().map(Element::to_string).collect();
    let mut structure = structure;
    for name in &names[..names.len() - 1] {
        let name = name.trim_start_matches('.');
        match structure.field(name) {
            Some(inner) if structure.declares(name) => structure = inner,
            _ => return true,
        }
    }
    matches!(structure, Structure::Any { .. })
}

/// All places of a value, those too that nobody needs to own.
fn places(structure: &Structure, value: &Value) -> FieldSet {
    let changes = compare(structure, &json!({}), value);
    changes.added.union(&changes.modified)
}

/// Places that hold a value, and not only other places.
fn leaves(structure: &Structure, value: &Value) -> FieldSet {
    fn without_empty(value: &Value) -> Value {
        match value {
            Value::Object(fields) => {
                let fields = fields.iter().filter(|(_, value)| **value != json!({}));
                Value::Object(fields.map(|(name, value)| (name.clone(), without_empty(value))).collect())
            }
            other => other.clone(),
        }
    }
    owned(structure, &without_empty(value))
}

proptest! {
    #[test]
    fn whatever_is_done_in_whatever_order_owners_stay_right(first in value(), steps in steps()) {
        let mut state = State::created("a", first);
        for (name, step) in steps {
            let before = (state.object.clone(), state.managers.clone());
            match step {
                Step::HandOver => state.hand_over(&name),
                Step::Update(object) => {
                    state.update(&name, object.clone());
                    prop_assert_eq!(&state.object, &object);
                }
                Step::Apply { config, is_forced } => {
                    let conflicts = state.apply(&name, config.clone(), is_forced);
                    if !conflicts.is_empty() {
                        prop_assert!(!is_forced);
                        prop_assert_eq!((&state.object, &state.managers), (&before.0, &before.1));
                        continue;
                    }
                    // What was applied holds, and whoever applied it owns it.
                    prop_assert_eq!(merge(&state.structure, &state.object, &config), state.object.clone());
                    let me = Manager { operation: Operation::Apply, name: name.clone(), subresource: String::new() };
                    let mine = state.managers.entries.get(&me).map(|entry| entry.fields.clone()).unwrap_or_default();
                    prop_assert_eq!(mine, owned(&state.structure, &config));
                    let changes = compare(&state.structure, &before.0, &state.object);
                    let had = leaves(&state.structure, &before.0);
                    for (_, entry) in before.1.entries.iter().filter(|(manager, _)| **manager != me) {
                        // Nobody else's value is changed, unless it is taken,
                        prop_assert!(is_forced || entry.fields.intersection(&changes.modified).is_empty());
                        // or removed, unless it lies in something that is.
                        let lost = entry.fields.intersection(&had).intersection(&changes.removed).paths();
                        let free: Vec<_> = lost.iter().filter(|path| !lies_in_an_item(&state.structure, path)).collect();
                        prop_assert!(free.is_empty(), "{:?}", free);
                    }
                    // To apply it again changes nothing, not even who owns what. An object that nobody owns anything of is
                    // given an owner first, as any that nothing was noted of.
                    if state.managers.entries.is_empty() {
                        state.apply(&name, config.clone(), false);
                    }
                    let object = state.object.clone();
                    let owners = state.owners();
                    prop_assert_eq!(state.apply(&name, config.clone(), false), Vec::<String>::new());
                    prop_assert_eq!((&state.object, state.owners()), (&object, owners));
                }
            }
            // Nobody owns what is not there, everything has an owner, and it can be read back.
            let all = state.managers.entries.values().fold(FieldSet::default(), |all, entry| all.union(&entry.fields));
            let nowhere = all.difference(&places(&state.structure, &state.object));
            prop_assert!(nowhere.is_empty(), "{:?} of {}", nowhere.paths(), state.object);
            let nobodys = leaves(&state.structure, &state.object).difference(&all);
            // Where nothing at all has an owner, nothing is noted until the next apply (C189).
            let is_noted = !state.managers.entries.is_empty();
            prop_assert!(!is_noted || nobodys.is_empty(), "{:?} of {}", nobodys.paths(), state.object);
            let written = state.managers.write(VERSION).unwrap_or(Value::Null);
            prop_assert_eq!(&Managers::read(&written, VERSION).unwrap(), &state.managers);
        }
    }

    #[test]
    fn any_json_is_read_as_managers_or_refused(list in any_json(), old in any_json(), new in any_json()) {
        let _ = Managers::read(&list, VERSION);
        let mut state = State::created("a", old);
        state.update("b", new.clone());
        state.forced("c", new);
    }
}
