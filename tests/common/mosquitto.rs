//! A real mosquitto on a free loopback port, and mosquitto_sub as an independent observer.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use ocellus::publish::mqtt::link::{ACK_LIMIT, LISTEN_AGAIN, Link, LinkOptions, Qos, Version};

/// How long a test waits for what must happen.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// A broker that drops nothing for a subscriber who is slower than the publishers. By default it drops what is beyond a
/// thousand messages, acknowledged or not; an observer on a busy machine is that slow. Not `max_queued_messages 0`: with it
/// 2.0.11 ends an MQTT 5 connection with each message that it refuses.
const KEEPS_ALL: &str = "max_queued_messages 100000000";

/// Configuration of a broker that sends everything to a subscriber at once: what it held back in memory, its own death would lose.
pub const AT_ONCE: &str = "max_inflight_messages 0\n";

/// Ends its process, by its id, when dropped.
pub struct Mosquitto {
    child: Child,
    pub port: u16,
    dir: tempfile::TempDir,
    extra: String,
}

/// `None`, said loudly, where mosquitto is not installed; a failure where nothing may be skipped.
pub fn mosquitto_or_skip() -> Option<Mosquitto> {
    mosquitto_with_or_skip("")
}

/// With more in its configuration, as [`Mosquitto::start`] takes it.
pub fn mosquitto_with_or_skip(extra: &str) -> Option<Mosquitto> {
    let installed = ["mosquitto", "mosquitto_sub", "mosquitto_pub"]
        .iter()
        .all(|p| spawnable(p));
    if installed {
        return Some(Mosquitto::start(extra));
    }
    super::skip("mosquitto and mosquitto-clients are not installed");
    None
}

fn spawnable(program: &str) -> bool {
    let help = Command::new(program)
        .arg("--help")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    help.is_ok()
}

pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}

impl Mosquitto {
    /// `extra` goes into its configuration, `{dir}` being a directory of its own; without it, everybody may connect.
    pub fn start(extra: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = free_port();
        let child = spawn(dir.path(), port, extra);
        let extra = extra.to_string();
        let broker = Self {
            child,
            port,
            dir,
            extra,
        };
        broker.wait_until_up();
        broker
    }

    /// A broker that knows one user.
    pub fn with_password(user: &str, password: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("users");
        let made = Command::new("mosquitto_passwd")
            .args(["-c", "-b", file.to_str().unwrap(), user, password])
            .status();
        assert!(made.unwrap().success());
        let port = free_port();
        let extra = format!("password_file {}\nallow_anonymous false", file.display());
        let child = spawn(dir.path(), port, &extra);
        let broker = Self {
            child,
            port,
            dir,
            extra,
        };
        broker.wait_until_up();
        broker
    }

    fn wait_until_up(&self) {
        let start = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            assert!(start.elapsed() < DEADLINE, "mosquitto does not come up");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// On the same port; it remembers what it was told to.
    pub fn restart(&mut self) {
        self.kill();
        self.child = spawn(self.dir.path(), self.port, &self.extra);
        self.wait_until_up();
    }

    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(dir: &std::path::Path, port: u16, extra: &str) -> Child {
    let anonymous = if extra.contains("allow_anonymous") {
        ""
    } else {
        "allow_anonymous true"
    };
    let conf = dir.join("mosquitto.conf");
    let extra = extra.replace("{dir}", &dir.display().to_string());
    // Started by root, mosquitto would give its rights up and lose the directory.
    let text = format!("listener {port} 127.0.0.1\nuser root\n{KEEPS_ALL}\n{anonymous}\n{extra}\n");
    std::fs::write(&conf, text).unwrap();
    Command::new("mosquitto")
        .args(["-c", conf.to_str().unwrap()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What mosquitto_sub saw.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    pub retained: bool,
    pub qos: u8,
    pub topic: String,
    pub payload: Vec<u8>,
}

impl Seen {
    pub fn text(&self) -> String {
        String::from_utf8(self.payload.clone()).unwrap()
    }
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.payload).unwrap()
    }
}

/// A running mosquitto_sub.
pub struct Observer {
    child: Child,
    seen: Receiver<Seen>,
}

impl Observer {
    /// Subscribes at QoS 1 and returns when the subscription holds: when a retained marker has come.
    pub fn start(port: u16, filter: &str) -> Self {
        let marker = format!("marker/{}", std::process::id());
        publish(port, &marker, "here", true);
        let mut child = Command::new("mosquitto_sub")
            .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1"])
            .args(["-t", filter, "-t", &marker, "-F", "%r %q %t %x"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (tx, seen) = channel();
        let (ready_tx, ready) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let seen = parse(&line);
                if seen.topic == marker {
                    let _ = ready_tx.send(());
                } else if tx.send(seen).is_err() {
                    return;
                }
            }
        });
        ready.recv_timeout(DEADLINE).expect("no subscription");
        Self { child, seen }
    }

    /// The next message for which `wanted` holds.
    pub fn wait(&self, what: &str, wanted: impl Fn(&Seen) -> bool) -> Seen {
        self.wait_for(DEADLINE, what, wanted)
    }

    /// The same where more patience is needed.
    pub fn wait_for(&self, patience: Duration, what: &str, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.seen.recv_timeout(left) {
                Ok(seen) if wanted(&seen) => return seen,
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => panic!("did not come: {what}"),
                Err(RecvTimeoutError::Disconnected) => panic!("ended before: {what}"),
            }
        }
    }

    /// The next message, if one comes in time.
    pub fn next_within(&self, patience: Duration) -> Option<Seen> {
        self.seen.recv_timeout(patience).ok()
    }

    /// Everything until the message for which `last` holds, it included.
    pub fn collect(&self, what: &str, last: impl Fn(&Seen) -> bool) -> Vec<Seen> {
        let all = std::cell::RefCell::new(vec![]);
        self.wait(what, |s| {
            all.borrow_mut().push(s.clone());
            last(s)
        });
        all.into_inner()
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parse(line: &str) -> Seen {
    let mut parts = line.splitn(4, ' ');
    let mut next = || parts.next().unwrap_or_default();
    let (retained, qos, topic, hex) = (next() == "1", next().parse().unwrap(), next(), next());
    let byte = |i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
    Seen {
        retained,
        qos,
        topic: topic.into(),
        payload: (0..hex.len()).step_by(2).map(byte).collect(),
    }
}

/// mosquitto_pub at QoS 1.
pub fn publish(port: u16, topic: &str, payload: &str, retain: bool) {
    let port = port.to_string();
    let mut args = vec!["-h", "127.0.0.1", "-p", &port, "-q", "1", "-t", topic];
    args.extend(if payload.is_empty() {
        vec!["-n"]
    } else {
        vec!["-m", payload]
    });
    if retain {
        args.push("-r");
    }
    assert!(
        Command::new("mosquitto_pub")
            .args(&args)
            .status()
            .unwrap()
            .success()
    );
}

/// An MQTT 5 client that reads what a filter lets through, properties included.
pub fn reader(port: u16, filter: &str) -> Link {
    let mut link = Link::new(LinkOptions {
        host: "127.0.0.1".into(),
        port,
        client_id: format!("reader-{}", std::process::id()),
        keep_alive: Duration::from_secs(30),
        version: Version::V5,
        session_expiry: Duration::ZERO,
        tls: None,
        login: None,
        will: None,
        ack_limit: ACK_LIMIT,
        listen_again: LISTEN_AGAIN,
    });
    link.subscribe(filter, Qos::AtLeastOnce);
    link
}
