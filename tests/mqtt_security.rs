//! The way to the broker, with real parts: mosquitto with TLS, client certificates, passwords and the access rules that ship; certificates made
//! by the test. Every refusal has its own words; no secret is in any of them.

mod common;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use common::certificates::{Authority, EXPIRED, NOT_YET, Signed, VALID};
use common::mosquitto::{DEADLINE, Mosquitto, free_port, mosquitto_or_skip};
use common::{block_on, ocellus};
use ocellus::publish::mqtt::link::{
    ACK_LIMIT, LISTEN_AGAIN, Link, LinkEvent, LinkOptions, Message, Qos, Tls, TlsSettings, Version,
};
use ocellus::publish::mqtt::{self, MqttSettings};
use ocellus::secret::Login;
use rustls::server::Acceptor;

const SECRET: &str = "hunter2-is-no-password";

fn probe(settings: &MqttSettings) -> Result<(), String> {
    block_on(mqtt::probe(settings, "dev-1"))
}

/// A directory with an authority in it, and what the broker shows.
struct Lab {
    dir: tempfile::TempDir,
    authority: Authority,
    server: Signed,
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new(dir.path(), "authority");
        let names = ["localhost", "127.0.0.1", "::1"];
        let server = authority.sign(dir.path(), "server", &names, VALID);
        Self {
            dir,
            authority,
            server,
        }
    }

    fn sign(&self, file: &str, names: &[&str], years: (i32, i32)) -> Signed {
        self.authority.sign(self.dir.path(), file, names, years)
    }

    fn broker(&self, server: &Signed, extra: &str) -> Mosquitto {
        Mosquitto::start(&format!(
            "cafile {}\ncertfile {}\nkeyfile {}\n{extra}",
            self.authority.file.display(),
            server.cert.display(),
            server.key.display()
        ))
    }

    fn settings(&self, broker: &Mosquitto) -> MqttSettings {
        MqttSettings {
            url: format!("mqtts://localhost:{}", broker.port),
            ca_file: Some(self.authority.file.clone()),
            ..MqttSettings::default()
        }
    }
}

/// The same with either version of MQTT.
fn both(settings: MqttSettings) -> [MqttSettings; 2] {
    [3, 5].map(|version| MqttSettings {
        version,
        ..settings.clone()
    })
}

#[track_caller]
fn told(settings: MqttSettings, words: &[&str]) {
    for s in both(settings) {
        let error = probe(&s).unwrap_err();
        for word in words {
            assert!(
                error.contains(word),
                "MQTT {}: no `{word}` in: {error}",
                s.version
            );
        }
    }
}

#[test]
fn a_good_certificate_is_trusted_by_name_and_by_address() {
    let Some(_) = mosquitto_or_skip() else { return };
    let lab = Lab::new();
    let broker = lab.broker(&lab.server, "");
    for host in ["localhost", "127.0.0.1"] {
        let settings = MqttSettings {
            url: format!("mqtts://{host}:{}", broker.port),
            ..lab.settings(&broker)
        };
        for s in both(settings) {
            assert_eq!(probe(&s), Ok(()), "{host}");
        }
    }
}

#[test]
fn an_ipv6_address_works_with_tls() {
    let Some(_) = mosquitto_or_skip() else { return };
    if TcpListener::bind("[::1]:0").is_err() {
        // The machine's, not the tests': a container without IPv6 has nothing to connect to.
        return eprintln!("this machine has no IPv6 loopback");
    }
    let lab = Lab::new();
    let port = free_port();
    let listener = format!(
        "listener {port} ::1\ncafile {}\ncertfile {}\nkeyfile {}",
        lab.authority.file.display(),
        lab.server.cert.display(),
        lab.server.key.display()
    );
    let broker = lab.broker(&lab.server, &listener);
    let settings = MqttSettings {
        url: format!("mqtts://[::1]:{port}"),
        ..lab.settings(&broker)
    };
    let start = Instant::now();
    while TcpStream::connect((Ipv6Addr::LOCALHOST, port)).is_err() {
        assert!(
            start.elapsed() < DEADLINE,
            "mosquitto has no second listener"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    for s in both(settings) {
        assert_eq!(probe(&s), Ok(()));
    }
}

#[test]
fn a_certificate_that_is_not_good_is_told_by_what_is_wrong() {
    let Some(_) = mosquitto_or_skip() else { return };
    let lab = Lab::new();
    let broker = lab.broker(&lab.server, "");
    let other = Authority::new(lab.dir.path(), "stranger");
    let stranger = MqttSettings {
        ca_file: Some(other.file.clone()),
        ..lab.settings(&broker)
    };
    told(
        stranger,
        &["authority that is not trusted here", "`ca_file`"],
    );
    for (name, years, words) in [
        (
            "expired",
            EXPIRED,
            "has expired, or this device's clock is wrong",
        ),
        (
            "early",
            NOT_YET,
            "is not valid yet, or this device's clock is wrong",
        ),
    ] {
        let server = lab.sign(name, &["localhost"], years);
        let broker = lab.broker(&server, "");
        told(lab.settings(&broker), &["broker's certificate", words]);
    }
    let elsewhere = lab.sign("elsewhere", &["mq.example.org", "mq2.example.org"], VALID);
    let broker = lab.broker(&elsewhere, "");
    told(
        lab.settings(&broker),
        &[
            "is for mq.example.org, mq2.example.org, not for localhost",
            "`server_name`",
        ],
    );
    let named = |name: &str| MqttSettings {
        server_name: Some(name.into()),
        ..lab.settings(&broker)
    };
    for s in both(named("mq2.example.org")) {
        assert_eq!(probe(&s), Ok(()));
    }
    told(named("mq3.example.org"), &["not for mq3.example.org"]);
}

/// A balancer in front of brokers chooses by the name that the first bytes ask for (SNI).
#[test]
fn the_host_in_the_url_is_asked_for_whatever_the_certificate_must_say() {
    let lab = Lab::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tx, asked) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut hello) = (stream.unwrap(), Acceptor::default());
            let accepted = loop {
                let read = hello.read_tls(&mut stream).unwrap();
                assert!(read > 0, "left before its hello");
                if let Some(accepted) = hello.accept().ok().unwrap() {
                    break accepted;
                }
            };
            let name = accepted.client_hello().server_name().map(String::from);
            tx.send(name).unwrap();
        }
    });
    for (host, server_name, expected) in [
        ("localhost", None, Some("localhost")),
        ("localhost", Some("mq.example.org"), Some("localhost")),
        ("127.0.0.1", Some("mq.example.org"), None),
    ] {
        let settings = MqttSettings {
            url: format!("mqtts://{host}:{port}"),
            ca_file: Some(lab.authority.file.clone()),
            server_name: server_name.map(String::from),
            ..MqttSettings::default()
        };
        for s in both(settings) {
            assert!(probe(&s).is_err());
            let name = asked.recv_timeout(DEADLINE).unwrap();
            assert_eq!(name.as_deref(), expected, "{host}, {server_name:?}");
        }
    }
}

#[test]
fn a_client_certificate_is_shown_and_a_wrong_one_is_told() {
    let Some(_) = mosquitto_or_skip() else { return };
    let lab = Lab::new();
    let broker = lab.broker(&lab.server, "require_certificate true");
    let with = |client: &Signed| MqttSettings {
        cert_file: Some(client.cert.clone()),
        key_file: Some(client.key.clone()),
        ..lab.settings(&broker)
    };
    let good = lab.sign("dev-1", &["dev-1"], VALID);
    for s in both(with(&good)) {
        assert_eq!(probe(&s), Ok(()));
    }
    told(lab.settings(&broker), &["client certificate"]);
    told(
        with(&lab.sign("old", &["dev-1"], EXPIRED)),
        &["this device's certificate"],
    );
    let other = Authority::new(lab.dir.path(), "stranger");
    let foreign = other.sign(lab.dir.path(), "foreign", &["dev-1"], VALID);
    told(with(&foreign), &["this device's certificate"]);
}

#[test]
fn files_that_are_not_what_they_should_be_stop_the_start() {
    let lab = Lab::new();
    let dir = lab.dir.path();
    let client = lab.sign("client", &["dev-1"], VALID);
    let empty = dir.join("empty");
    std::fs::write(&empty, "nothing\n").unwrap();
    let encrypted = dir.join("encrypted");
    let pem = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    std::fs::write(&encrypted, pem).unwrap();
    let problems = |change: &dyn Fn(&mut MqttSettings)| {
        let mut s = MqttSettings {
            url: "mqtts://broker.lan".into(),
            ca_file: Some(lab.authority.file.clone()),
            ..MqttSettings::default()
        };
        change(&mut s);
        let problems: Vec<String> = s.problems().iter().map(|p| p.to_string()).collect();
        problems.join("\n")
    };
    assert_eq!(problems(&|_| {}), "");
    type Change<'a> = &'a dyn Fn(&mut MqttSettings);
    let cases: [(&str, Change); 9] = [
        ("mqtt.ca_file: cannot read", &|s| {
            s.ca_file = Some("/no/ca".into())
        }),
        ("mqtt.ca_file: ", &|s| s.ca_file = Some(empty.clone())),
        ("mqtt.cert_file: needs the certificate's key", &|s| {
            s.cert_file = Some(client.cert.clone())
        }),
        ("mqtt.key_file: needs a `cert_file`", &|s| {
            s.key_file = Some(client.key.clone())
        }),
        (
            "mqtt.key_file: this is not the key of the certificate",
            &|s| {
                s.cert_file = Some(client.cert.clone());
                s.key_file = Some(lab.server.key.clone());
            },
        ),
        ("mqtt.key_file: no private key in PEM form", &|s| {
            s.cert_file = Some(client.cert.clone());
            s.key_file = Some(empty.clone());
        }),
        ("mqtt.key_file: the key is encrypted", &|s| {
            s.cert_file = Some(client.cert.clone());
            s.key_file = Some(encrypted.clone());
        }),
        ("mqtt.server_name: is neither a name nor an address", &|s| {
            s.server_name = Some("a b".into())
        }),
        ("mqtt.ca_file: means nothing without TLS", &|s| {
            s.url = "mqtt://broker.lan".into()
        }),
    ];
    for (words, change) in cases {
        let found = problems(change);
        assert!(found.contains(words), "no `{words}` in: {found}");
        assert_eq!(found.lines().count(), 1, "{found}");
    }
}

#[test]
fn the_wrong_port_is_told() {
    let Some(plain) = mosquitto_or_skip() else {
        return;
    };
    let lab = Lab::new();
    let broker = lab.broker(&lab.server, "");
    let settings = MqttSettings {
        url: format!("mqtt://127.0.0.1:{}", broker.port),
        ..MqttSettings::default()
    };
    told(settings, &["mqtts://"]);
    let settings = MqttSettings {
        url: format!("mqtts://localhost:{}", plain.port),
        ..lab.settings(&broker)
    };
    told(settings, &["TLS"]);
}

fn users(dir: &Path, users: &[(&str, &str)]) -> PathBuf {
    let file = dir.join("users");
    std::fs::write(&file, "").unwrap();
    for (user, password) in users {
        let made = Command::new("mosquitto_passwd")
            .args(["-b", file.to_str().unwrap(), user, password])
            .status();
        assert!(made.unwrap().success());
    }
    file
}

/// Signs in as `user`: by a certificate of the lab's authority, else by the password.
fn link(port: u16, user: &str, version: Version, lab: Option<&Lab>) -> Link {
    let certified = |lab: &Lab| {
        let client = lab.sign(user, &[user], VALID);
        let key = std::fs::read_to_string(&client.key).unwrap();
        Tls::new(&TlsSettings {
            ca_file: Some(&lab.authority.file),
            cert_file: Some(&client.cert),
            key: Some(&key.into()),
            server_name: None,
        })
        .unwrap()
    };
    Link::new(LinkOptions {
        host: "127.0.0.1".into(),
        port,
        client_id: format!("test-{user}"),
        keep_alive: Duration::from_secs(30),
        version,
        session_expiry: Duration::ZERO,
        tls: lab.map(certified),
        login: lab.is_none().then(|| Login {
            user: user.into(),
            password: SECRET.to_string().into(),
        }),
        will: None,
        ack_limit: ACK_LIMIT,
        listen_again: LISTEN_AGAIN,
    })
}

async fn next(link: &mut Link) -> LinkEvent {
    let polled = tokio::time::timeout(DEADLINE, link.poll()).await;
    polled.expect("nothing came").unwrap()
}

#[test]
fn with_the_access_rules_that_ship_a_device_writes_only_below_its_prefix() {
    let Some(_) = mosquitto_or_skip() else { return };
    let dir = tempfile::tempdir().unwrap();
    let names = ["dev-1", "dev-2", "homeassistant"];
    let users = users(dir.path(), &names.map(|n| (n, SECRET)));
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/mosquitto.acl");
    let rules = format!("allow_anonymous false\nacl_file {}", rules.display());
    let by_password = Mosquitto::start(&format!("{rules}\npassword_file {}", users.display()));
    let lab = Lab::new();
    let certified = format!("{rules}\nrequire_certificate true\nuse_identity_as_username true");
    let by_certificate = lab.broker(&lab.server, &certified);
    for (version, broker, lab) in [
        (Version::V3, &by_password, None),
        (Version::V5, &by_password, None),
        (Version::V5, &by_certificate, Some(&lab)),
    ] {
        let link = |user| link(broker.port, user, version, lab);
        block_on(async {
            let mut reader = link("homeassistant");
            reader.subscribe("#", Qos::AtLeastOnce);
            while !matches!(
                next(&mut reader).await,
                LinkEvent::Subscribed {
                    granted: Ok(()),
                    ..
                }
            ) {}
            let mut device = link("dev-1");
            device.subscribe("ocellus/dev-1/cmd", Qos::AtLeastOnce);
            device.subscribe("ocellus/dev-2/#", Qos::AtLeastOnce);
            while !device.is_connected() {
                next(&mut device).await;
            }
            let allowed = [
                "ocellus/dev-1/status",
                "ocellus/dev-1/porch/classification",
                "homeassistant/device/ocellus_dev-1/config",
                "homeassistant/sensor/ocellus_dev-1/porch-class/config",
                "ocellus/dev-1/cmd/result",
            ];
            let denied = [
                "ocellus/dev-2/status",
                "ocellus/dev-2/porch/state",
                "ocellus/status",
                "ocellus",
                "homeassistant/device/ocellus_dev-2/config",
                "homeassistant/status",
                "zigbee2mqtt/lamp/set",
            ];
            // The last one is allowed: when it arrives, all have been judged.
            let topics: Vec<&str> = denied.into_iter().chain(allowed).collect();
            let message = |topic: &&str| Message::new(topic.to_string(), Qos::AtLeastOnce, "x");
            let mut todo: VecDeque<Message> = topics.iter().map(message).collect();
            let mut refused = 0;
            let mut answered = 0;
            while answered < topics.len() {
                while let Some(m) = todo.pop_front() {
                    let token = topics.iter().position(|t| *t == m.topic).unwrap();
                    if let Err(m) = device.publish(token as u64, m) {
                        todo.push_front(m);
                        break;
                    }
                }
                match next(&mut device).await {
                    LinkEvent::Acked(_) => answered += 1,
                    LinkEvent::Refused(token, why) => {
                        assert!(why.contains("not authorized"), "{why}");
                        assert!((token as usize) < denied.len());
                        (answered, refused) = (answered + 1, refused + 1);
                    }
                    _ => {}
                }
            }
            // Only MQTT 5 can say it.
            let expected = if version == Version::V5 {
                denied.len()
            } else {
                0
            };
            assert_eq!(refused, expected);
            let mut seen = vec![];
            while seen.last().map(String::as_str) != Some("ocellus/dev-1/cmd/result") {
                if let LinkEvent::Incoming(m) = next(&mut reader).await {
                    seen.push(m.topic);
                }
            }
            assert_eq!(seen, allowed);
            // A command reaches the device that it is for, and nothing of another one's does.
            let mut other = link("dev-2");
            while !other.is_connected() {
                next(&mut other).await;
            }
            for topic in ["ocellus/dev-2/status", "ocellus/dev-1/cmd"] {
                let m = Message::new(topic.into(), Qos::AtLeastOnce, "from dev-2");
                other.publish(1, m).unwrap();
                next(&mut other).await;
            }
            let m = Message::new(
                "ocellus/dev-1/cmd".into(),
                Qos::AtLeastOnce,
                "from the house",
            );
            reader.publish(1, m).unwrap();
            while !matches!(next(&mut reader).await, LinkEvent::Acked(1)) {}
            let command = loop {
                if let LinkEvent::Incoming(m) = next(&mut device).await {
                    break m;
                }
            };
            assert_eq!(&command.payload[..], b"from the house");
        });
    }
}

/// Everything that a run or a check with this configuration says, with the log at its most talkative.
fn says(args: &[&str], config: &Path, env: &[(&str, &str)]) -> (Output, String) {
    let output = ocellus()
        .args(args)
        .arg("--config")
        .arg(config)
        .env("OCELLUS_LOG", "trace")
        .envs(env.iter().copied())
        .output()
        .unwrap();
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8(text).unwrap();
    assert!(!text.contains(SECRET), "a secret came out:\n{text}");
    (output, text)
}

/// A configuration with a drawn camera and the model that ships.
fn configuration(dir: &Path, sections: &str) -> PathBuf {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/scene-resnet10-int8");
    let text = format!(
        "[device]\nid='dev-1'\n[[camera]]\nid='porch'\nsource='scene:'\n[[model]]\npath='{}'\n{sections}\n",
        model.display()
    );
    let file = dir.join("ocellus.toml");
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn a_secret_comes_from_three_places_and_out_of_none() {
    let Some(_) = mosquitto_or_skip() else { return };
    let lab = Lab::new();
    let dir = lab.dir.path();
    let users = users(dir, &[("dev-1", SECRET)]);
    let rest = format!("allow_anonymous false\npassword_file {}", users.display());
    let broker = lab.broker(&lab.server, &rest);
    let mqtt = |more: &str| {
        let text = format!(
            "[mqtt]\nurl='mqtts://localhost:{}'\nca_file='authority.pem'\nusername='dev-1'\n{more}",
            broker.port
        );
        configuration(dir, &text)
    };
    std::fs::write(dir.join("right"), format!("{SECRET}\n")).unwrap();
    std::fs::write(dir.join("wrong"), format!("{SECRET}-wrong\n")).unwrap();
    let credentials = dir.join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    std::fs::write(credentials.join("mqtt-password"), SECRET).unwrap();
    let credentials = credentials.to_str().unwrap();

    let (output, text) = says(&["check"], &mqtt("password_file='right'"), &[]);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("lets us in"), "{text}");
    // Written by this test with the usual mask.
    assert!(
        text.contains("warn  security: mqtt.password_file: every user of this machine can read")
    );
    let (output, _) = says(&["check"], &mqtt(""), &[("OCELLUS_MQTT_PASSWORD", SECRET)]);
    assert!(output.status.success());
    let (output, text) = says(
        &["check"],
        &mqtt(""),
        &[("CREDENTIALS_DIRECTORY", credentials)],
    );
    assert!(output.status.success(), "{text}");

    // Wrong ones: told by `check`, and by a run that waits, once.
    let wrong = mqtt("password_file='wrong'");
    let (output, text) = says(&["check"], &wrong, &[]);
    assert!(!output.status.success());
    assert!(text.contains("the broker refused"), "{text}");
    let (output, text) = says(&["run", "--seconds", "2"], &wrong, &[]);
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("the broker refused").count(), 1, "{text}");
    let run = |more: &str| says(&["run", "--seconds", "2"], &mqtt(more), &[]).1;
    assert!(run("password_file='right'").contains("MQTT: connected"));
    assert!(run("password_file='right'\nversion=5").contains("MQTT: connected"));

    // In the file, where it must not be.
    let url = format!("[mqtt]\nurl='mqtts://dev-1:{SECRET}@localhost'");
    let (output, text) = says(&["check"], &configuration(dir, &url), &[]);
    assert_eq!(output.status.code(), Some(78));
    assert!(text.contains("must not hold a user or password"), "{text}");
}

/// Passes on what comes to the port that it returns, and counts the connections.
fn counted(broker: u16) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicUsize::new(0));
    let counter = count.clone();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            counter.fetch_add(1, Ordering::SeqCst);
            let client = client.unwrap();
            let broker = TcpStream::connect((Ipv4Addr::LOCALHOST, broker)).unwrap();
            let ends = [(&client, &broker), (&broker, &client)];
            for (from, to) in ends.map(|(a, b)| (a.try_clone().unwrap(), b.try_clone().unwrap())) {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut &from, &mut &to);
                    let _ = to.shutdown(Shutdown::Both);
                });
            }
        }
    });
    (port, count)
}

#[test]
fn who_is_refused_is_told_why_once_and_does_not_hammer() {
    let Some(_) = mosquitto_or_skip() else { return };
    let lab = Lab::new();
    let users = users(lab.dir.path(), &[("dev-1", SECRET)]);
    let guarded = format!("allow_anonymous false\npassword_file {}", users.display());
    let expired = lab.sign("expired", &["localhost"], EXPIRED);
    let elsewhere = lab.sign("elsewhere", &["mq.example.org"], VALID);
    let stranger = Authority::new(lab.dir.path(), "stranger");
    let ours = stranger.sign(lab.dir.path(), "dev-1", &["dev-1"], VALID);
    let certified = format!(
        "cert_file='{}'\nkey_file='{}'",
        ours.cert.display(),
        ours.key.display()
    );
    let certificate = "the broker's certificate";
    let cases = [
        (&expired, "", "", format!("{certificate} has expired")),
        (
            &elsewhere,
            "",
            "",
            format!("{certificate} is for mq.example.org, not for localhost"),
        ),
        (
            &lab.server,
            "require_certificate true",
            &*certified,
            "refused this device's certificate".into(),
        ),
        (
            &lab.server,
            &*guarded,
            "username='dev-1'",
            "the broker refused".into(),
        ),
    ];
    std::thread::scope(|scope| {
        for (server, broker, mqtt, words) in cases {
            let lab = &lab;
            scope.spawn(move || {
                let dir = tempfile::tempdir().unwrap();
                let broker = lab.broker(server, broker);
                let (port, knocks) = counted(broker.port);
                let ca = lab.authority.file.display();
                let config = configuration(
                    dir.path(),
                    &format!("[mqtt]\nurl='mqtts://localhost:{port}'\nca_file='{ca}'\n{mqtt}"),
                );
                let wrong = [("OCELLUS_MQTT_PASSWORD", "wrong")];
                let (output, text) = says(&["run", "--seconds", "5"], &config, &wrong);
                assert!(output.status.success(), "{text}");
                assert_eq!(text.matches(&words).count(), 1, "{words}: {text}");
                // At once, and once more after 2.5 to 5 seconds.
                let knocks = knocks.load(Ordering::SeqCst);
                assert!((1..=2).contains(&knocks), "{words}: {knocks}");
            });
        }
    });
}

#[test]
fn a_key_comes_from_the_environment_or_systemd_and_the_roots_from_the_system() {
    let Some(_) = mosquitto_or_skip() else { return };
    let lab = Lab::new();
    let dir = lab.dir.path();
    let client = lab.sign("dev-1", &["dev-1"], VALID);
    let broker = lab.broker(&lab.server, "require_certificate true");
    let text = format!(
        "[mqtt]\nurl='mqtts://localhost:{}'\ncert_file='{}'",
        broker.port,
        client.cert.display()
    );
    let config = configuration(dir, &text);
    let key = std::fs::read_to_string(&client.key).unwrap();
    let credentials = dir.join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    std::fs::write(credentials.join("mqtt-key"), &key).unwrap();
    let credentials = credentials.to_str().unwrap();
    // Where the system keeps its roots can be told, as for OpenSSL.
    let roots = ("SSL_CERT_FILE", lab.authority.file.to_str().unwrap());
    for place in [
        ("OCELLUS_MQTT_KEY", key.as_str()),
        ("CREDENTIALS_DIRECTORY", credentials),
    ] {
        let (output, text) = says(&["check"], &config, &[roots, place]);
        assert!(output.status.success(), "{text}");
        let line = key.lines().nth(1).unwrap();
        assert!(!text.contains(line), "the key came out:\n{text}");
    }
    let (output, text) = says(&["check"], &config, &[roots]);
    assert_eq!(output.status.code(), Some(78));
    assert!(text.contains("OCELLUS_MQTT_KEY"), "{text}");
}

#[test]
fn plain_mqtt_to_the_world_is_warned_of_and_a_password_over_it_refused() {
    let dir = tempfile::tempdir().unwrap();
    let check = |mqtt: &str| {
        let config = configuration(dir.path(), mqtt);
        let env = [("OCELLUS_MQTT_PASSWORD", SECRET)];
        says(&["check", "--offline"], &config, &env)
    };
    let (output, text) = check("[mqtt]\nurl='mqtt://broker.example.org'");
    assert!(output.status.success(), "{text}");
    let warning = "warn  security: mqtt.url: everything that is published goes to broker.example.org unencrypted";
    assert!(text.contains(warning), "{text}");
    let (output, text) = check("[mqtt]\nurl='mqtt://broker.example.org'\nusername='me'");
    assert_eq!(output.status.code(), Some(78));
    assert!(text.contains("allow_plaintext_password = true"), "{text}");
    let allowed =
        "[mqtt]\nurl='mqtt://broker.example.org'\nusername='me'\nallow_plaintext_password=true";
    let (output, text) = check(allowed);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("warn  security: mqtt.url: the password and everything"),
        "{text}"
    );
    let (output, text) = check("[mqtt]\nurl='mqtt://192.168.1.2'\nusername='me'");
    assert!(output.status.success(), "{text}");
    assert!(!text.contains("warn"), "{text}");
}

#[cfg(feature = "broker")]
#[test]
fn the_embedded_broker_asks_for_the_password_that_it_was_told() {
    use ocellus::broker::{Broker, BrokerSettings};
    let login = Login {
        user: "cam".into(),
        password: SECRET.to_string().into(),
    };
    let broker = Broker::start(BrokerSettings {
        listen: (Ipv4Addr::LOCALHOST, 0).into(),
        login: Some(login.clone()),
    })
    .unwrap();
    let with = |login: Option<Login>| MqttSettings {
        url: format!("mqtt://{}", broker.local_addr()),
        login,
        ..MqttSettings::default()
    };
    assert_eq!(probe(&with(Some(login))), Ok(()));
    let wrong = |user: &str, password: &str| Login {
        user: user.into(),
        password: password.to_string().into(),
    };
    for login in [
        None,
        Some(wrong("cam", "hunter2")),
        Some(wrong("cam", "")),
        Some(wrong("ca", &format!("m{SECRET}"))),
        Some(wrong("", SECRET)),
    ] {
        let error = probe(&with(login)).unwrap_err();
        assert!(error.contains("user name or the password"), "{error}");
    }

    // From the command line.
    let open = ocellus().args(["broker", "--listen", "0.0.0.0:0"]).output();
    let open = open.unwrap();
    assert_eq!(open.status.code(), Some(78));
    let text = String::from_utf8(open.stderr).unwrap();
    assert!(text.contains("set `username` and a password"), "{text}");

    // In one process: the client is let in by its own broker.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("password"), SECRET).unwrap();
    let port = free_port();
    let sections = format!(
        "[broker]\nlisten='0.0.0.0:{port}'\nusername='cam'\npassword_file='password'\n[mqtt]\nurl='mqtt://127.0.0.1:{port}'"
    );
    let config = configuration(dir.path(), &sections);
    let start = Instant::now();
    let (output, text) = says(&["run", "--seconds", "2"], &config, &[]);
    assert!(
        output.status.success() && start.elapsed() < DEADLINE,
        "{text}"
    );
    assert!(text.contains("MQTT: connected"), "{text}");
}
