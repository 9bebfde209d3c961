//! Routes: which of them are for which port of a destination, as tables that requests are looked up in.

use std::{collections::HashMap, sync::Arc};

use selvedge_policies::{
    kind::{self, Attached},
    policy::Role,
    registry,
    route::{HttpRouteSpec, ParentRef, RouteTable},
};
use selvedge_xds::proto::mesh::{self, Attachment};

use super::attached::{describe, problems, read};

/// The routes in `attachments`, each read as its type.
pub(crate) fn read_routes(attachments: &[Attachment]) -> Result<Vec<Attached<HttpRouteSpec>>, String> {
    let mut parsed = Vec::new();
    for attachment in attachments {
        let (kind, document) = read(attachment)?;
        if !registry::find(&kind).is_some_and(|kind| matches!(kind.role, Role::Routes(_))) {
            return Err(format!(
                "{}: this version of the sidecar cannot route by documents of this kind",
                describe(attachment)
            ));
        }
        let spec: HttpRouteSpec =
            kind::parse(&document.spec).map_err(|found| problems(&describe(attachment), &found))?;
        parsed.push(Attached { name: document.name, spec });
    }
    Ok(parsed)
}

/// The routes of `attachments` as one table.
pub(super) fn table(attachments: &[Attachment]) -> Result<RouteTable, String> {
    let parsed = read_routes(attachments)?;
    let names: Vec<_> = attachments.iter().map(describe).collect();
    let mut compiled = RouteTable::compile(&parsed).map_err(|found| problems(&names.join(", "), &found))?;
    let stand_ins = attachments.iter().zip(&parsed).filter(|(attachment, _)| attachment.stands_for.is_some());
    stand_ins.for_each(|(_, document)| compiled.stands_in(&document.name));
    Ok(compiled)
}

/// Whether a route is for calls of this port: a parent names it, or the destination without a port.
pub(crate) fn is_for(route: &HttpRouteSpec, message: &mesh::Destination, port: u16) -> bool {
    let is_this = |parent: &&ParentRef| {
        parent.is_service()
            && parent.name == message.name
            && parent.namespace.as_ref().is_none_or(|given| *given == message.namespace)
    };
    let mut parents = route.parent_refs.iter().filter(is_this).peekable();
    parents.peek().is_none() || parents.any(|parent| parent.port.is_none_or(|named| named == port))
}

/// The routes of each port of a destination, and at 0 those of any other. Ports with the same routes share their table.
pub(super) fn by_port(message: &mesh::Destination, ports: &[u16]) -> Result<HashMap<u16, Arc<RouteTable>>, String> {
    let documents = read_routes(&message.routes)?;
    let mut shared: HashMap<Vec<bool>, Arc<RouteTable>> = HashMap::new();
    let mut tables = HashMap::new();
    for port in ports.iter().copied().chain([0]) {
        let chosen: Vec<bool> = documents.iter().map(|route| is_for(&route.spec, message, port)).collect();
        let table = match shared.get(&chosen) {
            Some(table) => Arc::clone(table),
            None => {
                let of_port = message.routes.iter().zip(&chosen).filter(|(_, chosen)| **chosen);
                Arc::new(table(&of_port.map(|(route, _)| route.clone()).collect::<Vec<_>>())?)
            }
        };
        shared.insert(chosen, Arc::clone(&table));
        tables.insert(port, table);
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use selvedge_policies::reason::Reason;

    use super::*;

    #[test]
    fn a_rule_that_cannot_be_enforced_says_so_and_one_without_weight_says_that() {
        let route = |name: &str, stands_for| Attachment {
            origin: Some(mesh::Origin {
                kind: "HTTPRoute".into(),
                namespace: "shop".into(),
                name: name.into(),
                generation: 1,
            }),
            document: format!(
                r#"{{"parentRefs": [{{"kind": "Service", "name": "web"}}], "rules": [{{"name": "{name}", "backendRefs": [{{"name": "web", "weight": 0}}]}}]}}"#
            ),
            stands_for,
        };
        let table = table(&[route("old", Some(mesh::Origin::default())), route("own", None)]).unwrap();
        let reasons: Vec<_> = table.rules().map(|rule| (&*rule.name, rule.nowhere)).collect();
        let expected = [("shop/old/old", Reason::PolicyUnenforceable), ("shop/own/own", Reason::InvalidRoute)];
        assert_eq!(reasons, expected);
    }

    #[test]
    fn a_route_is_for_the_ports_its_parents_name_and_those_share_it() {
        let route = |name: &str, port: &str| {
            let origin = mesh::Origin { kind: "HTTPRoute".into(), name: name.into(), ..Default::default() };
            let document = format!(
                r#"{{"parentRefs": [{{"kind": "Service", "name": "other", "port": 80}}, {{"kind": "Gateway", "name": "web"}}, {{"kind": "Service", "name": "web"{port}}}], "rules": [{{"name": "all"}}]}}"#
            );
            Attachment { origin: Some(origin), document, ..Default::default() }
        };
        let message = mesh::Destination {
            namespace: "shop".into(),
            name: "web".into(),
            routes: vec![route("every", ""), route("one", r#", "port": 81"#)],
            ..Default::default()
        };
        let routes = by_port(&message, &[80, 81, 82]).unwrap();
        let names = |port: u16| routes[&port].rules().map(|rule| rule.name.to_string()).collect::<Vec<_>>();
        assert_eq!(names(81), ["/every/all", "/one/all"]);
        for port in [80, 82, 0] {
            assert_eq!(names(port), ["/every/all"], "port {port}");
            assert!(Arc::ptr_eq(&routes[&port], &routes[&80]));
        }
    }
}
