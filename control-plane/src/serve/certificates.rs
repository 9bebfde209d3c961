//! `Certificates.Sign`: join with a token, renew with the current certificate.

use std::sync::Arc;

use selvedge_identity::svid::Leaf;
use selvedge_xds::proto::mesh::{SignRequest, SignResponse};
use tonic::{Request, Response, Status};

use super::{Mesh, Peer};
use crate::{
    clock,
    grpc::mesh::certificates_server,
    identity::{Authority, IdentityError, Issued},
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
        let leaf = request.extensions().get::<Peer>().and_then(|peer| peer.leaf.clone());
        let quiet = if leaf.is_some() { &self.mesh.refusals } else { &self.mesh.strangers };
        let request = request.into_inner();
        let way = if request.join_token.is_empty() { "renew" } else { "join" };
        let workload: String = request.workload.chars().take(NAME_MAX).collect();
        let authority = Arc::clone(&self.mesh.authority);
        // Token files and signatures would hold up the streams of the same thread.
        let issued = tokio::task::spawn_blocking(move || sign(&authority, leaf, &request))
            .await
            .map_err(|_| Status::internal("signing was interrupted"))?;
        let result = if issued.is_ok() { "issued" } else { "refused" };
        self.mesh.telemetry.certificates.with_label_values(&[way, result]).inc();
        let issued = issued.inspect_err(|refusal| {
            if let Some(left_out) = quiet.may_say() {
                tracing::warn!(way, workload, left_out, "no certificate: {}", refusal.message());
            }
        })?;
        tracing::info!(identity = %issued.identity, way, "certificate issued");
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

fn sign(authority: &Authority, leaf: Option<Leaf>, request: &SignRequest) -> Result<Issued, Status> {
    let now = clock::unix();
    if !request.join_token.is_empty() {
        return authority.join(&request.join_token, &request.workload, &request.csr, now).map_err(refusal);
    }
    let Some(leaf) = leaf else {
        return Err(Status::unauthenticated("neither a join token nor a client certificate was given"));
    };
    // The connection may be older than the end of the certificate it was made with.
    if leaf.not_after < i64::try_from(now).unwrap_or(i64::MAX) {
        return Err(Status::unauthenticated("the client certificate has expired; join again with a token"));
    }
    authority.renew(leaf.identity, &request.csr, now).map_err(refusal)
}

fn refusal(error: IdentityError) -> Status {
    match error {
        IdentityError::Token(_) => Status::permission_denied(error.to_string()),
        IdentityError::Request(_) => Status::invalid_argument(error.to_string()),
        other => {
            tracing::error!(error = &other as &dyn std::error::Error, "signing failed");
            Status::internal("the certificate could not be issued; see the control plane's log")
        }
    }
}
