//! The files of a large mesh: 1 000 services in 20 namespaces, each with a policy and 10 workloads.

/// How many services there are, numbered from 0.
pub const SERVICES: usize = 1_000;
/// Workloads of each service.
pub const WORKLOADS_EACH: usize = 10;
/// Namespaces they are spread over.
pub const NAMESPACES: usize = 20;

/// The service account of every workload.
pub const ACCOUNT: &str = "a";

/// The namespace of service `service`.
pub fn namespace(service: usize) -> String {
    format!("n{}", service % NAMESPACES)
}

/// `namespace/name` of service `service`.
pub fn service(service: usize) -> String {
    format!("{}/s{service}", namespace(service))
}

/// `namespace/name` of workload `n` of service `service`.
pub fn workload(service: usize, n: usize) -> String {
    format!("{}/s{service}-{n}", namespace(service))
}

/// The file of service `service`, in which the first endpoint has this `weight`.
pub fn file(service: usize, weight: u32) -> String {
    let namespace = namespace(service);
    let own = "apiVersion: selvedge.dev/v1alpha1";
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: s{service}, namespace: {namespace}}}\n\
         spec: {{selector: {{app: s{service}}}, ports: [{{port: 80, targetPort: 8080}}]}}\n---\n\
         {own}\nkind: AuthorizationPolicy\nmetadata: {{name: p{service}, namespace: {namespace}}}\n\
         spec: {{targetRef: {{kind: Service, name: s{service}}}, action: ALLOW, rules: [{{from: [{{namespaces: [n1]}}]}}]}}\n"
    );
    for n in 0..WORKLOADS_EACH {
        let (weight, third, fourth) = (if n == 0 { weight } else { 1 }, service / 250, service % 250);
        let head = format!("metadata: {{name: s{service}-{n}, namespace: {namespace}, labels: {{app: s{service}}}}}");
        let spec = format!("spec: {{serviceAccount: {ACCOUNT}, address: 10.{n}.{third}.{fourth}, weight: {weight}}}");
        text += &format!("---\n{own}\nkind: Workload\n{head}\n{spec}\n");
    }
    text
}
