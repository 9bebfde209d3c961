//! Whether the mesh is ready for a pod: what its sidecar needs is set. Without that a pod that should have a sidecar does not
//! start.

use crate::{
    cel::literal,
    expression::NEEDS_CAPTURE_CONTAINER,
    field::variable_of_setting,
    pod::Request,
    setting::{CAPTURE_IMAGE, SETTINGS, Setting},
};

/// The variable of a policy with what [`why_not`] says.
pub(crate) const NOT_READY: &str = "notReady";

/// Why a pod has to wait, for people; `None` when the mesh is ready for it.
pub(crate) fn why_not(request: &Request<'_>) -> Option<String> {
    let is_absent = |setting: &&&Setting| request.settings.get(setting).is_none() && is_needed(setting, request);
    SETTINGS.iter().find(is_absent).map(|setting| setting.missing())
}

fn is_needed(setting: &Setting, request: &Request<'_>) -> bool {
    setting.key != CAPTURE_IMAGE.key || !(NEEDS_CAPTURE_CONTAINER.text)(request).is_empty()
}

/// What [`why_not`] says, in CEL; empty when the mesh is ready.
pub(crate) fn cel() -> String {
    SETTINGS.iter().filter_map(|setting| absent(setting)).collect::<String>() + "''"
}

fn absent(setting: &Setting) -> Option<String> {
    if setting.default.is_some() {
        return None;
    }
    let needed = if setting.key == CAPTURE_IMAGE.key {
        format!("variables.{} != '' && ", NEEDS_CAPTURE_CONTAINER.name)
    } else {
        String::new()
    };
    let value = variable_of_setting(setting);
    Some(format!("{needed}variables.{value} == '' ? {}\n: ", literal(&setting.missing())))
}
