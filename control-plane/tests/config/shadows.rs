//! `selvedge lint` warns of rules that make no difference, and of no others.

use crate::linted::linted;

const SHOP: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{name: a, port: 80, appProtocol: http}, {name: b, port: 81, appProtocol: http}]
---
apiVersion: selvedge.dev/v1alpha1
kind: Workload
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {serviceAccount: web, address: 10.0.0.1}
";

/// A policy of the namespace `shop`, on lines of its own.
fn policy(name: &str, target: &str, action: &str, rules: &str) -> String {
    format!(
        "---\napiVersion: selvedge.dev/v1alpha1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  {target}\n  action: {action}\n  rules:\n{rules}"
    )
}

fn route(name: &str, parents: &str, rules: &str) -> String {
    format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec:\n  parentRefs: {parents}\n  rules:\n{rules}"
    )
}

/// What lint says of these documents: place, object and text, and where it points to.
fn findings(documents: &[String]) -> Vec<String> {
    let found = linted(&[("shop.yaml", SHOP), ("rules.yaml", &documents.concat())]);
    let told = found.into_iter().map(|found| {
        let related = found.related.map(|related| related.place.line);
        let file = found.place.file.rsplit('/').next().unwrap_or_default();
        format!("{file}:{} {}: {} ({related:?})", found.place.line, found.object, found.message)
    });
    told.collect()
}

const WEB: &str = "targetRef: {kind: Service, name: web}";
const NARROW: &str = "  - to: [{paths: ['/a/b'], methods: [GET]}]\n";
const WIDE: &str = "  - to: [{paths: ['/a/*']}]\n";

#[test]
fn a_rule_that_another_leaves_nothing_to_is_told_with_both_places() {
    let same = policy("web", WEB, "ALLOW", &[NARROW, WIDE].concat());
    let of_same = "rules.yaml:9 AuthorizationPolicy shop/web: this makes no difference: rules[1] of AuthorizationPolicy \
                   shop/web matches all that this matches (Some(10))";
    assert_eq!(findings(&[same]), [of_same]);

    let closed = policy("closed", "# all of shop", "DENY", WIDE);
    let of_wide = "rules.yaml:9 AuthorizationPolicy shop/web: this makes no difference: rules[0] of AuthorizationPolicy \
                   shop/closed refuses all that this would let pass (Some(18))";
    assert_eq!(findings(&[policy("web", WEB, "ALLOW", NARROW), closed]), [of_wide]);

    let rule = "  - matches: [{path: {value: /a}}]\n";
    let first = route("first", "[{kind: Service, name: web}]", rule);
    let second = route("second", "[{kind: Service, name: web, port: 81}]", &rule.repeat(2));
    let at = |line: usize, rule: usize| {
        format!(
            "rules.yaml:{line} HTTPRoute shop/second: this makes no difference: rules[0].matches[0] of HTTPRoute shop/first \
             takes every request that this matches (Some(8)) {rule}"
        )
    };
    let numbered = findings(&[first, second]).into_iter().zip(0..).map(|(told, rule)| format!("{told} {rule}"));
    assert_eq!(numbered.collect::<Vec<_>>(), [at(16, 0), at(17, 1)]);
}

#[test]
fn a_rule_that_counts_somewhere_is_not_told() {
    let on = |port: u16| format!("targetRef: {{kind: Service, name: web, port: {port}}}");
    let rule = "  - matches: [{path: {value: /a}}]\n";
    for documents in [
        // The wide rule holds for the service alone, the narrow one for the whole namespace.
        [policy("all", "# all of shop", "ALLOW", NARROW), policy("web", WEB, "ALLOW", WIDE)],
        [policy("one", &on(80), "ALLOW", NARROW), policy("other", &on(81), "ALLOW", WIDE)],
        [policy("any", WEB, "ALLOW", NARROW), policy("port", &on(81), "ALLOW", WIDE)],
        [policy("limit", WEB, "ALLOW", WIDE), policy("note", WEB, "AUDIT", WIDE)],
        [route("a", "[{kind: Service, name: web, port: 80}]", rule), route("b", "[{kind: Service, name: web}]", rule)],
        [
            route("a", "[{kind: Service, name: web, sectionName: a}]", rule),
            route("b", "[{kind: Service, name: web, sectionName: b}]", rule),
        ],
    ] {
        assert_eq!(findings(&documents), [""; 0], "{documents:?}");
    }
}
