//! What can be said of what users wrote: one code for each kind of finding, for people, for machines that read them, and for
//! the documentation.

/// Every kind of finding, with its stable name.
///
/// ```
/// use selvedge_policies::finding::Code;
///
/// assert_eq!(Code::HostBits.name(), "host_bits");
/// assert!(Code::ALL.iter().all(|code| code.summary().ends_with('.')));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// A text that is not YAML.
    Syntax,
    /// A file, folder or source that cannot be read.
    Unreadable,
    /// A field that the kind does not have.
    UnknownField,
    /// A kind that the mesh does not have.
    UnknownKind,
    /// A field that the kind needs.
    MissingField,
    /// A field, list or condition that is written and empty.
    EmptyValue,
    /// A value that means nothing there.
    InvalidValue,
    /// An object that stands twice.
    DuplicateObject,
    /// What stays in force, or went, because of a file.
    Held,
    /// What is well written and no sidecar could carry out.
    Unenforceable,
    /// What is read and not done.
    NotDone,
    /// A name of nothing.
    UnknownName,
    /// A port that a service does not have.
    UnknownPort,
    /// A selector or policy that covers nothing.
    CoversNothing,
    /// A reference that no grant allows.
    NotGranted,
    /// An address or name that another object has too.
    ClaimedTwice,
    /// A setting that another object keeps out of force.
    Overridden,
    /// A `MeshPolicy` that does not say what it covers.
    NoNamespace,
    /// A rule or value beside which another decides.
    NoDifference,
    /// A rule that matches nothing.
    MatchesNothing,
    /// A caller that nobody is.
    UnknownIdentity,
    /// A namespace that nobody calls from.
    UnknownNamespace,
    /// A trust domain that is not that of the mesh.
    UnknownTrustDomain,
    /// A rule that lets everyone pass.
    AllowAll,
    /// A moment in the past.
    Expired,
    /// A moment that is near.
    ExpiresSoon,
    /// The port of a service where a workload's is meant.
    ServicePort,
    /// A port of a workload that no policy covers.
    OpenPort,
    /// A pattern that ends inside a segment of a path.
    PathPrefix,
    /// A network with bits that do not count.
    HostBits,
    /// A port that is called and not listed.
    UnlistedPort,
    /// Conditions on requests where none are seen.
    HttpOnTcp,
    /// A port of which nobody says what is spoken there.
    UndeclaredProtocol,
    /// A folder without files.
    NothingRead,
    /// A file that is passed over for its name.
    MisnamedFile,
    /// Documents that are not of the mesh.
    PassedOver,
}

impl Code {
    /// All codes, in the order of the documentation.
    pub const ALL: &'static [Self] = &[
        Self::Syntax,
        Self::Unreadable,
        Self::UnknownField,
        Self::UnknownKind,
        Self::MissingField,
        Self::EmptyValue,
        Self::InvalidValue,
        Self::DuplicateObject,
        Self::Held,
        Self::Unenforceable,
        Self::NotDone,
        Self::UnknownName,
        Self::UnknownPort,
        Self::CoversNothing,
        Self::NotGranted,
        Self::ClaimedTwice,
        Self::Overridden,
        Self::NoNamespace,
        Self::NoDifference,
        Self::MatchesNothing,
        Self::UnknownIdentity,
        Self::UnknownNamespace,
        Self::UnknownTrustDomain,
        Self::AllowAll,
        Self::Expired,
        Self::ExpiresSoon,
        Self::ServicePort,
        Self::OpenPort,
        Self::PathPrefix,
        Self::HostBits,
        Self::UnlistedPort,
        Self::HttpOnTcp,
        Self::UndeclaredProtocol,
        Self::NothingRead,
        Self::MisnamedFile,
        Self::PassedOver,
    ];

    /// The stable name, `snake_case`; `docs/findings.md` explains it under this heading.
    pub const fn name(self) -> &'static str {
        self.words().0
    }

    /// One sentence for people.
    pub const fn summary(self) -> &'static str {
        self.words().1
    }

    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Syntax => ("syntax", "The text is not YAML, or a field stands twice."),
            Self::Unreadable => ("unreadable", "A file, a folder or a cluster cannot be read."),
            Self::UnknownField => ("unknown_field", "The kind has no such field."),
            Self::UnknownKind => ("unknown_kind", "The mesh has no such kind."),
            Self::MissingField => ("missing_field", "A field that the kind needs is not written."),
            Self::EmptyValue => ("empty_value", "A field, a list or a condition is written and empty."),
            Self::InvalidValue => ("invalid_value", "The value means nothing there."),
            Self::DuplicateObject => ("duplicate_object", "The object stands twice."),
            Self::Held => ("held", "A file is gone or cannot be told apart any more, and so are its objects."),
            Self::Unenforceable => ("unenforceable", "No sidecar can put it in force."),
            Self::NotDone => ("not_done", "Something that is written is not done, or another way than it reads."),
            Self::UnknownName => ("unknown_name", "There is no object of that name."),
            Self::UnknownPort => ("unknown_port", "The service has no such port."),
            Self::CoversNothing => ("covers_nothing", "It covers no workload."),
            Self::NotGranted => ("not_granted", "The other namespace does not let this refer to it."),
            Self::ClaimedTwice => ("claimed_twice", "Another object has the same name or address."),
            Self::Overridden => ("overridden", "Another object sets the same field of the same target and wins."),
            Self::NoNamespace => ("no_namespace", "The MeshPolicy covers namespace default alone."),
            Self::NoDifference => ("no_difference", "Something else decides in its place."),
            Self::MatchesNothing => ("matches_nothing", "The conditions exclude each other."),
            Self::UnknownIdentity => ("unknown_identity", "No workload has this identity."),
            Self::UnknownNamespace => ("unknown_namespace", "No workload is in this namespace."),
            Self::UnknownTrustDomain => ("unknown_trust_domain", "It is not the trust domain of the mesh."),
            Self::AllowAll => ("allow_all", "The rule lets everyone pass, callers without an identity too."),
            Self::Expired => ("expired", "It has expired, and its rules match nothing any more."),
            Self::ExpiresSoon => ("expires_soon", "It expires soon, and its rules match nothing then."),
            Self::ServicePort => ("service_port", "The number is the port of a Service, not of a workload."),
            Self::OpenPort => ("open_port", "A port of a covered workload is covered by no policy."),
            Self::PathPrefix => ("path_prefix", "The pattern ends inside a segment of the path."),
            Self::HostBits => ("host_bits", "The address has bits that its prefix length leaves out."),
            Self::UnlistedPort => ("unlisted_port", "A Service calls a port that the workload does not list."),
            Self::HttpOnTcp => ("http_on_tcp", "Conditions on requests, where the port carries no HTTP."),
            Self::UndeclaredProtocol => {
                ("undeclared_protocol", "Requests are looked into on a port that does not say what it speaks.")
            }
            Self::NothingRead => ("nothing_read", "There is no file to read."),
            Self::MisnamedFile => ("misnamed_file", "The file is passed over for the end of its name."),
            Self::PassedOver => ("passed_over", "Documents that are not of the mesh were passed over."),
        }
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl serde::Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
