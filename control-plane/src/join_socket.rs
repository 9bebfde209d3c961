//! The join socket: a Unix socket on which the user that the control plane runs as, and root, learn what the mesh is and get
//! join tokens of it, as `selvedge join` does.
//!
//! Guarantees: whoever else connects is told nothing, whatever the mode of the file or its folder (the kernel says who
//! connects, `SO_PEERCRED` of socket(7)). Who is answered could read the authority's key in the state directory as well, so
//! the socket opens nothing that was closed.

use std::{
    convert::Infallible,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use selvedge_identity::audit::{self, Happening};
use selvedge_policies::{facts::Identity, names};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    net::UnixListener,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    audit::{AuditLog, Of},
    clock,
    identity::{Authority, Grant, token_id},
    serve::ACCEPT_PAUSE,
    stop::{self, Stop},
};

/// How long one connection lasts at most.
const CONNECTION: Duration = Duration::from_secs(10);
/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 16;
/// Longest request, in bytes.
const MAX_REQUEST: usize = 16 * 1024;
/// How long a token may be used. Who asks is about to.
const TOKEN_SECONDS: u64 = 600;

/// A socket that is listened on, and the file that goes with it.
pub(crate) struct JoinSocket {
    listener: UnixListener,
    path: PathBuf,
    owner: u32,
}

/// What is told on the socket.
pub(crate) struct Told {
    /// Signs, and makes tokens.
    pub(crate) authority: Arc<Authority>,
    /// Takes down who got a token, and who did not.
    pub(crate) audit: AuditLog,
    /// The folder of what users write, if there is one.
    pub(crate) config_dir: Option<PathBuf>,
    /// The listener for sidecars, as it is bound.
    pub(crate) sidecars: SocketAddr,
    /// The listener for operators, as it is bound.
    pub(crate) admin: SocketAddr,
}

/// Whom a token is for.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wanted {
    /// `namespace/serviceAccount`.
    identity: String,
    /// `namespace/name` of the only workload that may use it.
    workload: String,
}

impl JoinSocket {
    /// Listens at `path`. A socket that a control plane left there which is gone is replaced.
    ///
    /// # Errors
    /// Somebody listens there, or the file cannot be made.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        if UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        if fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket()) {
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: path.to_owned(), owner: rustix::process::geteuid().as_raw() })
    }

    /// Answers until `stop` turns true or its sender is gone.
    pub(crate) async fn serve(self, told: Told, mut stop: Stop) {
        let told = Arc::new(told);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept(), if connections.len() < CONNECTIONS => {
                    let socket = match accepted {
                        Ok((socket, _)) => socket,
                        Err(e) => {
                            tracing::warn!(error = &e as &dyn std::error::Error, "a connection could not be accepted");
                            sleep(ACCEPT_PAUSE).await;
                            continue;
                        }
                    };
                    let peer = socket.peer_cred().ok().map(|peer| peer.uid());
                    let Some(user) = peer.filter(|uid| [0, self.owner].contains(uid)) else {
                        tracing::warn!("another user was sent away from the join socket");
                        refused(&told.audit, peer);
                        continue;
                    };
                    let told = Arc::clone(&told);
                    connections.spawn(async move {
                        let service = service_fn(move |request| {
                            let told = Arc::clone(&told);
                            async move { Ok::<_, Infallible>(answer(&told, user, request).await) }
                        });
                        let connection = http1::Builder::new()
                            .timer(TokioTimer::new())
                            .header_read_timeout(CONNECTION)
                            .max_buf_size(MAX_REQUEST)
                            .serve_connection(TokioIo::new(socket), service);
                        let _ended = timeout(CONNECTION, connection).await;
                    });
                }
                Some(_) = connections.join_next() => {}
                () = stop::requested(&mut stop) => return,
            }
        }
    }
}

impl Drop for JoinSocket {
    fn drop(&mut self) {
        // What cannot be removed is replaced by the next control plane.
        let _ = fs::remove_file(&self.path);
    }
}

async fn answer(told: &Told, user: u32, request: Request<Incoming>) -> Response<Full<Bytes>> {
    match (request.method().clone(), request.uri().path()) {
        (Method::GET, "/mesh") => respond(StatusCode::OK, mesh(told).to_string()),
        (Method::POST, "/token") => match token(told, user, request).await {
            Ok(token) => respond(StatusCode::OK, token),
            Err(why) => respond(StatusCode::BAD_REQUEST, why),
        },
        _ => respond(StatusCode::NOT_FOUND, "there are GET /mesh and POST /token".to_owned()),
    }
}

fn mesh(told: &Told) -> Value {
    json!({
        "configDir": told.config_dir.as_deref().and_then(|path| std::path::absolute(path).ok()),
        "controlPlane": from_here(told.sidecars),
        "admin": from_here(told.admin),
        "trustDomain": told.authority.trust_domain(),
    })
}

/// The address by which this machine reaches a listener.
fn from_here(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
    }
    address
}

/// Makes a token for this user; what is wrong with the request otherwise.
async fn token(told: &Told, user: u32, request: Request<Incoming>) -> Result<String, String> {
    let body = Limited::new(request.into_body(), MAX_REQUEST).collect().await.map_err(|e| e.to_string())?.to_bytes();
    let Wanted { identity, workload } = serde_json::from_slice(&body).map_err(|e| e.to_string())?;
    let parts = |text: &str, of: &str| match names::parts(text) {
        Some((namespace, name)) => Ok((namespace.to_owned(), name.to_owned())),
        None => Err(format!("{of} '{text}' is not of the form NS/NAME")),
    };
    let (namespace, service_account) = parts(&identity, "identity")?;
    parts(&workload, "workload")?;
    let identity =
        Identity::new(told.authority.trust_domain(), &namespace, &service_account).map_err(|e| e.to_string())?;
    let grant = Grant { identity, workload: Some(workload), expires: clock::unix().saturating_add(TOKEN_SECONDS) };
    let (authority, wanted) = (Arc::clone(&told.authority), grant.clone());
    let made = tokio::task::spawn_blocking(move || authority.create_token(&wanted).map_err(|e| e.to_string()));
    let token = made.await.map_err(|e| e.to_string())??;
    made_for(&told.audit, user, &grant, &token);
    Ok(token)
}

/// Puts on record who got a token, and whom it is for.
fn made_for(audit: &AuditLog, user: u32, grant: &Grant, token: &str) {
    let Grant { identity, workload, expires } = grant;
    let identity = identity.to_string();
    let Some(leave) = audit.leave(Of::Known, (user, &identity, workload)) else { return };
    let event = audit::Event {
        subject: audit::user(user).into(),
        object: workload.as_deref().unwrap_or_default().into(),
        grant: audit::Grant {
            way: "join_socket",
            expires: clock::rfc3339(i64::try_from(*expires).unwrap_or(i64::MAX)).into(),
            token: token_id(token),
            identity: identity.as_str().into(),
            ..audit::Grant::default()
        },
        ..leave.event(Happening::TokenMade)
    };
    audit.write(&leave, &event);
}

/// Puts on record that a user got nothing.
fn refused(audit: &AuditLog, user: Option<u32>) {
    let Some(leave) = audit.leave(Of::Strangers, user) else { return };
    let event = audit::Event {
        subject: user.map(audit::user).unwrap_or_default().into(),
        detail: "only the user that the control plane runs as and root get tokens here",
        grant: audit::Grant { way: "join_socket", ..audit::Grant::default() },
        ..leave.event(Happening::TokenRefused)
    };
    audit.write(&leave, &event);
}

fn respond(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}
