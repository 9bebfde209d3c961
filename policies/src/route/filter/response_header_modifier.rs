//! `ResponseHeaderModifier`: fields of the response are set, added or removed.

use std::sync::Arc;

use http::HeaderMap;

use super::{
    FilterKind, RouteFilter,
    header_filter::{HeaderFilter, changes},
    no_references,
};
use crate::changes::HeaderChanges;

pub(super) const KIND: FilterKind = FilterKind {
    name: "ResponseHeaderModifier",
    field: "responseHeaderModifier",
    schema: |generator| generator.subschema_for::<HeaderFilter>(),
    compile: |filters, problems| Some(Arc::new(Modifier(changes(filters, problems)))),
    references: no_references,
    decides: false,
};

#[derive(Debug)]
struct Modifier(HeaderChanges);

impl RouteFilter for Modifier {
    fn change_response(&self, headers: &mut HeaderMap) {
        self.0.apply(headers);
    }
}
