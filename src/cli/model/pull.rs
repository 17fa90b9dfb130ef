//! `ocellus model pull`: fetches a model of the catalogue, or of an address whose digest is known, as a bundle.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;

use crate::cli::{ConfigError, progress};
use crate::model::catalogue::{self, Catalogue};
use crate::model::pull::{self, Patience, Pulled, Request};
use crate::model::{Labels, LoadOptions, Model, store};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A name of the catalogue (`ocellus model list`), or an address: http://… or https://…
    #[arg(value_name = "NAME|URL")]
    model: String,
    /// The store it is put into (default: /var/lib/ocellus/models for root, else $XDG_DATA_HOME/ocellus/models)
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// SHA-256 of the file, hexadecimal; an address needs it
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
    /// The bundle's name (default: the catalogue's, or the file's)
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Class names, one a line; they become the bundle's labels.txt
    #[arg(long, value_name = "FILE")]
    labels: Option<PathBuf>,
    /// An address that has the catalogue's files below it, instead of the catalogue's own
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
}

pub(super) fn run(args: Args) -> anyhow::Result<()> {
    let mut request = request(&args)?;
    if let Some(file) = &args.labels {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        Labels::parse(&text).map_err(|e| ConfigError(format!("{}: {e}", file.display())))?;
        request.parts.push(("labels.txt".into(), text));
    }
    let store = args.to.unwrap_or_else(store::default_store);
    let bar = progress::bytes(request.size_bytes);
    let pulled = pull::pull(
        &request,
        &store,
        &Patience::default(),
        &mut |done, total| {
            if let Some(total) = total {
                bar.set_length(total);
            }
            bar.set_position(done);
        },
    );
    bar.finish_and_clear();
    let (path, what) = match pulled.with_context(|| format!("{} was not pulled", request.name))? {
        Pulled::New(path) => (path, "pulled"),
        Pulled::Present(path) => (path, "is there already"),
    };
    let mut out = std::io::stdout();
    writeln!(out, "{what}: {}", path.display())?;
    let model = Model::load(&path, &LoadOptions::default())
        .context("the file is what it should be, but it cannot run here")?;
    let info = model.info();
    let (width, height) = (info.input.width, info.input.height);
    writeln!(
        out,
        "{width}x{height} input, {} labels; `ocellus model doctor {}` tells more",
        info.labels.len(),
        path.display()
    )?;
    Ok(())
}

fn request(args: &Args) -> anyhow::Result<Request> {
    let is_address = ["http://", "https://"]
        .iter()
        .any(|s| args.model.starts_with(s));
    if is_address {
        return of_address(args);
    }
    let catalogue = Catalogue::get();
    let entry = catalogue.find(&args.model).map_err(anyhow::Error::msg)?;
    Ok(Request {
        name: bundle_name(args.name.as_deref().unwrap_or(&entry.name))?,
        addresses: catalogue.addresses(entry, args.mirror.as_deref()),
        sha256: entry.sha256.clone(),
        size_bytes: Some(entry.size_bytes),
        parts: vec![("model.toml".into(), catalogue.manifest(entry))],
    })
}

fn of_address(args: &Args) -> anyhow::Result<Request> {
    let sha256 = args.sha256.clone().with_context(|| {
        "an address needs --sha256: without a digest nobody can tell whether the file is what it should be"
    })?;
    anyhow::ensure!(
        catalogue::is_sha256(&sha256),
        "--sha256 takes 64 hexadecimal digits"
    );
    let path = args.model.split(['?', '#']).next().unwrap_or_default();
    let file = path.rsplit('/').next().unwrap_or_default();
    let name = bundle_name(
        args.name
            .as_deref()
            .unwrap_or(file.trim_end_matches(".onnx")),
    )?;
    Ok(Request {
        addresses: vec![args.model.clone()],
        size_bytes: None,
        parts: vec![(
            "model.toml".into(),
            catalogue::manifest_of_address(&name, &args.model, &sha256),
        )],
        name,
        sha256,
    })
}

/// A directory's name, that leads nowhere else.
fn bundle_name(name: &str) -> anyhow::Result<String> {
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"_-.".contains(&b);
    let fits = (1..=64).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(ok);
    anyhow::ensure!(
        fits,
        "`{name}` cannot be a bundle's name; give --name with 1 to 64 of a-z A-Z 0-9 _ - ."
    );
    Ok(name.into())
}
