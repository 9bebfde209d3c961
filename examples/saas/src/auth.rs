//! `auth`: who is this? Checks passwords against `data` and issues session tokens, over gRPC. Tokens are signed,
//! not stored, so any instance with the same key verifies them without a lookup.

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2;
use http::uri::Authority;
use tonic::{Request, Response, Status, transport::Channel};

use crate::{
    client, clock,
    context::Context,
    data::PASSWORD_ALGORITHM,
    error::Error,
    proto::{self, auth_server, data_client::DataClient},
};

mod token;

use token::{Session, Signer};

/// What the service `auth` is told at its start.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// What all services are told: where to listen, and who they are.
    #[command(flatten)]
    pub common: crate::Common,
    /// Where the service `data` is called.
    #[arg(long, env = "DATA_ADDR", value_name = "HOST:PORT")]
    pub data: Authority,
    /// The key of session tokens, base64 of 32 bytes or more. Without one a fresh key is made, and sessions end
    /// when the service does.
    #[arg(long, env = "AUTH_SESSION_KEY", hide_env_values = true)]
    pub session_key: Option<String>,
    /// How long a session lasts, in seconds.
    #[arg(long, env = "AUTH_SESSION_SECONDS", default_value_t = 3600)]
    pub session_seconds: u64,
}

/// The service `auth`: checks passwords and makes session tokens.
pub(crate) struct Auth {
    data: DataClient<Channel>,
    signer: Signer,
    session_seconds: u64,
}

impl Auth {
    /// The service over `data`; fails when the key or the address is unusable.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        Ok(Self {
            data: DataClient::new(client::channel(&config.data)?),
            signer: Signer::new(config.session_key.as_deref())?,
            session_seconds: config.session_seconds,
        })
    }

    async fn user(&self, context: &Context, tenant: &str, user: &str) -> Result<proto::GetUserReply, Error> {
        let message = proto::GetUserRequest { tenant: tenant.to_owned(), user: user.to_owned() };
        let reply = self.data.clone().get_user(context.request(message)).await;
        reply.map(Response::into_inner).map_err(|status| Error::rpc("data", status))
    }
}

#[tonic::async_trait]
impl auth_server::Auth for Auth {
    async fn login(&self, request: Request<proto::LoginRequest>) -> Result<Response<proto::LoginReply>, Status> {
        let context = Context::from_headers(request.metadata().as_ref());
        let proto::LoginRequest { tenant, user, password } = request.into_inner();
        let known = match self.user(&context, &tenant, &user).await {
            // The same answer as to a wrong password: names must not be guessable.
            Err(Error::NotFound(_)) => return Err(Error::Unauthenticated.into()),
            known => known?,
        };
        if !password_matches(known, password).await {
            return Err(Error::Unauthenticated.into());
        }
        let session = Session { tenant, user, expires: clock::unix_millis() / 1000 + self.session_seconds };
        let token = self.signer.sign(&session);
        Ok(Response::new(proto::LoginReply { token, expires_in: self.session_seconds }))
    }

    async fn verify(&self, request: Request<proto::VerifyRequest>) -> Result<Response<proto::VerifyReply>, Status> {
        let session = self.signer.verify(&request.into_inner().token, clock::unix_millis() / 1000);
        let Session { tenant, user, .. } = session.ok_or(Error::Unauthenticated)?;
        Ok(Response::new(proto::VerifyReply { tenant, user }))
    }

    async fn profile(&self, request: Request<proto::ProfileRequest>) -> Result<Response<proto::ProfileReply>, Status> {
        let context = Context::from_headers(request.metadata().as_ref());
        let proto::ProfileRequest { tenant, user } = request.into_inner();
        let proto::GetUserReply { display_name, email, .. } = self.user(&context, &tenant, &user).await?;
        Ok(Response::new(proto::ProfileReply { display_name, email }))
    }
}

/// Whether the password is the user's. Deriving the key takes milliseconds, hence off the async threads.
async fn password_matches(user: proto::GetUserReply, password: String) -> bool {
    let Some(iterations) = NonZeroU32::new(user.iterations) else { return false };
    let check = move || {
        pbkdf2::verify(PASSWORD_ALGORITHM, iterations, &user.salt, password.as_bytes(), &user.password_hash).is_ok()
    };
    tokio::task::spawn_blocking(check).await.unwrap_or(false)
}
