//! The filter `CORS` in front of a service that knows nothing of it: preflights, the requests after them, and errors.

use http::{HeaderMap, Method, Request};
use selvedge_tests::{
    client::{self, Answer, Connection, request},
    pair::{HOST, Pair},
    wait,
};

const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: pages, namespace: shop }
spec:
  parentRefs: [{ kind: Service, name: api }]
  rules:
  - name: nobody
    matches: [{ path: { type: Exact, value: /nobody } }]
    filters: [{ type: CORS, cors: { allowOrigins: ['https://shop.example.com'] } }]
    backendRefs: [{ name: api, port: 80, weight: 0 }]
  - name: shared
    filters:
    - type: CORS
      cors:
        allowOrigins: ['https://*.example.com']
        allowCredentials: true
        allowMethods: [PUT]
        allowHeaders: [x-tenant]
        exposeHeaders: [served-by]
        maxAge: 600
";

const SHOP: &str = "https://shop.example.com";
const EVIL: &str = "https://example.com.evil.com";

fn from_page(method: Method, target: &str, origin: &str) -> Request<http_body_util::Full<bytes::Bytes>> {
    let mut asked = request(method, HOST, target);
    asked.headers_mut().insert("origin", origin.parse().unwrap());
    asked
}

fn preflight(origin: &str) -> Request<http_body_util::Full<bytes::Bytes>> {
    let mut asked = from_page(Method::OPTIONS, "/orders", origin);
    asked.headers_mut().insert("access-control-request-method", "PUT".parse().unwrap());
    asked.headers_mut().insert("access-control-request-headers", "x-tenant".parse().unwrap());
    asked
}

/// What an answer says of sharing, each field once.
fn told(headers: &HeaderMap) -> Vec<String> {
    let about = |name: &str| name.starts_with("access-control-") || name == "vary";
    let lines = headers.iter().filter(|(name, _)| about(name.as_str()));
    let mut lines: Vec<String> = lines.map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort();
    lines
}

fn is_no_error(answer: &Answer, status: u16) {
    assert_eq!((answer.status.as_u16(), answer.reason()), (status, ""), "{answer:?}");
}

#[tokio::test]
async fn the_mesh_answers_preflights_and_says_who_may_read_what_the_service_answers() {
    let pair = Pair::start().await;
    pair.mesh.write("route.yaml", ROUTE);
    let entry = pair.entry();
    let answer = wait::until("a preflight is answered", || async move {
        client::call(entry, preflight(SHOP)).await.ok().filter(|answer| answer.status == 204)
    })
    .await;
    let (served, seen) = (pair.upstream.served(), pair.api.metrics().so_far("selvedge_requests_total", &[]).await);

    let all = [
        "access-control-allow-credentials: true",
        "access-control-allow-headers: x-tenant",
        "access-control-allow-methods: PUT",
        "access-control-allow-origin: https://shop.example.com",
        "access-control-max-age: 600",
        "vary: Origin",
    ];
    assert_eq!(told(&answer.headers), all);
    let answer = Connection::open_http2(entry).await.unwrap().call(preflight(SHOP)).await.unwrap();
    is_no_error(&answer, 204);
    assert_eq!((told(&answer.headers), &*answer.body), (all.map(str::to_owned).to_vec(), &b""[..]), "over HTTP/2");
    let answer = client::call(entry, preflight(EVIL)).await.unwrap();
    is_no_error(&answer, 204);
    assert_eq!(told(&answer.headers), ["vary: Origin"]);
    assert_eq!(pair.upstream.served(), served, "the service sees none of them");
    let now = pair.api.metrics().so_far("selvedge_requests_total", &[]).await;
    assert_eq!(now.to_bits(), seen.to_bits(), "nor does its sidecar");
    pair.web.metrics().until("selvedge_requests_total", &["response_code=\"204\"", "reason=\"\""], 3.0).await;

    let answer = client::call(entry, from_page(Method::PUT, "/orders", SHOP)).await.unwrap();
    is_no_error(&answer, 200);
    assert_eq!(
        told(&answer.headers),
        [
            "access-control-allow-credentials: true",
            "access-control-allow-origin: https://shop.example.com",
            "access-control-expose-headers: served-by",
            "vary: Origin",
        ],
        "each once, though two sidecars know the route"
    );
    assert_eq!(answer.json()["method"], "PUT", "it is the service that answers: {}", answer.text());
    let answer = client::call(entry, from_page(Method::GET, "/orders", EVIL)).await.unwrap();
    is_no_error(&answer, 200);
    assert_eq!(told(&answer.headers), ["vary: Origin"]);

    let answer = client::call(entry, from_page(Method::GET, "/nobody", SHOP)).await.unwrap();
    assert_eq!(answer.reason(), "invalid_route");
    let read = ["access-control-allow-origin: https://shop.example.com", "vary: Origin"];
    assert_eq!(told(&answer.headers), read, "a page can read why the mesh has failed it");
}
