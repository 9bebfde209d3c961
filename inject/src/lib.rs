//! Modules stand data first: each uses only those listed above it.
//!
//! How a pod gets its sidecar, as one table that is read in two ways: by a Rust function that makes a JSON patch of a raw
//! pod, and as text in CEL, which an API server evaluates by itself. No I/O, and never a typed form of the pod, which would
//! lose the fields that it does not know.
//!
//! - A [`form`] is what a text may look like; [`setting`] and [`annotation`] are what the administrator and users may say;
//!   [`pod`] reads the rest.
//! - An [`expression`] is what neither says as it is; a [`field`] is where a value goes, and where it comes from.
//! - [`table`] is what is injected; [`switch`] says into which pods.
//! - [`injection`] makes the patch and [`removal`] its opposite, for what [`template`] finds in an object; [`policy`] makes
//!   the objects of an API server that does it by itself; [`warning`] tells of what is not meant as it is written, and
//!   [`advice`] is what there is to say.

mod cel;

pub mod form;

pub mod setting;

pub mod pod;

pub mod annotation;

pub mod expression;
pub mod field;

pub mod switch;

mod readiness;
pub mod table;

pub mod advice;

pub mod injection;
pub mod removal;
pub mod template;

pub mod policy;
pub mod warning;
