//! Whether the mesh is ready for a pod: what its sidecar needs of the administrator is there, and is what it must be.
//! Without that a pod that should have a sidecar does not start.

use crate::{
    cel::literal,
    expression::NEEDS_CAPTURE_CONTAINER,
    field::variable_of_setting,
    form::shown_in_cel,
    pod::Request,
    setting::{CAPTURE_IMAGE, SETTINGS, Setting},
};

/// The variable of a policy with what [`why_not`] says.
pub(crate) const NOT_READY: &str = "notReady";

/// Why a pod has to wait, for people; `None` when the mesh is ready for it.
pub(crate) fn why_not(request: &Request<'_>) -> Option<String> {
    let problem = |setting: &&Setting| match request.settings.get(setting) {
        Some(value) => setting.mistake(value),
        None => is_needed(setting, request).then(|| setting.missing()),
    };
    SETTINGS.iter().find_map(problem)
}

fn is_needed(setting: &Setting, request: &Request<'_>) -> bool {
    setting.key != CAPTURE_IMAGE.key || !(NEEDS_CAPTURE_CONTAINER.text)(request).is_empty()
}

/// What [`why_not`] says, in CEL; empty when the mesh is ready.
pub(crate) fn cel() -> String {
    let cases = SETTINGS.iter().flat_map(|setting| [mistaken(setting), absent(setting)].into_iter().flatten());
    cases.collect::<String>() + "''"
}

fn mistaken(setting: &Setting) -> Option<String> {
    let value = format!("variables.{}", variable_of_setting(setting));
    let (form, before, behind) = setting.mistaken()?;
    let said = format!("{} + {} + {}", literal(&before), shown_in_cel(&value), literal(&behind));
    Some(format!("!{} ? {said}\n: ", form.cel(&value)))
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
