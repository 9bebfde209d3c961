//! `Certificates.Sign`: join with a token, of ours or of a pod's service account, renew with the current certificate.

use std::{net::IpAddr, sync::Arc};

use selvedge_identity::{
    audit::{self, Happening},
    svid::Leaf,
};
use selvedge_policies::facts::Identity;
use selvedge_xds::proto::mesh::{SignRequest, SignResponse};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::{
    Mesh, Peer,
    bearers::{ABSENCE, Borne},
};
use crate::{
    audit::{AuditLog, Of},
    clock,
    grpc::mesh::certificates_server,
    identity::{Authority, IdentityError, Issued, ReviewError, token_id},
};

/// Longest name of a workload that is logged: anybody may say one.
const NAME_MAX: usize = 253;

/// The certificate service of one connection.
#[derive(Clone, Debug)]
pub(super) struct Certificates {
    pub(super) mesh: Arc<Mesh>,
}

#[tonic::async_trait]
impl certificates_server::Certificates for Certificates {
    async fn sign(&self, request: Request<SignRequest>) -> Result<Response<SignResponse>, Status> {
        let peer = request.extensions().get::<Peer>().cloned();
        let peer = peer.ok_or_else(|| Status::internal("the peer of the connection is unknown"))?;
        let _answered = peer.stranger.as_ref().map(|stranger| stranger.answered());
        let (leaf, address) = (peer.leaf, peer.address.ip());
        let quiet = if leaf.is_some() { &self.mesh.refusals } else { &self.mesh.strangers };
        let request = request.into_inner();
        let is_join = !request.join_token.is_empty() || !request.service_account_token.is_empty();
        let way = if is_join { "join" } else { "renew" };
        let asked = Asked::new(&request, leaf.as_ref(), address);
        let Asked { workload, holder, .. } = &asked;
        let issued = self.issue(leaf, address, request, is_join).await;
        let result = if issued.is_ok() { "issued" } else { "refused" };
        self.mesh.telemetry.certificates.with_label_values(&[way, result]).inc();
        asked.put_on_record(&self.mesh.audit, &issued);
        let issued = issued.inspect_err(|refusal| {
            if let Some(left_out) = quiet.may_say() {
                tracing::warn!(way, workload, %address, holder, left_out, "no certificate: {}", refusal.message());
            }
        })?;
        let Issued { identity, serial, not_after, .. } = &issued;
        tracing::info!(%identity, workload, serial, expires = not_after, %address, way, "certificate issued");
        let bytes = |chain: &[rustls::pki_types::CertificateDer<'_>]| chain.iter().map(|c| c.to_vec().into()).collect();
        Ok(Response::new(SignResponse {
            chain: bytes(&issued.chain),
            roots: bytes(&self.mesh.authority.roots()),
            identity: issued.identity.to_string(),
            not_before: issued.not_before,
            not_after: issued.not_after,
        }))
    }
}

impl Certificates {
    async fn issue(
        &self,
        leaf: Option<Leaf>,
        address: IpAddr,
        request: SignRequest,
        is_join: bool,
    ) -> Result<Issued, Status> {
        let admission = &self.mesh.admission;
        if let Some(why) = admission.why_closed().filter(|_| is_join) {
            return Err(Status::unavailable(&*why));
        }
        let pod = match (&*request.service_account_token, &admission.reviewer) {
            ("", _) => None,
            (token, Some(reviewer)) => {
                Some(reviewer.identify(token, &request.workload, address).await.map_err(not_reviewed)?)
            }
            (_, None) => {
                let why = "this control plane watches no cluster (--kubernetes), so it knows no service accounts";
                return Err(Status::failed_precondition(why));
            }
        };
        if let Some(leaf) = leaf.as_ref().filter(|_| !is_join) {
            self.may_renew(leaf)?;
        }
        let authority = Arc::clone(&self.mesh.authority);
        // Token files and signatures would hold up the streams of the same thread.
        let signed = tokio::task::spawn_blocking(move || sign(&authority, leaf, pod, &request)).await;
        signed.map_err(|_| Status::internal("signing was interrupted"))?
    }

    /// Whether the identity of a certificate may have another one. Where it may only because not all is known, that is counted.
    fn may_renew(&self, leaf: &Leaf) -> Result<(), Status> {
        let identity = leaf.identity.to_string();
        match self.mesh.bearers.borne(&identity, Instant::now()) {
            Borne::Now => {}
            Borne::Unknown => self.mesh.telemetry.unborne_renewals.inc(),
            Borne::Nobody => {
                let minutes = ABSENCE.as_secs() / 60;
                let why = format!(
                    "no Workload and no pod has had the identity {identity} for {minutes} minutes, so its certificate is the last"
                );
                return Err(Status::permission_denied(why));
            }
        }
        Ok(())
    }
}

/// Who asked for a certificate, as the audit log has it.
struct Asked {
    /// By what: `token`, `service_account` or `renewal`.
    way: &'static str,
    /// The workload it is to be for, as whoever asked says.
    workload: String,
    /// The identity of the certificate that was shown, if any.
    holder: String,
    /// The part of the join token that is no secret.
    token: String,
    address: IpAddr,
}

impl Asked {
    fn new(request: &SignRequest, leaf: Option<&Leaf>, address: IpAddr) -> Self {
        let way = match (&*request.join_token, &*request.service_account_token) {
            ("", "") => "renewal",
            (_, "") => "token",
            _ => "service_account",
        };
        Self {
            way,
            workload: request.workload.chars().take(NAME_MAX).collect(),
            holder: leaf.map(|leaf| leaf.identity.to_string()).unwrap_or_default(),
            token: token_id(&request.join_token).to_owned(),
            address,
        }
    }

    fn put_on_record(&self, audit: &AuditLog, issued: &Result<Issued, Status>) {
        let Self { way, workload, holder, token, address } = self;
        let is_stranger = issued.is_err() && holder.is_empty();
        let of = if is_stranger { Of::Strangers } else { Of::Known };
        // What is refused can name whatever it likes.
        let workload_told = issued.is_ok().then_some(workload);
        let Some(leave) = audit.leave(of, (issued.is_ok(), way, holder, workload_told, address)) else { return };
        let grant = audit::Grant { way, token, ..audit::Grant::default() };
        let event = match issued {
            Ok(issued) => audit::Event {
                subject: issued.identity.to_string().into(),
                grant: audit::Grant {
                    serial: &issued.serial,
                    expires: clock::rfc3339(issued.not_after).into(),
                    ..grant
                },
                ..leave.event(Happening::CertificateIssued)
            },
            Err(refusal) => audit::Event {
                subject: holder.into(),
                detail: refusal.message(),
                grant,
                ..leave.event(Happening::CertificateRefused)
            },
        };
        audit.write(&leave, &audit::Event { object: workload.into(), address: Some(*address), ..event });
    }
}

/// `pod` is the identity that the token of a service account proves, when there is one.
fn sign(
    authority: &Authority,
    leaf: Option<Leaf>,
    pod: Option<Identity>,
    request: &SignRequest,
) -> Result<Issued, Status> {
    let now = clock::unix();
    if let Some(identity) = pod {
        return authority.join_pod(identity, &request.csr, now).map_err(refusal);
    }
    if !request.join_token.is_empty() {
        return authority.join(&request.join_token, &request.workload, &request.csr, now).map_err(refusal);
    }
    let Some(leaf) = leaf else {
        return Err(Status::unauthenticated("neither a token nor a client certificate was given"));
    };
    // The connection may be older than the end of the certificate it was made with.
    if leaf.not_after < i64::try_from(now).unwrap_or(i64::MAX) {
        return Err(Status::unauthenticated("the client certificate has expired; join again with a token"));
    }
    authority.renew(leaf.identity, &request.csr, now).map_err(refusal)
}

fn not_reviewed(error: ReviewError) -> Status {
    match error {
        ReviewError::NotNow(why) => Status::unavailable(why),
        ReviewError::Refused(_) => Status::permission_denied(error.to_string()),
    }
}

fn refusal(error: IdentityError) -> Status {
    match error {
        IdentityError::Token(_) | IdentityError::Reserved => Status::permission_denied(error.to_string()),
        IdentityError::Request(_) => Status::invalid_argument(error.to_string()),
        other => {
            tracing::error!(error = &other as &dyn std::error::Error, "signing failed");
            Status::internal("the certificate could not be issued; see the control plane's log")
        }
    }
}
