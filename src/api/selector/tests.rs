use super::*;

fn packages() -> &'static ResourceType {
    crate::model::RESOURCES.iter().find(|resource| resource.plural == "packages").unwrap()
}

fn selects(labels: &str, fields: &str) -> bool {
    let object = Object::whole(
        r#"{"metadata":{"name":"p","namespace":"n","labels":{"a":"x","n":"5","k/l":""}},"spec":{"catalogSource":"c,d=e\\"}}"#,
    );
    let key = Key::new("packages", "n", "p");
    let selector = Selector::parse(packages(), labels, fields).unwrap();
    let selects = selector.selects(packages(), &key, &object).unwrap();
    let facts = Facts::of(packages(), &object).unwrap();
    assert_eq!(selector.matches(&key, &facts), selects);
    selects
}

#[test]
fn c032_label_selectors_follow_the_grammar() {
    for (text, expected) in [
        ("", true),
        ("a=x", true),
        ("a==x", true),
        (" a = x , n = 5 ", true),
        ("a!=x", false),
        ("a=y", false),
        ("a in (y, x)", true),
        ("a in (y)", false),
        ("a notin (y)", true),
        ("a notin (x,y)", false),
        ("a", true),
        ("!a", false),
        ("!b", true),
        ("b", false),
        ("k/l=", true),
        ("k/l in ()", true),
        ("n>4", true),
        ("n<5", false),
        ("n > 4,n<6", true),
        ("in in (in)", false),
    ] {
        assert_eq!(selects(text, ""), expected, "{text:?}");
    }
}

#[test]
fn c033_absent_keys_match_negations_only() {
    for (text, expected) in
        [("b!=x", true), ("b notin (x)", true), ("b=x", false), ("b>1", false), ("a>1", false)]
    {
        assert_eq!(selects(text, ""), expected, "{text:?}");
    }
}

#[test]
fn c032_bad_label_selectors_are_refused() {
    for text in
        ["a=x,", ",a", "a=x y", "a in x", "a in (x", "a>b", "=x", "!", "-a", "a=-", "a b", "a&b", "A_/b=1"]
    {
        let error = Selector::parse(packages(), text, "").unwrap_err();
        assert_eq!(error.code(), 400, "{text:?}");
        assert!(
            String::from_utf8(error.to_json()).unwrap().contains("unable to parse requirement"),
            "{text:?}"
        );
    }
}

#[test]
fn c028_field_selectors_follow_the_grammar() {
    for (text, expected) in [
        ("", true),
        ("metadata.name=p", true),
        ("metadata.name==p,metadata.namespace=n", true),
        ("metadata.name!=p", false),
        ("metadata.name=p,metadata.name=q", false),
        ("metadata.namespace=other", false),
        (r"spec.catalogSource=c\,d\=e\\", true),
        ("spec.packageName=", true),
    ] {
        assert_eq!(selects("", text), expected, "{text:?}");
    }
    for text in ["metadata.name", "metadata.name=a=b", r"metadata.name=a\b", "=", "spec.x=1"] {
        assert_eq!(Selector::parse(packages(), "", text).unwrap_err().code(), 400, "{text:?}");
    }
}

#[test]
fn c029_unknown_fields_are_named() {
    let error = Selector::parse(packages(), "", "spec.x=1").unwrap_err();
    let text = String::from_utf8(error.to_json()).unwrap();
    let expected =
        r#"\"spec.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\""#;
    assert!(text.contains(expected), "{text}");
}

#[test]
fn c020_selectors_are_told_to_whoever_decides() {
    let said = |requirements: Vec<Requirement>| {
        let line = |one: Requirement| format!("{} {:?} {:?}", one.key, one.operator, one.values);
        requirements.into_iter().map(line).collect::<Vec<_>>()
    };
    assert_eq!(
        said(label_requirements("a=x,b!=y,c in (p,q),d notin (r),e,!f,g>1")),
        [
            r#"a In ["x"]"#,
            r#"b NotIn ["y"]"#,
            r#"c In ["p", "q"]"#,
            r#"d NotIn ["r"]"#,
            "e Exists []",
            "f DoesNotExist []"
        ]
    );
    assert_eq!(
        said(field_requirements("metadata.name=x,spec.any!=y")),
        [r#"metadata.name In ["x"]"#, r#"spec.any NotIn ["y"]"#]
    );
    assert_eq!((said(label_requirements("a b")), said(field_requirements("x"))), (vec![], vec![]));
}

#[test]
fn c019_a_name_that_is_no_segment_of_a_path_is_none() {
    assert_eq!(name_in("metadata.name=x").as_deref(), Some("x"));
    for text in ["metadata.name=", "metadata.name=..", "metadata.name=a/b", "metadata.name=a%2F", "a=b"] {
        assert_eq!(name_in(text), None, "{text}");
    }
}
