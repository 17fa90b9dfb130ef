//! Certificates made for one test: an authority, and what it signs.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, date_time_ymd,
};

/// An authority, with its certificate in a file.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub file: PathBuf,
}

/// A certificate and its key, in files.
pub struct Signed {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// From when to when, in whole years.
pub const VALID: (i32, i32) = (2020, 2096);
pub const EXPIRED: (i32, i32) = (2020, 2021);
pub const NOT_YET: (i32, i32) = (2095, 2096);

impl Authority {
    pub fn new(dir: &Path, name: &str) -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let file = dir.join(format!("{name}.pem"));
        std::fs::write(&file, issuer.pem()).unwrap();
        Self { issuer, file }
    }

    /// For servers and clients; `names` are DNS names or addresses, the first one is the common name, too.
    pub fn sign(&self, dir: &Path, file: &str, names: &[&str], years: (i32, i32)) -> Signed {
        let alternatives: Vec<String> = names.iter().map(|n| n.to_string()).collect();
        let mut params = CertificateParams::new(alternatives).unwrap();
        params.distinguished_name.push(DnType::CommonName, names[0]);
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let write = |extension: &str, text: String| {
            let path = dir.join(format!("{file}.{extension}"));
            std::fs::write(&path, text).unwrap();
            path
        };
        Signed {
            cert: write("crt", cert.pem()),
            key: write("key", key.serialize_pem()),
        }
    }
}
