//! The example's policies as they lie in `mesh/`, compiled in so that one binary can run the example.

/// Files that hold wherever the example runs: name and YAML.
pub const POLICIES: [(&str, &str); 6] = [
    ("mesh.yaml", include_str!("../mesh/mesh.yaml")),
    ("services.yaml", include_str!("../mesh/services.yaml")),
    ("routes.yaml", include_str!("../mesh/routes.yaml")),
    ("traffic.yaml", include_str!("../mesh/traffic.yaml")),
    ("rate-limits.yaml", include_str!("../mesh/rate-limits.yaml")),
    ("authorization.yaml", include_str!("../mesh/authorization.yaml")),
];

/// Files about one place where it runs, for others to replace: where the instances and the third party are.
pub const PLACES: [(&str, &str); 2] = [
    ("workloads.yaml", include_str!("../mesh/workloads.yaml")),
    ("external.yaml", include_str!("../mesh/external.yaml")),
];

/// The namespace of everything in the example.
pub const NAMESPACE: &str = "saas";
