//! The smallest mesh with a request path: `web` calls `api` through a sidecar on each side.

use std::net::SocketAddr;

use http::Method;

use crate::{
    client::{self, Answer, request},
    mesh::{Mesh, Sidecar, Workload},
    upstream::Upstream,
    wait,
};

/// Host by which `web` calls `api`.
pub const HOST: &str = "api.shop";

/// The service and port that `web` calls.
pub const DESTINATION: &str = "shop/api:80";

/// `shop/web`, its sidecar, the sidecar of `shop/api`, and `api` itself behind port 8080.
pub struct Pair {
    /// The sidecar of `web`.
    pub web: Sidecar,
    /// The sidecar of `api`.
    pub api: Sidecar,
    /// The application behind the sidecar of `api`.
    pub upstream: Upstream,
    /// The control plane; last, so that it ends last.
    pub mesh: Mesh,
}

impl Pair {
    /// Starts everything and waits until a request gets through.
    pub async fn start() -> Self {
        Self::start_with("", &[]).await
    }

    /// Starts the pair with this `appProtocol` on the service, and these control plane arguments.
    pub async fn start_with(protocol: &str, settings: &[&str]) -> Self {
        let upstream = Upstream::start("api").await;
        let application = upstream.address();
        let pair = Self::around(upstream, application, protocol, settings).await;
        pair.until_status("/", 200).await;
        pair
    }

    /// Starts the pair with another application behind the sidecar of `api`; `upstream` stands idle.
    pub async fn in_front_of(application: SocketAddr, protocol: &str) -> Self {
        let pair = Self::around(Upstream::start("idle").await, application, protocol, &[]).await;
        let entry = pair.entry();
        wait::until_true("the application answers through the mesh", || client::answers(entry)).await;
        pair
    }

    async fn around(upstream: Upstream, application: SocketAddr, protocol: &str, settings: &[&str]) -> Self {
        let mesh = Mesh::start_with(settings).await;
        mesh.service("shop/api", 80, 8080, protocol);
        let api = mesh.start_sidecar(Workload::new("shop/api").serves(8080, application));
        let web = mesh.start_sidecar(Workload::new("shop/web").calls(DESTINATION));
        api.ready().await;
        web.ready().await;
        Self { web, api, upstream, mesh }
    }

    /// Where `web` sends its calls to `api`.
    pub fn entry(&self) -> SocketAddr {
        self.web.outbound(DESTINATION)
    }

    /// `GET target` from `web` to `api`.
    pub async fn get(&self, target: &str) -> Answer {
        client::call(self.entry(), request(Method::GET, HOST, target)).await.expect("the sidecar answers")
    }

    /// Asks for `target` until the status is `status`, for a change of configuration to arrive. Where several reasons have
    /// that status, [`Pair::until_reason`] is meant.
    pub async fn until_status(&self, target: &str, status: u16) -> Answer {
        let what = format!("GET {target} is answered with {status}");
        self.until(&what, target, |answer| answer.status == status).await
    }

    /// Asks for `target` until the mesh answers for this reason.
    pub async fn until_reason(&self, target: &str, reason: &str) -> Answer {
        let what = format!("GET {target} is answered for the reason {reason}");
        self.until(&what, target, |answer| answer.reason() == reason).await
    }

    async fn until(&self, what: &str, target: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let (entry, wanted) = (self.entry(), &wanted);
        wait::until(what, || async move {
            let answer = client::call(entry, request(Method::GET, HOST, target)).await.ok()?;
            wanted(&answer).then_some(answer)
        })
        .await
    }
}
