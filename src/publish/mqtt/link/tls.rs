//! TLS of a connection: what is trusted, who we are, and what went wrong with either, in plain words.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};

use super::error::{Cause, LinkError};
use crate::secret::Secret;

/// How TLS is spoken with one broker.
#[derive(Clone)]
pub struct Tls {
    pub(super) config: Arc<ClientConfig>,
    pub(super) has_certificate: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(…)")
    }
}

/// Why TLS cannot be spoken: the setting, and what is wrong with it.
pub type TlsProblem = (&'static str, String);

/// What TLS needs to know.
#[derive(Debug, Default)]
pub struct TlsSettings<'a> {
    /// PEM file of the authorities that may have signed the broker's certificate; the system's if there is none.
    pub ca_file: Option<&'a Path>,
    /// PEM file with this client's certificate, and those between it and its authority.
    pub cert_file: Option<&'a Path>,
    /// PEM text of its key: PKCS#8, PKCS#1 or SEC1, not encrypted.
    pub key: Option<&'a Secret>,
    /// The name that must be in the broker's certificate; the host's if there is none. SNI stays the host's.
    pub server_name: Option<&'a str>,
}

impl Tls {
    /// Reads the files.
    pub fn new(settings: &TlsSettings) -> Result<Self, TlsProblem> {
        let provider = Arc::new(ring::default_provider());
        let roots = Arc::new(roots(settings.ca_file)?);
        let verifier = verifier(roots, settings.server_name, &provider)?;
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| ("url", e.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match (settings.cert_file, settings.key) {
            (None, None) => builder.with_no_client_auth(),
            (Some(path), Some(key)) => {
                let chain = certificates("cert_file", path)?;
                let key = private_key(key)?;
                let at = path.display();
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|e| match e {
                        Error::InconsistentKeys(_) => (
                            "key_file",
                            format!("this is not the key of the certificate in {at}"),
                        ),
                        e => ("cert_file", format!("cannot use {at}: {e}")),
                    })?
            }
            (Some(_), None) => {
                let fix = "needs the certificate's key: `key_file`, OCELLUS_MQTT_KEY or the credential mqtt-key";
                return Err(("cert_file", fix.into()));
            }
            (None, Some(_)) => return Err(("key_file", "needs a `cert_file`".into())),
        };
        Ok(Self {
            config: Arc::new(config),
            has_certificate: settings.cert_file.is_some(),
        })
    }
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, TlsProblem> {
    let mut store = RootCertStore::empty();
    let Some(path) = ca_file else {
        let system = rustls_native_certs::load_native_certs();
        store.add_parsable_certificates(system.certs);
        if store.is_empty() {
            let fix = "this system has no root certificates: install them (Debian: ca-certificates), or set `ca_file`";
            return Err(("ca_file", fix.into()));
        }
        return Ok(store);
    };
    for certificate in certificates("ca_file", path)? {
        store
            .add(certificate)
            .map_err(|e| ("ca_file", format!("{}: {e}", path.display())))?;
    }
    Ok(store)
}

fn certificates(
    key: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsProblem> {
    let at = path.display();
    let bytes = std::fs::read(path).map_err(|e| (key, format!("cannot read {at}: {e}")))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if found.is_empty() => Err((
            key,
            format!("{at} has no certificate in PEM form (`-----BEGIN CERTIFICATE-----`)"),
        )),
        Ok(found) => Ok(found),
        Err(e) => Err((key, format!("{at}: {e}"))),
    }
}

fn private_key(pem: &Secret) -> Result<PrivateKeyDer<'static>, TlsProblem> {
    PrivateKeyDer::from_pem_slice(pem.reveal().as_bytes()).map_err(|_| {
        let why = if pem.reveal().contains("ENCRYPTED") {
            "the key is encrypted, and nobody is there to type its passphrase: store it in the clear, readable by its user alone (`openssl pkey -in KEY -out PLAIN`)"
        } else {
            "no private key in PEM form (PKCS#8, PKCS#1 or SEC1)"
        };
        ("key_file", why.into())
    })
}

fn verifier(
    roots: Arc<RootCertStore>,
    name: Option<&str>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TlsProblem> {
    let usual = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
        .build()
        .map_err(|e| ("ca_file", e.to_string()))?;
    let Some(name) = name else { return Ok(usual) };
    let name = ServerName::try_from(name.to_string())
        .map_err(|_| ("server_name", "is neither a name nor an address".into()))?;
    Ok(Arc::new(Named { usual, name }))
}

/// The usual checks, for another name than that of the host.
#[derive(Debug)]
struct Named {
    usual: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.usual
            .verify_server_cert(end_entity, intermediates, &self.name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.usual.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// What TLS says about the other side, or the other side about us.
pub(super) fn describe(error: &Error) -> LinkError {
    match error {
        Error::InvalidCertificate(e) => LinkError::new(Cause::Untrusted, certificate(e)),
        Error::AlertReceived(alert) => LinkError::new(Cause::Refused, refusal(*alert)),
        Error::InvalidMessage(_) => LinkError::new(
            Cause::Protocol,
            "what answers there speaks no TLS: is it the port of plain mqtt://?",
        ),
        e => LinkError::new(Cause::Untrusted, format!("TLS: {e}")),
    }
}

fn certificate(error: &CertificateError) -> String {
    use CertificateError as C;
    let clock = "or this device's clock is wrong";
    match error {
        C::Expired | C::ExpiredContext { .. } => {
            format!("the broker's certificate has expired, {clock}")
        }
        C::NotValidYet | C::NotValidYetContext { .. } => {
            format!("the broker's certificate is not valid yet, {clock}")
        }
        C::UnknownIssuer | C::BadSignature => {
            "the broker's certificate is signed by an authority that is not trusted here: set `ca_file` to that authority's certificate".into()
        }
        C::NotValidForNameContext {
            expected,
            presented,
        } => {
            let names: Vec<_> = presented.iter().map(|n| plain_name(n)).collect();
            let names = match names.is_empty() {
                true => "no name at all".into(),
                false => names.join(", "),
            };
            format!(
                "the broker's certificate is for {names}, not for {}: use such a name in `url`, or set `server_name`",
                expected.to_str()
            )
        }
        C::NotValidForName => {
            "the broker's certificate is for another name: use its name in `url`, or set `server_name`".into()
        }
        C::Revoked => "the broker's certificate has been revoked".into(),
        C::InvalidPurpose | C::InvalidPurposeContext { .. } => {
            "the broker's certificate is not made for servers".into()
        }
        C::Other(e) if e.to_string().contains("CaUsedAsEndEntity") => {
            "the broker shows an authority's certificate as its own: give it one of its own that the authority has signed".into()
        }
        e => format!("the broker's certificate is not acceptable: {e}"),
    }
}

/// `DnsName("a.b")` as `a.b`.
fn plain_name(name: &str) -> &str {
    let inside = name.split_once('(').and_then(|(_, n)| n.strip_suffix(')'));
    inside.unwrap_or(name).trim_matches('"')
}

fn refusal(alert: AlertDescription) -> String {
    use AlertDescription as A;
    match alert {
        A::CertificateRequired => {
            "the broker wants a client certificate: set `cert_file` and `key_file`".into()
        }
        A::CertificateExpired => {
            "the broker refused this device's certificate: it has expired".into()
        }
        A::CertificateRevoked => {
            "the broker refused this device's certificate: it was revoked".into()
        }
        A::UnknownCA => {
            "the broker refused this device's certificate: it does not trust who signed it".into()
        }
        A::BadCertificate
        | A::UnsupportedCertificate
        | A::CertificateUnknown
        | A::AccessDenied
        | A::DecryptError => "the broker refused this device's certificate".into(),
        A::ProtocolVersion => "the broker wants a version of TLS before 1.2".into(),
        A::UnrecognisedName => "the broker does not know the host name in `url`".into(),
        other => format!("the broker refused the TLS handshake: {other:?}"),
    }
}
