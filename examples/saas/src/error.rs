//! Everything that can go wrong in a service, and the answer each error gives: an HTTP status or a gRPC code.

use http::StatusCode;

/// What went wrong, where, and what the caller may do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The thing asked for does not exist.
    #[error("there is no {0}")]
    NotFound(String),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// No session, or one that is forged or expired.
    #[error("no valid session; POST /login first")]
    Unauthenticated,
    /// A service answered with an error status.
    #[error("{service} answered {status}{}", .reason.as_deref().map(|r| format!(" ({r})")).unwrap_or_default())]
    Refused {
        /// Who answered.
        service: &'static str,
        /// With what.
        status: StatusCode,
        /// The `selvedge-reason` of the answer: set when the mesh answered in the service's place.
        reason: Option<String>,
        /// Seconds from `Retry-After`.
        retry_after: Option<u64>,
    },
    /// A service gave no answer.
    #[error("{service} gave no answer")]
    Unreachable {
        /// Who did not answer.
        service: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// SQLite failed.
    #[error("the database failed")]
    Database(#[from] rusqlite::Error),
    /// PostgreSQL refused a statement, or answered what nobody expects.
    #[error("PostgreSQL failed")]
    Postgres(#[from] tokio_postgres::Error),
    /// PostgreSQL cannot be reached now, with its address.
    #[error("PostgreSQL at {0} is away; it is called again, so try later")]
    DatabaseAway(String),
    /// A socket or file failed.
    #[error("{what}")]
    Io {
        /// What was tried, with the address or path.
        what: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// A fault planted by a flag.
    #[error("planted fault")]
    Planted,
    /// The service is stopping.
    #[error("the service is stopping")]
    Stopping,
}

impl Error {
    /// An [`Error::Io`] about `what`.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// The error of a gRPC call to `service`.
    pub(crate) fn rpc(service: &'static str, status: tonic::Status) -> Self {
        let reason = status.metadata().get("selvedge-reason").and_then(|v| v.to_str().ok()).map(str::to_owned);
        match status.code() {
            tonic::Code::NotFound => Self::NotFound(status.message().to_owned()),
            tonic::Code::InvalidArgument => Self::Invalid(status.message().to_owned()),
            tonic::Code::Unauthenticated => Self::Unauthenticated,
            tonic::Code::PermissionDenied => {
                Self::Refused { service, status: StatusCode::FORBIDDEN, reason, retry_after: None }
            }
            _ if reason.is_some() => {
                Self::Refused { service, status: StatusCode::SERVICE_UNAVAILABLE, reason, retry_after: None }
            }
            _ => Self::Unreachable { service, source: status.into() },
        }
    }

    /// The HTTP status (RFC 9110 section 15) of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Refused { .. } | Self::Unreachable { .. } => StatusCode::BAD_GATEWAY,
            Self::Database(_) | Self::Postgres(_) | Self::Io { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Planted | Self::Stopping | Self::DatabaseAway(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        let code = match error.status() {
            StatusCode::NOT_FOUND => tonic::Code::NotFound,
            StatusCode::BAD_REQUEST => tonic::Code::InvalidArgument,
            StatusCode::UNAUTHORIZED => tonic::Code::Unauthenticated,
            StatusCode::INTERNAL_SERVER_ERROR => tonic::Code::Internal,
            _ => tonic::Code::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}
