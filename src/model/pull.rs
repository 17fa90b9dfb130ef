//! Downloads of models: resumed where they stopped, checked by their digest, there as a whole or not at all.
//!
//! In: addresses of one file, its digest and, if known, its size. Out: a bundle in a store. On the caller's thread.
//! Always holds: no more is written than the size allows; a bundle's directory appears by one rename, after its digest
//! was right and everything was on the disk; what an interrupted download leaves begins with a dot and is taken up again.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use ureq::http::{Response, StatusCode};

use super::files::MAX_MODEL_BYTES;

/// What is to be fetched.
#[derive(Debug, Clone)]
pub struct Request {
    /// The bundle's name: its directory in the store.
    pub name: String,
    /// Where the ONNX file may be, best first.
    pub addresses: Vec<String>,
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
    /// Its size, if it is known.
    pub size_bytes: Option<u64>,
    /// The bundle's other files: name and content.
    pub parts: Vec<(String, String)>,
}

/// How long is waited for a server, and how often it is asked.
#[derive(Debug, Clone)]
pub struct Patience {
    /// For a connection.
    pub connect: Duration,
    /// For the next bytes.
    pub stall: Duration,
    /// Tries in a row that bring nothing, before the next address is asked.
    pub tries: u32,
    /// Before the second try; doubled for each further one.
    pub pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            stall: Duration::from_secs(30),
            tries: 4,
            pause: Duration::from_secs(1),
        }
    }
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pulled {
    /// The bundle is new.
    New(PathBuf),
    /// It was there already, with this digest.
    Present(PathBuf),
}

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// No address gave the file; the reasons, one an address.
    #[error("{}", .0.join("\n"))]
    Unavailable(Vec<String>),
    /// Another model has the name.
    #[error("{path} is there already and is another model; remove it, or choose another directory with --to", path = .0.display())]
    Occupied(PathBuf),
    /// Another process fetches it at this moment.
    #[error("{path} is being written by another `ocellus model pull`; wait for it", path = .0.display())]
    Busy(PathBuf),
    /// A file cannot be written or read.
    #[error("{path}: {problem}", path = .path.display())]
    Disk {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        problem: std::io::Error,
    },
}

/// One try's end.
enum Failure {
    /// The same address may do better.
    Passing(String),
    /// This address will not do.
    Lasting(String),
    /// No address helps.
    Disk(std::io::Error),
}

/// Fetches a bundle into `store`. `progress` is told the bytes so far and in all (if known).
///
/// # Errors
/// See [`PullError`]. What was fetched stays, and the next call goes on from there.
pub fn pull(
    request: &Request,
    store: &Path,
    patience: &Patience,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<Pulled, PullError> {
    let bundle = store.join(&request.name);
    if bundle.symlink_metadata().is_ok() {
        let onnx = bundle.join("model.onnx");
        return match File::open(&onnx).and_then(digest) {
            Ok(sha256) if sha256.eq_ignore_ascii_case(&request.sha256) => {
                Ok(Pulled::Present(bundle))
            }
            _ => Err(PullError::Occupied(bundle)),
        };
    }
    let partial = store.join(format!(".{}.partial", request.name));
    let disk = |path: &Path| {
        let path = path.to_path_buf();
        move |problem| PullError::Disk { path, problem }
    };
    fs::create_dir_all(&partial).map_err(disk(&partial))?;
    let download = partial.join("download");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&download)
        .map_err(disk(&download))?;
    if file.try_lock().is_err() {
        return Err(PullError::Busy(partial));
    }
    fetch(request, &mut file, patience, progress).map_err(|failure| match failure {
        PullError::Disk { problem, .. } => PullError::Disk {
            path: download.clone(),
            problem,
        },
        other => other,
    })?;
    file.sync_all().map_err(disk(&download))?;
    for (name, content) in &request.parts {
        let path = partial.join(name);
        write_synced(&path, content).map_err(disk(&path))?;
    }
    fs::rename(&download, partial.join("model.onnx")).map_err(disk(&download))?;
    fs::rename(&partial, &bundle).map_err(disk(&bundle))?;
    // The names are on the disk only when their directory is; not every file system can do that.
    let _ = File::open(store).and_then(|d| d.sync_all());
    Ok(Pulled::New(bundle))
}

fn write_synced(path: &Path, content: &str) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}

/// Tries the addresses until `file` is what was asked for.
fn fetch(
    request: &Request,
    file: &mut File,
    patience: &Patience,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<(), PullError> {
    let disk = |problem| PullError::Disk {
        path: PathBuf::new(),
        problem,
    };
    let agent = agent(patience);
    let mut reasons = Vec::new();
    for address in &request.addresses {
        let mut outcome = try_often(&agent, address, request, file, patience, progress);
        if outcome.is_ok() {
            file.rewind().map_err(disk)?;
            let sha256 = digest(&*file).map_err(disk)?;
            if sha256.eq_ignore_ascii_case(&request.sha256) {
                return Ok(());
            }
            // What is wrong somewhere is worth nothing: the next try begins at the beginning.
            file.set_len(0).map_err(disk)?;
            outcome = Err(Failure::Lasting(format!(
                "SHA-256 {sha256} instead of {}: this is not the file that it should be",
                request.sha256
            )));
        }
        match outcome {
            Ok(()) => {}
            Err(Failure::Disk(problem)) => return Err(disk(problem)),
            Err(Failure::Passing(reason) | Failure::Lasting(reason)) => {
                reasons.push(format!("{address}: {reason}"));
            }
        }
    }
    Err(PullError::Unavailable(reasons))
}

fn agent(patience: &Patience) -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(5)
        .user_agent(concat!("ocellus/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(patience.connect))
        .timeout_connect(Some(patience.connect))
        .timeout_recv_response(Some(patience.stall))
        .timeout_per_read(Some(patience.stall))
        .build()
        .into()
}

/// One address, again and again as long as each try brings something.
fn try_often(
    agent: &ureq::Agent,
    address: &str,
    request: &Request,
    file: &mut File,
    patience: &Patience,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<(), Failure> {
    let length = |file: &File| file.metadata().map(|m| m.len()).map_err(Failure::Disk);
    let mut fruitless = 0;
    let mut furthest = length(file)?;
    loop {
        let Err(failure) = try_once(agent, address, request, file, progress) else {
            return Ok(());
        };
        let Failure::Passing(reason) = failure else {
            return Err(failure);
        };
        let now = length(file)?;
        fruitless = if now > furthest { 0 } else { fruitless + 1 };
        furthest = furthest.max(now);
        if fruitless >= patience.tries {
            return Err(Failure::Passing(reason));
        }
        tracing::debug!("{address}: {reason}; trying again from byte {now}");
        std::thread::sleep(patience.pause * 2u32.saturating_pow(fruitless.min(5)) / 2);
    }
}

/// One request; what comes is appended to `file`.
fn try_once(
    agent: &ureq::Agent,
    address: &str,
    request: &Request,
    file: &mut File,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<(), Failure> {
    let limit = request.size_bytes.unwrap_or(MAX_MODEL_BYTES);
    let mut have = file.seek(SeekFrom::End(0)).map_err(Failure::Disk)?;
    if have > limit {
        file.set_len(0).map_err(Failure::Disk)?;
        have = 0;
    }
    progress(have, request.size_bytes);
    if request.size_bytes == Some(have) {
        return Ok(());
    }
    let mut get = agent.get(address).header("accept-encoding", "identity");
    if have > 0 {
        get = get.header("range", format!("bytes={have}-"));
    }
    let response = get.call().map_err(refused)?;
    let total = match response.status() {
        StatusCode::OK => {
            file.set_len(0).map_err(Failure::Disk)?;
            have = 0;
            response.body().content_length()
        }
        StatusCode::PARTIAL_CONTENT => match content_range(&response) {
            Some((start, total)) if start == have => total,
            _ => {
                file.set_len(0).map_err(Failure::Disk)?;
                return Err(Failure::Passing(
                    "the server sent another part than it was asked for".into(),
                ));
            }
        },
        StatusCode::RANGE_NOT_SATISFIABLE => {
            file.set_len(0).map_err(Failure::Disk)?;
            return Err(Failure::Passing(
                "the server has fewer bytes than are here already".into(),
            ));
        }
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            return Err(Failure::Passing(format!("the server answered {status}")));
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => {
            return Err(Failure::Lasting("it is not there (HTTP 404 or 410)".into()));
        }
        status => return Err(Failure::Lasting(format!("the server answered {status}"))),
    };
    if let Some((total, expected)) = total.zip(request.size_bytes).filter(|(t, e)| t != e) {
        return Err(Failure::Lasting(format!(
            "the file has {total} bytes, not {expected}"
        )));
    }
    if let Some(total) = total.filter(|t| *t > limit) {
        return Err(Failure::Lasting(format!(
            "the file has {total} bytes, more than {limit}"
        )));
    }
    file.seek(SeekFrom::Start(have)).map_err(Failure::Disk)?;
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let n = body
            .read(&mut buffer)
            .map_err(|e| Failure::Passing(format!("the transfer broke off: {e}")))?;
        if n == 0 {
            break;
        }
        have += n as u64;
        if have > limit {
            file.set_len(0).map_err(Failure::Disk)?;
            return Err(Failure::Lasting(format!(
                "the server sends more than {limit} bytes"
            )));
        }
        file.write_all(&buffer[..n]).map_err(Failure::Disk)?;
        progress(have, request.size_bytes.or(total));
    }
    match total.or(request.size_bytes) {
        Some(total) if have < total => Err(Failure::Passing(format!(
            "the transfer ended at byte {have} of {total}"
        ))),
        _ => Ok(()),
    }
}

/// Where a partial answer begins, and how large the whole is.
fn content_range<B>(response: &Response<B>) -> Option<(u64, Option<u64>)> {
    let value = response.headers().get("content-range")?.to_str().ok()?;
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    Some((start.parse().ok()?, total.parse().ok()))
}

/// What a request that got no answer failed of.
fn refused(e: ureq::Error) -> Failure {
    match e {
        ureq::Error::HostNotFound => {
            Failure::Passing("the host's name cannot be resolved; is there a network?".into())
        }
        ureq::Error::Timeout(_) | ureq::Error::Io(_) | ureq::Error::ConnectionFailed => {
            Failure::Passing(format!("no answer ({e}); is there a network?"))
        }
        e => Failure::Lasting(e.to_string()),
    }
}

fn digest(mut file: impl Read) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut hasher)?;
    Ok(format!("{:x}", hasher.finalize()))
}
