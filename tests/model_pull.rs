//! `ocellus model pull` against a server on loopback that cuts off, alters, stalls, redirects and refuses.
#![cfg(feature = "pull")]

mod common;

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use common::http::{Asked, Server, send, status};
use common::ocellus;
use common::onnx::{colours, sha256};
use ocellus::model::pull::{Patience, PullError, Pulled, Request, pull};
use prost::Message;

/// A file larger than socket buffers and write buffers.
fn content() -> Vec<u8> {
    (0..1_000_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

fn request(addresses: &[String], content: &[u8]) -> Request {
    Request {
        name: "net".into(),
        addresses: addresses.to_vec(),
        sha256: sha256(content),
        size_bytes: Some(content.len() as u64),
        parts: vec![("model.toml".into(), "id = 'net'\n".into())],
    }
}

fn patience() -> Patience {
    Patience {
        connect: Duration::from_secs(5),
        stall: Duration::from_millis(300),
        tries: 3,
        pause: Duration::from_millis(1),
    }
}

fn fetch(request: &Request, store: &Path) -> Result<Pulled, PullError> {
    pull(request, store, &patience(), &mut |_, _| {})
}

/// Nothing that looks like a model, whatever else is there.
fn assert_no_model(store: &Path) {
    let visible: Vec<_> = std::fs::read_dir(store)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert!(
        visible.iter().all(|n| n.to_string_lossy().starts_with('.')),
        "{visible:?}"
    );
    let left = visible
        .iter()
        .flat_map(|n| std::fs::read_dir(store.join(n)).unwrap());
    assert!(
        left.map(|e| e.unwrap().file_name())
            .all(|n| n != "model.onnx")
    );
}

fn assert_whole(store: &Path, content: &[u8]) {
    assert_eq!(
        std::fs::read(store.join("net/model.onnx")).unwrap(),
        content
    );
    assert_eq!(
        std::fs::read_to_string(store.join("net/model.toml")).unwrap(),
        "id = 'net'\n"
    );
    let entries: Vec<_> = std::fs::read_dir(store)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(entries, ["net"], "something is left over");
}

#[test]
fn a_model_is_fetched_once_and_progress_only_grows() {
    let (store, content) = (tempfile::tempdir().unwrap(), content());
    let server = Server::of(content.clone());
    let request = request(&[server.url("/a/net.onnx")], &content);
    let mut seen = Vec::new();
    let pulled = pull(&request, store.path(), &patience(), &mut |done, total| {
        seen.push((done, total))
    })
    .unwrap();
    assert_eq!(pulled, Pulled::New(store.path().join("net")));
    assert_whole(store.path(), &content);
    let size = content.len() as u64;
    assert!(seen.is_sorted() && seen.last() == Some(&(size, Some(size))));
    assert_eq!(
        fetch(&request, store.path()).unwrap(),
        Pulled::Present(store.path().join("net"))
    );
    assert_eq!(
        server.asked(),
        [Asked {
            path: "/a/net.onnx".into(),
            from: None
        }]
    );
}

#[test]
fn a_transfer_that_breaks_off_is_taken_up_where_it_broke() {
    let (store, content) = (tempfile::tempdir().unwrap(), content());
    let served = content.clone();
    let server = Server::start(move |i, asked, to| {
        let until = [300_000, 700_000].get(i).copied().unwrap_or(served.len());
        send(to, &served, asked.from, until)
    });
    fetch(&request(&[server.url("/n")], &content), store.path()).unwrap();
    assert_whole(store.path(), &content);
    let from: Vec<_> = server.asked().iter().map(|a| a.from).collect();
    assert_eq!(from, [None, Some(300_000), Some(700_000)]);
}

#[test]
fn a_server_without_ranges_and_one_with_wrong_ranges_are_asked_for_the_whole() {
    for wrong_range in [false, true] {
        let (store, content) = (tempfile::tempdir().unwrap(), content());
        let served = content.clone();
        let server = Server::start(move |i, asked, to| match (i, wrong_range) {
            (0, _) => send(to, &served, None, 400_000),
            (1, true) => send(to, &served, Some(100_000), served.len()),
            _ => {
                assert!(!wrong_range || asked.from.is_none());
                send(to, &served, None, served.len())
            }
        });
        fetch(&request(&[server.url("/n")], &content), store.path()).unwrap();
        assert_whole(store.path(), &content);
    }
}

#[test]
fn a_server_that_has_less_than_is_here_is_asked_for_the_whole() {
    let (store, content) = (tempfile::tempdir().unwrap(), content());
    let partial = store.path().join(".net.partial");
    std::fs::create_dir(&partial).unwrap();
    std::fs::write(partial.join("download"), &content[..10]).unwrap();
    let served = content.clone();
    let server = Server::start(move |_, asked, to| match asked.from {
        Some(_) => status(to, "416 Range Not Satisfiable", ""),
        None => send(to, &served, None, served.len()),
    });
    fetch(&request(&[server.url("/n")], &content), store.path()).unwrap();
    assert_whole(store.path(), &content);
}

#[test]
fn a_stalled_transfer_is_given_up_and_taken_up() {
    let (store, content) = (tempfile::tempdir().unwrap(), content());
    let served = content.clone();
    let held = std::sync::Mutex::new(Vec::new());
    let server = Server::start(move |i, asked, to| {
        if i > 0 {
            return send(to, &served, asked.from, served.len());
        }
        send(to, &served, None, 200_000)?;
        // Not closed: the client waits for more.
        held.lock().unwrap().push(to.try_clone()?);
        Ok(())
    });
    fetch(&request(&[server.url("/n")], &content), store.path()).unwrap();
    assert_whole(store.path(), &content);
    assert_eq!(server.asked()[1].from, Some(200_000));
}

#[test]
fn altered_bytes_are_refused_and_nothing_of_them_is_kept() {
    let (store, content) = (tempfile::tempdir().unwrap(), content());
    let mut altered = content.clone();
    altered[500_000] ^= 1;
    let server = Server::of(altered);
    let e = fetch(&request(&[server.url("/n")], &content), store.path()).unwrap_err();
    assert!(
        e.to_string().contains("SHA-256") && e.to_string().contains(&server.url("/n")),
        "{e}"
    );
    assert_no_model(store.path());
    assert_eq!(
        std::fs::read(store.path().join(".net.partial/download")).unwrap(),
        [0; 0]
    );
    let good = Server::of(content.clone());
    fetch(
        &request(&[server.url("/n"), good.url("/n")], &content),
        store.path(),
    )
    .unwrap();
    assert_whole(store.path(), &content);
}

#[test]
fn more_than_the_size_is_never_written() {
    let (store, content) = (tempfile::tempdir().unwrap(), content());
    let endless = Server::start(|_, _, to| {
        write!(to, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
        loop {
            to.write_all(&[7; 4096])?;
        }
    });
    let e = fetch(&request(&[endless.url("/n")], &content), store.path()).unwrap_err();
    assert!(e.to_string().contains("more than 1000000 bytes"), "{e}");
    assert_no_model(store.path());
    // The pointer file that a Git LFS server gives instead of the content.
    let pointer = Server::of(b"version https://git-lfs.github.com/spec/v1\n".to_vec());
    let e = fetch(&request(&[pointer.url("/n")], &content), store.path()).unwrap_err();
    assert!(e.to_string().contains("43 bytes, not 1000000"), "{e}");
}

#[test]
fn redirects_are_followed_but_not_for_ever() {
    let (store, content) = (tempfile::tempdir().unwrap(), content());
    let served = content.clone();
    let server = Server::start(move |_, asked, to| match &*asked.path {
        "/moved" => status(to, "302 Found", "Location: /here\r\n"),
        "/here" => send(to, &served, asked.from, served.len()),
        _ => status(to, "302 Found", "Location: /round\r\n"),
    });
    let e = fetch(&request(&[server.url("/round")], &content), store.path()).unwrap_err();
    assert!(e.to_string().contains("redirect"), "{e}");
    fetch(&request(&[server.url("/moved")], &content), store.path()).unwrap();
    assert_whole(store.path(), &content);
}

#[test]
fn what_a_server_refuses_is_told_and_what_passes_is_tried_again() {
    let (store, content) = (tempfile::tempdir().unwrap(), content());
    let served = content.clone();
    let server = Server::start(move |i, asked, to| match (&*asked.path, i) {
        ("/gone", _) => status(to, "404 Not Found", ""),
        ("/secret", _) => status(to, "403 Forbidden", ""),
        ("/busy", 0..=3) => status(to, "503 Service Unavailable", ""),
        _ => send(to, &served, asked.from, served.len()),
    });
    let closed = "http://127.0.0.1:1/n".to_string();
    let all = [server.url("/gone"), server.url("/secret"), closed];
    let e = fetch(&request(&all, &content), store.path())
        .unwrap_err()
        .to_string();
    for says in [
        "/gone: it is not there",
        "/secret: the server answered 403",
        "127.0.0.1:1/n: no answer",
    ] {
        assert!(e.contains(says), "no `{says}` in {e}");
    }
    assert_no_model(store.path());
    fetch(&request(&[server.url("/busy")], &content), store.path()).unwrap();
    assert_whole(store.path(), &content);
}

#[test]
fn another_model_of_the_name_and_another_pull_are_left_alone() {
    let (store, content) = (tempfile::tempdir().unwrap(), content());
    let request = request(&["http://127.0.0.1:1/n".into()], &content);
    let partial = store.path().join(".net.partial");
    std::fs::create_dir(&partial).unwrap();
    let file = std::fs::File::create(partial.join("download")).unwrap();
    file.lock().unwrap();
    assert!(matches!(
        fetch(&request, store.path()),
        Err(PullError::Busy(_))
    ));
    drop(file);
    std::fs::create_dir(store.path().join("net")).unwrap();
    std::fs::write(store.path().join("net/model.onnx"), b"mine").unwrap();
    assert!(matches!(
        fetch(&request, store.path()),
        Err(PullError::Occupied(_))
    ));
    assert_eq!(
        std::fs::read(store.path().join("net/model.onnx")).unwrap(),
        b"mine"
    );
}

/// `ocellus model pull URL` into `store`.
fn pull_command(url: &str, sha256: &str, store: &Path) -> std::process::Command {
    let mut command = ocellus();
    command
        .args([
            "model", "pull", url, "--name", "net", "--sha256", sha256, "--to",
        ])
        .arg(store);
    command
}

#[test]
fn a_pull_that_was_killed_goes_on_where_it_was() {
    let store = tempfile::tempdir().unwrap();
    let onnx = colours().encode_to_vec();
    let served = onnx.clone();
    let held = std::sync::Mutex::new(Vec::new());
    let server = Server::start(move |i, asked, to| {
        if i > 0 {
            return send(to, &served, asked.from, served.len());
        }
        send(to, &served, None, 100)?;
        held.lock().unwrap().push(to.try_clone()?);
        Ok(())
    });
    let mut child = pull_command(&server.url("/n.onnx"), &sha256(&onnx), store.path())
        .spawn()
        .unwrap();
    let download = store.path().join(".net.partial/download");
    let deadline = Instant::now() + Duration::from_secs(20);
    while std::fs::metadata(&download).map_or(0, |m| m.len()) < 100 {
        assert!(Instant::now() < deadline, "nothing was written");
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_no_model(store.path());
    let output = pull_command(&server.url("/n.onnx"), &sha256(&onnx), store.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(server.asked()[1].from, Some(100));
    assert_eq!(
        std::fs::read(store.path().join("net/model.onnx")).unwrap(),
        onnx
    );
}

/// A file system that is full, as far as a process can make one: a limit on the size of files.
#[cfg(unix)]
#[test]
fn a_full_disk_is_named_and_leaves_no_model() {
    let (store, content) = (tempfile::tempdir().unwrap(), content());
    let server = Server::of(content.clone());
    let output = std::process::Command::new("sh")
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 100; exec \"$@\"",
            "sh",
            env!("CARGO_BIN_EXE_ocellus"),
        ])
        .args([
            "model",
            "pull",
            &server.url("/n"),
            "--name",
            "net",
            "--sha256",
            &sha256(&content),
            "--to",
        ])
        .arg(store.path())
        .output()
        .unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(
        err.contains(".net.partial/download: File too large"),
        "{err}"
    );
    assert_no_model(store.path());
}

#[test]
fn a_pulled_model_is_found_by_its_name() {
    let data = tempfile::tempdir().unwrap();
    let onnx = colours().encode_to_vec();
    let server = Server::of(onnx.clone());
    let labels = data.path().join("names.txt");
    std::fs::write(&labels, "red\ngreen\nblue\ndark\n").unwrap();
    let store = data.path().join("ocellus/models");
    let mut command = pull_command(&server.url("/n.onnx"), &sha256(&onnx), &store);
    let output = command.arg("--labels").arg(&labels).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let picture = data.path().join("p.png");
    common::onnx::picture(&picture, [0, 0, 255]);
    let output = ocellus()
        .env("XDG_DATA_HOME", data.path())
        .args(["classify", "--json", "--model", "net"])
        .arg(&picture)
        .output()
        .unwrap();
    let line: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["results"][0]["label"], "blue", "{line}");
    let output = ocellus()
        .env("XDG_DATA_HOME", data.path())
        .args(["model", "list", "--json"])
        .output()
        .unwrap();
    let list: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(list["installed"][0], store.join("net").to_str().unwrap());
    assert!(list["catalogue"].as_array().unwrap().len() > 20);
}

#[test]
fn the_command_line_tells_what_is_missing() {
    let store = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let output = ocellus()
            .args(["model", "pull"])
            .args(args)
            .arg("--to")
            .arg(store.path())
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, err) = run(&["resnet50-v1-12-int"]);
    assert!(
        code == Some(1) && err.contains("did you mean `resnet50-v1-12-int8`"),
        "{err}"
    );
    let (code, err) = run(&["http://127.0.0.1:1/x.onnx"]);
    assert!(code == Some(1) && err.contains("--sha256"), "{err}");
    let digest = "0".repeat(64);
    let (code, err) = run(&[
        "http://127.0.0.1:1/x.onnx",
        "--sha256",
        &digest,
        "--name",
        "../x",
    ]);
    assert!(code == Some(1) && err.contains("`../x`"), "{err}");
    // A mirror that has another file under the model's path.
    let server = Server::of(b"short".to_vec());
    let (code, err) = run(&["resnet18-v1-7", "--mirror", &server.url("")]);
    assert!(
        code == Some(1) && err.contains("5 bytes, not 46820737"),
        "{err}"
    );
    let path = "/validated/vision/classification/resnet/model/resnet18-v1-7.onnx";
    assert_eq!(server.asked()[0].path, path);
    assert_no_model(store.path());
}

#[test]
fn the_catalogue_agrees_with_the_zoos_own_list() {
    let Some(data) = common::test_data() else {
        return common::skip("no shared data: the catalogue is not compared with the zoo's list");
    };
    let list = std::fs::read_to_string(data.join("onnx-zoo.tsv")).unwrap();
    for entry in ocellus::model::catalogue::Catalogue::get().entries() {
        let line = list
            .lines()
            .find(|l| l.contains(&format!("/{}.onnx\t", entry.name)));
        let fields: Vec<&str> = line.unwrap().split('\t').collect();
        assert_eq!(fields[1], entry.sha256, "{}", entry.name);
        assert_eq!(fields[2], entry.size_bytes.to_string(), "{}", entry.name);
    }
}
