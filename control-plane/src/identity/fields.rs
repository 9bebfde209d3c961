//! What an authority's certificate and those that it signs have in common.

use std::time::Duration;

use aws_lc_rs::rand;
use rcgen::{SerialNumber, string::Ia5String};
use time::OffsetDateTime;

use super::IdentityError;

/// How far certificates are backdated: the clock skew between machines that does no harm.
const SKEW: Duration = Duration::from_secs(30);

/// The moment `unix` as the certificate library wants it.
pub(super) fn moment(unix: u64) -> Result<OffsetDateTime, IdentityError> {
    let seconds = i64::try_from(unix).map_err(|_| IdentityError::Request("the clock is out of range".to_owned()))?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|e| IdentityError::Request(e.to_string()))
}

/// A name in a certificate.
pub(super) fn uri(text: &str) -> Result<Ia5String, IdentityError> {
    text.to_owned().try_into().map_err(IdentityError::Signing)
}

/// Where validity begins for a certificate made at `now`.
pub(super) fn backdated(now: u64) -> Result<OffsetDateTime, IdentityError> {
    Ok(moment(now)? - SKEW)
}

/// 127 random bits (RFC 5280 section 4.1.2.2 wants a positive number).
pub(super) fn random_serial() -> Result<SerialNumber, IdentityError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| IdentityError::Request("no randomness to be had".to_owned()))?;
    bytes[0] &= 0x7f;
    Ok(SerialNumber::from_slice(&bytes))
}
