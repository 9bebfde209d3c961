//! One authority and two identities for the peers that do not issue their own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
    string::Ia5String,
};

/// Identity of the calling side.
pub(crate) const CALLER: &str = "spiffe://mesh.local/ns/bench/sa/web";
/// Identity of the called side.
pub(crate) const CALLED: &str = "spiffe://mesh.local/ns/bench/sa/api";
/// DNS name of the called side, for programs that verify nothing else.
pub(crate) const CALLED_HOST: &str = "api.bench";

/// PEM files.
pub(crate) struct Certificates {
    /// The authority.
    pub(crate) authority: PathBuf,
    /// The calling side.
    pub(crate) caller: Leaf,
    /// The called side.
    pub(crate) called: Leaf,
}

/// PEM files of one side.
pub(crate) struct Leaf {
    /// Certificate.
    pub(crate) certificate: PathBuf,
    /// Private key.
    pub(crate) key: PathBuf,
    /// Both in one file.
    pub(crate) both: PathBuf,
}

impl Certificates {
    /// Makes everything in `folder`: ECDSA P-256, as the mesh does.
    pub(crate) fn make(folder: &Path) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "bench");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = folder.join("authority.pem");
        fs::write(&authority, params.self_signed(&key)?.pem())?;
        let issuer = Issuer::new(params, key);
        let caller = Leaf::issue(&issuer, "web", CALLER, folder)?;
        let called = Leaf::issue(&issuer, "api", CALLED, folder)?;
        Ok(Self { authority, caller, called })
    }
}

impl Leaf {
    fn issue(issuer: &Issuer<'_, KeyPair>, name: &str, identity: &str, folder: &Path) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names.push(SanType::URI(Ia5String::try_from(identity)?));
        params.subject_alt_names.push(SanType::DnsName(Ia5String::try_from(format!("{name}.bench"))?));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, issuer)?.pem();
        let leaf = Self {
            certificate: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key")),
            both: folder.join(format!("{name}.both.pem")),
        };
        fs::write(&leaf.both, format!("{certificate}{}", key.serialize_pem()))?;
        fs::write(&leaf.certificate, certificate)?;
        fs::write(&leaf.key, key.serialize_pem())?;
        Ok(leaf)
    }
}
